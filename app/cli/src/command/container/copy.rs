//! `cp`: files between a container and this machine.

mod local;
mod path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{Method, Response};
use hyper::body::Incoming;
use serde::Deserialize;

use self::local::Links;
use self::path::{End, Node, follow, plan, split};
use crate::api::client::{empty, streamed};
use crate::api::{Client, Query};
use crate::command::{Context, name_in_path};
use crate::download;
use crate::error::Error;
use crate::format::units;
use crate::terminal::{self, warn};

/// Copy files/folders between a container and the local filesystem
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "skiff cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        skiff cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
)]
pub struct Copy {
    /// Archive mode (copy all uid/gid information)
    #[arg(short = 'a', long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Where from
    #[arg(value_name = "SRC_PATH", hide = true)]
    source: String,
    /// Where to
    #[arg(value_name = "DEST_PATH", hide = true)]
    target: String,
}

/// The engine's description of a path (`X-Docker-Container-Path-Stat`).
#[derive(Debug, Deserialize)]
struct PathStat {
    mode: u32,
    #[serde(rename = "linkTarget")]
    link_target: String,
}

impl PathStat {
    /// The bits of Go's `os.FileMode`.
    const DIRECTORY: u32 = 1 << 31;
    const LINK: u32 = 1 << 27;
    const OTHERS: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21;

    fn of(response: &Response<Incoming>) -> Result<Self, Error> {
        let header = response.headers().get("x-docker-container-path-stat");
        let decoded = header.and_then(|header| STANDARD.decode(header.as_bytes()).ok());
        decoded
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Error::plain("unable to decode container path stat header"))
    }
}

/// Carries `cp` out.
pub async fn run(context: &Context, args: &Copy) -> Result<(), Error> {
    for (word, what) in [(&args.source, "source"), (&args.target, "destination")] {
        if word.is_empty() {
            return Err(Error::plain(format!("{what} can not be empty")));
        }
    }
    match (End::parse(&args.source), End::parse(&args.target)) {
        (End::Container { name, path }, End::Local(target)) => {
            Transfer::new(context, args, name, path).await?.out_to(&target).await
        }
        (End::Container { name, path }, End::Stream) => {
            Transfer::new(context, args, name, path).await?.out_as_archive().await
        }
        (End::Local(source), End::Container { name, path }) => {
            Transfer::new(context, args, name, path).await?.in_from(&source).await
        }
        (End::Stream, End::Container { name, path }) => {
            Transfer::new(context, args, name, path).await?.in_as_archive().await
        }
        (End::Container { .. }, End::Container { .. }) => {
            Err(Error::plain("copying between containers is not supported"))
        }
        _ => Err(Error::plain("must specify at least one container source")),
    }
}

struct Transfer<'a> {
    client: Client,
    args: &'a Copy,
    /// The API's path of the container's archive.
    resource: String,
    container: String,
    /// The path in the container.
    path: String,
}

impl<'a> Transfer<'a> {
    async fn new(context: &Context, args: &'a Copy, container: String, path: String) -> Result<Self, Error> {
        let client = context.client().await?;
        let resource = format!("/containers/{}/archive", name_in_path(&container));
        Ok(Self { client, args, resource, container, path })
    }

    fn links(&self) -> Links {
        if self.args.follow_link { Links::Followed } else { Links::Copied }
    }

