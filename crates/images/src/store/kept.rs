//! Layers that somebody else than an image needs: the build cache's.
//!
//! A record has a key, layers and a text of its owner's. While it is there its layers are, like those of an image.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::metadata::Change;
use super::{Inner, LayerLease, Store};
use crate::digest::Digest;
use crate::error::Error;

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The layers, lowest first.
    pub layers: Vec<Digest>,
    /// The owner's text.
    pub data: String,
}

/// Layers that stay on disk for as long as this is held. Clones share it.
#[derive(Clone)]
pub struct Held {
    layers: Vec<Arc<LayerLease>>,
}

impl Held {
    /// No layers.
    pub fn nothing() -> Held {
        Held { layers: Vec::new() }
    }

    pub(crate) fn new(leases: Vec<LayerLease>) -> Held {
        Held { layers: leases.into_iter().map(Arc::new).collect() }
    }

    /// The layers' diff ids, lowest first.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = &Digest> {
        self.layers.iter().map(|lease| lease.diff_id())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// These layers with others on top.
    #[must_use]
    pub fn with(mut self, on_top: &Held) -> Held {
        self.layers.extend(on_top.layers.iter().cloned());
        self
    }

    /// The lowest layer alone.
    #[must_use]
    pub fn first(&self) -> Held {
        Held { layers: self.layers.first().cloned().into_iter().collect() }
    }

    /// The layers from `from` on.
    #[must_use]
    pub fn above(&self, from: usize) -> Held {
        Held { layers: self.layers.get(from..).unwrap_or_default().to_vec() }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.layers()).finish()
    }
}

impl Store {
    /// Holds layers; `None` when one of them is not here.
    pub fn hold(&self, layers: &[Digest]) -> Option<Held> {
        let leases: Option<Vec<_>> = layers.iter().map(|layer| self.inner.lease(layer)).collect();
        leases.map(Held::new)
    }

    /// The directories of layers, in the given order.
    pub fn layer_dirs<'a>(&self, layers: impl Iterator<Item = &'a Digest>) -> Vec<PathBuf> {
        layers.map(|layer| self.inner.layout.layer(layer)).collect()
    }

    /// Bytes of a layer's files; 0 for one that is not here.
    pub fn layer_size(&self, layer: &Digest) -> u64 {
        let state = self.inner.state();
        let record = state.committed.layers.get(layer).or_else(|| state.pending.get(layer));
        record.map_or(0, |record| record.size)
    }

    /// Says whether an image has a layer.
    pub fn image_has(&self, layer: &Digest) -> bool {
        let state = self.inner.state();
        state.committed.images.values().any(|record| !record.hidden && record.layers.contains(layer))
    }

    /// All records.
    pub fn kept(&self) -> Vec<(String, Kept)> {
        let state = self.inner.state();
        state.committed.kept.iter().map(|(key, kept)| (key.clone(), kept.clone())).collect()
    }

    /// Puts and deletes records in one step; it is on disk when this returns. Layers that nobody needs any more go.
    /// Blocks.
    ///
    /// A record whose layers are not here (any more) is left out.
    ///
    /// # Errors
    /// Storage and database errors: nothing has changed then.
    pub fn keep(&self, put: Vec<(String, Kept)>, delete: Vec<String>) -> Result<(), Error> {
        let inner = &self.inner;
        let _one_at_a_time = inner.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let mut change = Change { delete_kept: delete, ..Change::default() };
        let mut blobs = Vec::new();
        let gone;
        {
            let state = inner.state();
            let here = |layer: &Digest| {
                state.committed.layers.contains_key(layer) || state.pending.contains_key(layer)
            };
            change.put_kept = put.into_iter().filter(|(_, kept)| kept.layers.iter().all(here)).collect();
            for layer in change.put_kept.iter().flat_map(|(_, kept)| &kept.layers) {
                let new =
                    state.pending.get(layer).filter(|_| !change.put_layers.iter().any(|(l, _)| l == layer));
                if let Some(record) = new {
                    blobs.extend(record.blob.clone());
                    change.put_layers.push((layer.clone(), record.clone()));
                }
            }
            gone = state.plan_release(&mut change);
        }
        if change.is_empty() {
            return Ok(());
        }
        publish_blobs(inner, &blobs)?;
        if !change.put_layers.is_empty() {
            inner.layout.sync()?;
        }
        inner.metadata.commit(&change)?;
        inner.apply(change);
        self.delete_files(&gone)
    }
}

fn publish_blobs(inner: &Inner, blobs: &[Digest]) -> Result<(), Error> {
    for blob in blobs {
        let partial = inner.layout.partial(blob);
        if partial.exists() {
            inner.layout.publish(&partial, &inner.layout.blob(blob))?;
            inner.layout.remove_partial(blob)?;
        }
    }
    Ok(())
}
