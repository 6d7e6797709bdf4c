//! Client and server, wherever they run, and what comes of them.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::sample::Sample;

/// How long each transfer goes on: machines differ too much for a number of bytes.
pub const TRANSFER: Duration = Duration::from_secs(1);
const TRANSFERS: usize = 3;
const MIB: u64 = 1 << 20;
const TRIPS: usize = 500;
const CONNECTIONS: usize = 200;
/// Rounds of each kind that only warm up.
const WARM_UP: usize = 10;
/// How long a client waits for its server to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Begins and ends the transfers in what a client tells.
const BEGIN: &str = "transfers begin";
const END: &str = "transfers end";
const FINISHED: &str = "finished";

/// What one way can do.
#[derive(Default)]
pub struct Figures {
    /// Of a MiB, as with the next.
    download: Sample,
    upload: Sample,
    trip: Sample,
    connection: Sample,
    /// Bytes of all transfers.
    moved: u64,
    processor: Duration,
    since: Option<Duration>,
}

impl Figures {
    /// Takes the client's lines in, and asks for the processor time so far when it matters; `true` at the last line.
    pub fn take(&mut self, line: &str, processor: &dyn Fn() -> Duration) -> anyhow::Result<bool> {
        let line = line.trim();
        match line {
            FINISHED => return Ok(true),
            BEGIN => self.since = Some(processor()),
            END => self.processor = processor().saturating_sub(self.since.unwrap_or_default()),
            _ if line.starts_with("Error:") || line.starts_with("client:") => {
                bail!("the client says: {line}")
            }
            _ => {}
        }
        let mut words = line.split(' ');
        let (Some(what), Some(Ok(figure))) = (words.next(), words.next().map(str::parse::<u64>)) else {
            return Ok(false);
        };
        if let Some(bytes) = words.next().and_then(|bytes| bytes.parse::<u64>().ok()) {
            self.moved += bytes;
        }
        let sample = match what {
            "download" => &mut self.download,
            "upload" => &mut self.upload,
            "trip" => &mut self.trip,
            "connection" => &mut self.connection,
            _ => return Ok(false),
        };
        sample.push(Duration::from_nanos(figure));
        Ok(false)
    }

    /// The ratios to somebody else's figures.
    pub fn to(&self, other: &Self) -> String {
        format!(
            "download × {:.2}, upload × {:.2}; round trip × {:.2}, connection × {:.2}",
            other.download.ratio(&self.download),
            other.upload.ratio(&self.upload),
            self.trip.ratio(&other.trip),
            self.connection.ratio(&other.connection),
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |sample: &Sample| 1.0 / sample.median().as_secs_f64();
        let connection = self.connection.median().as_secs_f64();
        write!(
            f,
            "download {:7.1} MiB/s  upload {:7.1} MiB/s  round trip {:6.0} µs  connection {:6.0} µs ({:5.0}/s)  {:5.2} s of \
             processor per GB",
            rate(&self.download),
            rate(&self.upload),
            self.trip.median().as_secs_f64() * 1e6,
            connection * 1e6,
            1.0 / connection,
            self.processor.as_secs_f64() / (self.moved as f64 / 1e9),
        )
    }
}

/// A server on every address of this thread's network namespace, for as long as the process lives; returns its port.
pub fn serve_here() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || accept(&listener));
    Ok(port)
}

/// A server in a process of its own.
pub fn serve(at: &str) -> anyhow::Result<()> {
    accept(&TcpListener::bind(at).with_context(|| format!("listen on {at}"))?);
    Ok(())
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
}

/// The first byte of a connection says what it is for.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut what = [0];
    stream.read_exact(&mut what)?;
    let mut buffer = vec![0; 256 * 1024];
    match what[0] {
        // Until the client has enough.
        b'd' => loop {
            stream.write_all(&buffer)?;
        },
        b'u' => {
            let mut bytes = 0u64;
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    length => bytes += length as u64,
                }
            }
            stream.write_all(&bytes.to_be_bytes())?;
        }
        _ => loop {
            let length = stream.read(&mut buffer[..64])?;
            if length == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..length])?;
        },
    }
    Ok(())
}

/// The client: `tell` gets a line for each round.
pub fn client(to: &str, tell: &mut dyn FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    wait_for(to)?;
    let mut buffer = vec![0; 256 * 1024];
    let transfers = [("download", b'd'), ("upload", b'u')];
    tell(BEGIN)?;
    for _ in 0..TRANSFERS {
        for (name, what) in transfers {
            let started = Instant::now();
            let bytes = transfer(to, what, &mut buffer)?;
            let each = started.elapsed().as_nanos() * u128::from(MIB) / u128::from(bytes.max(1));
            tell(&format!("{name} {each} {bytes}"))?;
        }
    }
    tell(END)?;
    let mut stream = connect(to, b'r')?;
    for round in 0..WARM_UP + TRIPS {
        let started = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut buffer[..1])?;
        if round >= WARM_UP {
            tell(&took("trip", started))?;
        }
    }
    for round in 0..WARM_UP + CONNECTIONS {
        let started = Instant::now();
        // Where something else accepts, only an echo shows that there is a connection.
        let mut stream = connect(to, b'r')?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut buffer[..1])?;
        if round >= WARM_UP {
            tell(&took("connection", started))?;
        }
    }
    tell(FINISHED)
}

fn took(what: &str, started: Instant) -> String {
    format!("{what} {}", started.elapsed().as_nanos())
}

fn connect(to: &str, what: u8) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[what])?;
    Ok(stream)
}

fn wait_for(to: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut echoed = [0];
        let tried = connect(to, b'r').and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"x")?;
            Ok(stream.read_exact(&mut echoed)?)
        });
        match tried {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Moves bytes for a while; returns how many have arrived.
fn transfer(to: &str, what: u8, buffer: &mut [u8]) -> anyhow::Result<u64> {
    let mut stream = connect(to, what)?;
    let (started, mut bytes) = (Instant::now(), 0);
    while started.elapsed() < TRANSFER {
        let moved = if what == b'd' { stream.read(buffer)? } else { stream.write(buffer)? };
        ensure!(moved > 0, "the transfer ended early");
        bytes += moved as u64;
    }
    if what == b'd' {
        return Ok(bytes);
    }
    stream.shutdown(Shutdown::Write)?;
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived)?;
    let arrived = u64::from_be_bytes(arrived);
    ensure!(arrived == bytes, "{arrived} of {bytes} bytes arrived");
    Ok(bytes)
}

/// The processor time so far of this process and of all that have one of these words in their command lines.
pub fn processor(marks: &[String]) -> Duration {
    let own = std::process::id();
    let counts = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        *pid == own || marks.iter().any(|mark| line.contains(mark.as_str()))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(counts);
    Duration::from_millis(pids.map(ticks).sum::<u64>() * 10)
}

fn ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split_whitespace().collect();
    [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum()
}
