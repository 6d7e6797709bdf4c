//! Every way that bytes take: into a container, out of it, between two, to this host and beyond it.
//!
//! ```text
//!  host → container       a client here, a published port on loopback
//!  container → host       a client in a container, a server here
//!  container → outside    …, a server in a network namespace behind a veth pair
//!  container → container  …, a server in another container of the same network
//! ```
//!
//! Each way is measured for our engine on this host, for a dockerd where there is one, and for our guest; the two ways out of
//! the guest also for QEMU's slirp and for passt, with the same kernel on the same machine. The same program is client and
//! server everywhere. Processor time is that of client, server and all programs between them, while bytes are moved.

mod engines;
mod peers;
mod traffic;
mod world;

use crate::peer::Peer;
use engines::Engine;
use traffic::{Figures, serve_here};
use world::World;

pub use traffic::{client, serve};

/// The ways, in the order of the table.
const WAYS: [&str; 4] =
    ["host → container", "container → host", "container → outside", "container → container"];
const TO_HOST: usize = 1;
const TO_OUTSIDE: usize = 2;

/// Somebody's figures, one for each way that it has.
struct Measured {
    name: String,
    ways: [Option<Figures>; WAYS.len()],
}

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let ours = Peer::skiff()?;
    let mut all = vec![native(&ours)?];
    drop(ours);
    if let Some(dockerd) = Peer::dockerd()? {
        all.push(native(&dockerd)?);
    }
    all.extend(in_guests()?);
    println!(
        "network: bytes for {} s in one connection, round trips of one byte, connections with an echo one after the other",
        traffic::TRANSFER.as_secs()
    );
    for (way, name) in WAYS.iter().enumerate() {
        println!("  {name}");
        for measured in &all {
            if let Some(figures) = &measured.ways[way] {
                println!("    {:<22}{figures}", measured.name);
            }
        }
    }
    println!("  ratios: throughput, more is better; round trip and connection, less is better");
    let find = |wanted: &str| all.iter().find(|measured| measured.name.starts_with(wanted));
    let compare = |one: &str, other: &str, ways: &[usize], goal: &str| {
        let (Some(one), Some(other)) = (find(one), find(other)) else {
            return println!("    {one} to {other}: {other} is not here, or does not run");
        };
        for way in ways {
            if let (Some(ours), Some(theirs)) = (&one.ways[*way], &other.ways[*way]) {
                println!("    {} to {}, {}: {}{goal}", one.name, other.name, WAYS[*way], ours.to(theirs));
            }
        }
    };
    compare(GUEST, "slirp", &[TO_HOST, TO_OUTSIDE], "  (goal: throughput ≥ 3)");
    compare(GUEST, "passt", &[TO_HOST, TO_OUTSIDE], "  (goal: throughput ≥ 1)");
    compare("skiff, this host", "dockerd", &[0, 1, 2, 3], "");
    Ok(())
}

const GUEST: &str = "skiff, guest";

/// An engine on this host, in whose network namespace everything happens.
fn native(peer: &Peer) -> anyhow::Result<Measured> {
    peer.inside(|| {
        let world = World::new()?;
        let here = serve_here()?;
        let name = if peer.name == "skiff" { "skiff, this host".to_owned() } else { peer.name.clone() };
        let engine = Engine::new(name, peer.socket().to_owned(), peer.marks(), None);
        engine.measure(&world, here)
    })
}

/// Our guest, and the same machine with other networks.
fn in_guests() -> anyhow::Result<Vec<Measured>> {
    let world = World::new()?;
    let here = serve_here()?;
    let directory = tempfile::tempdir()?;
    let guest = engines::Guest::boot(directory.path())?;
    let arguments = guest.qemu()?;
    let mark = vec![directory.path().display().to_string()];
    let host = Some("192.168.65.254".to_owned());
    let engine = Engine::new(format!("{GUEST} in QEMU"), guest.socket.clone(), mark, host);
    let mut all = vec![engine.measure(&world, here)?];
    drop(guest);
    all.extend(peers::measure(directory.path(), &arguments, here, &world)?);
    Ok(all)
}
