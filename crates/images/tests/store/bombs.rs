//! Archives and layers that want more than they are worth: of memory, of time, of names.

use serde_json::json;
use skiff_images::layer::{LayerError, Limits, unpack};
use skiff_images::{Config, Silent, Store};
use tar::EntryType;

use crate::content::{Layer, OCI_INDEX, OCI_MANIFEST, Packing, TestImage, descriptor, gzip, list, tar_of};
use crate::hostile::Archive;
use crate::load::{docker_archive, layout};
use crate::workspace::Workspace;

/// What this process holds at most, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The same bytes over and over again.
struct Endless {
    piece: Vec<u8>,
    at: usize,
}

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.piece[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at = (self.at + length) % self.piece.len();
        Ok(length)
    }
}

#[test]
fn headers_without_an_entry_end_before_they_fill_the_memory() {
    let value = vec![b'x'; 900 << 10];
    let one = Archive::default().pax(&[("SCHILY.xattr.user.x", &value)]).0;
    let directory = tempfile::tempdir().unwrap();
    let before = peak();
    let endless = std::io::BufReader::new(Endless { piece: one, at: 0 });
    let limits = Limits { bytes: 500 << 20, ..Limits::default() };
    let error = unpack(endless, directory.path(), limits, None).unwrap_err();
    assert!(error.to_string().contains("extended headers are too large"), "{error}");
    assert!(peak() - before < 64 << 10, "{} KiB more", peak() - before);
    // What real archives have before an entry is far from it.
    let fine = Archive::default().pax(&[("SCHILY.xattr.user.x", b"y")]).file("a", b"1").bytes();
    unpack(&fine[..], directory.path(), Limits::default(), None).unwrap();
}

#[test]
fn names_that_must_be_kept_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let long = "d".repeat(90);
    let mut archive = Archive::default();
    for number in 0..50 {
        archive = archive.dir(&format!("{long}{number}"));
    }
    let limits = Limits { names: 2000, ..Limits::default() };
    let error = unpack(&archive.bytes()[..], directory.path(), limits, None).unwrap_err();
    assert!(matches!(error, LayerError::Limit { what: "bytes of directory names", .. }), "{error}");
    let other = tempfile::tempdir().unwrap();
    unpack(&archive.bytes()[..], other.path(), Limits::default(), None).unwrap();
}

#[tokio::test]
async fn archives_of_too_many_or_too_large_things_are_refused() {
    let workspace = Workspace::new();
    let mut many = Vec::new();
    let one = Archive::default().dir("d").0;
    for _ in 0..5001 {
        many.extend_from_slice(&one);
    }
    let limits = Limits { entries: 5000, bytes: 4 << 20, names: 200_000 };
    let store = Store::open(Config { limits, ..workspace.config() }).unwrap();
    let names =
        (0..3000).fold(Archive::default(), |archive, n| archive.dir(&format!("{}{n}", "n".repeat(80))));
    let zeros = tar_of(&[("blobs/sha256/x", &vec![0; 5 << 20])]);
    let layer = Layer::new(tar_of(&[("zeros", &vec![0; 5 << 20])]), Packing::Gzip);
    let cases = [
        (many, "more than 5000 entries"),
        (names.bytes(), "more than 200000 bytes of names"),
        (gzip(&zeros), "more than 4194304 bytes"),
        (zstd::encode_all(&zeros[..], 1).unwrap(), "more than 4194304 bytes"),
        (docker_archive(&[layer], &["bomb"]), "more than 4194304 bytes"),
    ];
    for (archive, words) in cases {
        let error = store.load(&archive[..], None, &Silent).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} should say {words:?}");
        workspace.assert_clean();
    }
    assert!(store.list().is_empty());
}

#[tokio::test]
async fn archives_that_go_round_in_circles_or_lie_about_themselves_are_refused() {
    let workspace = Workspace::new();
    let store = workspace.open();
    let image = TestImage::new(vec![Layer::file("a", b"1", Packing::Gzip)], "amd64");
    // Links of the archive that lead to one another.
    let circle = Archive::default()
        .entry(EntryType::Symlink, "manifest.json", "other.json", b"", |_| {})
        .entry(EntryType::Symlink, "other.json", "manifest.json", b"", |_| {});
    let mut lists = vec![list(&[image.entry("amd64")])];
    for _ in 0..6 {
        lists.push(list(&[descriptor(OCI_INDEX, lists.last().unwrap())]));
    }
    let all: Vec<&[u8]> = lists.iter().map(Vec::as_slice).collect();
    let deep = layout(&[&image], &all, &[descriptor(OCI_INDEX, lists.last().unwrap())]);
    let many = json!(vec![json!({"Config": "config.json", "Layers": []}); 1001]).to_string();
    let mut wrong = image.entry("amd64");
    wrong["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    let layers = vec![json!("l"); 600];
    let absurd = json!([{"Config": "config.json", "Layers": layers}]).to_string();
    let cases = [
        (circle.bytes(), "neither manifest.json nor index.json"),
        (deep, "nested too deeply"),
        (tar_of(&[("config.json", &image.config), ("manifest.json", many.as_bytes())]), "too many images"),
        (layout(&[&image], &[], &[wrong]), "is missing"),
        (
            tar_of(&[
                ("config.json", &vec![b' '; 9 << 20]),
                ("manifest.json", br#"[{"Config":"config.json"}]"#),
            ]),
            "is too large",
        ),
        (
            tar_of(&[("config.json", b"[]"), ("manifest.json", br#"[{"Config":"config.json"}]"#)]),
            "configuration",
        ),
        (
            tar_of(&[("config.json", &image.config), ("l", b"x"), ("manifest.json", absurd.as_bytes())]),
            "600 layers",
        ),
        (
            tar_of(&[("index.json", br#"{"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}"#)]),
            "index.json",
        ),
        (layout(&[&image], &[], &[descriptor(OCI_MANIFEST, b"elsewhere")]), "is missing"),
    ];
    for (archive, words) in cases {
        let error = store.load(&archive[..], None, &Silent).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} should say {words:?}");
        workspace.assert_clean();
    }
    assert!(store.list().is_empty());
}

#[tokio::test]
async fn rubbish_after_a_compressed_stream_is_an_error_and_of_equal_names_the_last_counts() {
    let workspace = Workspace::new();
    let store = workspace.open();
    for packing in [Packing::Gzip, Packing::Zstd] {
        let whole = Layer::file("a", b"1", packing);
        // Rubbish, and another stream that is cut: a whole one would belong to it.
        for tail in [&b"rubbish after the end"[..], &whole.blob[..20]] {
            let inner = Layer { blob: [&whole.blob, tail].concat(), ..whole.clone() };
            let error = store.load(&docker_archive(&[inner], &["x:1"])[..], None, &Silent).await.unwrap_err();
            assert!(error.to_string().contains("failed to register layer"), "{error}");
            workspace.assert_clean();
        }
    }
    let image = TestImage::new(vec![Layer::file("a", b"1", Packing::Plain)], "amd64");
    let named = |name: &str| json!([{"Config": "c", "RepoTags": [name], "Layers": ["l"]}]).to_string();
    let (first, last) = (named("first:1"), named("last:1"));
    let twice = tar_of(&[
        ("manifest.json", first.as_bytes()),
        ("c", &image.config),
        ("l", b"no layer"),
        ("l", &image.layers[0].tar),
        ("manifest.json", last.as_bytes()),
    ]);
    let loaded = store.load(&twice[..], None, &Silent).await.unwrap();
    assert_eq!(loaded[0].names, ["last:1"]);
}