    async fn stat(&self, path: &str) -> Result<PathStat, Error> {
        let query = Query::new().with("path", path);
        match self.client.send(Method::HEAD, &self.resource, &query, empty(), &[]).await {
            Ok(response) => PathStat::of(&response),
            // An answer to HEAD has no words.
            Err(Error::Daemon { status: 404, .. }) => Err(Error::Daemon {
                status: 404,
                message: format!("Could not find the file {path} in container {}", self.container),
            }),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, path: &str) -> Result<Response<Incoming>, Error> {
        let query = Query::new().with("path", path);
        self.client.send(Method::GET, &self.resource, &query, empty(), &[]).await
    }

    /// The path to read from, and the name that it shall have where a link was followed.
    async fn source(&self) -> Result<(String, Option<String>), Error> {
        if self.links() == Links::Followed {
            let stat = self.stat(&self.path).await?;
            if stat.mode & PathStat::LINK != 0 {
                return Ok((follow(&self.path, &stat.link_target), Some(split(&self.path).1)));
            }
        }
        Ok((self.path.clone(), None))
    }

    async fn out_as_archive(&self) -> Result<(), Error> {
        let (path, _) = self.source().await?;
        download::save(self.read(&path).await?, None).await
    }

    async fn out_to(&self, target: &str) -> Result<(), Error> {
        let node = local::target(target)?;
        let (path, name) = self.source().await?;
        let response = self.read(&path).await?;
        let stat = PathStat::of(&response)?;
        let is_directory = stat.mode & PathStat::DIRECTORY != 0;
        let source = Node {
            path: name.clone().unwrap_or_else(|| path.clone()),
            exists: true,
            is_directory,
            name: None,
        };
        let mut plan = plan(&source, &node)?;
        // The archive has the name of what the link leads to.
        plan.rename.0 = split(&path).1;
        let read = local::unpacked(response.into_body(), plan.directory, plan.rename).await?;
        self.tell(read, target);
        Ok(())
    }

    /// What is at the target; a link there is followed.
    async fn target(&self) -> Result<Node, Error> {
        let mut node = Node { path: self.path.clone(), exists: false, is_directory: false, name: None };
        let mut stat = self.stat(&node.path).await;
        if let Ok(found) = &stat
            && found.mode & PathStat::LINK != 0
        {
            node.path = follow(&node.path, &found.link_target);
            stat = self.stat(&node.path).await;
        }
        // What is not there may be made; whatever else is wrong the copy itself is told.
        if let Ok(found) = stat {
            node.exists = true;
            node.is_directory = found.mode & PathStat::DIRECTORY != 0;
            if found.mode & PathStat::OTHERS != 0 {
                return Err(Error::plain(format!(
                    "destination \"{}:{}\" must be a directory or a regular file",
                    self.container, self.path
                )));
            }
        }
        Ok(node)
    }

    async fn write(&self, directory: &str, body: crate::api::client::Body) -> Result<(), Error> {
        let mut query = Query::new().with("path", directory).with("noOverwriteDirNonDir", "true");
        if self.args.archive {
            query = query.with("copyUIDGID", "true");
        }
        let headers = [(CONTENT_TYPE.as_str(), "application/x-tar")];
        self.client.send(Method::PUT, &self.resource, &query, body, &headers).await.map(drop)
    }

    async fn in_as_archive(&self) -> Result<(), Error> {
        let node = self.target().await?;
        if !node.is_directory {
            return Err(Error::plain(format!(
                "destination \"{}:{}\" must be a directory",
                self.container, self.path
            )));
        }
        self.write(&node.path, streamed(tokio::io::stdin())).await
    }

    async fn in_from(&self, source: &str) -> Result<(), Error> {
        let from = local::source(source, self.links())?;
        let to = self.target().await?;
        // The first entry is given its final name when it is packed.
        let plan = plan(&from, &to)?;
        let size = if self.quiet() { 0 } else { size(source) };
        self.write(&plan.directory, local::packed(&from, self.links(), plan.rename.1)).await?;
        self.tell(size, &format!("{}:{}", self.container, self.path));
        Ok(())
    }

    fn quiet(&self) -> bool {
        self.args.quiet || !terminal::stdout_is_terminal()
    }

    fn tell(&self, bytes: u64, target: &str) {
        if !self.quiet() {
            warn(format_args!(
                "Successfully copied {} to {target}",
                units::size(bytes.try_into().unwrap_or(i64::MAX))
            ));
        }
    }
}

/// Bytes of a file or of all files below a directory.
fn size(path: &str) -> u64 {
    let Ok(status) = std::fs::symlink_metadata(path) else { return 0 };
    if !status.is_dir() {
        return status.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path().to_string_lossy())).sum()
}
