//! What becomes of a result: an image of the store, an archive of an image, a tar of files.
//!
//! The local exporter, which sends files one by one, is the door's own: it reads from [`Ref::mount`](crate::Ref::mount).

mod cache;
mod config;
mod inline;
mod several;

use std::io::Write;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1;
use skiff_images::archive::{Mounts, Packer};
use skiff_images::{Held, NewBuilt, Reference};

pub use cache::{CacheExport, CacheTarget, cache};
pub(crate) use inline::{Entry as CacheEntry, read as read_inline};
pub use several::{ExportedList, archive_several, push_several};

use crate::error::{Error, Result};
use crate::frontend::{BuildResult, IMAGE_CONFIG_KEY, Refs};
use crate::solver::{Job, Ref, Reporter, Value, blocking, random_id};

/// Seconds since 1970 as RFC 3339.
pub(crate) fn time_text(seconds: u64) -> String {
    config::text(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// What an image gets beside its layers and configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Its names; a name that another image has moves.
    pub names: Vec<String>,
    /// Seconds since 1970 that every time of the image's configuration becomes (`SOURCE_DATE_EPOCH`).
    pub source_date_epoch: Option<i64>,
    /// Whether the configuration tells later builds about the cache (`BUILDKIT_INLINE_CACHE`).
    pub inline_cache: bool,
    /// Whether no time of a file that the build has made is later than the epoch (`rewrite-timestamp`).
    pub rewrite_times: bool,
}

/// An exported image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedImage {
    /// The image's id, which is the digest of its configuration (`containerimage.config.digest`).
    pub id: String,
    /// What `containerimage.digest` says: with Docker's classic store the same as the id.
    pub manifest: String,
    /// Its names, complete.
    pub names: Vec<String>,
    /// Its configuration, byte for byte.
    pub config: Vec<u8>,
}

/// The form of an image archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// An OCI layout.
    Oci,
    /// What `docker load` reads, and OCI tools too.
    Docker,
}

/// Commits a result as an image of the store: the `moby`, `image` and classic exporters.
///
/// The configuration is `containerimage.config` of the metadata with the layers filled in: `rootfs`, and times in the
/// history that frontends leave to us. Shows the vertex `exporting to image`.
///
/// # Errors
/// Names that are none; errors of making the result; a result for several platforms.
pub async fn image(job: &Job, result: &BuildResult, options: ImageOptions) -> Result<ExportedImage> {
    let names = complete(&options.names)?;
    let (reference, key) = single(job, result)?;
    let value = reference.value().await?;
    let vertex = vertex("exporting to image");
    let reporter = Reporter::new(Arc::clone(job.listener()), vertex);
    reporter.started();
    let done = async {
        let (config, held) = configuration(job, result, &value, &key, &options).await?;
        reporter.status("exporting layers", 0, 0, true);
        let images = job.solver().images().clone();
        let new = NewBuilt { config: config.clone(), names: names.clone() };
        let image = blocking(move || Ok(images.add_image(new, &held)?)).await?;
        reporter.status(&format!("writing image {}", image.id), 0, 0, true);
        for name in &options.names {
            // As it was given, but with its registry.
            let shown = Reference::parse(name).map_or_else(|_| name.clone(), |name| name.to_string());
            reporter.status(&format!("naming to {shown}"), 0, 0, true);
        }
        Ok(ExportedImage { manifest: image.id.clone(), id: image.id, names, config })
    }
    .await;
    match &done {
        Ok(_) => reporter.completed(false),
        Err(error) => reporter.failed(error),
    }
    done
}

/// Writes a result as an image archive. Blocks while writing, on a thread of its own.
///
/// # Errors
/// As [`image`]; when `out` fails.
pub async fn archive(
    job: &Job,
    result: &BuildResult,
    options: ImageOptions,
    form: Archive,
    out: impl Write + Send + 'static,
) -> Result<ExportedImage> {
    let names = complete(&options.names)?;
    let (reference, key) = single(job, result)?;
    let value = reference.value().await?;
    let what = match form {
        Archive::Oci => "exporting to oci image format",
        Archive::Docker => "exporting to docker image format",
    };
    let reporter = Reporter::new(Arc::clone(job.listener()), vertex(what));
    reporter.started();
    let done = async {
        let (config, held) = configuration(job, result, &value, &key, &options).await?;
        let images = job.solver().images().clone();
        let shown = names.clone();
        // Not an image of the store: only what is written needs its layers.
        let id = skiff_images::Digest::of(&config).to_string();
        let written = config.clone();
        blocking(move || {
            let save = images.save_built(NewBuilt { config: written, names: shown }, &held)?;
            save.write(out).map_err(|error| Error::failed(format!("write the archive: {error}")))
        })
        .await?;
        Ok(ExportedImage { manifest: id.clone(), id, names, config })
    }
    .await;
    match &done {
        Ok(_) => reporter.completed(false),
        Err(error) => reporter.failed(error),
    }
    done
}

