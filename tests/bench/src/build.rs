//! Builds: from nothing, again without a change, after one changed file, and with a context of many files.

use std::fs;
use std::path::Path;

use crate::client::Client;
use crate::peer::{IMAGE, Peer};
use crate::sample::Sample;

/// Files of the project, and of the large context.
const SOURCES: usize = 400;
const FILES: usize = 50_000;
const COLD: usize = 5;
const ROUNDS: usize = 15;
const LARGE: usize = 3;

/// The figures of one engine.
#[derive(Default)]
struct Figures {
    cold: Sample,
    same: Sample,
    changed: Sample,
    large_first: Sample,
    large_again: Sample,
}

/// Prints the figures of our engine, and of a dockerd where there is one.
pub fn bench() -> anyhow::Result<()> {
    let mut peers = vec![Peer::skiff()?];
    peers.extend(Peer::dockerd()?);
    let clients = peers.iter().map(|peer| Client::new(peer.socket())).collect::<anyhow::Result<Vec<_>>>()?;
    let mut figures: Vec<Figures> = peers.iter().map(|_| Figures::default()).collect();
    let project = project()?;
    let context = project.path().to_string_lossy().into_owned();
    for _ in 0..COLD {
        for (client, figures) in clients.iter().zip(&mut figures) {
            figures.cold.push(client.time(&["build", "--no-cache", "-t", "bench/app", &context])?);
        }
    }
    for client in &clients {
        client.time(&["build", "-t", "bench/app", &context])?;
    }
    for _ in 0..ROUNDS {
        for (client, figures) in clients.iter().zip(&mut figures) {
            figures.same.push(client.time(&["build", "-t", "bench/app", &context])?);
        }
    }
    for round in 0..ROUNDS {
        fs::write(project.path().join("src/0"), format!("changed {round}"))?;
        for (client, figures) in clients.iter().zip(&mut figures) {
            figures.changed.push(client.time(&["build", "-t", "bench/app", &context])?);
        }
    }
    let large = large()?;
    let context = large.path().to_string_lossy().into_owned();
    for (client, figures) in clients.iter().zip(&mut figures) {
        figures.large_first.push(client.time(&["build", "-t", "bench/large", &context])?);
    }
    for _ in 0..LARGE {
        for (client, figures) in clients.iter().zip(&mut figures) {
            figures.large_again.push(client.time(&["build", "-t", "bench/large", &context])?);
        }
    }
    let door = if clients[0].has_buildx() { "buildx" } else { "docker build" };
    println!("build: {SOURCES} source files and three steps by {door}; then {FILES} files");
    for (peer, figures) in peers.iter().zip(&figures) {
        println!("  {:<14} cold                {}", peer.name, figures.cold);
        println!("  {:<14} again               {}", peer.name, figures.same);
        println!("  {:<14} one file changed    {}", peer.name, figures.changed);
        println!("  {:<14} {FILES} files         {}", peer.name, figures.large_first);
        println!("  {:<14} {FILES} files again   {}", peer.name, figures.large_again);
    }
    match &figures[..] {
        [ours, theirs] => {
            println!(
                "  ratios: cold {:.2}, again {:.2} (goal ≤ 0.30), one file changed {:.2},",
                ours.cold.ratio(&theirs.cold),
                ours.same.ratio(&theirs.same),
                ours.changed.ratio(&theirs.changed)
            );
            println!(
                "          {FILES} files {:.2}, again {:.2}",
                ours.large_first.ratio(&theirs.large_first),
                ours.large_again.ratio(&theirs.large_again)
            );
        }
        _ => println!("  no dockerd to compare with ({} names the socket of one)", Peer::variable()),
    }
    Ok(())
}

/// A project as there are many: dependencies first, then the sources.
fn project() -> anyhow::Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let dockerfile = format!(
        "FROM {IMAGE} AS build\nWORKDIR /app\nCOPY deps .\nRUN i=0; while [ $i -lt 500 ]; do echo $i > dep$i; i=$((i+1)); done\n\
         COPY src src\nRUN cat src/* > app\nFROM {IMAGE}\nCOPY --from=build /app/app /app\nCMD [\"/app\"]\n"
    );
    fs::write(directory.path().join("Dockerfile"), dockerfile)?;
    fs::write(directory.path().join("deps"), "one\n")?;
    fill(&directory.path().join("src"), SOURCES, 2000)?;
    Ok(directory)
}

fn large() -> anyhow::Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("Dockerfile"), "FROM scratch\nCOPY files /files\n")?;
    for part in 0..100 {
        fill(&directory.path().join(format!("files/{part}")), FILES / 100, 200)?;
    }
    Ok(directory)
}

/// Makes files of about so many bytes, no two alike.
fn fill(directory: &Path, count: usize, bytes: usize) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    for number in 0..count {
        let line = format!("{} {number}\n", directory.display());
        fs::write(directory.join(number.to_string()), line.repeat(bytes / line.len() + 1))?;
    }
    Ok(())
}
