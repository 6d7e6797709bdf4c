//! Where every file and socket of the host side lives.
//!
//! ```text
//! <state>/
//!   settings.json            what the user set
//!   lock                     held by the running daemon
//!   docker.sock control.sock Docker API and daemon control (mode 0600)
//!   desktop.sock             the running window (mode 0600)
//!   desktop.json             what the window remembers
//!   ssh_key                  key of this installation for `skiff machine ssh`
//!   names/ca.pem ca.key      authority of this installation for https://CONTAINER.localhost, made on demand
//!   log/daemon.log           the daemon's log
//!   log/console.log          the guest's console
//!   machine/disk.img         the guest's data disk (sparse)
//!   machine/generation       changes with every use of the disk
//!   machine/saved/           the guest while it sleeps
//!   machine/template/        the guest before it has seen the disk, for quicker starts
//!   machine/verdict.json     what the probe of the accelerator found
//!   machine/qmp.sock link.sock
//!   native/root/             root of `skiff-agent serve` with the native backend
//!   native/api.sock link.sock host.sock
//! ```
//!
//! Unix socket addresses hold about a hundred bytes. Where the state directory is too deep for that, the sockets (and
//! only they) move to `/tmp/skiff-<hash of the state directory>`, which [`Paths::prepare`] makes private and
//! [`Paths::check_socket_dir`] checks. The place depends on the state directory alone, so that a daemon and a client
//! with different environments meet.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::{Error, env};

/// Longest socket path in bytes that every platform takes (macOS has 104 with the final NUL).
pub const MAX_SOCKET_PATH: usize = 103;

/// Names every file below one state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
    guest_image: Option<PathBuf>,
}

impl Paths {
    /// Finds the state directory: `state_override`, else `SKIFF_STATE`, else the platform's usual place.
    ///
    /// # Errors
    /// [`Error::NoHome`] when the environment names no home directory.
    pub fn discover(state_override: Option<&Path>) -> Result<Paths, Error> {
        Paths::discover_with(state_override, |name| std::env::var_os(name))
    }

    /// Does the same as [`Paths::discover`] with an environment of the caller's.
    ///
    /// # Errors
    /// [`Error::NoHome`] when the environment names no home directory.
    pub fn discover_with(
        state_override: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Paths, Error> {
        let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = match state_override.map(Path::to_owned).or_else(|| path(env::SKIFF_STATE)) {
            Some(state) => state,
            None => default_state(&path)?,
        };
        let state = std::path::absolute(&state).map_err(|source| Error::File {
            action: "resolve",
            path: state,
            source,
        })?;
        Ok(Paths { state, guest_image: path(env::SKIFF_GUEST_IMAGE) })
    }

    /// Returns the state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Returns the settings file.
    pub fn settings(&self) -> PathBuf {
        self.state.join("settings.json")
    }

    /// Returns the file that the running daemon holds a lock on.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// Returns the private key of this installation for the guest's SSH server.
    pub fn ssh_key(&self) -> PathBuf {
        self.state.join("ssh_key")
    }

    /// Returns the certificate of the authority that signs for names below `localhost`.
    pub fn names_ca_cert(&self) -> PathBuf {
        self.state.join("names").join("ca.pem")
    }

    /// Returns its private key.
    pub fn names_ca_key(&self) -> PathBuf {
        self.state.join("names").join("ca.key")
    }

    /// Returns the directory of all logs.
    pub fn log_dir(&self) -> PathBuf {
        self.state.join("log")
    }

    /// Returns the daemon's log.
    pub fn daemon_log(&self) -> PathBuf {
        self.log_dir().join("daemon.log")
    }

    /// Returns the file that the guest's console is written to.
    pub fn console_log(&self) -> PathBuf {
        self.log_dir().join("console.log")
    }

    /// Returns the directory of the guest.
    pub fn machine_dir(&self) -> PathBuf {
        self.state.join("machine")
    }

    /// Returns the guest's data disk.
    pub fn disk(&self) -> PathBuf {
        self.machine_dir().join("disk.img")
    }

    /// Returns the directory of the guest that sleeps.
    pub fn saved_dir(&self) -> PathBuf {
        self.machine_dir().join("saved")
    }

    /// Returns the file with the published ports of the guest that sleeps.
    pub fn saved_ports(&self) -> PathBuf {
        self.saved_dir().join("ports.json")
    }

    /// Returns the directory of the guest that starts begin with.
    pub fn template_dir(&self) -> PathBuf {
        self.machine_dir().join("template")
    }

    /// Returns the file with the number that every use of the data disk changes.
    pub fn generation(&self) -> PathBuf {
        self.machine_dir().join("generation")
    }

    /// Returns the file that remembers what the probe of the accelerator found.
    pub fn verdict(&self) -> PathBuf {
        self.machine_dir().join("verdict.json")
    }

    /// Returns the directory of the registry that `registry serve` shows.
    pub fn registry(&self) -> PathBuf {
        self.state.join("registry")
    }

    /// Returns the root of the native engine.
    pub fn native_root(&self) -> PathBuf {
        self.state.join("native").join("root")
    }

    /// Returns the Docker socket.
    pub fn docker_socket(&self) -> PathBuf {
        self.socket(None, "docker.sock")
    }

    /// Returns the daemon's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.socket(None, "control.sock")
    }

