//! The context of a build: a directory as an archive, without what `.dockerignore` keeps out.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Directories nested deeper are left to the engine to refuse.
const DEEPEST: usize = 512;

/// What is sent.
#[derive(Debug)]
pub struct Context {
    root: Option<PathBuf>,
    ignored: Vec<String>,
    /// The Dockerfile's path in the archive.
    pub dockerfile: String,
    /// A Dockerfile that is not in the directory.
    outside: Option<Vec<u8>>,
}

impl Context {
    /// Opens a directory; `file` is the Dockerfile that the user names.
    ///
    /// # Errors
    /// When either is not there.
    pub fn open(root: &Path, file: Option<&str>) -> Result<Context, Error> {
        let missing = |path: &Path| {
            Error::plain(format!(
                "unable to prepare context: path {:?} not found",
                path.display().to_string()
            ))
        };
        if !root.is_dir() {
            return Err(missing(root));
        }
        let root = root.canonicalize().map_err(|_| missing(root))?;
        let mut outside = None;
        let dockerfile = match file {
            None => "Dockerfile".to_owned(),
            Some(file) => {
                let full = Path::new(file).canonicalize().or_else(|_| root.join(file).canonicalize());
                let full = full.map_err(|error| {
                    Error::plain(format!("unable to prepare context: unable to evaluate symlinks in Dockerfile path: {file}: {error}"))
                })?;
                match full.strip_prefix(&root) {
                    Ok(inside) => inside
                        .components()
                        .map(|part| part.as_os_str().to_string_lossy())
                        .collect::<Vec<_>>()
                        .join("/"),
                    Err(_) => {
                        let text =
                            fs::read(&full).map_err(|error| Error::plain(format!("read {file}: {error}")))?;
                        outside = Some(text);
                        ".dockerfile.outside".to_owned()
                    }
                }
            }
        };
        if outside.is_none() && !root.join(&dockerfile).exists() {
            return Err(Error::plain(format!(
                "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: no such file or directory",
                root.join(&dockerfile).display()
            )));
        }
        let ignored = fs::read_to_string(root.join(".dockerignore"))
            .map(|text| plain_patterns(&text))
            .unwrap_or_default();
        Ok(Context { root: Some(root), ignored, dockerfile, outside })
    }

    /// A Dockerfile and nothing else.
    pub fn of_dockerfile(text: Vec<u8>) -> Context {
        Context { root: None, ignored: Vec::new(), dockerfile: "Dockerfile".to_owned(), outside: Some(text) }
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When a file can't be read or the archive can't be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(out);
        archive.follow_symlinks(false);
        archive.sparse(false);
        if let Some(text) = &self.outside {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append_data(&mut header, &self.dockerfile, text.as_slice())?;
        }
        if let Some(root) = &self.root {
            self.directory(&mut archive, root, "", 0)?;
        }
        archive.finish()
    }

    fn directory<W: Write>(
        &self,
        archive: &mut tar::Builder<W>,
        root: &Path,
        below: &str,
        depth: usize,
    ) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(root.join(below))?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
            let kept = path == self.dockerfile || path == ".dockerignore";
            if !kept && self.ignored.contains(&path) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                archive.append_dir(&path, entry.path())?;
                if depth < DEEPEST {
                    self.directory(archive, root, &path, depth + 1)?;
                }
            } else if kind.is_file() || kind.is_symlink() {
                archive.append_path_with_name(entry.path(), &path)?;
            }
        }
        Ok(())
    }
}

/// The lines of an ignore file that name one path and nothing else, unless there are exceptions: the engine applies the
/// whole file, this saves sending what it surely does not want.
fn plain_patterns(text: &str) -> Vec<String> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines().any(|line| line.starts_with('!')) {
        return Vec::new();
    }
    let plain = lines().filter(|line| !line.contains(['*', '?', '[', '\\']));
    plain
        .map(|line| line.trim_matches('/').to_owned())
        .filter(|line| !line.is_empty() && !line.contains(".."))
        .collect()
}

/// Says whether bytes begin as an archive does, compressed or not.
pub fn is_archive(head: &[u8]) -> bool {
    let magics: [&[u8]; 4] =
        [&[0x1f, 0x8b], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z'], &[0x28, 0xb5, 0x2f, 0xfd]];
    head.get(257..262) == Some(b"ustar") || magics.iter().any(|magic| head.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(context: &Context) -> Vec<String> {
        let mut bytes = Vec::new();
        context.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn what_is_ignored_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("node_modules/x")).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::write(dir.path().join("src/a"), "a").unwrap();
        fs::write(dir.path().join("Dockerfile"), "FROM scratch").unwrap();
        fs::write(dir.path().join(".dockerignore"), "# big\nnode_modules/\nDockerfile\n").unwrap();
        let context = Context::open(dir.path(), None).unwrap();
        let sent: Vec<String> =
            names(&context).into_iter().map(|name| name.trim_end_matches('/').to_owned()).collect();
        assert_eq!(sent, [".dockerignore", "Dockerfile", "src", "src/a"]);
        assert!(Context::open(dir.path(), Some("nope")).is_err());
    }

    #[test]
    fn exceptions_leave_everything_to_the_engine() {
        assert_eq!(plain_patterns("a\nb/c/\n*.o\n#x\n"), ["a", "b/c"]);
        assert_eq!(plain_patterns("a\n!a/b\n"), [""; 0]);
    }
}
