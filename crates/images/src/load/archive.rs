//! Finds the images in a spooled archive: `manifest.json` of `docker save`, or `index.json` of an OCI layout.

use std::path::PathBuf;

use serde::Deserialize;

use super::spool::{Spool, digest_of};
use crate::digest::Digest;
use crate::error::Error;
use crate::image::ParsedConfig;
use crate::manifest::{
    CONFIG_LIMIT, Descriptor, Document, MANIFEST_LIMIT, MAX_NESTING, ManifestList, parse_json,
};
use crate::platform::Platform;
use crate::reference::Reference;

const MAX_IMAGES: usize = 1000;

/// One image to load.
pub(super) struct Plan {
    pub config: Vec<u8>,
    pub names: Vec<Reference>,
    /// Files of the layers, lowest first.
    pub layers: Vec<PathBuf>,
    pub layer_blobs: Vec<Digest>,
    pub manifests: Vec<(Digest, Vec<u8>)>,
}

impl Plan {
    /// Whether the image runs where `platform` is wanted; one that can't be read is told of when it is loaded.
    pub(super) fn is_for(&self, platform: &Platform) -> bool {
        let parsed = ParsedConfig::parse(&self.config);
        parsed.map_or(true, |parsed| platform.distance(&parsed.platform()).is_some())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Lists the images of an archive.
pub(super) fn plans(spool: &Spool, platform: &Platform) -> Result<Vec<Plan>, Error> {
    let plans = if spool.path("manifest.json").is_some() {
        let saved: Vec<SavedImage> =
            parse_json("manifest.json", &spool.read("manifest.json", MANIFEST_LIMIT)?)?;
        saved.into_iter().map(|image| saved_image(spool, image)).collect::<Result<Vec<_>, _>>()?
    } else if spool.path("index.json").is_some() {
        layout(spool, platform)?
    } else {
        return Err(invalid("neither manifest.json nor index.json is in it"));
    };
    if plans.is_empty() {
        return Err(invalid("there is no image in it"));
    }
    if plans.len() > MAX_IMAGES {
        return Err(invalid("there are too many images in it"));
    }
    Ok(plans)
}

fn saved_image(spool: &Spool, image: SavedImage) -> Result<Plan, Error> {
    let config = spool.read(&image.config, CONFIG_LIMIT)?;
    let names = image
        .repo_tags
        .unwrap_or_default()
        .iter()
        .map(|name| Reference::parse(name).map(Reference::or_latest))
        .collect::<Result<_, _>>()?;
    let layers = image
        .layers
        .unwrap_or_default()
        .iter()
        .map(|name| {
            let path = spool.path(name).ok_or_else(|| invalid(&format!("layer \"{name}\" is missing")))?;
            Ok(path.to_owned())
        })
        .collect::<Result<_, Error>>()?;
    Ok(Plan { config, names, layers, layer_blobs: Vec::new(), manifests: Vec::new() })
}

fn layout(spool: &Spool, platform: &Platform) -> Result<Vec<Plan>, Error> {
    let index: ManifestList = parse_json("index.json", &spool.read("index.json", MANIFEST_LIMIT)?)?;
    let images = index.manifests.iter().filter(|d| !d.is_attestation());
    let suits = |d: &Descriptor| match &d.platform {
        None => true,
        Some(p) => platform.distance(&Platform::normalise(&p.os, &p.architecture, &p.variant)).is_some(),
    };
    // Several platforms side by side are one image for each of them; a lone foreign one is still wanted.
    let some_suit = images.clone().any(suits);
    images
        .filter(|d| !some_suit || suits(d))
        .map(|descriptor| {
            let names = name_of(descriptor)?;
            layout_image(spool, platform, descriptor, names, Vec::new(), 0)
        })
        .collect()
}

fn layout_image(
    spool: &Spool,
    platform: &Platform,
    descriptor: &Descriptor,
    names: Vec<Reference>,
    mut manifests: Vec<(Digest, Vec<u8>)>,
    depth: usize,
) -> Result<Plan, Error> {
    let bytes = blob(spool, descriptor, MANIFEST_LIMIT)?;
    let document = Document::parse(&bytes, Some(&descriptor.media_type))?;
    manifests.push((descriptor.digest.clone(), bytes));
    match document {
        Document::List(list) => {
            if depth >= MAX_NESTING {
                return Err(invalid("manifest lists are nested too deeply"));
            }
            let present =
                |d: &&Descriptor| spool.path(&blob_name(&d.digest)).is_some() && !d.is_attestation();
            let chosen = match list.choose(platform) {
                Ok(chosen) if present(&chosen) => chosen,
                other => {
                    let mut candidates = list.manifests.iter().filter(present);
                    match (candidates.next(), candidates.next()) {
                        (Some(only), None) => only,
                        _ => {
                            other?;
                            return Err(Error::NoMatchingManifest { platform: platform.to_string() });
                        }
                    }
                }
            };
            layout_image(spool, platform, chosen, names, manifests, depth + 1)
        }
        Document::Image(manifest) => {
            let config = blob(spool, &manifest.config, CONFIG_LIMIT)?;
            let layers = manifest
                .layers
                .iter()
                .map(|layer| {
                    let name = blob_name(&layer.digest);
                    let path = spool
                        .path(&name)
                        .ok_or_else(|| invalid(&format!("blob {} is missing", layer.digest)))?;
                    match digest_of(path)?.0 == layer.digest {
                        true => Ok(path.to_owned()),
                        false => Err(Error::DigestMismatch { digest: layer.digest.to_string() }),
                    }
                })
                .collect::<Result<_, Error>>()?;
            let layer_blobs = manifest.layers.iter().map(|l| l.digest.clone()).collect();
            Ok(Plan { config, names, layers, layer_blobs, manifests })
        }
    }
}

/// Reads a blob of the layout and checks its digest.
fn blob(spool: &Spool, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
    let bytes = spool.read(&blob_name(&descriptor.digest), limit)?;
    if Digest::of(&bytes) != descriptor.digest {
        return Err(Error::ManifestMismatch { digest: descriptor.digest.to_string() });
    }
    Ok(bytes)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Finds the name that an index entry gives its image.
///
/// containerd and buildkit write the whole name; the OCI annotation may be a whole name (skopeo) or just a tag,
/// which alone names nothing.
fn name_of(descriptor: &Descriptor) -> Result<Vec<Reference>, Error> {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|value| !value.is_empty());
    let name = annotation("io.containerd.image.name")
        .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/'])));
    match name {
        Some(name) => Ok(vec![Reference::parse(name)?.or_latest().prefer_digest()]),
        None => Ok(Vec::new()),
    }
}

fn invalid(reason: &str) -> Error {
    Error::Archive { reason: format!("invalid archive: {reason}") }
}
