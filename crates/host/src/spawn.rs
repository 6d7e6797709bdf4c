//! Starting the daemon for a program that needs it.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use skiff_settings::Paths;

use crate::listen;

/// How long a daemon may take until it listens; it starts no guest for that.
const DEADLINE: Duration = Duration::from_secs(15);
/// How much of the log goes into the error.
const LOG_TAIL: u64 = 2 << 10;

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used.
    #[error("the daemon's state directory cannot be used")]
    State(#[from] skiff_settings::Error),
    /// The program cannot be started.
    #[error("cannot start the daemon ({})", program.display())]
    Start {
        /// Our own program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended, or did not listen in time.
    #[error("the daemon {what}; the end of its log {}:\n{tail}", log.display())]
    Failed {
        /// What it did.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The log's end.
        tail: String,
    },
}

/// Makes sure that a daemon runs for `paths`: uses the one there is, else starts this program as `daemon`.
///
/// # Errors
/// Fails when the daemon cannot be started or does not listen in time; the error holds the end of its log.
pub async fn ensure_daemon(paths: &Paths) -> Result<(), Error> {
    let program =
        std::env::current_exe().map_err(|source| Error::Start { program: "skiff".into(), source })?;
    ensure_daemon_of(paths, &program).await
}

/// Does the same with another program.
///
/// # Errors
/// As [`ensure_daemon`].
pub async fn ensure_daemon_of(paths: &Paths, program: &Path) -> Result<(), Error> {
    paths.check_socket_dir()?;
    let socket = paths.control_socket();
    if listen::connect(&socket).await.is_ok() {
        return Ok(());
    }
    paths.prepare()?;
    let log = paths.daemon_log();
    let failed = |source| Error::Start { program: program.to_owned(), source };
    let stderr = OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
    let log_start = stderr.metadata().map_err(failed)?.len();
    let mut command = Command::new(program);
    command.arg("daemon").arg("--state").arg(paths.state());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    detach(&mut command);
    let mut child = command.spawn().map_err(failed)?;

    let begun = Instant::now();
    loop {
        if listen::connect(&socket).await.is_ok() {
            return Ok(());
        }
        let ended = child.try_wait().map_err(failed)?;
        // It also ends when another daemon was quicker, which then listens in a moment.
        let grace = Duration::from_millis(500);
        if let Some(status) = ended
            && begun.elapsed() > grace
        {
            return Err(Error::Failed {
                what: format!("ended ({status})"),
                tail: tail(&log, log_start),
                log,
            });
        }
        if begun.elapsed() > DEADLINE {
            let what = format!("does not listen after {} s", DEADLINE.as_secs());
            return Err(Error::Failed { what, tail: tail(&log, log_start), log });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Out of our terminal's reach: its signals go to our process group only.
fn detach(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(windows)]
    {
        // CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP
        std::os::windows::process::CommandExt::creation_flags(command, 0x0800_0000 | 0x0000_0200);
    }
}

/// What the log has gained since `start`, but not more than the last lines.
fn tail(log: &Path, start: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let size = file.metadata()?.len();
        // Moved aside in the meantime, it starts anew.
        let start = if size < start { 0 } else { start };
        file.seek(SeekFrom::Start(start.max(size.saturating_sub(LOG_TAIL))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_default()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn daemon_that_ends_is_reported_with_the_end_of_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("skiff");
        std::fs::write(&program, "#!/bin/sh\necho \"no $1 today\" >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let paths = Paths::discover_with(Some(&dir.path().join("state")), |_| None).unwrap();
        std::fs::create_dir_all(paths.log_dir()).unwrap();
        std::fs::write(paths.daemon_log(), "news of yesterday\n").unwrap();
        let error = ensure_daemon_of(&paths, &program).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("no daemon today"), "{error}");
        let missing = ensure_daemon_of(&paths, &dir.path().join("none")).await.unwrap_err();
        assert!(matches!(missing, Error::Start { .. }));
    }

    #[tokio::test]
    async fn running_daemon_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::discover_with(Some(&dir.path().join("state")), |_| None).unwrap();
        paths.prepare().unwrap();
        let _listener = listen::Listener::bind(&paths.control_socket()).unwrap();
        ensure_daemon_of(&paths, Path::new("/nonexistent")).await.unwrap();
    }
}
