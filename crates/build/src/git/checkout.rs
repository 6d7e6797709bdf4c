//! A commit's files in a directory.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};

use super::object::{self, Kind, damaged};
use super::{Id, Pack};
use crate::error::{Error, Result};

/// How many files a commit may have, and how deep.
const MOST_FILES: usize = if cfg!(test) { 2000 } else { 4 << 20 };
const DEEPEST: usize = 1024;
/// The longest target of a link.
const LONGEST_LINK: usize = 4096;

/// Another repository at a path, at a commit.
pub(crate) type Linked = (String, Id);

/// Writes a commit's files into an empty directory; returns the places of other repositories. Blocks. `keep` leaves a `.git`
/// of that commit alone, with the address that it is from.
///
/// # Errors
/// Damage, names that lead elsewhere, a full disk.
pub(crate) fn check_out(
    pack: &mut Pack,
    commit: Id,
    into: &Path,
    keep: Option<&Kept<'_>>,
) -> Result<Vec<Linked>> {
    let (mut commit, mut depth) = (commit, 0);
    let tree = loop {
        let (kind, bytes) = pack.read(commit)?;
        let missing = || damaged(&format!("object {commit} leads to no files"));
        match kind {
            Kind::Commit => break object::header(&bytes, "tree").ok_or_else(missing)?,
            Kind::Tag if depth < 8 => commit = object::header(&bytes, "object").ok_or_else(missing)?,
            _ => return Err(missing()),
        }
        depth += 1;
    };
    let (mut files, mut linked) = (Vec::new(), Vec::new());
    let mut left = vec![(tree, String::new(), 0)];
    let mut made = 0;
    while let Some((tree, prefix, depth)) = left.pop() {
        if depth > DEEPEST {
            return Err(damaged("its directories are too deep"));
        }
        for entry in object::tree(&pack.read_as(tree, Kind::Tree)?)? {
            // Directories count as well: few trees that name each other many times are a bomb.
            made += 1;
            if made > MOST_FILES {
                return Err(damaged("it has too many files"));
            }
            let path = format!("{prefix}{}", entry.name);
            // Every directory on the way was made here: no link leads out.
            let at = into.join(&path);
            let failed = |op| {
                let at = at.clone();
                move |error| Error::io(op, at, error)
            };
            match entry.mode & 0o170_000 {
                0o040_000 => {
                    fs::create_dir(&at).map_err(failed("make"))?;
                    left.push((entry.id, format!("{path}/"), depth + 1));
                    continue;
                }
                0o100_000 => {
                    let mode = if entry.mode & 0o111 == 0 { 0o644 } else { 0o755 };
                    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&at);
                    let mut file = BufWriter::new(file.map_err(failed("make"))?);
                    pack.write_blob(entry.id, &mut file)?;
                    file.flush().map_err(failed("write"))?;
                }
                0o120_000 => {
                    let target = pack.read_as(entry.id, Kind::Blob)?;
                    if target.len() > LONGEST_LINK {
                        return Err(damaged("a link is too long"));
                    }
                    let target = std::ffi::OsStr::from_bytes(&target);
                    std::os::unix::fs::symlink(target, &at).map_err(failed("link"))?;
                }
                0o160_000 => {
                    fs::create_dir(&at).map_err(failed("make"))?;
                    linked.push((path.clone(), entry.id));
                }
                _ => return Err(damaged(&format!("{path} is nothing that there is"))),
            }
            files.push((path, entry.mode, entry.id));
        }
    }
    if let Some(kept) = keep {
        kept.write(pack, commit, files, &into.join(".git"))?;
    }
    Ok(linked)
}

/// What is to be kept of a repository.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    /// The pack's file.
    pub pack: &'a Path,
    /// Where it is from.
    pub url: &'a str,
}

impl Kept<'_> {
    fn write(
        &self,
        pack: &mut Pack,
        commit: Id,
        mut files: Vec<(String, u32, Id)>,
        into: &Path,
    ) -> Result<()> {
        let make = |path: PathBuf| fs::create_dir_all(&path).map_err(|error| Error::io("make", path, error));
        let write = |name: &str, bytes: &[u8]| {
            let path = into.join(name);
            fs::write(&path, bytes).map_err(|error| Error::io("write", path, error))
        };
        make(into.join("objects/pack"))?;
        make(into.join("refs/heads"))?;
        let stem = into.join("objects/pack").join(format!("pack-{commit}"));
        let packed = stem.with_extension("pack");
        fs::copy(self.pack, &packed).map_err(|error| Error::io("copy", &packed, error))?;
        let index = stem.with_extension("idx");
        pack.write_index(File::create(&index).map_err(|error| Error::io("make", &index, error))?)?;
        write("HEAD", format!("{commit}\n").as_bytes())?;
        write("shallow", format!("{commit}\n").as_bytes())?;
        let config = format!(
            "[core]\n\trepositoryformatversion = 0\n\tbare = false\n[remote \"origin\"]\n\turl = {}\n\
             \tfetch = +refs/heads/*:refs/remotes/origin/*\n",
            self.url
        );
        write("config", config.as_bytes())?;
        files.sort_unstable();
        let mut bytes =
            [&b"DIRC\0\0\0\x02"[..], &u32::try_from(files.len()).unwrap_or(0).to_be_bytes()].concat();
        for (path, mode, id) in &files {
            let before = bytes.len();
            // Without times and sizes git looks at the files themselves.
            bytes.extend([0; 24]);
            bytes.extend(mode.to_be_bytes());
            bytes.extend([0; 12]);
            bytes.extend(id.0);
            bytes.extend(u16::try_from(path.len().min(0xfff)).unwrap_or(0xfff).to_be_bytes());
            bytes.extend(path.as_bytes());
            bytes.push(0);
            while (bytes.len() - before) % 8 != 0 {
                bytes.push(0);
            }
        }
        let sum = Sha1::digest(&bytes);
        bytes.extend(sum);
        write("index", &bytes)
    }
}

