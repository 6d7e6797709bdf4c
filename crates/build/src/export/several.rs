//! A result for several platforms: one list of manifests at a registry or in an OCI layout.
//!
//! The store has images of one platform each, as Docker's classic one; of a list that is pushed it keeps what a pull would
//! bring.

use std::io::Write;
use std::sync::Arc;

use futures_util::future::try_join_all;
use serde_json::Value as Json;
use skiff_images::{BuiltFor, Platform, Reference};

use super::{ImageOptions, cache, complete, configuration, vertex};
use crate::error::{Error, Result};
use crate::frontend::{BuildResult, IMAGE_CONFIG_KEY, PLATFORMS_KEY, Refs};
use crate::solver::{Job, Ref, Reporter, blocking};

/// An exported list of manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedList {
    /// Its digest, where it has one outside of an archive.
    pub digest: Option<String>,
    /// Its bytes.
    pub size: u64,
    /// Its names, complete.
    pub names: Vec<String>,
}

impl BuildResult {
    /// Whether the result is one for each of several platforms.
    pub fn is_for_several(&self) -> bool {
        matches!(&self.refs, Refs::Map(map) if map.len() > 1)
    }

    /// Lists the references with the platforms that they are for (`linux/arm64`), in the order of the request.
    pub fn by_platform(&self) -> Vec<(String, Ref)> {
        let Refs::Map(map) = &self.refs else { return Vec::new() };
        let told = self.metadata.get(PLATFORMS_KEY).map(Vec::as_slice).unwrap_or_default();
        let told: Json = serde_json::from_slice(told).unwrap_or_default();
        let ids = told["Platforms"].as_array().into_iter().flatten().filter_map(|one| one["ID"].as_str());
        let mut order: Vec<&str> = ids.filter(|id| map.contains_key(*id)).collect();
        order.extend(map.keys().map(String::as_str));
        let mut listed = Vec::with_capacity(map.len());
        for id in order {
            if let Some(reference) = map.get(id).filter(|_| !listed.iter().any(|(have, _)| have == id)) {
                listed.push((id.to_owned(), reference.clone()));
            }
        }
        listed
    }
}

/// Makes the images of all platforms.
async fn built(job: &Job, result: &BuildResult, options: &ImageOptions) -> Result<Vec<BuiltFor>> {
    let images = result.by_platform().into_iter().map(|(id, reference)| async move {
        let platform: Platform = id.parse()?;
        let value = reference.value().await?;
        let own = format!("{IMAGE_CONFIG_KEY}/{id}");
        let key = if result.metadata.contains_key(&own) { own } else { IMAGE_CONFIG_KEY.to_owned() };
        let (config, layers) = configuration(job, result, &value, &key, options).await?;
        Ok::<_, Error>(BuiltFor { platform, config, layers })
    });
    try_join_all(images).await
}

/// Makes the images of all platforms and pushes their list under each of the names. Shows the vertices `exporting to image`
/// and `pushing NAME`. `asked_again`: see [`Store::push_several`](skiff_images::Store::push_several).
///
/// # Errors
/// Names that are none; errors of making the result; what the registry refuses.
pub async fn push_several(
    job: &Job,
    result: &BuildResult,
    options: ImageOptions,
    asked_again: bool,
) -> Result<ExportedList> {
    let names = complete(&options.names)?;
    let exporting = Reporter::new(Arc::clone(job.listener()), vertex("exporting to image"));
    exporting.started();
    let images = match built(job, result, &options).await {
        Ok(images) => images,
        Err(error) => {
            exporting.failed(&error);
            return Err(error);
        }
    };
    exporting.status("exporting layers", 0, 0, true);
    exporting.completed(false);
    let mut list = ExportedList { digest: None, size: 0, names: names.clone() };
    for name in names {
        let reporter = Reporter::new(Arc::clone(job.listener()), vertex(&format!("pushing {name}")));
        reporter.started();
        let pushed = async {
            let reference = Reference::parse(&name).map_err(skiff_images::Error::from)?;
            let auth = job.client().credentials.registry(reference.domain()).await?;
            let shown = cache::Shown(reporter.clone());
            let store = job.solver().images();
            let pushed = store.push_several(&name, images.clone(), auth, asked_again, &shown).await?;
            reporter.status(&format!("pushing manifest for {name}@{}", pushed.digest), 0, 0, true);
            Ok::<_, Error>(pushed)
        }
        .await;
        match pushed {
            Ok(pushed) => {
                reporter.completed(false);
                (list.digest, list.size) = (Some(pushed.digest.to_string()), pushed.size);
            }
            Err(error) => {
                reporter.failed(&error);
                return Err(error);
            }
        }
    }
    Ok(list)
}

/// Writes a result for several platforms as an OCI layout. Blocks while writing, on a thread of its own.
///
/// # Errors
/// As [`push_several`]; when `out` fails.
pub async fn archive_several(
    job: &Job,
    result: &BuildResult,
    options: ImageOptions,
    out: impl Write + Send + 'static,
) -> Result<ExportedList> {
    let names = complete(&options.names)?;
    let reporter = Reporter::new(Arc::clone(job.listener()), vertex("exporting to oci image format"));
    reporter.started();
    let done = async {
        let images = built(job, result, &options).await?;
        let store = job.solver().images().clone();
        let shown = names.clone();
        blocking(move || {
            let save = store.save_several(&shown, images)?;
            save.write(out).map_err(|error| Error::failed(format!("write the archive: {error}")))
        })
        .await?;
        Ok(ExportedList { digest: None, size: 0, names })
    }
    .await;
    match &done {
        Ok(_) => reporter.completed(false),
        Err(error) => reporter.failed(error),
    }
    done
}
