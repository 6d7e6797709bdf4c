//! `manifest`: lists of manifests, made by hand and pushed.
//!
//! The engine is asked for what registries have: it is the one that reaches them, with their certificates and mirrors.

mod indent;
mod inspect;
mod store;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::json;
use serde_json::value::RawValue;

use self::store::{Lists, Member};
use super::image::pull::full_name;
use super::{Context, each, name_in_path};
use crate::api::client::{empty, json as body};
use crate::api::{Client, Query};
use crate::credentials;
use crate::error::Error;
use crate::options::reference;
use crate::terminal::print_line;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What Docker lets an entry of a list be for.
const PLATFORMS: &[&str] = &[
    "darwin/386",
    "darwin/amd64",
    "darwin/arm",
    "darwin/arm64",
    "dragonfly/amd64",
    "freebsd/386",
    "freebsd/amd64",
    "freebsd/arm",
    "linux/386",
    "linux/amd64",
    "linux/arm",
    "linux/arm64",
    "linux/loong64",
    "linux/mips64",
    "linux/mips64le",
    "linux/ppc64",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
    "netbsd/386",
    "netbsd/amd64",
    "netbsd/arm",
    "openbsd/386",
    "openbsd/amd64",
    "openbsd/arm",
    "plan9/386",
    "plan9/amd64",
    "solaris/amd64",
    "windows/386",
    "windows/amd64",
    "windows/arm",
    "windows/arm64",
];

/// The commands below `manifest`.
#[derive(Debug, Clone, Subcommand)]
pub enum Manifest {
    Annotate(Annotate),
    Create(Create),
    Inspect(inspect::Inspect),
    Push(Push),
    Rm(Remove),
}

/// Add additional information to a local image manifest
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff manifest annotate [OPTIONS] MANIFEST_LIST MANIFEST")]
pub struct Annotate {
    /// Set architecture
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    arch: String,
    /// Set operating system
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    os: String,
    /// Set operating system feature
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Set operating system version
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    os_version: String,
    /// Set architecture variant
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    variant: String,
    /// List
    #[arg(value_name = "MANIFEST_LIST", hide = true)]
    list: String,
    /// Member
    #[arg(value_name = "MANIFEST", hide = true)]
    manifest: String,
}

/// Create a local manifest list for annotating and pushing to a registry
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff manifest create MANIFEST_LIST MANIFEST [MANIFEST...]")]
pub struct Create {
    /// Amend an existing manifest list
    #[arg(short = 'a', long)]
    amend: bool,
    /// Allow communication with an insecure registry (the engine's settings name those)
    #[arg(long)]
    insecure: bool,
    /// List
    #[arg(value_name = "MANIFEST_LIST", hide = true)]
    list: String,
    /// Members
    #[arg(required = true, value_name = "MANIFEST", hide = true)]
    manifests: Vec<String>,
}

/// Push a manifest list to a repository
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff manifest push [OPTIONS] MANIFEST_LIST")]
pub struct Push {
    /// Allow push to an insecure registry (the engine's settings name those)
    #[arg(long)]
    insecure: bool,
    /// Remove the local manifest list after push
    #[arg(short = 'p', long)]
    purge: bool,
    /// List
    #[arg(value_name = "MANIFEST_LIST", hide = true)]
    list: String,
}

/// Delete one or more manifest lists from local storage
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff manifest rm MANIFEST_LIST [MANIFEST_LIST...]")]
pub struct Remove {
    /// Lists
    #[arg(required = true, value_name = "MANIFEST_LIST", hide = true)]
    lists: Vec<String>,
}

impl Manifest {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Manifest::Annotate(args) => annotate(args),
            Manifest::Create(args) => create(context, args).await,
            Manifest::Inspect(args) => inspect::run(context, args).await,
            Manifest::Push(args) => push(context, args).await,
            Manifest::Rm(args) => remove(args).await,
        }
    }
}

/// What a registry has under a name.
enum Found {
    Image(Box<Member>),
    List(Vec<u8>),
}

async fn create(context: &Context, args: &Create) -> Result<(), Error> {
    let (lists, list) = (Lists::open()?, full_name(&args.list));
    let repository = repository(&list);
    if repository.chars().any(char::is_uppercase) {
        return Err(Error::plain(format!(
            "error parsing name for manifest list {}: invalid reference format: repository name ({repository}) must be lowercase",
            args.list
        )));
    }
    if !args.amend && lists.list(&list)?.is_some() {
        return Err(Error::plain("refusing to amend an existing manifest list with no --amend flag"));
    }
    let client = context.client().await?;
    for name in &args.manifests {
        let full = full_name(name);
        let member = match lists.member(&list, &full)? {
            Some(known) => known,
            None => match fetch(&client, &full).await? {
                Found::Image(member) => *member,
                Found::List(_) => return Err(Error::plain(format!("{full} is a manifest list"))),
            },
        };
        lists.save(&list, &full, &member)?;
    }
    print_line(format_args!("Created manifest list {list}"));
    Ok(())
}