/// Reads `.gitmodules`: paths with the addresses of the repositories that belong there.
pub(crate) fn modules(text: &str) -> Vec<(String, String)> {
    let (mut found, mut path, mut url) = (Vec::new(), None, None);
    for line in text.lines().map(str::trim).chain(["["]) {
        if line.starts_with('[') {
            if let (Some(path), Some(url)) = (path.take(), url.take()) {
                found.push((path, url));
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"').to_owned();
            match key.trim() {
                "path" => path = Some(value),
                "url" => url = Some(value),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(at: &Path, words: &[&str]) -> Vec<u8> {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]);
        let done = command.args(words).current_dir(at).output().unwrap();
        assert!(done.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    #[test]
    fn a_pack_of_gits_becomes_the_files_it_was_made_of_and_git_finds_nothing_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (repository, files, packed) =
            (dir.path().join("repository"), dir.path().join("files"), dir.path().join("pack"));
        fs::create_dir_all(repository.join("deep/er")).unwrap();
        fs::create_dir(&files).unwrap();
        git(&repository, &["init", "--quiet"]);
        let long: String = (0..4000).map(|n| format!("line {n}\n")).collect();
        fs::write(repository.join("deep/er/long"), &long).unwrap();
        // So alike that git tells them by what differs.
        fs::write(repository.join("longer"), format!("{long}one more\n")).unwrap();
        fs::write(repository.join("empty"), "").unwrap();
        fs::write(repository.join("run"), "#!/bin/sh\n").unwrap();
        let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(repository.join("run"), runs).unwrap();
        std::os::unix::fs::symlink("../etc/passwd", repository.join("link")).unwrap();
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "--quiet", "-m", "one"]);
        let commit = String::from_utf8(git(&repository, &["rev-parse", "HEAD"])).unwrap();
        let commit = Id::parse(commit.trim()).unwrap();
        git(&repository, &["repack", "-q", "-a", "-d"]);
        let found = fs::read_dir(repository.join(".git/objects/pack")).unwrap().flatten();
        let found =
            found.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "pack"));
        fs::copy(found.unwrap(), &packed).unwrap();

        let mut pack = Pack::open(&packed).unwrap();
        let kept = Kept { pack: &packed, url: "https://example.com/a.git" };
        assert!(check_out(&mut pack, commit, &files, Some(&kept)).unwrap().is_empty());
        assert_eq!(fs::read_to_string(files.join("deep/er/long")).unwrap(), long);
        assert_eq!(fs::read_to_string(files.join("longer")).unwrap(), format!("{long}one more\n"));
        assert_eq!(fs::read_link(files.join("link")).unwrap(), Path::new("../etc/passwd"));
        assert_eq!(git(&files, &["status", "--porcelain"]), b"");
        git(&files, &["fsck", "--strict"]);
        assert_eq!(git(&files, &["log", "--format=%s"]), b"one\n");

        // A byte that is another one is found out, wherever it is.
        let bytes = fs::read(&packed).unwrap();
        for at in (0..bytes.len() - 20).step_by(97) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            fs::write(&packed, &wrong).unwrap();
            let into = dir.path().join(format!("wrong{at}"));
            fs::create_dir(&into).unwrap();
            let made = Pack::open(&packed).and_then(|mut pack| check_out(&mut pack, commit, &into, None));
            assert!(made.is_err(), "byte {at} of {} does not matter", bytes.len());
        }
    }

    #[test]
    fn a_few_trees_that_name_each_other_many_times_are_no_disk_full_of_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (repository, files) = (dir.path().join("repository"), dir.path().join("files"));
        fs::create_dir(&repository).unwrap();
        fs::create_dir(&files).unwrap();
        git(&repository, &["init", "--quiet"]);
        let script = "t=$(git mktree </dev/null); for level in 1 2 3 4 5 6 7 8; do \
             t=$(for n in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\\t%s\\n' $t $n; done | git mktree); done; \
             git update-ref HEAD $(git -c user.name=n -c user.email=e commit-tree -m bomb $t); git repack -q -a -d; \
             git rev-parse HEAD";
        let done =
            std::process::Command::new("sh").args(["-ec", script]).current_dir(&repository).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let commit = Id::parse(String::from_utf8(done.stdout).unwrap().trim()).unwrap();
        let found = fs::read_dir(repository.join(".git/objects/pack")).unwrap().flatten();
        let packed =
            found.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "pack"));
        let mut pack = Pack::open(&packed.unwrap()).unwrap();
        let error = check_out(&mut pack, commit, &files, None).unwrap_err().to_string();
        assert!(error.contains("too many files"), "{error}");
    }

    #[test]
    fn modules_are_listed_by_their_paths() {
        let text = "[submodule \"a\"]\n\tpath = lib/a\n\turl = ../a.git\n[submodule \"b\"]\n\turl = https://h/b\n\tpath = b\n[other]\n\tpath = c\n";
        let expected =
            [("lib/a", "../a.git"), ("b", "https://h/b")].map(|(p, u)| (p.to_owned(), u.to_owned()));
        assert_eq!(modules(text), expected);
    }
}
