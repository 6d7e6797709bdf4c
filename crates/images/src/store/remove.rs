//! Removing names and images, with Docker's rules about what stands in the way.

use std::collections::HashSet;
use std::sync::PoisonError;

use super::metadata::{Change, ImageRecord};
use super::{State, Store};
use crate::digest::Digest;
use crate::error::Error;
use crate::reference::{Reference, Target};

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InUse {
    /// The container runs (or is paused); its id.
    Running(String),
    /// The container exists; its id.
    Stopped(String),
}

impl InUse {
    fn container(&self) -> &str {
        match self {
            InUse::Running(id) | InUse::Stopped(id) => id,
        }
    }
}

/// Whether what an image was made of goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    /// It goes, as far as nobody else wants it.
    Prune,
    /// It stays.
    Keep,
}

/// What a removal did, in the order it did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone; its familiar form.
    Untagged(String),
    /// A digest went with the last tag of its repository; its familiar form. Docker tells no event of it.
    UntaggedToo(String),
    /// An image is gone; its id.
    Deleted(String),
    /// A layer is gone; its chain id.
    DeletedLayer(String),
}

impl Store {
    /// Removes a name, and the image with its last name; or an image by its id. With [`Parents::Prune`] the images that it
    /// was made of go too, as far as they have no name, no user and no other child.
    ///
    /// `in_use` is asked for a container that uses an image id, a running one if there is one. With `force` an
    /// image that a stopped container uses goes out of sight, but its layers stay until
    /// [`Store::collect`] finds it unused.
    ///
    /// # Errors
    /// [`Error::Conflict`] with Docker's reason; [`Error::NoSuchImage`]; storage errors.
    pub fn remove(
        &self,
        reference: &str,
        force: bool,
        parents: Parents,
        in_use: &dyn Fn(&str) -> Option<InUse>,
    ) -> Result<Vec<Removed>, Error> {
        let _one_at_a_time = self.inner.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let target = Target::parse(reference)?;
        let (id, names, has_children) = {
            let state = self.inner.state();
            let id = state.find(reference, &target)?;
            let names = state.names_of(&id);
            let has_children = state.has_children(&id);
            (id, names, has_children)
        };
        let user = in_use(&id);
        let mut plan = Plan { change: Change::default(), removed: Vec::new() };
        let by_name = match &target {
            Target::Name(name) => {
                let name = name.clone().or_latest().prefer_digest();
                names.contains(&name).then_some(name)
            }
            Target::Id(_) => None,
        };
        let mut left = names.clone();
        if let Some(name) = &by_name {
            if let Some(user) = &user
                && !force
                && is_single(&names)
            {
                return Err(Error::Conflict {
                    message: format!(
                        "unable to remove repository reference \"{reference}\" (must force) - container {} is using its referenced image {}",
                        short(user.container()),
                        short(&id)
                    ),
                });
            }
            plan.untag(name, &mut left);
            let same = |other: &Reference| other.name() == name.name();
            if name.digest().is_none() && !left.iter().any(|n| n.digest().is_none() && same(n)) {
                // The last tag of a repository takes the repository's digests with it.
                for digest in left.clone().iter().filter(|n| same(n)) {
                    plan.untag(digest, &mut left);
                    if let Some(removed) = plan.removed.last_mut() {
                        *removed = Removed::UntaggedToo(digest.familiar());
                    }
                }
            }
            if !left.is_empty() {
                self.inner.metadata.commit(&plan.change)?;
                self.inner.apply(plan.change);
                return Ok(plan.removed);
            }
        }
        // A name that was given is untagged even when the image itself has to stay.
        let quiet = by_name.is_some();
        let conflict = |hard: bool, message: String| Error::Conflict {
            message: format!(
                "unable to delete {} ({}) - {message}",
                short(&id),
                if hard { "cannot be forced" } else { "must be forced" }
            ),
        };
        let stays = match &user {
            _ if has_children => Some("image has dependent child images".to_owned()),
            Some(InUse::Running(container)) => {
                Some(format!("image is being used by running container {}", short(container)))
            }
            _ => None,
        };
        if let Some(message) = stays {
            if !quiet {
                return Err(conflict(true, message));
            }
            self.inner.metadata.commit(&plan.change)?;
            self.inner.apply(plan.change);
            return Ok(plan.removed);
        }
        match &user {
            _ if !force && !quiet && !is_single(&names) => {
                return Err(conflict(false, "image is referenced in multiple repositories".to_owned()));
            }
            Some(InUse::Stopped(container)) if !force => {
                let message = format!("image is being used by stopped container {}", short(container));
                return Err(conflict(false, message));
            }
            _ => {}
        }
        for name in left.clone() {
            plan.untag(&name, &mut left);
        }
        let parent = self.inner.state().committed.images.get(&id).and_then(|record| record.parent.clone());
        self.delete_planned(&id, user.is_some(), &mut plan)?;
        if parents == Parents::Prune {
            self.prune_parents(parent, in_use, &mut plan.removed)?;
        }
        Ok(plan.removed)
    }

