//! Caches for other machines: what a build has made, under a name at a registry or in a directory of the client.
//!
//! A cache is an image that nobody runs: its configuration names its layers, and has the list of results (`inline`), each
//! with its keys and the places of its layers among them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1;
use serde_json::json;
use skiff_images::{Digest, Held, Progress as PushProgress, ProgressEvent, Reference, oci_manifest};

use super::inline;
use crate::error::{Error, Result};
use crate::frontend::{BuildResult, Refs};
use crate::solver::{Job, Reporter, UsedResult, Value, random_id};

/// What clients with a directory write into its index.
const MANIFEST_KEY: &str = "cache.manifest";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Where a cache goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheTarget {
    /// A name at a registry.
    Registry {
        /// The name.
        name: String,
    },
    /// A directory of the client's.
    Local {
        /// As the client calls it.
        directory: String,
    },
}

/// A cache to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// Where it goes.
    pub target: CacheTarget,
    /// Whether every step's result is in it (`mode=max`), or only those that the build's result has in it.
    pub all: bool,
    /// Whether the build is good without it.
    pub ignore_error: bool,
}

impl CacheExport {
    /// Reads an entry of `--cache-to`; `None` for the inline cache, which is the image's.
    ///
    /// # Errors
    /// An unknown kind in BuildKit's words; missing or wrong attributes.
    pub fn read(kind: &str, attributes: &HashMap<String, String>) -> Result<Option<CacheExport>> {
        let attribute = |name: &str| attributes.get(name).filter(|value| !value.is_empty()).cloned();
        let target = match kind {
            "inline" => return Ok(None),
            "registry" => {
                let name = attribute("ref")
                    .ok_or_else(|| Error::invalid("ref is required for the registry cache"))?;
                let reference = Reference::parse(&name).map_err(skiff_images::Error::from)?;
                CacheTarget::Registry { name: reference.or_latest().to_string() }
            }
            "local" => {
                let missing = || Error::invalid("local cache exporter requires dest");
                CacheTarget::Local { directory: attribute("dest").ok_or_else(missing)? }
            }
            other => return Err(Error::not_found(format!("unknown cache exporter: {other:?}"))),
        };
        let all = match attribute("mode").as_deref() {
            None | Some("min" | "inline") => false,
            Some("max") => true,
            Some(other) => return Err(Error::invalid(format!("invalid cache mode {other:?}"))),
        };
        let ignore_error =
            attribute("ignore-error").is_some_and(|text| matches!(text.as_str(), "true" | "1"));
        Ok(Some(CacheExport { target, all, ignore_error }))
    }

    fn shown(&self) -> &'static str {
        match self.target {
            CacheTarget::Registry { .. } => "exporting cache to registry",
            CacheTarget::Local { .. } => "exporting cache to client directory",
        }
    }
}

/// Makes a cache of what a build has used; returns what the client is told.
///
/// # Errors
/// What the registry or the client refuses, unless that is to be ignored.
pub async fn cache(job: &Job, result: &BuildResult, export: &CacheExport) -> Result<HashMap<String, String>> {
    let digest = crate::graph::digest(format!("cache {}", random_id()).as_bytes());
    let vertex = v1::Vertex { digest, name: export.shown().to_owned(), ..v1::Vertex::default() };
    let reporter = Reporter::new(Arc::clone(job.listener()), vertex);
    reporter.started();
    let done = write(job, result, export, &reporter).await;
    match done {
        Ok(told) => {
            reporter.completed(false);
            Ok(told)
        }
        Err(error) => {
            reporter.failed(&error);
            if export.ignore_error && !matches!(error, Error::Cancelled) {
                Ok(HashMap::new())
            } else {
                Err(error)
            }
        }
    }
}

async fn write(
    job: &Job,
    result: &BuildResult,
    export: &CacheExport,
    reporter: &Reporter,
) -> Result<HashMap<String, String>> {
    reporter.status("preparing build cache for export", 0, 0, false);
    let chosen = chosen(job, result, export.all).await?;
    let Collected { config, layers } = collect(job, &chosen).await?;
    reporter.status("preparing build cache for export", 0, 0, true);
    match &export.target {
        CacheTarget::Registry { name } => {
            let reference = Reference::parse(name).map_err(skiff_images::Error::from)?;
            let auth = job.client().credentials.registry(reference.domain()).await?;
            let shown = Shown(reporter.clone());
            let pushed = job.solver().images().push_built(name, config, &layers, auth, &shown).await?;
            reporter.status(&format!("writing cache manifest {}", pushed.digest), 0, 0, true);
            Ok(told(pushed.digest.as_str(), pushed.size))
        }
        CacheTarget::Local { directory } => {
            let (stores, store) = (&job.client().stores, format!("local:{directory}"));
            let packed = job.solver().images().pack_layers(&layers).await?;
            for layer in &packed {
                let line = format!("writing layer {}", layer.digest);
                reporter.status(&line, 0, layer.size, false);
                let file = tokio::fs::File::open(&layer.path).await;
                let file = file.map_err(|error| Error::io("open", &layer.path, error))?;
                stores.write(&store, layer.digest.as_str(), layer.size, Box::new(file)).await?;
                reporter.status(&line, layer.size, layer.size, true);
            }
            let manifest = oci_manifest(&config, &packed);
            let (digest, size) = (Digest::of(&manifest), manifest.len() as u64);
            for (line, bytes) in [("config", config), ("cache manifest", manifest)] {
                let digest = Digest::of(&bytes);
                reporter.status(&format!("writing {line} {digest}"), 0, 0, true);
                let length = bytes.len() as u64;
                stores.write(&store, digest.as_str(), length, Box::new(io::Cursor::new(bytes))).await?;
            }
            Ok(told(digest.as_str(), size))
        }
    }
}

