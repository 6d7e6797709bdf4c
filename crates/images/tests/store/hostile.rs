//! Layers that try to get out, and everything a layer may rightly contain.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::makedev;
use skiff_images::layer::{LayerError, Limits, Unpacked, unpack};
use tar::{EntryType, Header};

/// A layer directory beside a file that nobody may touch.
struct Target {
    directory: tempfile::TempDir,
}

impl Target {
    fn new() -> Target {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("layer")).unwrap();
        std::fs::create_dir(directory.path().join("outside")).unwrap();
        std::fs::write(directory.path().join("outside/secret"), "untouched").unwrap();
        Target { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("layer").join(name)
    }

    fn apply(&self, archive: &Archive) -> Result<Unpacked, LayerError> {
        let result = unpack(&archive.bytes()[..], &self.path(""), Limits::default(), None);
        self.assert_outside_is_untouched();
        result
    }

    fn assert_outside_is_untouched(&self) {
        let outside = self.directory.path().join("outside");
        assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"untouched");
        assert_eq!(std::fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(self.directory.path()).unwrap().count(), 2);
    }
}

/// Builds tars with whatever names one likes.
#[derive(Default, Clone)]
pub struct Archive(pub Vec<u8>);

impl Archive {
    pub fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        data: &[u8],
        change: impl Fn(&mut Header),
    ) -> Archive {
        let mut header = Header::new_gnu();
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_link_name_literal(link).unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_500_000_000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Archive {
        self.entry(EntryType::Regular, name, "", data, |_| {})
    }

    pub fn dir(self, name: &str) -> Archive {
        self.entry(EntryType::Directory, name, "", b"", |h| h.set_mode(0o755))
    }

    fn symlink(self, name: &str, target: &str) -> Archive {
        self.entry(EntryType::Symlink, name, target, b"", |_| {})
    }

    fn hard_link(self, name: &str, target: &str) -> Archive {
        self.entry(EntryType::Link, name, target, b"", |_| {})
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Archive {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = 3 + key.len() + value.len();
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", "", &data, |_| {})
    }

    pub fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 256];
    let n = rustix::fs::lgetxattr(path, name, &mut buffer[..]).ok()?;
    buffer.truncate(n);
    Some(buffer)
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../outside/secret", "a/../../outside/secret", "../../x", "/../x", ".."] {
        let target = Target::new();
        let error = target.apply(&Archive::default().file(name, b"evil")).unwrap_err().to_string();
        assert!(error.contains("leads out") && error.contains(name), "{error}");
    }
}

#[test]
fn symlinks_never_lead_out() {
    let target = Target::new();
    let secret = target.directory.path().join("outside");
    let outside = secret.to_str().unwrap();
    // Absolute, relative, chained; each is followed inside the layer, as a chroot would.
    for (link, via) in
        [(outside, "l/secret"), ("../outside", "l/secret"), ("../../../../../../tmp", "l/x"), ("/", "l/y")]
    {
        let archive = Archive::default().dir("outside").dir("tmp").symlink("l", link).file(via, b"evil");
        let _ = target.apply(&archive);
        let archive = Archive::default().symlink("m", link).symlink("n", "m").hard_link("n/got", "n/secret");
        let _ = target.apply(&archive);
    }
    assert_eq!(std::fs::read(target.path("outside/secret")).unwrap(), b"evil", "it landed inside");
    // A file that replaces a symlink replaces the link, not what it points to.
    let archive = Archive::default().symlink("f", &format!("{outside}/secret")).file("f", b"evil");
    target.apply(&archive).unwrap();
    assert!(target.path("f").symlink_metadata().unwrap().is_file());
    // Attributes of a symlink are its own.
    let archive = Archive::default().symlink("o", &format!("{outside}/secret")).entry(
        EntryType::Symlink,
        "p",
        outside,
        b"",
        |h| h.set_uid(7),
    );
    target.apply(&archive).unwrap();
    assert_eq!(target.path("p").symlink_metadata().unwrap().uid(), 7);
}