    /// Carries out what is planned, with the end of an image: it only goes out of sight while somebody uses it.
    fn delete_planned(&self, id: &str, used: bool, plan: &mut Plan) -> Result<(), Error> {
        plan.removed.push(Removed::Deleted(id.to_owned()));
        let mut gone = Gone::default();
        let mut change = std::mem::take(&mut plan.change);
        if used {
            let record = self.inner.state().committed.images[id].clone();
            change.put_images.push((id.to_owned(), ImageRecord { hidden: true, ..record }));
        } else {
            let state = self.inner.state();
            gone = state.plan_delete(id, &mut change);
            let chain_ids = state.chain_ids(id);
            let deleted = chain_ids.into_iter().rev().filter(|(layer, _)| gone.layers.contains(layer));
            plan.removed.extend(deleted.map(|(_, chain_id)| Removed::DeletedLayer(chain_id)));
        }
        self.inner.metadata.commit(&change)?;
        self.inner.apply(change);
        self.delete_files(&gone)
    }

    /// Removes what an image was made of, quietly, up to the first one that somebody still wants.
    fn prune_parents(
        &self,
        parent: Option<String>,
        in_use: &dyn Fn(&str) -> Option<InUse>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let mut next = parent;
        while let Some(id) = next {
            let wanted = {
                let state = self.inner.state();
                let shown = state.committed.images.get(&id).filter(|record| !record.hidden);
                next = shown.and_then(|record| record.parent.clone());
                shown.is_none() || !state.names_of(&id).is_empty() || state.has_children(&id)
            };
            if wanted || in_use(&id).is_some() {
                return Ok(());
            }
            let mut plan = Plan { change: Change::default(), removed: Vec::new() };
            self.delete_planned(&id, false, &mut plan)?;
            removed.append(&mut plan.removed);
        }
        Ok(())
    }

    /// Deletes images that were removed by force and that no container uses any more.
    ///
    /// # Errors
    /// Storage and database errors.
    pub fn collect(&self, in_use: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        let _one_at_a_time = self.inner.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let hidden: Vec<String> = {
            let state = self.inner.state();
            state.committed.images.iter().filter(|(_, r)| r.hidden).map(|(id, _)| id.clone()).collect()
        };
        for id in hidden.into_iter().filter(|id| !in_use(id)) {
            let mut change = Change::default();
            let gone = self.inner.state().plan_delete(&id, &mut change);
            self.inner.metadata.commit(&change)?;
            self.inner.apply(change);
            self.delete_files(&gone)?;
        }
        Ok(())
    }

    /// Deletes what the database does not name any more; a crash in between is made good at the next open.
    pub(super) fn delete_files(&self, gone: &Gone) -> Result<(), Error> {
        for layer in &gone.layers {
            // Somebody may hold the layer for an image that is about to be committed.
            let staged = {
                let mut state = self.inner.state();
                if state.leases.contains_key(layer) {
                    if let Some(record) = gone.record(layer) {
                        state.pending.insert(layer.clone(), record);
                        state.removed.insert(layer.clone());
                    }
                    continue;
                }
                self.inner.layout.take_layer(layer)?
            };
            drop(staged);
        }
        let needed = self.inner.state().needed_blobs();
        for blob in gone.blobs.iter().filter(|blob| !needed.contains(blob)) {
            self.inner.layout.remove_blob(blob)?;
            self.inner.layout.remove_partial(blob)?;
        }
        Ok(())
    }
}