    /// Returns the socket of the window that runs.
    pub fn desktop_socket(&self) -> PathBuf {
        self.socket(None, "desktop.sock")
    }

    /// Returns the file that the window keeps its place and the user's choices about it in.
    pub fn desktop(&self) -> PathBuf {
        self.state.join("desktop.json")
    }

    /// Returns QEMU's monitor socket.
    pub fn qmp_socket(&self) -> PathBuf {
        self.socket(Some("machine"), "qmp.sock")
    }

    /// Returns the socket behind the guest's link port.
    pub fn link_socket(&self) -> PathBuf {
        self.socket(Some("machine"), "link.sock")
    }

    /// Returns the native engine's Docker socket, which the daemon passes connections on to.
    pub fn native_api_socket(&self) -> PathBuf {
        self.socket(Some("native"), "api.sock")
    }

    /// Returns the socket that the native agent accepts link streams on.
    pub fn native_link_socket(&self) -> PathBuf {
        self.socket(Some("native"), "link.sock")
    }

    /// Returns the socket that the daemon accepts the native agent's link streams on.
    pub fn native_host_socket(&self) -> PathBuf {
        self.socket(Some("native"), "host.sock")
    }

    /// Returns the directories that may hold the guest image, best first; `exe` is the running programme.
    pub fn guest_image_candidates(&self, exe: &Path) -> Vec<PathBuf> {
        let mut candidates: Vec<PathBuf> = self.guest_image.iter().cloned().collect();
        if let Some(directory) = exe.parent() {
            candidates.push(directory.join("../share/skiff/guest"));
            candidates.push(directory.join("../guest"));
            candidates.push(directory.join("guest"));
        }
        candidates
    }

    /// Returns the directory that holds the sockets: the state directory unless that is too deep.
    pub fn socket_dir(&self) -> PathBuf {
        if self.sockets_fit() { self.state.clone() } else { self.short_dir() }
    }

    /// Makes every directory that is missing, private to the user.
    ///
    /// # Errors
    /// [`Error::File`] when a directory cannot be made, [`Error::SocketDirectory`] when the short socket directory
    /// exists and is somebody else's.
    pub fn prepare(&self) -> Result<(), Error> {
        for directory in [self.state.clone(), self.log_dir(), self.machine_dir(), self.native_root()] {
            create_private(&directory)?;
        }
        #[cfg(unix)]
        {
            let sockets = self.socket_dir();
            create_private(&sockets)?;
            self.check_socket_dir()?;
            create_private(&sockets.join("machine"))?;
            create_private(&sockets.join("native"))?;
        }
        Ok(())
    }

    /// Checks that the short socket directory, if it is in use and exists, belongs to this user alone.
    ///
    /// Clients call this before they connect: anybody can make a directory in `/tmp`.
    ///
    /// # Errors
    /// [`Error::SocketDirectory`] when it is not a private directory of this user.
    pub fn check_socket_dir(&self) -> Result<(), Error> {
        #[cfg(unix)]
        if !self.sockets_fit() {
            return check_private(&self.short_dir());
        }
        Ok(())
    }

    fn sockets_fit(&self) -> bool {
        // The longest of the names in this file.
        let longest = self.state.join("machine").join("control.sock");
        longest.as_os_str().len() <= MAX_SOCKET_PATH
    }

    fn short_dir(&self) -> PathBuf {
        PathBuf::from(format!("/tmp/skiff-{:016x}", self.state_hash()))
    }

    fn socket(&self, directory: Option<&str>, name: &str) -> PathBuf {
        if cfg!(windows) {
            let stem = name.trim_end_matches(".sock");
            let directory = directory.map(|directory| format!("{directory}-")).unwrap_or_default();
            return PathBuf::from(format!(r"\\.\pipe\skiff-{:016x}-{directory}{stem}", self.state_hash()));
        }
        let base = self.socket_dir();
        match directory {
            Some(directory) => base.join(directory).join(name),
            None => base.join(name),
        }
    }

    /// FNV-1a: the name must stay the same from release to release, which std's hasher does not promise.
    fn state_hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.state.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash
    }
}

