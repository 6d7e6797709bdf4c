//! Images as an archive (`docker save`): an OCI layout with the `manifest.json` that older programs read.
//!
//! Layers are kept compressed and saved as they were before, so that their digests are those that the image names. How
//! long one is has to be said before it, so each is unpacked twice; nothing is kept in memory or on disk for that.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::archive::{Header, Writer};
use crate::build::NewBuilt;
use crate::digest::Digest;
use crate::error::Error;
use crate::image::ParsedConfig;
use crate::layer::Decoder;
use crate::platform::Platform;
use crate::push::{BuiltFor, oci_index};
use crate::reference::{Reference, Target};
use crate::store::{Held, Inner, LayerLease, Store};

const BUFFER: usize = 256 << 10;
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Images about to be saved; their layers stay as long as this does.
pub struct Save {
    inner: Arc<Inner>,
    images: Vec<Chosen>,
    /// The names of the list that all images are members of, when they are one image for several platforms.
    list: Option<Vec<Reference>>,
    _leases: Vec<LayerLease>,
}

struct Chosen {
    parsed: ParsedConfig,
    /// Complete forms, with tags.
    names: Vec<Reference>,
    /// The configuration of one that is not in the store.
    config: Option<Vec<u8>>,
    /// What it is for, as a member of a list.
    platform: Option<Platform>,
}

impl std::fmt::Debug for Save {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Save").field("ids", &self.ids()).finish_non_exhaustive()
    }
}

impl Store {
    /// Chooses images by names and ids. A name with a tag saves that name alone, one without saves every tag of it, and
    /// an id saves no name.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; nothing is written then.
    pub fn save(&self, names: &[String]) -> Result<Save, Error> {
        let mut save =
            Save { inner: Arc::clone(&self.inner), images: Vec::new(), list: None, _leases: Vec::new() };
        for typed in names {
            let image = |reference: &str| self.get(reference).map(|image| image.id);
            let Ok(Target::Name(name)) = Target::parse(typed) else {
                save.choose(&image(typed)?, None)?;
                continue;
            };
            let tags = match (name.tag(), name.digest()) {
                (None, None) => self.inner.tags_of(&name),
                _ => Vec::new(),
            };
            if tags.is_empty() {
                let id = image(typed).map_err(|error| match error {
                    // Docker's words: without the tag that nobody has typed.
                    Error::NoSuchImage { .. } if name.digest().is_some() => {
                        Error::NotPushed { message: "reference does not exist".to_owned() }
                    }
                    Error::NoSuchImage { .. } => Error::NoSuchImage { reference: typed.clone() },
                    other => other,
                })?;
                // What was typed may have been the beginning of an id.
                let named = name.tag().is_some() && name.digest().is_none();
                save.choose(&id, named.then(|| name.clone()))?;
            }
            for (tag, id) in tags {
                save.choose(&id, Some(Reference::parse(&format!("{}:{tag}", name.name()))?))?;
            }
        }
        Ok(save)
    }
}

impl Store {
    /// Prepares the archive of an image that is none of the store's. Blocks.
    ///
    /// # Errors
    /// As [`Store::add_image`].
    pub fn save_built(&self, new: NewBuilt, layers: &Held) -> Result<Save, Error> {
        let names = new.names.iter().map(|name| Ok(Reference::parse(name)?.or_latest()));
        let names = names.collect::<Result<Vec<_>, Error>>()?;
        let (image, leases) = self.built(new.config, names, layers)?;
        Ok(Save { inner: Arc::clone(&self.inner), images: vec![image], list: None, _leases: leases })
    }