/// Writes files as a tar, those of each reference below a directory of its own where there are several (`linux_arm64`).
/// Blocks while writing, on a thread of its own. With an epoch every time is that (seconds since 1970).
///
/// # Errors
/// Errors of making the references; when `out` fails.
pub async fn tar(
    references: Vec<(String, Ref)>,
    epoch: Option<i64>,
    out: impl Write + Send + 'static,
) -> Result<()> {
    let mut mounted = Vec::with_capacity(references.len());
    for (directory, reference) in references {
        mounted.push((directory, reference.mount().await?));
    }
    blocking(move || {
        let failed = |error: std::io::Error| Error::failed(format!("write the files: {error}"));
        let mut packer = Packer::new(out);
        if let Some(epoch) = epoch {
            packer = packer.with_every_time(epoch);
        }
        for (directory, mounted) in mounted {
            let root = mounted.root().try_clone_to_owned().map_err(failed)?;
            packer.add(root, directory.as_bytes(), Mounts::Included).map_err(failed)?;
        }
        packer.finish().map(drop).map_err(failed)
    })
    .await
}

fn vertex(name: &str) -> v1::Vertex {
    let digest = crate::graph::digest(format!("{name} {}", random_id()).as_bytes());
    v1::Vertex { digest, name: name.to_owned(), ..v1::Vertex::default() }
}

fn complete(names: &[String]) -> Result<Vec<String>> {
    let name = |name: &String| -> Result<String> {
        let reference = Reference::parse(name).map_err(skiff_images::Error::from)?;
        if reference.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        Ok(reference.or_latest().to_string())
    };
    names.iter().map(name).collect()
}

/// The only reference of a result, and the key of its configuration.
fn single(job: &Job, result: &BuildResult) -> Result<(Ref, String)> {
    match &result.refs {
        Refs::Single(reference) => Ok((reference.clone(), IMAGE_CONFIG_KEY.to_owned())),
        Refs::Map(map) => match map.iter().next() {
            Some((platform, reference)) if map.len() == 1 => {
                let own = format!("{IMAGE_CONFIG_KEY}/{platform}");
                let key = if result.metadata.contains_key(&own) { own } else { IMAGE_CONFIG_KEY.to_owned() };
                Ok((reference.clone(), key))
            }
            _ => Err(Error::invalid(
                "docker exporter does not currently support exporting manifest lists: push the image (--push), or \
                 export it (--output type=oci,dest=FILE)",
            )),
        },
        // Nothing is a file system too.
        Refs::None if result.metadata.contains_key(IMAGE_CONFIG_KEY) => {
            Ok((job.solve(crate::graph::pb::Definition::default())?, IMAGE_CONFIG_KEY.to_owned()))
        }
        Refs::None => Err(Error::invalid("no result to export")),
    }
}

async fn configuration(
    job: &Job,
    result: &BuildResult,
    value: &Value,
    key: &str,
    options: &ImageOptions,
) -> Result<(Vec<u8>, Held)> {
    let Value::Layers(snapshot) = value else {
        return Err(Error::invalid("a local source is no image"));
    };
    let mut held = job.realize(snapshot).await?;
    let given = result.metadata.get(key).map(Vec::as_slice);
    let layers: Vec<String> = held.layers().map(ToString::to_string).collect();
    let created = job.layer_times(&layers);
    let inline = options.inline_cache.then(|| inline::write(&job.cache_entries(&layers))).flatten();
    if let (true, Some(epoch)) = (options.rewrite_times, options.source_date_epoch) {
        held = with_times_until(job, snapshot, &held, epoch).await?;
    }
    let layers: Vec<String> = held.layers().map(ToString::to_string).collect();
    let config = config::complete(given, &layers, &created, options.source_date_epoch, inline)?;
    Ok((config, held))
}

/// Sets the times in layers back, but not in those of the base image.
async fn with_times_until(
    job: &Job,
    snapshot: &crate::solver::Snapshot,
    held: &Held,
    epoch: i64,
) -> Result<Held> {
    let epoch = u32::try_from(epoch).map_err(|_| Error::invalid("invalid SOURCE_DATE_EPOCH"))?;
    let of_base = snapshot.of_base();
    let images = job.solver().images().clone();
    let held = held.clone();
    blocking(move || {
        let mut rewritten = Held::nothing();
        for (number, layer) in held.layers().enumerate() {
            rewritten = match number < of_base {
                true => rewritten.with(&held.above(number).first()),
                false => rewritten.with(&images.with_times_until(layer, epoch)?),
            };
        }
        Ok(rewritten)
    })
    .await
}

/// Pushes an image of the store under one of its names; returns the manifest's digest and size. Shows the vertex
/// `pushing NAME`.
///
/// # Errors
/// What the registry refuses.
pub async fn push(job: &Job, name: &str) -> Result<(String, u64)> {
    let reference = Reference::parse(name).map_err(skiff_images::Error::from)?.or_latest();
    let reporter = Reporter::new(Arc::clone(job.listener()), vertex(&format!("pushing {reference}")));
    reporter.started();
    let done = async {
        let auth = job.client().credentials.registry(reference.domain()).await?;
        let shown = cache::Shown(reporter.clone());
        let pushed = job.solver().images().push(&reference.to_string(), auth, &shown).await?;
        let pushed = pushed.into_iter().next().ok_or_else(|| Error::failed("nothing was pushed"))?;
        reporter.status(&format!("pushing manifest for {reference}@{}", pushed.digest), 0, 0, true);
        Ok((pushed.digest.to_string(), pushed.size))
    }
    .await;
    match &done {
        Ok(_) => reporter.completed(false),
        Err(error) => reporter.failed(error),
    }
    done
}
