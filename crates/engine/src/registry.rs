//! Which containers there are, by id and by name.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use crate::container::Container;
use crate::error::{Error, Result};

#[derive(Debug, Default)]
pub(crate) struct Registry {
    maps: RwLock<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Names to ids; a name is taken here before its container is there.
    by_name: HashMap<String, String>,
}

impl Registry {
    fn read<T>(&self, look: impl FnOnce(&Maps) -> T) -> T {
        look(&self.maps.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Maps) -> T) -> T {
        change(&mut self.maps.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a name for an id.
    ///
    /// # Errors
    /// A conflict that names the holder.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        self.write(|maps| match maps.by_name.get(name) {
            Some(holder) => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            ))),
            None => {
                maps.by_name.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        })
    }

    pub fn release(&self, name: &str) {
        self.write(|maps| maps.by_name.remove(name));
    }

    pub fn insert(&self, container: Arc<Container>) {
        self.write(|maps| maps.by_id.insert(container.id.clone(), container));
    }

    pub fn remove(&self, id: &str, name: &str) {
        self.write(|maps| {
            maps.by_id.remove(id);
            if maps.by_name.get(name).is_some_and(|holder| holder == id) {
                maps.by_name.remove(name);
            }
        });
    }

    pub fn all(&self) -> Vec<Arc<Container>> {
        self.read(|maps| maps.by_id.values().cloned().collect())
    }

    pub fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.read(|maps| maps.by_id.get(id).cloned())
    }

    /// Finds by id, name, or unique beginning of an id, in this order.
    pub fn get(&self, wanted: &str) -> Result<Arc<Container>> {
        if wanted.is_empty() {
            return Err(Error::invalid("invalid name or ID supplied: \"\""));
        }
        let missing = || Error::not_found(format!("No such container: {wanted}"));
        self.read(|maps| {
            if let Some(container) = maps.by_id.get(wanted) {
                return Ok(Arc::clone(container));
            }
            let bare = wanted.strip_prefix('/').unwrap_or(wanted);
            if let Some(container) = maps.by_name.get(bare).and_then(|id| maps.by_id.get(id)) {
                return Ok(Arc::clone(container));
            }
            let from = (Bound::Included(wanted), Bound::Unbounded);
            let mut found =
                maps.by_id.range::<str, _>(from).take_while(|(id, _)| id.starts_with(wanted)).map(|(_, c)| c);
            match (found.next(), found.next()) {
                (Some(only), None) => Ok(Arc::clone(only)),
                (Some(_), Some(_)) => {
                    Err(Error::invalid(format!("Multiple IDs found with provided prefix: {wanted}")))
                }
                _ => Err(missing()),
            }
        })
    }
}
