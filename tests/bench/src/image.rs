//! Images to and from a registry on the loopback: pull and push of many layers.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::client::Client;
use crate::peer::Peer;
use crate::process::Running;
use crate::sample::Sample;

const LAYERS: usize = 12;
const ROUNDS: usize = 3;
/// Says how many MiB the image has.
const SIZE: &str = "SKIFF_BENCH_IMAGE_MIB";

/// A registry beside our engine; a dockerd in namespaces of its own has one inside (`tests/compat/reference`).
struct Registry {
    address: String,
    _process: Option<(Running, tempfile::TempDir)>,
}

/// Prints the figures of our engine, and of a dockerd where there is one.
pub fn bench() -> anyhow::Result<()> {
    let mib: usize = std::env::var(SIZE).ok().map_or(Ok(1024), |text| text.parse()).context(SIZE)?;
    let mut peers = vec![(Peer::skiff()?, registry()?)];
    let inside = Registry { address: "127.0.0.1:5000".to_owned(), _process: None };
    peers.extend(Peer::dockerd()?.map(|peer| (peer, inside)));
    let context = layers(mib)?;
    let floor = floor(context.path())?;
    let mut figures = Vec::new();
    for (peer, registry) in &peers {
        let client = Client::new(peer.socket())?;
        let name = format!("{}/bench/image:1", registry.address);
        client.time(&["build", "-t", &name, &context.path().to_string_lossy()])?;
        let (mut push, mut pull) = (Sample::default(), Sample::default());
        push.push(client.time(&["push", "-q", &name])?);
        for _ in 0..ROUNDS {
            client.time(&["rmi", "-f", &name])?;
            client.time(&["builder", "prune", "-af"])?;
            pull.push(client.time(&["pull", "-q", &name])?);
        }
        client.time(&["rmi", "-f", &name])?;
        figures.push((push, pull));
    }
    println!("image: {mib} MiB in {LAYERS} layers, registry on the loopback");
    for ((peer, _), (push, pull)) in peers.iter().zip(&figures) {
        println!("  {:<14} push  {push}", peer.name);
        println!("  {:<14} pull  {pull}", peer.name);
    }
    println!("  unpacking the same by `tar` in parallel: {:.2} s", floor.as_secs_f64());
    match &figures[..] {
        [(_, ours), (_, theirs)] => println!("  ratio of pulls {:.2} (goal ≤ 0.50)", ours.ratio(theirs)),
        _ => println!("  no dockerd to compare with ({} names the socket of one)", Peer::variable()),
    }
    Ok(())
}

fn registry() -> anyhow::Result<Registry> {
    let directory = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (address, file) = (format!("127.0.0.1:{port}"), directory.path().join("config.yml"));
    let store = directory.path().join("store");
    let config = format!(
        "version: 0.1\nlog: {{accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
        store.display()
    );
    std::fs::write(&file, config)?;
    let mut registry = Command::new("docker-registry");
    registry.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Running(registry.spawn().context("run docker-registry")?);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(&address).is_err() {
        ensure!(Instant::now() < deadline, "the registry does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Registry { address, _process: Some((process, directory)) })
}

/// A context whose image has all its layers: halves of noise and of text, in files of 256 KiB.
fn layers(mib: usize) -> anyhow::Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let mut dockerfile = "FROM scratch\n".to_owned();
    let mut noise = std::fs::File::open("/dev/urandom")?;
    let mut piece = vec![0; 128 << 10];
    for layer in 0..LAYERS {
        let part = directory.path().join(layer.to_string());
        std::fs::create_dir(&part)?;
        dockerfile.push_str(&format!("COPY {layer} /{layer}\n"));
        for number in 0..(mib * 4 / LAYERS).max(1) {
            noise.read_exact(&mut piece)?;
            let mut file = std::fs::File::create(part.join(number.to_string()))?;
            file.write_all(&piece)?;
            file.write_all(&b"the same words all over again\n".repeat(4369))?;
        }
    }
    std::fs::write(directory.path().join("Dockerfile"), dockerfile)?;
    Ok(directory)
}

/// What no pull can be faster than: the layers unpacked by as many `tar`s as there are layers.
fn floor(context: &std::path::Path) -> anyhow::Result<Duration> {
    let directory = tempfile::tempdir()?;
    let script = format!(
        "cd '{0}' && for i in $(seq 0 {1}); do tar -C '{2}' -cf - $i | gzip -1 > '{0}'/$i.tgz; done",
        directory.path().display(),
        LAYERS - 1,
        context.display()
    );
    ensure!(Command::new("sh").args(["-c", &script]).status()?.success(), "the layers can't be packed");
    let started = Instant::now();
    let script = format!(
        "cd '{}' && for i in $(seq 0 {}); do (mkdir out$i && zcat $i.tgz | tar -C out$i -xf -) & done; wait",
        directory.path().display(),
        LAYERS - 1
    );
    ensure!(Command::new("sh").args(["-c", &script]).status()?.success(), "the layers can't be unpacked");
    Ok(started.elapsed())
}