fn default_state(path: &dyn Fn(&'static str) -> Option<PathBuf>) -> Result<PathBuf, Error> {
    let need = |variable| path(variable).ok_or(Error::NoHome { variable });
    if cfg!(windows) {
        Ok(need(env::LOCALAPPDATA)?.join("skiff"))
    } else if cfg!(target_os = "macos") {
        Ok(need(env::HOME)?.join("Library").join("Application Support").join("skiff"))
    } else {
        // The XDG specification has relative paths ignored.
        match path(env::XDG_STATE_HOME).filter(|base| base.is_absolute()) {
            Some(base) => Ok(base.join("skiff")),
            None => Ok(need(env::HOME)?.join(".local").join("state").join("skiff")),
        }
    }
}

fn create_private(directory: &Path) -> Result<(), Error> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|source| Error::File {
        action: "create",
        path: directory.to_owned(),
        source,
    })
}

#[cfg(unix)]
fn check_private(directory: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;

    let refuse = || Error::SocketDirectory { path: directory.to_owned() };
    let metadata = match std::fs::symlink_metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::File { action: "read", path: directory.to_owned(), source }),
    };
    if !metadata.is_dir() || metadata.mode() & 0o077 != 0 {
        return Err(refuse());
    }
    // std cannot tell our user id, but a file that we make has it.
    let ours = tempfile::tempfile_in(directory).and_then(|file| file.metadata()).map_err(|_| refuse())?;
    if ours.uid() == metadata.uid() { Ok(()) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)], state: Option<&str>) -> Result<Paths, Error> {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Paths::discover_with(state.map(Path::new), |name| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_state_directory_is_found_in_order() {
        let all = [("SKIFF_STATE", "/env"), ("XDG_STATE_HOME", "/xdg"), ("HOME", "/home/u")];
        assert_eq!(with(&all, Some("/given")).unwrap().state(), Path::new("/given"));
        assert_eq!(with(&all, None).unwrap().state(), Path::new("/env"));
        assert_eq!(with(&all[1..], None).unwrap().state(), Path::new("/xdg/skiff"));
        assert_eq!(with(&all[2..], None).unwrap().state(), Path::new("/home/u/.local/state/skiff"));
        let relative = [("XDG_STATE_HOME", "xdg"), ("HOME", "/home/u")];
        assert_eq!(with(&relative, None).unwrap().state(), Path::new("/home/u/.local/state/skiff"));
        assert!(matches!(with(&[("HOME", "")], None), Err(Error::NoHome { variable: "HOME" })));
    }

    #[cfg(unix)]
    #[test]
    fn every_socket_path_fits_however_deep_the_state_is() {
        for depth in [1, 60, 80, 85, 90, 100, 300] {
            let state = format!("/{}", "d".repeat(depth));
            let paths = with(&[], Some(&state)).unwrap();
            let sockets = [
                paths.docker_socket(),
                paths.control_socket(),
                paths.desktop_socket(),
                paths.qmp_socket(),
                paths.link_socket(),
                paths.native_api_socket(),
                paths.native_link_socket(),
                paths.native_host_socket(),
            ];
            for (index, socket) in sockets.iter().enumerate() {
                assert!(socket.as_os_str().len() <= MAX_SOCKET_PATH, "{socket:?}");
                assert!(!sockets[..index].contains(socket), "{socket:?} is used twice");
            }
            assert_eq!(sockets[0].starts_with(&state), depth <= 82, "{depth}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn two_deep_states_do_not_share_sockets() {
        let a = with(&[], Some(&format!("/{}a", "d".repeat(100)))).unwrap();
        let b = with(&[], Some(&format!("/{}b", "d".repeat(100)))).unwrap();
        assert_ne!(a.docker_socket(), b.docker_socket());
    }

    #[test]
    fn the_guest_image_is_looked_for_beside_the_programme() {
        let paths = with(&[("SKIFF_GUEST_IMAGE", "/image")], Some("/state")).unwrap();
        let found = paths.guest_image_candidates(Path::new("/opt/bin/skiff"));
        assert_eq!(found[0], Path::new("/image"));
        assert_eq!(found[1], Path::new("/opt/bin/../share/skiff/guest"));
        assert_eq!(found.len(), 4);
    }

    #[cfg(unix)]
    #[test]
    fn preparing_makes_private_directories() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let paths = with(&[], directory.path().join("state").to_str()).unwrap();
        paths.prepare().unwrap();
        paths.prepare().unwrap();
        for path in
            [paths.state(), &paths.log_dir(), &paths.native_root(), paths.qmp_socket().parent().unwrap()]
        {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700, "{path:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_directory_that_others_can_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        check_private(directory.path()).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        assert!(matches!(check_private(&link), Err(Error::SocketDirectory { .. })));
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(check_private(directory.path()), Err(Error::SocketDirectory { .. })));
    }
}
