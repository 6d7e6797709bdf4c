//! The daemon's log: one file of bounded size, and one older beside it.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use skiff_settings::env;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Bytes of the log file before it is moved aside.
const LIMIT: u64 = 8 << 20;

/// Sends `tracing` to the log at `path`, and to the terminal if there is one.
///
/// A program that has set up its own logging keeps it.
pub(crate) fn init(path: &Path) -> io::Result<()> {
    let log = Log {
        file: Arc::new(Mutex::new(RotatingFile::open(path, LIMIT)?)),
        terminal: io::stderr().is_terminal(),
    };
    let filter = EnvFilter::try_from_env(env::SKIFF_LOG).unwrap_or_else(|_| EnvFilter::new("info"));
    // An error means that logging is set up already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log).try_init();
    Ok(())
}

#[derive(Clone)]
struct Log {
    file: Arc<Mutex<RotatingFile>>,
    terminal: bool,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.terminal {
            // A closed terminal must not keep the line from the file.
            let _ = io::stderr().write_all(line);
        }
        self.file.lock().unwrap_or_else(PoisonError::into_inner).append(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is moved aside as `.1` when it reaches its limit.
struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl RotatingFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            *self = Self::open(&self.path, self.limit)?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_cut_at_whole_lines_and_never_grows_past_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        std::fs::write(&path, "from an earlier run\n").unwrap();
        let mut log = RotatingFile::open(&path, 64).unwrap();
        for n in 0..20 {
            log.append(format!("line {n}\n").as_bytes()).unwrap();
        }
        let new = std::fs::read_to_string(&path).unwrap();
        let old = std::fs::read_to_string(dir.path().join("daemon.log.1")).unwrap();
        assert!(new.len() <= 64 && old.len() <= 64);
        assert!(new.ends_with("line 19\n") && new.starts_with("line ") && old.ends_with('\n'));
    }
}
