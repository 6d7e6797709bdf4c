//! Where files come from: the build's context and named ones.

use std::collections::{BTreeMap, BTreeSet};

use skiff_images::{Platform, Reference};

use super::draft::{Draft, Out, Vertex};
use super::image::Image;
use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::ignore;
use crate::dockerfile::request::{GitRef, Settings};
use crate::dockerfile::sources::Sources;
use crate::frontend::ResolveMode;
use crate::graph::pb;

/// The name of the ignore file.
pub const IGNORE_FILE: &str = ".dockerignore";

/// A named context that stands in place of a stage or an image: `context:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name, with the platform where it is for one.
    pub name: String,
    /// Where it is from: `docker-image://…`, `local:…`, a URL, ….
    pub place: String,
}

/// A directory of the client whose needed files are known at the end.
#[derive(Debug, Clone)]
pub struct Late {
    /// The vertex.
    pub out: Out,
    /// The name that the client knows it by.
    pub local: String,
    /// The name of its vertex.
    pub name: String,
    /// What makes transfers of it find each other's files.
    pub hint: String,
    /// What is left out.
    pub excludes: Vec<String>,
}

/// A loaded context.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Its files; `None` is scratch.
    pub root: Option<Out>,
    /// Its configuration, when it is an image.
    pub image: Option<Image>,
    /// That, byte for byte.
    pub config: Option<Vec<u8>>,
    /// Its files, when they are filled in at the end.
    pub late: Option<Late>,
}

/// The name of an image or a stage as `context:` has it.
fn familiar(name: &str) -> Result<String> {
    let reference = Reference::parse(name)
        .map_err(|error| Fault::new(format!("invalid context name {name}: {error}")))?;
    let familiar = reference.familiar();
    Ok(familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned())
}

