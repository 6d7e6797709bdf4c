//! Giving names to images, and remembering which built-in images were brought in.

use std::sync::PoisonError;

use super::Store;
use super::commit::now;
use super::metadata::Change;
use crate::error::Error;
use crate::image::Image;
use crate::reference::{Reference, Target};

/// Refuses a name that reads like the beginning of an image's id.
pub(super) fn check_name(name: &Reference) -> Result<(), Error> {
    match name.familiar_name() == "sha256" {
        true => Err(Error::Invalid {
            message: "refusing to create an ambiguous tag using digest algorithm as name".to_owned(),
        }),
        false => Ok(()),
    }
}

impl Store {
    /// Gives an image another name; the name moves when another image has it.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; a name that is none, or that has a digest.
    pub fn tag(&self, source: &str, target: &str) -> Result<Image, Error> {
        let name = Reference::parse(target)?;
        if name.digest().is_some() {
            return Err(Error::Invalid {
                message: "refusing to create a tag with a digest reference".to_owned(),
            });
        }
        let name = name.or_latest();
        check_name(&name)?;
        let _one_at_a_time = self.inner.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let source_target = Target::parse(source)?;
        let mut change = Change::default();
        let id = {
            let state = self.inner.state();
            let id = state.find(source, &source_target)?;
            if state.committed.names.get(&name.to_string()) != Some(&id) {
                let mut record = state.committed.images[&id].clone();
                record.last_tagged = Some(now());
                change.put_images.push((id.clone(), record));
                change.put_names.push((name.to_string(), id.clone()));
            }
            id
        };
        self.inner.metadata.commit(&change)?;
        self.inner.apply(change);
        let image = self.inner.state().image(&id);
        image.ok_or_else(|| Error::NoSuchImage { reference: source_target.familiar() })
    }

    /// Says whether the built-in image of this marker was brought in before, present or not.
    pub(crate) fn is_seeded(&self, marker: &str) -> bool {
        self.inner.state().committed.seeds.contains_key(marker)
    }
}
