//! The Docker API under load: our engine beside dockerd.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::http::Api;
use crate::peer::{IMAGE, Peer};
use crate::sample::Sample;

const ROUNDS: usize = 40;
/// Containers in the long list.
const LISTED: usize = 1000;
/// Containers that run at once.
const MANY: usize = 200;
/// Bytes that one noisy container writes.
const LOUD: u64 = 1 << 30;
/// Containers that write at once, and bytes of each.
const CHOIR: (usize, u64) = (50, 20 << 20);
/// A line of a hundred bytes, again and again.
const WRITER: &str = "yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 | head -c";

/// What one engine came to.
#[derive(Default)]
struct Figures {
    create: Sample,
    start: Sample,
    stop: Sample,
    remove: Sample,
    exec: Sample,
    list: Sample,
    /// Gigabytes per second that are taken from one container, read back, and taken from many at once.
    taken: f64,
    read: f64,
    choir: f64,
    burst: Duration,
    memory: u64,
    /// Processor time per second with a stats stream for each of [`MANY`] containers.
    stats: Duration,
}

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let dockerd = Peer::dockerd()?;
    let ours = measure(&Peer::skiff()?)?;
    let theirs = dockerd.as_ref().map(measure).transpose()?;
    println!("api: calls of the Docker API, native");
    type Timed = fn(&Figures) -> &Sample;
    let calls: [(&str, Timed); 6] = [
        ("create", |figures| &figures.create),
        ("start", |figures| &figures.start),
        ("stop (kill)", |figures| &figures.stop),
        ("remove", |figures| &figures.remove),
        ("exec of `true`", |figures| &figures.exec),
        ("list of 1,000", |figures| &figures.list),
    ];
    for (name, of) in calls {
        let peer = theirs.as_ref().map_or_else(String::new, |theirs| {
            format!("   dockerd {}   ratio {:.2}", of(theirs), of(&ours).ratio(of(theirs)))
        });
        println!("  {name:<22}{}{peer}", of(&ours));
    }
    type Plain = (&'static str, fn(&Figures) -> f64, &'static str);
    let plain: [Plain; 6] = [
        ("output of one", |figures| figures.taken, "GB/s"),
        ("output of 50 at once", |figures| figures.choir, "GB/s"),
        ("logs of one", |figures| figures.read, "GB/s"),
        ("200 starts at once", |figures| figures.burst.as_secs_f64(), "s"),
        ("memory with 200", |figures| figures.memory as f64 / 1e6, "MB"),
        ("200 stats streams", |figures| figures.stats.as_secs_f64() * 1e3, "ms of processor a second"),
    ];
    for (name, of, unit) in plain {
        let peer = theirs.as_ref().map_or_else(String::new, |theirs| {
            format!("   dockerd {:.2}   ratio {:.2}", of(theirs), of(&ours) / of(theirs))
        });
        println!("  {name:<22}{:8.2} {unit}{peer}", of(&ours));
    }
    match &dockerd {
        Some(peer) => println!("  beside {}", peer.name),
        None => println!("  no dockerd to compare with: name its socket in {}", Peer::variable()),
    }
    let list = ours.list.median();
    println!("  goals: exec ≤ 0.10 of dockerd's, output ≥ 3.00, memory ≤ 0.10; list ≤ 20 ms (is {list:?})");
    Ok(())
}

fn measure(peer: &Peer) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let mut api = peer.api()?;
    one_by_one(&mut api, &mut figures)?;
    output(peer, &mut figures)?;
    long_list(&mut api, &mut figures)?;
    at_once(peer, &mut figures)?;
    Ok(figures)
}

fn create(api: &mut Api, command: &[&str]) -> anyhow::Result<String> {
    let body = json!({ "Image": IMAGE, "Cmd": command, "HostConfig": { "NetworkMode": "none" } }).to_string();
    let created = api.call("POST", "/containers/create", Some(body.as_bytes()))?;
    Ok(created["Id"].as_str().context("no container id")?.to_owned())
}

fn timed<T>(sample: &mut Sample, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    let result = work()?;
    sample.push(started.elapsed());
    Ok(result)
}

fn one_by_one(api: &mut Api, figures: &mut Figures) -> anyhow::Result<()> {
    // Warm caches.
    for _ in 0..3 {
        api.run_true(IMAGE)?;
    }
    for _ in 0..ROUNDS {
        let id = timed(&mut figures.create, || create(api, &["sleep", "1000"]))?;
        timed(&mut figures.start, || api.call("POST", &format!("/containers/{id}/start"), None))?;
        timed(&mut figures.exec, || exec_true(api, &id))?;
        timed(&mut figures.stop, || api.call("POST", &format!("/containers/{id}/stop?t=0"), None))?;
        timed(&mut figures.remove, || api.call("DELETE", &format!("/containers/{id}?force=1"), None))?;
    }
    Ok(())
}