    /// Prepares the archive of an image for several platforms that is none of the store's: an OCI layout with a list of
    /// manifests, which has no `manifest.json`. Blocks.
    ///
    /// # Errors
    /// As [`Store::add_image`].
    pub fn save_several(&self, names: &[String], images: Vec<BuiltFor>) -> Result<Save, Error> {
        let names = names.iter().map(|name| Ok(Reference::parse(name)?.or_latest()));
        let names = names.collect::<Result<Vec<_>, Error>>()?;
        let mut save = Save {
            inner: Arc::clone(&self.inner),
            images: Vec::new(),
            list: Some(names),
            _leases: Vec::new(),
        };
        for BuiltFor { platform, config, layers } in images {
            let (mut image, leases) = self.built(config, Vec::new(), &layers)?;
            image.platform = Some(platform);
            save.images.push(image);
            save._leases.extend(leases);
        }
        Ok(save)
    }

    fn built(
        &self,
        config: Vec<u8>,
        names: Vec<Reference>,
        layers: &Held,
    ) -> Result<(Chosen, Vec<LayerLease>), Error> {
        let parsed = ParsedConfig::parse(&config)?;
        if !parsed.diff_ids.iter().eq(layers.layers()) {
            return Err(Error::Invalid { message: "the configuration names other layers".to_owned() });
        }
        let missing = || Error::Invalid { message: "a layer is not in the store".to_owned() };
        let leases = parsed.diff_ids.iter().map(|layer| self.inner.lease(layer).ok_or_else(missing));
        let leases = leases.collect::<Result<Vec<_>, Error>>()?;
        Ok((Chosen { parsed, names, config: Some(config), platform: None }, leases))
    }
}

impl Save {
    /// The ids of the images, in order.
    pub fn ids(&self) -> Vec<String> {
        self.images.iter().map(|image| image.parsed.id.to_string()).collect()
    }

    /// What programs from before `manifest.json` read: the top layer of each name.
    fn repositories(&self) -> serde_json::Map<String, Value> {
        let mut repositories = serde_json::Map::new();
        for image in &self.images {
            let Some(top) = image.parsed.diff_ids.last() else { continue };
            for name in &image.names {
                let tags = repositories.entry(name.familiar_name()).or_insert_with(|| json!({}));
                if let (Some(tag), Some(tags)) = (name.tag(), tags.as_object_mut()) {
                    tags.insert(tag.to_owned(), Value::from(top.hex()));
                }
            }
        }
        repositories
    }

    fn choose(&mut self, id: &str, name: Option<Reference>) -> Result<(), Error> {
        let missing = || Error::NoSuchImage { reference: id.to_owned() };
        let parsed = self.inner.parsed(id).ok_or_else(missing)?;
        let at = match self.images.iter().position(|image| image.parsed.id == parsed.id) {
            Some(at) => at,
            None => {
                for layer in &parsed.diff_ids {
                    self._leases.push(self.inner.lease(layer).ok_or_else(missing)?);
                }
                self.images.push(Chosen { parsed, names: Vec::new(), config: None, platform: None });
                self.images.len() - 1
            }
        };
        let names = &mut self.images[at].names;
        if let Some(name) = name.filter(|name| !names.iter().any(|have| have.to_string() == name.to_string()))
        {
            names.push(name);
        }
        Ok(())
    }