impl Named {
    /// Finds the context of a name: that for the platform, else that for all.
    ///
    /// # Errors
    /// A name that is none.
    pub fn find(settings: &Settings, name: &str, platform: &Platform) -> Result<Option<Named>> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        if !settings.attributes.keys().any(|key| key.starts_with("context:")) {
            return Ok(None);
        }
        let name = familiar(name)?;
        let with_platform = format!("{name}::{platform}");
        Ok([with_platform, name].into_iter().find_map(|name| {
            let place = settings.attributes.get(&format!("context:{name}"))?.clone();
            Some(Named { name, place })
        }))
    }

    /// Loads it.
    ///
    /// # Errors
    /// A place that is none; an image that there isn't.
    pub async fn load(
        &self,
        settings: &Settings,
        sources: &dyn Sources,
        draft: &mut Draft,
        platform: &Platform,
    ) -> Result<Loaded> {
        let name = &self.name;
        let Some((scheme, rest)) = self.place.split_once(':') else {
            return Err(Fault::new(format!("invalid context specifier {} for {name}", self.place)));
        };
        let scheme = if scheme.starts_with("git@") { "git" } else { scheme };
        let shown = |what: &str| format!("[context {name}] {what}");
        match scheme {
            "docker-image" => {
                let image = rest.trim_start_matches("//");
                if image == "scratch" {
                    return Ok(Loaded::default());
                }
                let reference =
                    Reference::parse(image).map_err(|error| Fault::new(error.to_string()))?.or_latest();
                let log = shown(&format!("load metadata for {reference}"));
                let resolved = sources
                    .resolve_image(&reference.to_string(), &message(platform), settings.resolve_mode, &log)
                    .await?;
                let mut parsed = Image::parse(&resolved.config)?;
                parsed.created = None;
                let place = pinned(&resolved.name, &resolved.digest);
                let root = draft.add(Vertex {
                    op: Some(image_source(&place, settings.resolve_mode)),
                    platform: Some(message(platform)),
                    name: shown(&place),
                    ..Vertex::default()
                })?;
                Ok(Loaded {
                    root: Some(root),
                    image: Some(parsed),
                    config: Some(resolved.config),
                    late: None,
                })
            }
            "git" | "http" | "https" | "ssh" => {
                let op = match GitRef::parse(&self.place)? {
                    Some(git) => git.source(),
                    None if scheme.starts_with("http") => http_source(&self.place, "", ""),
                    None => {
                        return Err(Fault::new(format!("invalid git context {}", self.place)));
                    }
                };
                let root = draft.add(Vertex {
                    op: Some(pb::op::Op::Source(op)),
                    name: shown(&self.place),
                    ..Vertex::default()
                })?;
                Ok(Loaded { root: Some(root), ..Loaded::default() })
            }
            "local" => {
                let hint = format!("context:{name}-{IGNORE_FILE}");
                let op = local_source(rest, &hint, &[IGNORE_FILE.to_owned()], &[], Differ::None);
                let log = shown(&format!("load {IGNORE_FILE}"));
                let text = read_source(sources, op, &log, IGNORE_FILE).await?.unwrap_or_default();
                let excludes = ignore::read(&String::from_utf8_lossy(&text))
                    .map_err(|fault| fault.within(&format!("failed parsing {IGNORE_FILE}")))?;
                let out = draft.reserve()?;
                let late = Late {
                    out,
                    local: rest.to_owned(),
                    name: shown("load from client"),
                    hint: format!("context:{name}"),
                    excludes,
                };
                Ok(Loaded { root: Some(out), late: Some(late), ..Loaded::default() })
            }
            "input" => {
                let Some(definition) = sources.input(rest) else {
                    return Err(Fault::new(format!("invalid input {rest} for {name}")));
                };
                let root = match definition.def.is_empty() {
                    true => None,
                    false => Some(draft.import(definition)?),
                };
                let config = match settings.attributes.get(&format!("input-metadata:{rest}")) {
                    Some(metadata) => input_config(metadata)?,
                    None => None,
                };
                let image = config.as_deref().map(Image::parse).transpose()?;
                Ok(Loaded { root, image, config, late: None })
            }
            "oci-layout" => {
                let place = rest.trim_start_matches("//");
                let reference = Reference::parse(place).map_err(|error| {
                    Fault::new(format!("could not parse oci-layout reference {place:?}: {error}"))
                })?;
                if reference.digest().is_none() {
                    return Err(Fault::new(format!("oci-layout reference {place:?} has no digest")));
                }
                // The store's name says nothing to the user.
                let log = match (Reference::parse(name), reference.digest()) {
                    (Ok(named), Some(digest)) => named.at_digest(digest.clone()).to_string(),
                    _ => reference.to_string(),
                };
                let log = shown(&format!("load metadata for {log}"));
                let resolved = sources.resolve_layout(place, &message(platform), &log).await?;
                let mut parsed = Image::parse(&resolved.config)?;
                parsed.created = None;
                let name = place.split('@').next().unwrap_or_default();
                // The store's name is without the tag.
                let tag = name.rfind(':').filter(|at| !name[*at..].contains('/'));
                let store = name[..tag.unwrap_or(name.len())].to_owned();
                let root = draft.add(Vertex {
                    op: Some(pb::op::Op::Source(pb::SourceOp {
                        identifier: format!("oci-layout://{}", pinned(&resolved.name, &resolved.digest)),
                        attrs: BTreeMap::from([("oci.store".to_owned(), store)]),
                    })),
                    platform: Some(message(platform)),
                    name: shown("OCI load from client"),
                    ..Vertex::default()
                })?;
                Ok(Loaded {
                    root: Some(root),
                    image: Some(parsed),
                    config: Some(resolved.config),
                    late: None,
                })
            }
            other => Err(Fault::new(format!("unsupported context source {other} for {name}"))),
        }
    }
}