fn exec_true(api: &mut Api, id: &str) -> anyhow::Result<()> {
    let body = json!({ "Cmd": ["true"] }).to_string();
    let exec = api.call("POST", &format!("/containers/{id}/exec"), Some(body.as_bytes()))?;
    let exec = exec["Id"].as_str().context("no exec id")?.to_owned();
    let body = json!({ "Detach": true }).to_string();
    api.call("POST", &format!("/exec/{exec}/start"), Some(body.as_bytes()))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let state = api.call("GET", &format!("/exec/{exec}/json"), None)?;
        if state["Running"] == false {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    bail!("the exec does not end")
}

fn run_writer(api: &mut Api, bytes: u64) -> anyhow::Result<String> {
    let id = create(api, &["sh", "-c", &format!("{WRITER} {bytes}")])?;
    api.call("POST", &format!("/containers/{id}/start"), None)?;
    Ok(id)
}

fn wait(api: &mut Api, id: &str) -> anyhow::Result<()> {
    let ended = api.call("POST", &format!("/containers/{id}/wait"), None)?;
    if ended["StatusCode"] != 0 {
        bail!("a writer ended with {ended}");
    }
    Ok(())
}

fn output(peer: &Peer, figures: &mut Figures) -> anyhow::Result<()> {
    let mut api = peer.api()?;
    let rate = |bytes: u64, started: Instant| bytes as f64 / 1e9 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let id = run_writer(&mut api, LOUD)?;
    wait(&mut api, &id)?;
    figures.taken = rate(LOUD, started);

    let started = Instant::now();
    let mut stream = open(peer, &format!("/containers/{id}/logs?stdout=1"))?;
    let (mut buffer, mut read) = (vec![0; 1 << 20], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            bytes => read += bytes as u64,
        }
    }
    if read < LOUD {
        bail!("{read} bytes of {LOUD} came back");
    }
    figures.read = rate(LOUD, started);
    api.call("DELETE", &format!("/containers/{id}"), None)?;

    let started = Instant::now();
    let ids: Vec<String> =
        (0..CHOIR.0).map(|_| run_writer(&mut api, CHOIR.1)).collect::<anyhow::Result<_>>()?;
    for id in &ids {
        wait(&mut api, id)?;
    }
    figures.choir = rate(CHOIR.0 as u64 * CHOIR.1, started);
    remove_all(&mut api, &ids)
}

fn long_list(api: &mut Api, figures: &mut Figures) -> anyhow::Result<()> {
    let ids: Vec<String> = (0..LISTED).map(|_| create(api, &["true"])).collect::<anyhow::Result<_>>()?;
    for _ in 0..ROUNDS {
        let list = timed(&mut figures.list, || api.bytes("GET", "/containers/json?all=1", None))?;
        let listed = list.windows(9).filter(|bytes| bytes == br#""ImageID""#).count();
        if listed < LISTED {
            bail!("{listed} of {LISTED} are listed");
        }
    }
    remove_all(api, &ids)
}

fn at_once(peer: &Peer, figures: &mut Figures) -> anyhow::Result<()> {
    let mut api = peer.api()?;
    let ids: Vec<String> =
        (0..MANY).map(|_| create(&mut api, &["sleep", "1000"])).collect::<anyhow::Result<_>>()?;
    let started = Instant::now();
    let starts: Vec<_> = ids
        .iter()
        .map(|id| {
            let (mut api, path) = (peer.api()?, format!("/containers/{id}/start"));
            Ok(std::thread::spawn(move || api.call("POST", &path, None).map(drop)))
        })
        .collect::<anyhow::Result<_>>()?;
    for start in starts {
        start.join().map_err(|_| anyhow::anyhow!("a start panicked"))??;
    }
    figures.burst = started.elapsed();
    std::thread::sleep(Duration::from_secs(2));
    figures.memory = peer.memory();
    figures.stats = stats_cost(peer, &ids)?;
    remove_all(&mut api, &ids)
}

fn stats_cost(peer: &Peer, ids: &[String]) -> anyhow::Result<Duration> {
    const SECONDS: u32 = 8;
    let idle = busy_for(peer, SECONDS);
    let readers: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut stream = open(peer, &format!("/containers/{id}/stats"))?;
            let closer = stream.try_clone()?;
            let reader = std::thread::spawn(move || {
                let mut sink = vec![0; 64 << 10];
                while stream.read(&mut sink).is_ok_and(|bytes| bytes > 0) {}
            });
            Ok((closer, reader))
        })
        .collect::<anyhow::Result<_>>()?;
    std::thread::sleep(Duration::from_secs(2));
    let busy = busy_for(peer, SECONDS);
    for (closer, reader) in readers {
        closer.shutdown(std::net::Shutdown::Both)?;
        reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
    }
    Ok(busy.saturating_sub(idle) / SECONDS)
}

fn busy_for(peer: &Peer, seconds: u32) -> Duration {
    let before = peer.processor();
    std::thread::sleep(Duration::from_secs(seconds.into()));
    peer.processor().saturating_sub(before)
}

/// A connection on which the answer to a GET comes, headers and all.
fn open(peer: &Peer, path: &str) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(peer.socket())?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

fn remove_all(api: &mut Api, ids: &[String]) -> anyhow::Result<()> {
    for id in ids {
        let _: Value = api.call("DELETE", &format!("/containers/{id}?force=1"), None)?;
    }
    Ok(())
}
