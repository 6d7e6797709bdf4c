//! This machine's side of a copy: files into an archive and out of one.

use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::path::{self, Node};
use crate::api::client::Body;
use crate::error::Error;

/// Bytes of a piece, and pieces that wait for the other side.
const PIECE: usize = 128 << 10;
const WAITING: usize = 4;

/// The name that an archive's first entry has, and the one that it gets.
pub type Rename = (String, String);

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// What it leads to is copied.
    Followed,
    /// It is copied itself.
    Copied,
}

/// Looks at what is to be copied.
pub fn source(path: &str, links: Links) -> Result<Node, Error> {
    let follows = links == Links::Followed || path.ends_with('/') || path.ends_with("/.");
    let status =
        status(path, follows).map_err(|error| Error::plain(format!("lstat {path}: {}", words(&error))))?;
    if path.ends_with('/') && !status.is_dir() {
        return Err(Error::plain("not a directory"));
    }
    Ok(Node { path: path.to_owned(), exists: true, is_directory: status.is_dir(), name: None })
}

/// Looks at where a copy goes; links are followed, and its directory must be there.
pub fn target(path: &str) -> Result<Node, Error> {
    let node = |exists, is_directory| Node { path: path.to_owned(), exists, is_directory, name: None };
    match status(path, true) {
        Ok(status) => Ok(node(true, status.is_dir())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (directory, _) = path::split(path);
            match fs::metadata(&directory) {
                Ok(status) if status.is_dir() => Ok(node(false, false)),
                _ => Err(Error::plain(format!(
                    "invalid output path: directory \"{directory}\" does not exist"
                ))),
            }
        }
        Err(error) => Err(Error::plain(format!("stat {path}: {}", words(&error)))),
    }
}

fn status(path: &str, follow: bool) -> io::Result<Metadata> {
    if follow { fs::metadata(path) } else { fs::symlink_metadata(path) }
}

/// What the system says, without its number.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// An archive of a path as a request's body; its first entry is called `name`.
pub fn packed(node: &Node, links: Links, name: String) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    let (path, is_directory) = (node.path.clone(), node.is_directory);
    tokio::task::spawn_blocking(move || {
        let pack = || -> io::Result<()> {
            let out = io::BufWriter::with_capacity(PIECE, Sender(sender.clone()));
            let mut archive = tar::Builder::new(out);
            archive.follow_symlinks(false);
            let path = match links {
                Links::Followed => fs::canonicalize(&path)?,
                Links::Copied => Path::new(&path).to_owned(),
            };
            match is_directory {
                true => archive.append_dir_all(&name, &path)?,
                false => archive.append_path_with_name(&path, &name)?,
            }
            archive.into_inner()?.flush()
        };
        if let Err(error) = pack() {
            // The engine may have refused already; then its word is what is told.
            let _ = sender.blocking_send(Err(error));
        }
    });
    BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver).map(|piece| piece.map(Frame::data))))
}

struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks an answer's archive in a directory; returns how many bytes it had.
pub async fn unpacked(mut body: Incoming, directory: String, rename: Rename) -> Result<u64, Error> {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    let unpack = tokio::task::spawn_blocking(move || {
        let mut source = Receiver { pieces: receiver, present: Bytes::new(), read: 0 };
        unpack(&mut source, Path::new(&directory), &rename).map(|()| source.read)
    });
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => frame.into_data().map(Ok).unwrap_or(Ok(Bytes::new())),
            Err(error) => Err(io::Error::other(error)),
        };
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    unpack.await.map_err(|error| Error::plain(format!("unpacking the archive: {error}")))?
}

struct Receiver {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    present: Bytes,
    read: u64,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.present = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.present.len());
        self.present.copy_to_slice(&mut buffer[..length]);
        self.read += length as u64;
        Ok(length)
    }
}