#[test]
fn hard_links_stay_inside() {
    let target = Target::new();
    let secret = target.directory.path().join("outside/secret");
    for link in [secret.to_str().unwrap(), "../outside/secret", "missing", "d"] {
        let archive = Archive::default().dir("d").hard_link("h", link);
        let error = target.apply(&archive).unwrap_err().to_string();
        assert!(error.contains("\"h\""), "{error}");
    }
    let archive = Archive::default().symlink("s", secret.to_str().unwrap()).hard_link("h", "s");
    target.apply(&archive).unwrap();
    assert!(target.path("h").symlink_metadata().unwrap().is_symlink(), "the link itself is linked");
    let archive = Archive::default().file("one", b"x").hard_link("two", "/one");
    target.apply(&archive).unwrap();
    assert_eq!(target.path("two").metadata().unwrap().nlink(), 2);
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    let target = Target::new();
    let archive = Archive::default()
        .file("etc/.wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"x")
        .file(".wh..wh.plnk/1.2", b"")
        .file(".wh.dir", b"")
        .dir("dir")
        .file("kept", b"x")
        .file(".wh.kept", b"");
    target.apply(&archive).unwrap();
    let gone = target.path("etc/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(xattr(&target.path("opaque"), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert!(!target.path(".wh..wh.plnk").exists());
    assert_eq!(xattr(&target.path("dir"), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(std::fs::read(target.path("kept")).unwrap(), b"x", "a whiteout concerns lower layers only");
    for name in [".wh.", ".wh..", ".wh..."] {
        assert!(target.apply(&Archive::default().file(name, b"")).is_err(), "{name}");
    }
}

#[test]
fn everything_a_layer_may_contain_is_stored() {
    let target = Target::new();
    let archive = Archive::default()
        .dir("d")
        .entry(EntryType::Regular, "d/su", "", b"x", |h| {
            h.set_mode(0o6755);
            h.set_uid(5);
            h.set_gid(6);
        })
        .entry(EntryType::Fifo, "d/fifo", "", b"", |_| {})
        .entry(EntryType::Char, "d/null", "", b"", |h| {
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        })
        .entry(EntryType::Directory, "sticky", "", b"", |h| h.set_mode(0o1777))
        .pax(&[
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/x"),
            ("mtime", b"1500000000.5"),
        ])
        .file("d/marked", b"")
        .pax(&[("GNU.sparse.size", b"1000000"), ("GNU.sparse.map", b"0,3,999000,2")])
        .file("d/holes", b"abcde")
        .file("a/b/c", b"implied");
    let unpacked = target.apply(&archive).unwrap();
    assert_eq!(unpacked.size, 1 + 1_000_000 + 7);
    let meta = |name: &str| target.path(name).symlink_metadata().unwrap();
    assert_eq!((meta("d/su").mode() & 0o7777, meta("d/su").uid(), meta("d/su").gid()), (0o6755, 5, 6));
    assert!(meta("d/fifo").file_type().is_fifo());
    assert_eq!(meta("d/null").rdev(), makedev(1, 3));
    assert_eq!(meta("sticky").permissions().mode() & 0o7777, 0o1777);
    assert_eq!(meta("a/b").permissions().mode() & 0o7777, 0o755);
    assert_eq!(xattr(&target.path("d/marked"), "user.note").as_deref(), Some(&b"a\nb"[..]));
    assert_eq!(xattr(&target.path("d/marked"), "trusted.overlay.redirect"), None);
    assert_eq!((meta("d/marked").mtime(), meta("d/marked").mtime_nsec()), (1_500_000_000, 500_000_000));
    assert_eq!(meta("d").mtime(), 1_500_000_000, "the directory's time is set after its contents");
    let holes = std::fs::read(target.path("d/holes")).unwrap();
    assert_eq!((&holes[..3], &holes[999_000..999_002], holes.len()), (&b"abc"[..], &b"de"[..], 1_000_000));
    assert!(meta("d/holes").blocks() < 100);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let target = Target::new();
    let archive = Archive::default()
        .dir("x")
        .file("x/deep/file", b"1")
        .file("x", b"now a file")
        .file("y", b"file")
        .dir("y")
        .symlink("z", "y")
        .file("z/in-y", b"1")
        .dir("z")
        .file("z/in-z", b"2");
    target.apply(&archive).unwrap();
    assert_eq!(std::fs::read(target.path("x")).unwrap(), b"now a file");
    assert!(target.path("y/in-y").exists());
    assert!(target.path("z").symlink_metadata().unwrap().is_dir() && target.path("z/in-z").exists());
    assert!(!target.path("y/in-z").exists());
}

#[test]
fn limits_hold() {
    let target = Target::new();
    let run = |limits| {
        unpack(
            &Archive::default().file("a", &[0; 5000]).file("b", b"").bytes()[..],
            &target.path(""),
            limits,
            None,
        )
    };
    assert!(matches!(
        run(Limits { entries: 1, ..Limits::default() }),
        Err(LayerError::Limit { what: "entries", .. })
    ));
    assert!(matches!(
        run(Limits { bytes: 3000, ..Limits::default() }),
        Err(LayerError::Limit { what: "bytes", .. })
    ));
    let bomb = zstd::encode_all(&vec![0u8; 64 << 20][..], 1).unwrap();
    let result = unpack(&bomb[..], &target.path(""), Limits { bytes: 1 << 20, ..Limits::default() }, None);
    assert!(result.is_ok() || matches!(result, Err(LayerError::Limit { .. })));
    let truncated = Archive::default().file("a", &[1; 5000]).0;
    let result = unpack(&truncated[..3000], &target.path(""), Limits::default(), None);
    assert!(matches!(result, Err(LayerError::Truncated)), "{result:?}");
}

fn part() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "..", ".", "", "outside", "secret", ".wh.a", ".wh..wh..opq", "layer"])
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(part(), 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_entries_reaches_outside(
        entries in prop::collection::vec((0u8..6, name(), name(), any::<bool>()), 1..12)
    ) {
        let target = Target::new();
        let outside = target.directory.path().to_str().unwrap().to_owned();
        // One bad entry ends an archive, so every entry is an archive of its own.
        for (kind, name, link, absolute) in entries {
            let link = if absolute { format!("{outside}/{link}") } else { format!("../{link}") };
            let archive = Archive::default();
            let archive = match kind {
                0 | 1 => archive.file(&name, b"evil"),
                2 => archive.dir(&name),
                3 => archive.symlink(&name, &link),
                4 => archive.hard_link(&name, &link),
                _ => archive.entry(EntryType::Fifo, &name, "", b"", |h| h.set_mode(0o777)),
            };
            let _ = target.apply(&archive);
        }
    }
}
