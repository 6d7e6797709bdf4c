//! Committing an image: from here on it is there, whatever happens.

use std::sync::{Arc, PoisonError};

use super::metadata::{Change, ImageRecord};
use super::names::check_name;
use super::{Inner, LayerLease};
use crate::digest::Digest;
use crate::error::Error;
use crate::image::ParsedConfig;
use crate::reference::Reference;

/// An image ready to be committed: its layers are on disk and leased.
pub(crate) struct NewImage {
    /// The configuration, byte for byte.
    pub config: Vec<u8>,
    pub parsed: ParsedConfig,
    /// Manifest lists and manifests that led here.
    pub manifests: Vec<(Digest, Vec<u8>)>,
    pub layer_blobs: Vec<Digest>,
    /// Names to give it; a name that another image has moves.
    pub names: Vec<Reference>,
    /// The image that this one was made of here.
    pub parent: Option<String>,
    /// The marker of a built-in image.
    pub seed: Option<String>,
    pub leases: Vec<LayerLease>,
}

impl Inner {
    /// Commits an image and its names in one step.
    pub fn commit_image(self: &Arc<Inner>, new: NewImage) -> Result<(), Error> {
        new.names.iter().try_for_each(check_name)?;
        let _one_at_a_time = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let id = new.parsed.id.to_string();
        let mut change = Change::default();
        let mut blobs = Vec::new();
        {
            let state = self.state();
            for lease in &new.leases {
                if let Some(record) = state.pending.get(lease.diff_id()) {
                    change.put_layers.push((lease.diff_id().clone(), record.clone()));
                    blobs.extend(record.blob.clone());
                }
            }
            let existing = state.committed.images.get(&id);
            let mut record = existing.cloned().unwrap_or(ImageRecord {
                layers: new.parsed.diff_ids.clone(),
                manifests: Vec::new(),
                layer_blobs: new.layer_blobs.clone(),
                last_tagged: None,
                parent: new.parent.clone(),
                hidden: false,
            });
            let manifests_before = record.manifests.len();
            for (digest, _) in &new.manifests {
                if !record.manifests.contains(digest) {
                    record.manifests.push(digest.clone());
                }
            }
            let mut renamed = false;
            for name in &new.names {
                let name = name.to_string();
                if state.committed.names.get(&name) != Some(&id) {
                    renamed = true;
                    change.put_names.push((name, id.clone()));
                }
            }
            if renamed {
                record.last_tagged = Some(now());
            }
            let unchanged =
                existing.is_some_and(|e| !e.hidden) && !renamed && record.manifests.len() == manifests_before;
            record.hidden = false;
            if !unchanged {
                change.put_images.push((id.clone(), record));
            }
            change.put_seeds.extend(new.seed.map(|marker| (marker, id.clone())));
        }
        if change.is_empty() {
            return Ok(());
        }
        self.layout.write_blob(&new.parsed.id, &new.config)?;
        for (digest, bytes) in &new.manifests {
            self.layout.write_blob(digest, bytes)?;
        }
        for blob in &blobs {
            let partial = self.layout.partial(blob);
            if partial.exists() {
                self.layout.publish(&partial, &self.layout.blob(blob))?;
            }
        }
        self.layout.sync()?;
        self.metadata.commit(&change)?;
        // A crash before an earlier commit may have put them back there.
        for blob in new.manifests.iter().map(|(digest, _)| digest).chain(&blobs).chain([&new.parsed.id]) {
            if let Err(error) = self.layout.remove_partial(blob) {
                tracing::warn!(%blob, %error, "superfluous download not removed; it will age out");
            }
        }
        self.state().parsed.insert(id, new.parsed);
        self.apply(change);
        // The leases go only now, when the layers are recorded.
        drop(new.leases);
        Ok(())
    }

    /// Repeats in memory what has been committed.
    pub(super) fn apply(&self, change: Change) {
        let mut state = self.state();
        for id in &change.delete_images {
            state.committed.images.remove(id);
            state.parsed.remove(id);
        }
        state.committed.images.extend(change.put_images);
        for name in &change.delete_names {
            state.committed.names.remove(name);
        }
        state.committed.names.extend(change.put_names);
        for layer in &change.delete_layers {
            state.committed.layers.remove(layer);
        }
        for (layer, record) in change.put_layers {
            state.pending.remove(&layer);
            state.removed.remove(&layer);
            state.committed.layers.insert(layer, record);
        }
        state.committed.seeds.extend(change.put_seeds);
        for key in &change.delete_kept {
            state.committed.kept.remove(key);
        }
        state.committed.kept.extend(change.put_kept);
    }
}

pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
