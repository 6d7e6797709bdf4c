//! What pushes and archives need to know of the store, and what the store remembers of it.

use std::sync::PoisonError;

use super::metadata::Change;
use super::{Inner, Store};
use crate::digest::Digest;
use crate::error::Error;
use crate::image::ParsedConfig;
use crate::reference::Reference;

impl Inner {
    /// Returns the configuration of an image by its complete id, hidden ones included.
    pub fn parsed(&self, id: &str) -> Option<ParsedConfig> {
        self.state().parsed.get(id).cloned()
    }

    /// Lists the layers of an image, lowest first.
    pub fn layers_of(&self, id: &str) -> Result<Vec<Digest>, Error> {
        let state = self.state();
        let record = state.committed.images.get(id);
        record
            .map(|record| record.layers.clone())
            .ok_or_else(|| Error::NoSuchImage { reference: id.to_owned() })
    }

    /// Lists the manifests that led to an image.
    pub fn manifests_of(&self, id: &str) -> Vec<Digest> {
        let state = self.state();
        state.committed.images.get(id).map(|record| record.manifests.clone()).unwrap_or_default()
    }

    /// Lists the tags of a repository with the images that they name.
    pub fn tags_of(&self, repository: &Reference) -> Vec<(String, String)> {
        let name = repository.name();
        let state = self.state();
        let names = state.committed.names.iter().filter_map(|(full, id)| {
            let full = Reference::parse(full).ok().filter(|full| full.name() == name)?;
            Some((full.tag()?.to_owned(), id.clone()))
        });
        names.collect()
    }

    /// The id of the image that a name means.
    pub fn named(&self, name: &Reference) -> Option<String> {
        self.state().committed.names.get(&name.to_string()).cloned()
    }

    /// Says whether any name here, with a tag or a digest, is of a repository.
    pub fn knows_repository(&self, repository: &Reference) -> bool {
        let name = repository.name();
        let state = self.state();
        state.committed.names.keys().any(|full| Reference::parse(full).is_ok_and(|full| full.name() == name))
    }

    /// Lists other repositories on the same registry that have been seen to have a layer.
    pub fn repositories_with(&self, beside: &Reference, diff_id: &Digest) -> Vec<Reference> {
        let state = self.state();
        let mut found: Vec<Reference> = Vec::new();
        for (name, id) in &state.committed.names {
            let Ok(name) = Reference::parse(name) else { continue };
            // Only a name with a digest was given by the registry itself.
            let known = name.digest().is_some()
                && name.domain() == beside.domain()
                && name.path() != beside.path()
                && !found.iter().any(|other| other.path() == name.path());
            if known && state.committed.images.get(id).is_some_and(|image| image.layers.contains(diff_id)) {
                found.push(name);
            }
        }
        found
    }

    /// Returns the blob that a layer came as.
    pub fn blob_of(&self, diff_id: &Digest) -> Option<Digest> {
        let state = self.state();
        let record = state.committed.layers.get(diff_id).or_else(|| state.pending.get(diff_id));
        record?.blob.clone()
    }

    /// Returns digest and size of a layer's compressed form, if it was made since the start.
    pub fn packed(&self, diff_id: &Digest) -> Option<(Digest, u64)> {
        self.state().packed.get(diff_id).cloned()
    }

    pub fn keep_packed(&self, diff_id: Digest, packed: (Digest, u64)) {
        self.state().packed.insert(diff_id, packed);
    }

    /// Reads a small blob of a committed image.
    pub async fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.layout.blob(digest);
        tokio::fs::read(&path).await.map_err(|e| Error::io("read", &path, e))
    }
}

impl Store {
    /// Remembers under which digest a registry has an image; one that was removed meanwhile stays removed.
    pub(crate) fn record_pushed(&self, id: &str, name: &Reference) -> Result<(), Error> {
        let _one_at_a_time = self.inner.commit.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.inner.state().committed.images.contains_key(id) || self.name_is(name, id) {
            return Ok(());
        }
        let change = Change { put_names: vec![(name.to_string(), id.to_owned())], ..Change::default() };
        self.inner.metadata.commit(&change)?;
        self.inner.apply(change);
        Ok(())
    }
}
