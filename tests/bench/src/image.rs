//! Images to and from a registry on the loopback: pull and push of many layers.
//!
//! The registry is filled from outside, so that no engine has anything of the image before it pulls; after each pull
//! the registry's own count of bytes says whether it was one.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::client::{Client, settle};
use crate::process::check;
use crate::registry::Registry;
use crate::sample::Sample;

const LAYERS: usize = 12;
const ROUNDS: usize = 3;
/// Says how many MiB the image has.
const SIZE: &str = "SKIFF_BENCH_IMAGE_MIB";
const NAME: &str = "bench/image:1";

/// The figures of one client.
#[derive(Default)]
struct Figures {
    pull: Sample,
    again: Sample,
    push: Sample,
    /// Bytes that the registry read for the last pull.
    served: u64,
}

/// Prints the figures of our engine, and of dockerd and buildah where they can be had.
pub fn bench() -> anyhow::Result<()> {
    let mib: usize = std::env::var(SIZE).ok().map_or(Ok(1024), |text| text.parse()).context(SIZE)?;
    println!("image: {mib} MiB in {LAYERS} layers, registry on the loopback");
    let image = layout(mib)?;
    let clients = Client::all()?;
    let mut peers = Vec::new();
    for client in clients {
        let registry = Registry::start(client.network().as_deref())?;
        registry.fill(image.directory.path(), NAME)?;
        peers.push((client, registry));
    }
    let mut figures: Vec<Figures> = peers.iter().map(|_| Figures::default()).collect();
    let mut floor = Sample::default();
    for _ in 0..ROUNDS {
        for ((client, registry), figures) in peers.iter().zip(&mut figures) {
            let name = format!("{}/{NAME}", registry.address);
            settle()?;
            let before = registry.has_read()?;
            figures.pull.push(client.pull(&name)?);
            figures.served = registry.has_read()? - before;
            ensure!(
                figures.served >= image.bytes,
                "{} read {} of {} bytes: that was no pull",
                client.name,
                figures.served,
                image.bytes
            );
            figures.again.push(client.pull(&name)?);
            let empty = Registry::start(client.network().as_deref())?;
            let there = format!("{}/{NAME}", empty.address);
            client.tag(&name, &there)?;
            settle()?;
            let before = empty.has_read()?;
            figures.push.push(client.push(&there)?);
            let taken = empty.has_read()? - before;
            ensure!(taken >= image.bytes / 2, "{} sent {taken} bytes: that was no push", client.name);
            client.remove(&[&name, &there])?;
        }
        settle()?;
        floor.push(unpacked_by_tar(&image, &peers[0].1)?);
    }
    println!("  {} MiB compressed", image.bytes >> 20);
    for ((client, _), figures) in peers.iter().zip(&figures) {
        println!(
            "  {:<21} pull   {} — {} MiB read by the registry",
            client.name,
            figures.pull,
            figures.served >> 20
        );
        println!("  {:<21} again  {}", client.name, figures.again);
        println!("  {:<21} push   {}", client.name, figures.push);
    }
    println!("  {:<21} pull   {floor}", "curl|zcat|tar");
    let ours = &figures[0];
    for ((client, _), theirs) in peers.iter().zip(&figures).skip(1) {
        println!(
            "  ratios to {}: pull {:.2}{}, again {:.2}, push {:.2}",
            client.name,
            ours.pull.ratio(&theirs.pull),
            if client.name.starts_with("dockerd") { " (goal ≤ 0.50)" } else { "" },
            ours.again.ratio(&theirs.again),
            ours.push.ratio(&theirs.push)
        );
    }
    println!(
        "  ratio to the floor, one `curl | zcat | tar x` for each layer: pull {:.2}",
        ours.pull.ratio(&floor)
    );
    Ok(())
}

/// An OCI layout.
struct Layout {
    directory: tempfile::TempDir,
    /// Digests of the layers.
    layers: Vec<String>,
    /// What all layers take together, compressed.
    bytes: u64,
}

/// Makes the image: layers of halves of noise and of text, in files of 256 KiB.
fn layout(mib: usize) -> anyhow::Result<Layout> {
    let directory = tempfile::tempdir()?;
    let blobs = directory.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    std::fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let contents = tempfile::tempdir()?;
    let mut noise = std::fs::File::open("/dev/urandom")?;
    let mut piece = vec![0; 128 << 10];
    let (mut layers, mut diff_ids, mut bytes) = (Vec::new(), Vec::new(), 0);
    for layer in 0..LAYERS {
        let part = contents.path().join(layer.to_string());
        std::fs::create_dir(&part)?;
        for number in 0..(mib * 4 / LAYERS).max(1) {
            noise.read_exact(&mut piece)?;
            let mut file = std::fs::File::create(part.join(number.to_string()))?;
            file.write_all(&piece)?;
            file.write_all(&b"the same words all over again\n".repeat(4369))?;
        }
        let (tar, packed) = (contents.path().join("tar"), contents.path().join("tar.gz"));
        check(
            Command::new("tar").arg("-C").arg(contents.path()).arg("-cf").arg(&tar).arg(layer.to_string()),
        )?;
        diff_ids.push(sha256(&tar)?);
        check(Command::new("gzip").args(["-1", "-n", "-f"]).arg(&tar))?;
        let (digest, size) = (sha256(&packed)?, packed.metadata()?.len());
        std::fs::copy(&packed, blobs.join(&digest))?;
        std::fs::remove_dir_all(&part)?;
        bytes += size;
        layers.push(json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": format!("sha256:{digest}"), "size": size,
        }));
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diff_ids: Vec<_> = diff_ids.iter().map(|id| format!("sha256:{id}")).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put(&blobs, "application/vnd.oci.image.config.v1+json", &config)?;
    let names = layers.iter().map(|layer| layer["digest"].as_str().unwrap_or_default().to_owned()).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
    });
    let manifest = put(&blobs, "application/vnd.oci.image.manifest.v1+json", &manifest)?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(directory.path().join("index.json"), index.to_string())?;
    Ok(Layout { directory, layers: names, bytes })
}

/// Puts a document among the blobs and returns its descriptor.
fn put(blobs: &Path, kind: &str, document: &serde_json::Value) -> anyhow::Result<serde_json::Value> {
    let text = document.to_string();
    let file = blobs.join("new");
    std::fs::write(&file, &text)?;
    let digest = sha256(&file)?;
    std::fs::rename(&file, blobs.join(&digest))?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": text.len()}))
}

fn sha256(file: &Path) -> anyhow::Result<String> {
    let output = Command::new("sha256sum").arg(file).output().context("run sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    text.get(..64).map(str::to_owned).context("no digest from sha256sum")
}

/// What no pull can be faster than by much: the layers fetched and unpacked by as many `tar`s as there are layers.
fn unpacked_by_tar(image: &Layout, registry: &Registry) -> anyhow::Result<Duration> {
    let directory = tempfile::tempdir()?;
    let mut script = format!("cd '{}'\n", directory.path().display());
    let repository = NAME.split(':').next().unwrap_or(NAME);
    for (at, digest) in image.layers.iter().enumerate() {
        let url = format!("http://{}/v2/{repository}/blobs/{digest}", registry.address);
        script += &format!("(mkdir {at} && curl -sf '{url}' | zcat | tar -C {at} -xf -) &\n");
    }
    script += "wait\n";
    let started = Instant::now();
    check(Command::new("sh").args(["-c", &script]))?;
    let taken = started.elapsed();
    let there = std::fs::read_dir(directory.path().join("0/0"))?.count();
    ensure!(there > 0, "tar has unpacked nothing");
    Ok(taken)
}
