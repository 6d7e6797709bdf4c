//! `docker images` and `docker image prune`: which images a client asks for.

use bollard_stubs::models::{ImageDeleteResponseItem, ImagePruneResponse, ImageSummary};
use skiff_images::{Image, Parents};

use super::{created_ns, image_error, in_use, pattern};
use crate::container::until;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::events::Kind;
use crate::filters::Filters;

/// Which images to list.
#[derive(Debug, Clone, Default)]
pub struct ListImages {
    /// Images too that have no name and that others were made of here.
    pub all: bool,
    /// How many bytes each shares with others is wanted.
    pub shared_size: bool,
    /// How many containers use each is wanted.
    pub containers: bool,
    /// Which ones.
    pub filters: Filters,
}

impl Engine {
    /// Lists images, newest first.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn list_images(&self, options: ListImages) -> Result<Vec<ImageSummary>> {
        let filters = &options.filters;
        filters.check(&["before", "dangling", "label", "label!", "reference", "since", "until"])?;
        let dangling = filters.boolean("dangling")?;
        let patterns = filters.get("reference").unwrap_or_default();
        if patterns.iter().any(|pattern| !pattern::is_valid(pattern)) {
            return Err(Error::new(Code::Internal, "syntax error in pattern"));
        }
        let created = |name: &str| -> Result<Option<u64>> {
            match filters.get(name).and_then(|names| names.first()) {
                Some(name) => self.find_image(name).map(|image| Some(created_ns(&image))),
                None => Ok(None),
            }
        };
        let (before, since, until) = (created("before")?, created("since")?, until(filters)?);
        let users = options.containers.then(|| self.image_users());
        let shared = options.shared_size.then(|| self.0.config.images.shared_sizes());
        let children = self.0.config.images.children();
        let mut images = self.0.config.images.list();
        images.retain_mut(|image| {
            let at = created_ns(image);
            let nameless = image.repo_tags.is_empty() && image.repo_digests.is_empty();
            image.repo_tags = matching(filters, &image.repo_tags);
            image.repo_digests = matching(filters, &image.repo_digests);
            let named = !image.repo_tags.is_empty() || !image.repo_digests.is_empty();
            let has_children = children.contains_key(&image.id);
            let wanted = match (nameless, dangling) {
                (true, Some(false)) => false,
                (true, wanted) => !has_children || options.all && wanted.is_none(),
                (false, Some(true)) => image.repo_tags.is_empty() && !has_children,
                (false, _) => true,
            };
            wanted
                && (named || patterns.is_empty())
                && before.is_none_or(|before| at < before)
                && since.is_none_or(|since| at > since)
                && until.is_none_or(|until| at < until)
                && filters.labels(Some(&image.labels))
                && filters.not_labels(Some(&image.labels))
        });
        images.sort_by_key(|image| std::cmp::Reverse(created_ns(image)));
        Ok(images
            .into_iter()
            .map(|image| ImageSummary {
                parent_id: image.parent.clone().unwrap_or_default(),
                created: (created_ns(&image) / 1_000_000_000) as i64,
                size: image.size as i64,
                shared_size: shared.as_ref().map_or(-1, |shared| {
                    shared.get(&image.id).map_or(0, |&size| i64::try_from(size).unwrap_or(i64::MAX))
                }),
                containers: match &users {
                    Some(users) => users.get(&image.id).map_or(0, |users| users.len() as i64),
                    None => -1,
                },
                repo_tags: image.repo_tags,
                repo_digests: image.repo_digests,
                labels: image.labels,
                id: image.id,
                ..ImageSummary::default()
            })
            .collect())
    }

    /// Removes unused images: those without a name, or with `dangling=false` all.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn prune_images(&self, filters: Filters) -> Result<ImagePruneResponse> {
        filters.check(&["dangling", "label", "label!", "until"])?;
        let only_dangling = filters.boolean("dangling")?.unwrap_or(true);
        let until = until(&filters)?;
        let engine = self.clone();
        blocking(move || {
            let images = &engine.0.config.images;
            let users = engine.image_users();
            let children = images.children();
            let before = images.disk_usage();
            let mut deleted: Vec<ImageDeleteResponseItem> = Vec::new();
            for image in images.list() {
                if users.contains_key(&image.id)
                    // What others were made of goes with the last of them.
                    || children.contains_key(&image.id) && is_nameless(&image)
                    || only_dangling && !image.repo_tags.is_empty()
                    || until.is_some_and(|until| created_ns(&image) >= until)
                    || !filters.labels(Some(&image.labels))
                    || !filters.not_labels(Some(&image.labels))
                {
                    continue;
                }
                match images.remove(&image.id, true, Parents::Prune, &|id| in_use(&users, id)) {
                    Ok(removed) => deleted.extend(engine.removed(&image.id, &image.labels, removed)),
                    Err(error) => {
                        let error = image_error(&error);
                        tracing::debug!(%error, image = image.id, "not pruned");
                    }
                }
            }
            let reclaimed = before.saturating_sub(images.disk_usage());
            let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
            engine.0.events.publish(Kind::Image, "prune", "", attributes);
            Ok(ImagePruneResponse {
                images_deleted: Some(deleted),
                space_reclaimed: i64::try_from(reclaimed).ok(),
            })
        })
        .await
    }
}

fn is_nameless(image: &Image) -> bool {
    image.repo_tags.is_empty() && image.repo_digests.is_empty()
}

/// The names that a `reference` filter asks for; all without one.
fn matching(filters: &Filters, names: &[String]) -> Vec<String> {
    let asked = |name: &&String| filters.any("reference", |wanted| pattern::reference_matches(wanted, name));
    names.iter().filter(asked).cloned().collect()
}
