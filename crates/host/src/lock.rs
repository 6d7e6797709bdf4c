//! One daemon per state directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Why the state directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another skiff daemon{} already runs here and serves {}", pid_text(*pid), socket.display())]
    Held {
        /// The other daemon, as far as it is known.
        pid: Option<u32>,
        /// Where it serves the Docker API.
        socket: PathBuf,
    },
    /// The lock file cannot be used.
    #[error("cannot {op} lock file {}", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// A held lock. The kernel gives it up with the process, so a stale one cannot exist; the file stays.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock and writes down who has it, and the socket it serves.
    pub(crate) fn take(path: &Path, socket: &Path) -> Result<Self, LockError> {
        let failed = |op| move |source| LockError::File { op, path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Unreadable while locked on some systems; then the pid stays unknown.
                let _ = file.read_to_string(&mut text);
                let mut lines = text.lines();
                let pid = lines.next().and_then(|line| line.trim().parse().ok());
                let socket = lines.next().map_or_else(|| socket.to_owned(), PathBuf::from);
                return Err(LockError::Held { pid, socket });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        file.set_len(0).map_err(failed("write"))?;
        file.rewind().map_err(failed("write"))?;
        write!(file, "{}\n{}\n", std::process::id(), socket.display()).map_err(failed("write"))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_daemon_is_told_who_has_the_lock_and_where() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // What a killed daemon leaves behind is no lock.
        std::fs::write(&path, "99999999\n/old/docker.sock\n and more than the next one writes").unwrap();
        let lock = Lock::take(&path, Path::new("/run/a.sock")).unwrap();
        let error = Lock::take(&path, Path::new("/run/b.sock")).unwrap_err();
        let pid = std::process::id();
        assert_eq!(
            error.to_string(),
            format!("another skiff daemon (pid {pid}) already runs here and serves /run/a.sock")
        );
        drop(lock);
        Lock::take(&path, Path::new("/run/b.sock")).unwrap();
    }
}
