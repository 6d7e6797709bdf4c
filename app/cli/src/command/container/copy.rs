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
    args.run("container", async |name, wish| {
        let place = Place { kind: "container", name, container: name, root: "" };
        wish.carry_out(context.client().await?, &place).await
    })
    .await
}

/// What the engine has that files are copied from or to.
pub struct Place<'a> {
    /// What it is, in messages.
    pub kind: &'a str,
    /// Its name, in messages.
    pub name: &'a str,
    /// The container that the engine finds it in.
    pub container: &'a str,
    /// The path below which it is there.
    pub root: &'a str,
}

/// A copy whose words make sense.
pub struct Wish<'a> {
    args: &'a Copy,
    /// This machine's end.
    here: End,
    /// The path at the other end.
    path: String,
    /// Whether the files go to the other end.
    inwards: bool,
}

impl Copy {
    /// Reads the words, and has `work` carry out what they wish from or to the name of a `kind`.
    pub async fn run(
        &self,
        kind: &str,
        work: impl AsyncFnOnce(&str, Wish<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (word, what) in [(&self.source, "source"), (&self.target, "destination")] {
            if word.is_empty() {
                return Err(Error::plain(format!("{what} can not be empty")));
            }
        }
        let (here, name, path, inwards) = match (End::parse(&self.source), End::parse(&self.target)) {
            (End::Container { .. }, End::Container { .. }) => {
                return Err(Error::plain(format!("copying between {kind}s is not supported")));
            }
            (End::Container { name, path }, here) => (here, name, path, false),
            (here, End::Container { name, path }) => (here, name, path, true),
            _ => return Err(Error::plain(format!("must specify at least one {kind} source"))),
        };
        work(&name, Wish { args: self, here, path, inwards }).await
    }
}

impl Wish<'_> {
    /// Copies from or to `place`.
    pub async fn carry_out(self, client: Client, place: &Place<'_>) -> Result<(), Error> {
        let resource = format!("/containers/{}/archive", name_in_path(place.container));
        let separator = if place.root.is_empty() || self.path.starts_with('/') { "" } else { "/" };
        let path = format!("{}{separator}{}", place.root, self.path);
        let transfer = Transfer { client, args: self.args, resource, place, path };
        match (self.here, self.inwards) {
            (End::Stream, false) => transfer.out_as_archive().await,
            (End::Stream, true) => transfer.in_as_archive().await,
            (End::Local(target), false) => transfer.out_to(&target).await,
            (End::Local(source), true) => transfer.in_from(&source).await,
            (End::Container { .. }, _) => Err(Error::plain("copying between containers is not supported")),
        }
    }
}

struct Transfer<'a> {
    client: Client,
    args: &'a Copy,
    /// The API's path of the container's archive.
    resource: String,
    place: &'a Place<'a>,
    /// The path in the container.
    path: String,
}

impl Transfer<'_> {
    /// A path as the user knows it.
    fn shown<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.place.root).unwrap_or(path)
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
                message: format!(
                    "Could not find the file {} in {} {}",
                    self.shown(path),
                    self.place.kind,
                    self.place.name
                ),
            }),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, path: &str) -> Result<Response<Incoming>, Error> {
        let query = Query::new().with("path", path);
        match self.client.send(Method::GET, &self.resource, &query, empty(), &[]).await {
            // The engine knows the place by another name.
            Err(Error::Daemon { status: 404, .. }) if !self.place.root.is_empty() => {
                self.stat(path).await?;
                Err(Error::plain(format!("{} is gone", self.shown(path))))
            }
            other => other,
        }
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
                    self.place.name,
                    self.shown(&self.path)
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
                self.place.name,
                self.shown(&self.path)
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
        self.tell(size, &format!("{}:{}", self.place.name, self.shown(&self.path)));
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
