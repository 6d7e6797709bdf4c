//! `build`: an image from a Dockerfile and a directory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use clap::Args;
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::json;
use tokio_util::io::SyncIoBridge;

use super::context::{self, Context as Directory};
use crate::api::Query;
use crate::api::client::{Body, empty, streamed};
use crate::command::Context;
use crate::credentials;
use crate::error::Error;
use crate::options::bytes;
use crate::options::trust::ContentTrust;
use crate::progress::Display;
use crate::terminal::{self, print_line};

/// What a context from standard input begins with when it is an archive.
const PIPE: usize = 256 << 10;

/// Build an image from a Dockerfile
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff build [OPTIONS] PATH | URL | -")]
pub struct Build {
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long, value_name = "list")]
    add_host: Vec<String>,
    /// Set build-time variables
    #[arg(long, value_name = "list")]
    build_arg: Vec<String>,
    /// Images to consider as cache sources
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    cache_from: Vec<String>,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "int")]
    cpu_period: Option<i64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "int")]
    cpu_quota: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long, value_name = "int")]
    cpu_shares: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_cpus: Option<String>,
    #[command(flatten)]
    trust: ContentTrust,
    /// Name of the Dockerfile (Default is "PATH/Dockerfile")
    #[arg(short = 'f', long, value_name = "string")]
    file: Option<String>,
    /// Write the image ID to the file
    #[arg(long, value_name = "string")]
    iidfile: Option<PathBuf>,
    /// Set metadata for an image
    #[arg(long, value_name = "list")]
    label: Vec<String>,
    /// Memory limit
    #[arg(short = 'm', long, value_name = "bytes", value_parser = bytes::parse)]
    memory: Option<i64>,
    /// Set the networking mode for the RUN instructions during build
    #[arg(long, value_name = "string")]
    network: Option<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pull: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Size of "/dev/shm"
    #[arg(long, value_name = "bytes", value_parser = bytes::parse)]
    shm_size: Option<i64>,
    /// Name and optionally a tag in the "name:tag" format
    #[arg(short = 't', long, value_name = "list")]
    tag: Vec<String>,
    /// Set the target build stage to build
    #[arg(long, value_name = "string")]
    target: Option<String>,
    /// Context
    #[arg(value_name = "PATH", hide = true)]
    context: String,
}

/// Carries `build` out.
pub async fn run(context: &Context, args: &Build) -> Result<(), Error> {
    args.trust.check()?;
    let remote = ["http://", "https://", "git://", "git@", "github.com/"];
    let is_remote = remote.iter().any(|start| args.context.starts_with(start));
    let (body, dockerfile, from) = match args.context.as_str() {
        "-" => from_stdin(args).await?,
        url if is_remote => (empty(), args.file.clone(), Some(url.to_owned())),
        path => {
            let directory = Directory::open(Path::new(path), args.file.as_deref())?;
            let name = directory.dockerfile.clone();
            (packed(directory), Some(name), None)
        }
    };
    let mut query = Query::new();
    for tag in &args.tag {
        query = query.with("t", tag);
    }
    let flag = |set: bool| set.then_some(1);
    query = query
        .maybe("dockerfile", dockerfile.as_deref())
        .maybe("remote", from.as_deref())
        .maybe("q", flag(args.quiet))
        .maybe("nocache", flag(args.no_cache))
        .maybe("pull", flag(args.pull))
        .with("rm", 1)
        .with("buildargs", json!(variables(&args.build_arg)).to_string())
        .with("labels", json!(pairs(&args.label)).to_string())
        .maybe("cachefrom", (!args.cache_from.is_empty()).then(|| json!(args.cache_from).to_string()))
        .maybe("extrahosts", (!args.add_host.is_empty()).then(|| json!(args.add_host).to_string()))
        .maybe("target", args.target.as_deref())
        .maybe("networkmode", args.network.as_deref())
        .maybe("platform", args.platform.as_deref())
        .maybe("shmsize", args.shm_size)
        .maybe("memory", args.memory)
        .maybe("cpushares", args.cpu_shares)
        .maybe("cpuperiod", args.cpu_period)
        .maybe("cpuquota", args.cpu_quota)
        .maybe("cpusetcpus", args.cpuset_cpus.as_deref())
        .with("version", 1);
    let logins = credentials::all()?;
    let logins = URL_SAFE.encode(serde_json::to_vec(&logins).expect("credentials are plain data"));
    let client = context.client().await?;
    let headers = [(CONTENT_TYPE.as_str(), "application/x-tar"), ("x-registry-config", logins.as_str())];
    let response = client.send(Method::POST, "/build", &query, body, &headers).await?;
    let messages = client.documents(response);
    let width = terminal::stdout_is_terminal().then(|| terminal::size().map_or(80, |(columns, _)| columns));
    let results = match args.quiet {
        true => Display::new(io::sink(), None).show(messages).await?,
        false => Display::new(io::stdout(), width).show(messages).await?,
    };
    let id = results.iter().map(|result| result.text("ID")).find(|id| !id.is_empty()).unwrap_or_default();
    if args.quiet {
        print_line(id);
    }
    if let Some(path) = &args.iidfile {
        tokio::fs::write(path, id)
            .await
            .map_err(|error| Error::plain(format!("write {}: {error}", path.display())))?;
    }
    Ok(())
}

/// Standard input is an archive, or a Dockerfile.
async fn from_stdin(args: &Build) -> Result<(Body, Option<String>, Option<String>), Error> {
    use tokio::io::AsyncReadExt as _;
    if terminal::stdin_is_terminal() {
        return Err(Error::plain("the context is to come from standard input, which is a terminal"));
    }
    let mut head = vec![0; 512];
    let mut stdin = tokio::io::stdin();
    let mut got = 0;
    while got < head.len() {
        match stdin
            .read(&mut head[got..])
            .await
            .map_err(|error| Error::plain(format!("read stdin: {error}")))?
        {
            0 => break,
            n => got += n,
        }
    }
    head.truncate(got);
    if context::is_archive(&head) {
        let rest = io::Cursor::new(head).chain(stdin);
        return Ok((streamed(rest), args.file.clone(), None));
    }
    let mut text = head;
    stdin.read_to_end(&mut text).await.map_err(|error| Error::plain(format!("read stdin: {error}")))?;
    Ok((packed(Directory::of_dockerfile(text)), Some("Dockerfile".to_owned()), None))
}

/// Packs a context while it is sent.
fn packed(directory: Directory) -> Body {
    let (reader, writer) = tokio::io::duplex(PIPE);
    tokio::task::spawn_blocking(move || {
        let mut writer = SyncIoBridge::new(writer);
        // An archive that is cut off is refused by the engine: the error is told here, the rest there.
        if let Err(error) = directory.write(&mut writer) {
            terminal::warn(format!("error sending the context: {error}"));
        } else {
            let _ = writer.shutdown();
        }
    });
    streamed(reader)
}

/// `NAME=value`, or `NAME` for what the environment has.
fn variables(arguments: &[String]) -> BTreeMap<String, Option<String>> {
    let variable = |argument: &String| match argument.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (argument.clone(), std::env::var(argument).ok()),
    };
    arguments.iter().map(variable).collect()
}

fn pairs(arguments: &[String]) -> BTreeMap<String, String> {
    let pair = |argument: &String| {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        (name.to_owned(), value.to_owned())
    };
    arguments.iter().map(pair).collect()
}
