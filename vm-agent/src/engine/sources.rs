//! Where the paths are that clients name as sources of bind mounts: on the host, except for what only the guest has.

use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use skiff_engine::{Source, SourceError, Sources};
use skiff_link::{Args, OpenError, StreamHeader};

use super::host::Host;

/// Where clients look for the Docker socket, wherever it is.
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];
/// What is the guest's own: system directories in which a container looks for the kernel it runs on. `/data` holds the
/// volumes, whose paths clients learn from `docker volume inspect`.
const GUEST: [&str; 6] = ["/proc", "/sys", "/dev", "/lib/modules", "/run", "/data"];

/// The host's shared directories.
#[derive(Debug)]
pub struct HostSources {
    host: Host,
    docker_socket: PathBuf,
}

impl HostSources {
    /// Asks `host`; binds of the Docker socket get the engine's own.
    pub fn new(host: Host, docker_socket: PathBuf) -> Self {
        Self { host, docker_socket }
    }
}

/// Whether a path is of the guest itself.
fn is_of_guest(path: &str) -> bool {
    let path = Path::new(path);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    plain && (path == Path::new("/") || GUEST.iter().any(|known| path.starts_with(known)))
}

#[async_trait]
impl Sources for HostSources {
    async fn locate(&self, path: &str) -> Result<Source, SourceError> {
        if DOCKER_SOCKETS.contains(&path) {
            return Ok(Source::Here(self.docker_socket.clone()));
        }
        if is_of_guest(path) {
            return Ok(Source::Here(PathBuf::from(path)));
        }
        let header = StreamHeader::new(Args::Files { share: path.to_owned() });
        let reply = match self.host.link().open_with_data(&header).await {
            Ok((_, reply)) => reply,
            Err(OpenError::Refused { message, .. }) => return Err(SourceError { message }),
            Err(error) => return Err(SourceError { message: format!("mounts denied: {error}") }),
        };
        let data = reply.data.unwrap_or_default();
        if data["docker_socket"] == true {
            return Ok(Source::Here(self.docker_socket.clone()));
        }
        match (data["root"].as_str(), data["path"].as_str()) {
            (Some(root), Some(path)) => Ok(Source::Shared { root: root.into(), relative: path.into() }),
            _ => Err(SourceError { message: format!("mounts denied: the host does not know {path}") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_has_its_system_and_its_volumes_and_nothing_else() {
        for path in ["/", "/proc", "/sys/fs/cgroup", "/lib/modules", "/data/volumes/x/_data", "/run/skiff"] {
            assert!(is_of_guest(path), "{path}");
        }
        for path in ["/home/u", "/database", "/data/../home/u", "/lib", "/etc", "/procedures", ""] {
            assert!(!is_of_guest(path), "{path}");
        }
    }
}