    /// Writes the archive. Blocks.
    ///
    /// # Errors
    /// When a layer can't be read, or the archive can't be written.
    pub fn write(self, out: impl Write) -> io::Result<()> {
        let mut archive =
            Saving { out: Writer::new(out), sizes: Default::default(), written: HashSet::new() };
        for path in ["blobs/", "blobs/sha256/"] {
            archive.out.header(&Header::directory(path, 0))?;
        }
        let (mut entries, mut saved, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for image in &self.images {
            let (manifest, line) = archive.image(&self.inner, image)?;
            if let Some(platform) = &image.platform {
                members.push((Digest::of(&manifest), manifest.len(), platform.clone()));
            } else {
                entries.extend(named(MANIFEST, &manifest, &image.names));
                saved.push(line);
            }
        }
        if let Some(names) = &self.list {
            let list = oci_index(&members);
            archive.blob(&Digest::of(&list), &list)?;
            entries.extend(named(INDEX, &list, names));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        archive.out.file("index.json", index.to_string().as_bytes(), 0)?;
        if self.list.is_none() {
            archive.out.file("manifest.json", Value::Array(saved).to_string().as_bytes(), 0)?;
        }
        archive.out.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0)?;
        let repositories = self.repositories();
        if !repositories.is_empty() {
            archive.out.file("repositories", Value::Object(repositories).to_string().as_bytes(), 0)?;
        }
        archive.out.finish().map(drop)
    }
}

struct Saving<W> {
    out: Writer<W>,
    sizes: std::collections::HashMap<Digest, u64>,
    written: HashSet<Digest>,
}

impl<W: Write> Saving<W> {
    /// Writes what one image needs; returns its manifest and its line of `manifest.json`.
    fn image(&mut self, inner: &Inner, image: &Chosen) -> io::Result<(Vec<u8>, Value)> {
        let ParsedConfig { id, diff_ids, .. } = &image.parsed;
        let config = match &image.config {
            Some(config) => config.clone(),
            None => std::fs::read(inner.layout.blob(id))?,
        };
        for layer in diff_ids {
            self.layer(inner, layer)?;
        }
        self.blob(id, &config)?;
        let descriptor = |digest: &Digest| json!({ "mediaType": LAYER, "size": self.sizes.get(digest), "digest": digest.as_str() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": id.as_str(), "size": config.len() },
            "layers": diff_ids.iter().map(descriptor).collect::<Vec<_>>(),
        });
        let sources: serde_json::Map<String, Value> =
            diff_ids.iter().map(|digest| (digest.to_string(), descriptor(digest))).collect();
        let manifest = manifest.to_string().into_bytes();
        self.blob(&Digest::of(&manifest), &manifest)?;
        let tags: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        let line = json!({
            "Config": blob_path(id),
            "RepoTags": if tags.is_empty() { Value::Null } else { Value::from(tags) },
            "Layers": diff_ids.iter().map(blob_path).collect::<Vec<_>>(),
            "LayerSources": sources,
        });
        Ok((manifest, line))
    }

    fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        match self.written.insert(digest.clone()) {
            true => self.out.file(&blob_path(digest), bytes, 0),
            false => Ok(()),
        }
    }

    fn layer(&mut self, inner: &Inner, diff_id: &Digest) -> io::Result<()> {
        if !self.written.insert(diff_id.clone()) {
            return Ok(());
        }
        let missing = || io::Error::other(format!("the archive of layer {diff_id} is not in the store"));
        let path = inner.layout.stored(&inner.blob_of(diff_id).ok_or_else(missing)?);
        let open = || Decoder::buffered(File::open(&path)?).map_err(io::Error::other);
        let size = io::copy(&mut open()?, &mut io::sink())?;
        self.sizes.insert(diff_id.clone(), size);
        self.out.header(&Header::file(&blob_path(diff_id), size, 0))?;
        let (mut source, mut left, mut buffer) = (open()?, size, vec![0; BUFFER]);
        while left > 0 {
            let got = source.read(&mut buffer)?;
            if got == 0 || got as u64 > left {
                return Err(io::Error::other(format!("the archive of layer {diff_id} has changed")));
            }
            self.out.data(&buffer[..got])?;
            left -= got as u64;
        }
        self.out.pad(size)
    }
}

/// The entries of `index.json` for a document: one for each name, or one without.
fn named(media_type: &str, document: &[u8], names: &[Reference]) -> Vec<Value> {
    let digest = Digest::of(document);
    let entry = json!({ "mediaType": media_type, "digest": digest.as_str(), "size": document.len() });
    let named = |name: &Reference| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({
            "io.containerd.image.name": name.to_string(),
            "org.opencontainers.image.ref.name": name.tag(),
        });
        entry
    };
    match names {
        [] => vec![entry],
        names => names.iter().map(named).collect(),
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
