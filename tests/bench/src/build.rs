//! Builds: from nothing, again without a change, after one changed file, and with a context of many files.

use std::fs;
use std::path::Path;

use crate::client::{Cache, Client, settle};
use crate::peer::IMAGE;
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
    /// The client alone, in the same rounds.
    floor: Sample,
    changed: Sample,
    large_first: Sample,
    large_again: Sample,
}

/// Prints the figures of our engine, and of dockerd and buildah where they can be had.
pub fn bench() -> anyhow::Result<()> {
    println!("build: {SOURCES} source files and three steps; then {FILES} files");
    let clients = Client::all()?;
    if !clients[0].has_buildx() {
        println!("  no buildx (scripts/fetch-clients): the classic builder is measured");
    }
    let mut figures: Vec<Figures> = clients.iter().map(|_| Figures::default()).collect();
    let project = project()?;
    let each = |figures: &mut [Figures],
                pick: fn(&mut Figures) -> &mut Sample,
                name: &str,
                context: &Path,
                cache: Cache|
     -> anyhow::Result<()> {
        for (client, figures) in clients.iter().zip(figures) {
            settle()?;
            pick(figures).push(client.build(name, context, cache)?);
        }
        Ok(())
    };
    for _ in 0..COLD {
        each(&mut figures, |f| &mut f.cold, "bench/app", project.path(), Cache::Ignore)?;
    }
    for client in &clients {
        client.build("bench/app", project.path(), Cache::Use)?;
    }
    for _ in 0..ROUNDS {
        each(&mut figures, |f| &mut f.same, "bench/app", project.path(), Cache::Use)?;
        for (client, figures) in clients.iter().zip(&mut figures) {
            figures.floor.push(client.floor()?);
        }
    }
    for round in 0..ROUNDS {
        fs::write(project.path().join("src/0"), format!("changed {round}"))?;
        each(&mut figures, |f| &mut f.changed, "bench/app", project.path(), Cache::Use)?;
    }
    let large = large()?;
    each(&mut figures, |f| &mut f.large_first, "bench/large", large.path(), Cache::Use)?;
    for _ in 0..LARGE {
        each(&mut figures, |f| &mut f.large_again, "bench/large", large.path(), Cache::Use)?;
    }
    for (client, figures) in clients.iter().zip(&figures) {
        println!("  {:<21} cold                {}", client.name, figures.cold);
        println!("  {:<21} again               {}", client.name, figures.same);
        println!("  {:<21} the client alone    {}", client.name, figures.floor);
        println!("  {:<21} one file changed    {}", client.name, figures.changed);
        println!("  {:<21} {FILES} files         {}", client.name, figures.large_first);
        println!("  {:<21} {FILES} files again   {}", client.name, figures.large_again);
    }
    let ours = &figures[0];
    for (client, theirs) in clients.iter().zip(&figures).skip(1) {
        println!(
            "  ratios to {}: cold {:.2}, again {:.2}{}, one file changed {:.2}, {FILES} files {:.2}, again {:.2}",
            client.name,
            ours.cold.ratio(&theirs.cold),
            ours.same.ratio(&theirs.same),
            if client.name.starts_with("dockerd") { " (goal ≤ 0.30)" } else { "" },
            ours.changed.ratio(&theirs.changed),
            ours.large_first.ratio(&theirs.large_first),
            ours.large_again.ratio(&theirs.large_again)
        );
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