fn unpack(source: &mut impl Read, directory: &Path, rename: &Rename) -> Result<(), Error> {
    let failed = |error: io::Error| Error::plain(format!("unpack the archive: {error}"));
    let mut archive = tar::Archive::new(&mut *source);
    // Directories last: a read-only one could not be filled.
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        entry.set_preserve_permissions(true);
        let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
        let name = path::renamed(&name, rename);
        let target = directory.join(&name);
        let is_directory = entry.header().entry_type().is_dir();
        if let Ok(present) = fs::symlink_metadata(&target)
            && present.is_dir() != is_directory
        {
            let (present, new) =
                if is_directory { ("non-directory", "directory") } else { ("directory", "non-directory") };
            return Err(Error::plain(format!(
                "cannot overwrite {present} {:?} with {new} {name:?}",
                target.display().to_string()
            )));
        }
        let header = entry.header().clone();
        // The library reads names from the header alone; long ones and renamed ones must get there.
        unpack_entry(&mut entry, directory, &name).map_err(failed)?;
        if is_directory {
            directories.push((target, header.mode().unwrap_or(0o755)));
        }
    }
    // What is behind the archive's end belongs to it as well.
    io::copy(source, &mut io::sink()).map_err(failed)?;
    for (target, mode) in directories.into_iter().rev() {
        set_mode(&target, mode).map_err(failed)?;
    }
    Ok(())
}

/// Puts one entry below `directory`, and nowhere else: no `..`, and no way through a link.
fn unpack_entry(entry: &mut tar::Entry<'_, impl Read>, directory: &Path, name: &str) -> io::Result<()> {
    let clean = path::clean(&format!("/{name}"));
    let clean = clean.trim_start_matches('/');
    let mut place = directory.to_owned();
    let mut parts = clean.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        if parts.peek().is_some() {
            match fs::symlink_metadata(&place) {
                Ok(status) if status.is_symlink() => {
                    return Err(io::Error::other(format!(
                        "{} is a link: nothing is unpacked through it",
                        place.display()
                    )));
                }
                Ok(_) => {}
                Err(_) => fs::create_dir(&place)?,
            }
        }
    }
    match entry.header().entry_type() {
        tar::EntryType::Directory => match fs::create_dir(&place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        },
        tar::EntryType::Link => {
            let target = entry.link_name()?.unwrap_or_default().to_string_lossy().into_owned();
            let target = path::clean(&format!("/{target}"));
            let _ = fs::remove_file(&place);
            fs::hard_link(directory.join(target.trim_start_matches('/')), &place)
        }
        _ => entry.unpack(&place).map(drop),
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if kind.is_dir() { 0o755 } else { 0o640 });
            match kind {
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    header.set_size(0);
                    builder.append_link(&mut header, name, content).unwrap();
                }
                _ => {
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, name, content.as_bytes()).unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    fn unpack_in(directory: &Path, bytes: &[u8], old: &str, new: &str) -> Result<(), String> {
        unpack(&mut &bytes[..], directory, &(old.to_owned(), new.to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn entries_get_their_new_name_and_links_stay_links() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let directory = tempfile::tempdir().unwrap();
        let bytes = archive(&[
            ("d/", Directory, ""),
            ("d/file", Regular, "content"),
            ("d/link", Symlink, "file"),
            ("d/same", Link, "new/file"),
        ]);
        unpack_in(directory.path(), &bytes, "d", "new").unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(
            (read("new/file"), read("new/link"), read("new/same")),
            ("content".into(), "content".into(), "content".into())
        );
        assert!(fs::symlink_metadata(directory.path().join("new/link")).unwrap().is_symlink());
    }

    #[test]
    fn nothing_is_unpacked_outside() {
        use tar::EntryType::{Regular, Symlink};
        let outside = tempfile::tempdir().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let target = outside.path().display().to_string();
        let bytes = archive(&[("link", Symlink, &target), ("link/evil", Regular, "x")]);
        assert!(unpack_in(directory.path(), &bytes, "a", "a").unwrap_err().contains("is a link"));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_does_not_take_a_directorys_place() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        let bytes = archive(&[("a", tar::EntryType::Regular, "x")]);
        assert!(
            unpack_in(directory.path(), &bytes, "a", "a")
                .unwrap_err()
                .starts_with("cannot overwrite directory")
        );
    }
}