fn annotate(args: &Annotate) -> Result<(), Error> {
    let (lists, list, name) = (Lists::open()?, full_name(&args.list), full_name(&args.manifest));
    let mut member = lists.member(&list, &name)?.ok_or_else(|| {
        Error::plain(format!("manifest for image {} does not exist in {}", args.manifest, args.list))
    })?;
    let platform = member.descriptor.platform.get_or_insert_default();
    for (given, field) in [
        (&args.os, &mut platform.os),
        (&args.arch, &mut platform.architecture),
        (&args.variant, &mut platform.variant),
        (&args.os_version, &mut platform.os_version),
    ] {
        if !given.is_empty() {
            field.clone_from(given);
        }
    }
    for feature in &args.os_features {
        if !platform.os_features.contains(feature) {
            platform.os_features.push(feature.clone());
        }
    }
    let pair = format!("{}/{}", platform.os, platform.architecture);
    if !PLATFORMS.contains(&pair.as_str()) {
        return Err(Error::plain(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            args.os, args.arch
        )));
    }
    lists.save(&list, &name, &member)
}

async fn push(context: &Context, args: &Push) -> Result<(), Error> {
    let (lists, list) = (Lists::open()?, full_name(&args.list));
    let members = lists.list(&list)?.unwrap_or_default();
    if members.is_empty() {
        return Err(missing(&list));
    }
    for member in &members {
        let platform = member.descriptor.platform.clone().unwrap_or_default();
        if platform.os.is_empty() || platform.architecture.is_empty() {
            return Err(Error::plain(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                member.reference
            )));
        }
        let (own, theirs) = (registry(&list), registry(&member.reference));
        if own != theirs {
            return Err(Error::plain(format!(
                "cannot use source images from a different registry than the target image: {theirs} != {own}"
            )));
        }
    }
    let by_digest =
        |member: &Member| format!("{}@{}", reference::parts(&member.reference).0, member.descriptor.digest);
    let request = json!({
        "Raw": STANDARD.encode(document(&members)?),
        "Members": members.iter().map(by_digest).collect::<Vec<_>>(),
    });
    let auth = credentials::header_for(&list)?;
    let mut headers = vec![(CONTENT_TYPE.as_str(), "application/json")];
    headers.extend(auth.iter().map(|auth| ("x-registry-auth", auth.as_str())));
    let client = context.client().await?;
    let path = format!("/distribution/{}/manifest", name_in_path(&list));
    let response = client.send(Method::POST, &path, &Query::new(), body(&request), &headers).await?;
    let answer: serde_json::Value = parse(&client.collect(response).await?)?;
    for member in answer["Members"].as_array().into_iter().flatten() {
        let text = |key: &str| member[key].as_str().unwrap_or_default();
        print_line(format_args!("Pushed ref {} with digest: {}", text("Ref"), text("Digest")));
    }
    print_line(answer["Digest"].as_str().unwrap_or_default());
    if args.purge {
        lists.remove(&list)?;
    }
    Ok(())
}

async fn remove(args: &Remove) -> Result<(), Error> {
    let lists = Lists::open()?;
    each(&args.lists, "", async |name| {
        let list = full_name(name);
        match lists.list(&list)? {
            Some(_) => lists.remove(&list),
            None => Err(missing(&list)),
        }
    })
    .await
}

fn missing(list: &str) -> Error {
    Error::plain(format!("No such manifest: {list}"))
}

/// The registry of a full name.
fn registry(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// The repository of a full name, without its registry.
fn repository(name: &str) -> &str {
    let name = reference::parts(name).0;
    name.split_once('/').map_or(name, |(_, repository)| repository)
}

/// Asks the engine for what a registry has.
async fn fetch(client: &Client, full: &str) -> Result<Found, Error> {
    let auth = credentials::header_for(full)?;
    let headers: Vec<_> = auth.iter().map(|auth| ("x-registry-auth", auth.as_str())).collect();
    let path = format!("/distribution/{}/manifest", name_in_path(full));
    let response = match client.send(Method::GET, &path, &Query::new(), empty(), &headers).await {
        Err(error) if error.is_not_found() => {
            return Err(Error::plain(format!("no such manifest: {full}")));
        }
        other => other?,
    };
    let mut answer: serde_json::Value = parse(&client.collect(response).await?)?;
    let raw = answer["Raw"].as_str().unwrap_or_default().to_owned();
    let bytes = STANDARD.decode(&raw).map_err(|error| Error::plain(error.to_string()))?;
    if answer["List"] == true {
        return Ok(Found::List(bytes));
    }
    let mut descriptor = answer["Descriptor"].take();
    descriptor["platform"] = answer["Platforms"][0].take();
    let descriptor: store::Descriptor =
        serde_json::from_value(descriptor).map_err(|error| Error::plain(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| Error::plain(error.to_string()))?;
    let manifest = RawValue::from_string(text).map_err(|error| Error::plain(error.to_string()))?;
    let (docker, oci) = match descriptor.media_type == OCI_MANIFEST {
        true => (None, Some(manifest)),
        false => (Some(manifest), None),
    };
    Ok(Found::Image(Box::new(Member { reference: full.to_owned(), descriptor, raw, docker, oci })))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::plain(format!("the engine's answer: {error}")))
}

/// The list that members make, as Docker writes it.
fn document(members: &[Member]) -> Result<String, Error> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List<'a> {
        schema_version: u32,
        media_type: &'a str,
        manifests: Vec<&'a store::Descriptor>,
    }
    let manifests: Vec<_> = members.iter().map(|member| &member.descriptor).collect();
    // The first one decides, as with Docker.
    let oci = manifests.first().is_some_and(|first| first.media_type == OCI_MANIFEST);
    let list = List { schema_version: 2, media_type: if oci { OCI_INDEX } else { DOCKER_LIST }, manifests };
    let text = serde_json::to_string(&list).map_err(|error| Error::plain(error.to_string()))?;
    Ok(indent::indent(&text, "   "))
}
