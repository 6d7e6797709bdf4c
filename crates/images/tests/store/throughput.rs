//! A rough figure for pull and unpack, printed.

use std::time::Instant;

use skiff_images::Silent;
use skiff_images::layer::{Limits, unpack};

use crate::content::{Layer, Packing, TestImage, noise};
use crate::registry::Registry;
use crate::workspace::Workspace;

/// Forty files of a megabyte that compresses to half.
fn files(seed: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for n in 0..40 {
        let mut data = noise(seed * 100 + n, 512 << 10);
        data.extend(std::iter::repeat_n(b"some text that repeats; ", 21_846).flatten().take(512 << 10));
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("dir{}/file{n}", n % 7), &data[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_image_is_pulled_at_a_rate_that_is_printed() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    let layers: Vec<Layer> = (0..5)
        .map(|n| Layer::new(files(n), if n % 2 == 0 { Packing::Gzip } else { Packing::Zstd }))
        .collect();
    let unpacked: usize = layers.iter().map(|l| l.tar.len()).sum();
    let packed: usize = layers.iter().map(|l| l.blob.len()).sum();
    let image = TestImage::new(layers, "amd64");
    registry.push("big", "latest", &image);
    let store = workspace.open();
    let start = Instant::now();
    store.pull(&registry.name("big"), None, None, &Silent).await.unwrap();
    let pull = start.elapsed();
    let start = Instant::now();
    for (n, layer) in image.layers.iter().enumerate() {
        let directory = workspace.root().with_extension(n.to_string());
        std::fs::create_dir(&directory).unwrap();
        unpack(&layer.blob[..], &directory, Limits::default(), None).unwrap();
    }
    let alone = start.elapsed();
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!(
        "{:.0} MiB ({:.0} MiB packed): pull {:.2} s = {:.0} MiB/s; unpacking alone, one thread: {:.2} s",
        mib(unpacked),
        mib(packed),
        pull.as_secs_f64(),
        mib(unpacked) / pull.as_secs_f64(),
        alone.as_secs_f64()
    );
}
