//! Prints what the multiplexer costs: MiB/s and round trips beside a raw unix socket pair, in one run.
//!
//! `cargo run --release -p skiff-link --example throughput [MiB]`

use std::time::{Duration, Instant};

use skiff_link::mux::{Config, Role, connect_halves};
use skiff_link::{Args, BoxStream, StreamHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const CHUNK: usize = 64 * 1024;
const TRIPS: usize = 20_000;
const ROUNDS: usize = 5;

struct Figures {
    mib_per_second: f64,
    p50: Duration,
    p99: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mib: usize = std::env::args().nth(1).map_or(Ok(512), |text| text.parse())?;
    let mut raw = Vec::new();
    let mut mux = Vec::new();
    // Alternating, so that a noisy machine troubles both alike.
    for _ in 0..ROUNDS {
        let (a, b) = UnixStream::pair()?;
        raw.push(measure(Box::new(a), Box::new(b), mib).await?);
        let (a, b) = stream_pair().await?;
        mux.push(measure(a, b, mib).await?);
    }
    let (raw, mux) = (median(raw), median(mux));
    for (name, figures) in [("raw socket pair", &raw), ("mux over it", &mux)] {
        println!(
            "{name:16} {:7.0} MiB/s   round trip p50 {:6.1} µs   p99 {:6.1} µs",
            figures.mib_per_second,
            figures.p50.as_secs_f64() * 1e6,
            figures.p99.as_secs_f64() * 1e6,
        );
    }
    println!(
        "{:16} {:7.2}         round trip p50 {:6.2}      p99 {:6.2}",
        "mux / raw",
        mux.mib_per_second / raw.mib_per_second,
        mux.p50.as_secs_f64() / raw.p50.as_secs_f64(),
        mux.p99.as_secs_f64() / raw.p99.as_secs_f64(),
    );
    Ok(())
}

async fn stream_pair() -> Result<(BoxStream, BoxStream), Box<dyn std::error::Error>> {
    let (a, b) = UnixStream::pair()?;
    let ((host_read, host_write), (guest_read, guest_write)) = (a.into_split(), b.into_split());
    let (host, guest) = tokio::try_join!(
        connect_halves(host_read, host_write, Role::Host, Config::default()),
        connect_halves(guest_read, guest_write, Role::Guest, Config::default()),
    )?;
    let header = StreamHeader::new(Args::Api {});
    let (opened, accepted) =
        tokio::join!(host.open(&header), async { guest.accept().await?.accept(None).await });
    Ok((opened?, accepted?))
}

async fn measure(
    mut near: BoxStream,
    mut far: BoxStream,
    mib: usize,
) -> Result<Figures, Box<dyn std::error::Error>> {
    let echo = tokio::spawn(async move {
        let mut byte = [0; 1];
        for _ in 0..TRIPS {
            far.read_exact(&mut byte).await?;
            far.write_all(&byte).await?;
        }
        let mut buffer = vec![0; CHUNK];
        let mut total = 0;
        while total < mib * 1024 * 1024 {
            total += far.read(&mut buffer).await?;
        }
        far.write_all(b"!").await?;
        std::io::Result::Ok(far)
    });
    // In a task of its own: the main task runs on a thread outside of the pool.
    let figures = tokio::spawn(async move {
        let mut byte = [7; 1];
        let mut trips = Vec::with_capacity(TRIPS);
        for _ in 0..TRIPS {
            let start = Instant::now();
            near.write_all(&byte).await?;
            near.read_exact(&mut byte).await?;
            trips.push(start.elapsed());
        }
        trips.sort_unstable();
        let chunk = vec![1; CHUNK];
        let start = Instant::now();
        for _ in 0..mib * 16 {
            near.write_all(&chunk).await?;
        }
        near.read_exact(&mut byte).await?;
        let mib_per_second = mib as f64 / start.elapsed().as_secs_f64();
        std::io::Result::Ok(Figures { mib_per_second, p50: trips[TRIPS / 2], p99: trips[TRIPS * 99 / 100] })
    });
    let figures = figures.await??;
    echo.await??;
    Ok(figures)
}

fn median(mut figures: Vec<Figures>) -> Figures {
    let middle = figures.len() / 2;
    let mut pick = |key: fn(&Figures) -> f64| {
        figures.sort_by(|a, b| key(a).total_cmp(&key(b)));
        key(&figures[middle])
    };
    Figures {
        mib_per_second: pick(|figures| figures.mib_per_second),
        p50: Duration::from_secs_f64(pick(|figures| figures.p50.as_secs_f64())),
        p99: Duration::from_secs_f64(pick(|figures| figures.p99.as_secs_f64())),
    }
}