fn told(digest: &str, size: u64) -> HashMap<String, String> {
    let descriptor = json!({ "mediaType": MANIFEST_TYPE, "digest": digest, "size": size });
    HashMap::from([(MANIFEST_KEY.to_owned(), descriptor.to_string())])
}

/// What is to be in the cache.
async fn chosen(job: &Job, result: &BuildResult, all: bool) -> Result<Vec<UsedResult>> {
    let references: Vec<_> = match &result.refs {
        Refs::None => Vec::new(),
        Refs::Single(reference) => vec![reference.clone()],
        Refs::Map(map) => map.values().cloned().collect(),
    };
    let mut results = Vec::new();
    for reference in references {
        // What was not made yet is made now: a cache is of the whole build.
        if let Value::Layers(snapshot) = reference.value().await? {
            results.push(snapshot.layers);
        }
    }
    let mut used = job.used();
    used.retain(|used| {
        let layers = &used.snapshot.layers;
        !layers.is_empty() && (all || results.iter().any(|result| result.starts_with(layers)))
    });
    Ok(used)
}

struct Collected {
    config: Vec<u8>,
    layers: Held,
}

/// Lays the layers of all results side by side.
async fn collect(job: &Job, chosen: &[UsedResult]) -> Result<Collected> {
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut layers = Held::nothing();
    let mut entries = Vec::new();
    for used in chosen {
        let held = job.realize(&used.snapshot).await?;
        let mut at = Vec::with_capacity(held.len());
        for (number, layer) in held.layers().enumerate() {
            let next = places.len();
            let place = *places.entry(layer.clone()).or_insert(next);
            if place == next {
                layers = layers.with(&held.above(number).first());
            }
            at.push(place);
        }
        entries.push(inline::Entry { layers: at, keys: used.keys.clone() });
    }
    let host = skiff_images::Platform::host();
    let ids: Vec<String> = layers.layers().map(ToString::to_string).collect();
    let mut config = json!({
        "architecture": host.architecture,
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    if let Some(inline) = inline::write(&entries) {
        config[super::config::INLINE_CACHE] = inline;
    }
    Ok(Collected { config: config.to_string().into_bytes(), layers })
}

/// Shows a push as the parts of a vertex.
pub(super) struct Shown(pub Reporter);

impl PushProgress for Shown {
    fn event(&self, event: ProgressEvent) {
        let Some(id) = &event.id else { return };
        let done = matches!(event.status.as_str(), "Pushed" | "Layer already exists");
        let detail = event.progress_detail.unwrap_or_default();
        let number = |n: Option<u64>| n.unwrap_or(0);
        self.0.status(&format!("writing layer {id}"), number(detail.current), number(detail.total), done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_read_or_refused_in_buildkits_words() {
        let read = |kind: &str, attributes: &[(&str, &str)]| {
            let attributes =
                attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            CacheExport::read(kind, &attributes)
        };
        assert_eq!(read("inline", &[]).unwrap(), None);
        let registry = read("registry", &[("ref", "localhost:5000/c"), ("mode", "max")]).unwrap().unwrap();
        assert_eq!(registry.target, CacheTarget::Registry { name: "localhost:5000/c:latest".to_owned() });
        assert!(registry.all && !registry.ignore_error);
        let local = read("local", &[("dest", "d"), ("ignore-error", "true")]).unwrap().unwrap();
        assert_eq!(local.target, CacheTarget::Local { directory: "d".to_owned() });
        assert!(!local.all && local.ignore_error);
        assert_eq!(read("gha", &[]).unwrap_err().to_string(), "unknown cache exporter: \"gha\"");
        assert!(read("registry", &[]).is_err());
        assert!(read("local", &[]).is_err());
        assert!(read("local", &[("dest", "d"), ("mode", "most")]).is_err());
    }
}
