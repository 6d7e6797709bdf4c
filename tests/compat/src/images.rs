//! The images that suites take from Docker Hub, made from the machine's busybox.

use serde_json::json;
use skiff_testkit::image::Compression;
use skiff_testkit::{DockerCli, Image, Layer, Registry};

/// Repositories and tags; each is an image of its own.
const NAMES: [(&str, &str); 5] = [
    ("alpine", "3.10"),
    ("alpine", "latest"),
    ("busybox", "latest"),
    ("busybox", "glibc"),
    ("hello-world", "latest"),
];

fn images() -> anyhow::Result<Vec<(Image, &'static str, &'static str)>> {
    let make = |(name, tag)| {
        let command = if name == "hello-world" { json!(["echo", "Hello"]) } else { json!(["/bin/sh"]) };
        let label = json!({"org.opencontainers.image.title": format!("{name}:{tag}")});
        // What suites expect of Alpine beside its programs.
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n";
        let more = Layer::new().dir("var").dir("var/opt").file("etc/passwd", 0o644, users.as_bytes());
        let image = Image::busybox()?.with_layer(more, Compression::Gzip);
        Ok((image.with_config("Cmd", command).with_config("Labels", label), name, tag))
    };
    NAMES.into_iter().map(make).collect()
}

/// Loads them under their names.
pub fn load(docker: &DockerCli) -> anyhow::Result<()> {
    for (image, name, tag) in images()? {
        docker.feed("load", image.archive(&[&format!("{name}:{tag}")]))?.ok()?;
    }
    Ok(())
}

/// Puts them where a mirror of Docker Hub has them.
pub fn push(registry: &Registry) -> anyhow::Result<()> {
    for (image, name, tag) in images()? {
        registry.push(&image, &format!("library/{name}"), tag)?;
    }
    Ok(())
}

/// The same through an engine, into a registry that only the engine can reach.
pub fn push_through(docker: &DockerCli, registry: &str) -> anyhow::Result<()> {
    for (_, name, tag) in images()? {
        let there = format!("{registry}/library/{name}:{tag}");
        docker.args(&["tag", &format!("{name}:{tag}"), &there])?.ok()?;
        docker.args(&["push", &there])?.ok()?;
        docker.args(&["rmi", &there])?.ok()?;
    }
    Ok(())
}
