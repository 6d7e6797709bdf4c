//! `files`: the shared directories of this host.
//!
//! A stream asks for a path. The answer says which share holds it, once the guest has been told of every change that was
//! made before; a guest that has the share mounted already then drops the stream, another one mounts it over the stream.

use std::path::PathBuf;
#[cfg(target_os = "linux")]
use std::sync::Arc;

use skiff_link::{Incoming, ReplyCode};
use skiff_settings::{Paths, Settings};

/// What the guest may see of this host's files.
pub(crate) struct Files {
    #[cfg(target_os = "linux")]
    shares: skiff_fileshare::Shares,
    /// Where the user says what is shared, for messages.
    settings: PathBuf,
    /// The daemon's own Docker socket: the guest has the one behind it.
    docker_socket: PathBuf,
}

impl Files {
    #[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "nothing is shared there yet"))]
    pub(crate) fn new(settings: &Settings, paths: &Paths, docker_socket: PathBuf) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            shares: {
                use skiff_fileshare::Access;
                let home = std::env::home_dir();
                let shares = settings.files.shares_for(home.as_deref()).into_iter();
                skiff_fileshare::Shares::new(
                    shares.map(|(path, writable)| {
                        (path, if writable { Access::ReadWrite } else { Access::ReadOnly })
                    }),
                    Some(&paths.machine_dir()),
                )
            },
            settings: paths.settings(),
            docker_socket,
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) async fn serve(&self, incoming: Incoming, path: &str) {
        use serde_json::json;

        if self.is_docker_socket(path) {
            let _ = incoming.accept(Some(json!({ "docker_socket": true }))).await;
            return;
        }
        let located = match self.shares.locate(path) {
            Ok(located) => located,
            Err(skiff_fileshare::Denied::NotShared { .. }) => {
                return incoming.refuse(ReplyCode::PermissionDenied, self.denial(path)).await;
            }
            Err(denied) => {
                return incoming.refuse(ReplyCode::Invalid, format!("mounts denied: {denied}")).await;
            }
        };
        let share = located.share;
        if let Some(server) = share.mounted() {
            skiff_fileshare::settle(&server).await;
        }
        let (Some(root), Some(relative)) = (share.root().to_str(), located.relative.to_str()) else {
            let message = format!("mounts denied: the path {path} is not UTF-8");
            return incoming.refuse(ReplyCode::Invalid, message).await;
        };
        let read_only = share.access() == skiff_fileshare::Access::ReadOnly;
        let data = json!({ "share": root, "path": relative, "read_only": read_only });
        let Ok(mut stream) = incoming.accept(Some(data)).await else { return };
        // Most streams end here: the guest has what it wanted.
        let Ok(attached) = skiff_fileshare::attached(&mut stream).await else { return };
        let server = match self.shares.mount(&share, attached.mount) {
            Ok(server) => server,
            Err(errno) => {
                tracing::error!(path = root, error = errno.0, "shared directory can't be opened");
                return;
            }
        };
        tracing::info!(path = root, "directory is mounted in the guest");
        let served = Arc::downgrade(&server);
        let ended = skiff_fileshare::serve(server, attached.ghost_thread, stream).await;
        share.ended(&served);
        match ended {
            Ok(()) => tracing::info!(path = root, "directory is not mounted in the guest any more"),
            Err(error) => tracing::warn!(%error, path = root, "mount of a directory broke"),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) async fn serve(&self, incoming: Incoming, path: &str) {
        if self.is_docker_socket(path) {
            let _ = incoming.accept(Some(serde_json::json!({ "docker_socket": true }))).await;
            return;
        }
        incoming.refuse(ReplyCode::PermissionDenied, self.denial(path)).await;
    }

    /// Whether a path is the socket that clients of this daemon connect to.
    fn is_docker_socket(&self, path: &str) -> bool {
        let same = |path: &std::path::Path| std::fs::canonicalize(path).ok();
        let asked = std::path::Path::new(path);
        asked == self.docker_socket || same(asked).is_some_and(|path| Some(path) == same(&self.docker_socket))
    }

    /// Docker Desktop's words, and the way out.
    fn denial(&self, path: &str) -> String {
        format!(
            "mounts denied: \nThe path {path} is not shared from the host and is not known to Docker.\nYou can share it by \
             naming it in files.shares of {} and restarting the daemon.",
            self.settings.display()
        )
    }
}