fn input_config(metadata: &str) -> Result<Option<Vec<u8>>> {
    use base64::Engine as _;

    let wrong = |error: String| Fault::new(format!("failed to parse input metadata {metadata}: {error}"));
    let values: BTreeMap<String, String> =
        serde_json::from_str(metadata).map_err(|error| wrong(error.to_string()))?;
    match values.get(crate::frontend::IMAGE_CONFIG_KEY) {
        None => Ok(None),
        Some(config) => base64::engine::general_purpose::STANDARD
            .decode(config)
            .map(Some)
            .map_err(|error| wrong(error.to_string())),
    }
}

impl Late {
    /// What it is when the needed paths are known; none are all.
    pub fn vertex(&self, paths: &BTreeSet<String>) -> Vertex {
        Vertex {
            op: Some(local_source(&self.local, &self.hint, &follow(paths), &self.excludes, Differ::Metadata)),
            name: self.name.clone(),
            ..Vertex::default()
        }
    }
}

/// The paths to ask a client for; none when all of it is needed.
fn follow(paths: &BTreeSet<String>) -> Vec<String> {
    if paths.contains("/") {
        return Vec::new();
    }
    let mut list: Vec<String> =
        paths.iter().map(|path| ignore::clean(path.trim_start_matches('/'))).collect();
    list.sort();
    list
}

/// How a transfer finds out what the builder has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differ {
    /// It does not: everything is sent.
    None,
    /// By size, time and mode.
    Metadata,
}

/// The source that is a directory of the client.
pub fn local_source(
    name: &str,
    hint: &str,
    follow: &[String],
    excludes: &[String],
    differ: Differ,
) -> pb::op::Op {
    let mut attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), hint.to_owned())]);
    let list = |paths: &[String]| serde_json::to_string(paths).expect("texts always become JSON");
    if !follow.is_empty() {
        attrs.insert("local.followpaths".to_owned(), list(follow));
    }
    if !excludes.is_empty() {
        attrs.insert("local.excludepatterns".to_owned(), list(excludes));
    }
    if differ == Differ::None {
        attrs.insert("local.differ".to_owned(), "none".to_owned());
    }
    pb::op::Op::Source(pb::SourceOp { identifier: format!("local://{name}"), attrs })
}

/// The source that is an image.
pub fn image_source(place: &str, mode: ResolveMode) -> pb::op::Op {
    let mut attrs = BTreeMap::new();
    if mode == ResolveMode::ForcePull {
        attrs.insert("image.resolvemode".to_owned(), "pull".to_owned());
    }
    pb::op::Op::Source(pb::SourceOp { identifier: format!("docker-image://{place}"), attrs })
}

/// The source that is a file behind a URL.
pub fn http_source(url: &str, file: &str, checksum: &str) -> pb::SourceOp {
    let mut attrs = BTreeMap::new();
    if !file.is_empty() {
        attrs.insert("http.filename".to_owned(), file.to_owned());
    }
    if !checksum.is_empty() {
        attrs.insert("http.checksum".to_owned(), checksum.to_owned());
    }
    pb::SourceOp { identifier: url.to_owned(), attrs }
}

/// An image's name with its digest.
pub fn pinned(name: &str, digest: &str) -> String {
    let name = name.split('@').next().unwrap_or(name);
    if digest.is_empty() { name.to_owned() } else { format!("{name}@{digest}") }
}

/// A platform as messages have it.
pub fn message(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..pb::Platform::default()
    }
}

/// Reads a file of one source.
///
/// # Errors
/// What the source says; nothing when only the file is not there.
pub async fn read_source(
    sources: &dyn Sources,
    op: pb::op::Op,
    name: &str,
    path: &str,
) -> Result<Option<Vec<u8>>> {
    let mut draft = Draft::default();
    let out = draft.add(Vertex { op: Some(op), name: name.to_owned(), ..Vertex::default() })?;
    let (definition, _) = draft.definition(Some(out), None, &[])?;
    Ok(sources.read_files(definition, &[path], None).await?.pop().flatten())
}