struct Plan {
    change: Change,
    removed: Vec<Removed>,
}

impl Plan {
    fn untag(&mut self, name: &Reference, left: &mut Vec<Reference>) {
        self.change.delete_names.push(name.to_string());
        self.removed.push(Removed::Untagged(name.familiar()));
        left.retain(|n| n != name);
    }
}

/// Files that go with an image or a record.
#[derive(Default)]
pub(super) struct Gone {
    layers: Vec<Digest>,
    records: Vec<super::LayerRecord>,
    blobs: Vec<Digest>,
}

impl Gone {
    fn record(&self, layer: &Digest) -> Option<super::LayerRecord> {
        let at = self.layers.iter().position(|l| l == layer)?;
        self.records.get(at).cloned()
    }
}

impl State {
    /// Says whether another image was made of this one here.
    fn has_children(&self, id: &str) -> bool {
        self.committed.images.values().any(|record| !record.hidden && record.parent.as_deref() == Some(id))
    }

    /// Plans an image's end: which records and which files go, because no other image needs them.
    fn plan_delete(&self, id: &str, change: &mut Change) -> Gone {
        let mut gone = Gone::default();
        let Some(record) = self.committed.images.get(id) else { return gone };
        let others = || self.committed.images.iter().filter(|(other, _)| *other != id).map(|(_, r)| r);
        for layer in &record.layers {
            if gone.layers.contains(layer)
                || others().any(|r| r.layers.contains(layer))
                || self.is_kept(layer)
            {
                continue;
            }
            if let Some(layer_record) = self.committed.layers.get(layer) {
                gone.layers.push(layer.clone());
                gone.records.push(layer_record.clone());
                gone.blobs.extend(layer_record.blob.clone());
                change.delete_layers.push(layer.clone());
            }
        }
        gone.blobs.extend(record.manifests.iter().cloned());
        gone.blobs.extend(id.parse::<Digest>());
        change.delete_images.push(id.to_owned());
        gone
    }

    /// Plans the end of the layers that only the records of `change.delete_kept` have kept.
    pub(super) fn plan_release(&self, change: &mut Change) -> Gone {
        let mut gone = Gone::default();
        if change.delete_kept.is_empty() {
            return gone;
        }
        let mut needed: HashSet<&Digest> = self.committed.images.values().flat_map(|r| &r.layers).collect();
        let others = self.committed.kept.iter().filter(|(key, _)| !change.delete_kept.contains(key));
        needed.extend(others.flat_map(|(_, kept)| &kept.layers));
        needed.extend(change.put_kept.iter().flat_map(|(_, kept)| &kept.layers));
        for key in &change.delete_kept {
            for layer in self.committed.kept.get(key).map(|kept| &kept.layers).into_iter().flatten() {
                if needed.contains(layer) || gone.layers.contains(layer) {
                    continue;
                }
                if let Some(record) = self.committed.layers.get(layer) {
                    gone.layers.push(layer.clone());
                    gone.records.push(record.clone());
                    gone.blobs.extend(record.blob.clone());
                }
            }
        }
        change.delete_layers.extend(gone.layers.iter().cloned());
        gone
    }

    /// Lists the layers with their chain ids, lowest first; those are the ids that Docker reports as deleted.
    fn chain_ids(&self, id: &str) -> Vec<(Digest, String)> {
        let mut chain: Option<String> = None;
        let layers = self.committed.images.get(id).map(|r| r.layers.as_slice()).unwrap_or_default();
        let mut chained = Vec::with_capacity(layers.len());
        for layer in layers {
            let next = match &chain {
                None => layer.to_string(),
                Some(below) => Digest::of(format!("{below} {layer}").as_bytes()).to_string(),
            };
            chained.push((layer.clone(), next.clone()));
            chain = Some(next);
        }
        chained
    }
}

/// Says whether all names are of one repository, at most one tag and its digests (Docker's rule).
fn is_single(names: &[Reference]) -> bool {
    if names.len() <= 1 {
        return true;
    }
    let mut tags = names.iter().filter(|n| n.digest().is_none());
    let first = tags.next().or(names.first());
    tags.next().is_none() && first.is_some_and(|first| names.iter().all(|n| n.name() == first.name()))
}

fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}
