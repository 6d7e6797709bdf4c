//! `docker search`.

use skiff_images::{Search, SearchResult};

use super::image_error;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::filters::Filters;

impl Engine {
    /// Searches a registry's index.
    ///
    /// # Errors
    /// A term, limit or filter that makes no sense; what the index refuses.
    pub async fn search_images(&self, search: Search, filters: Filters) -> Result<Vec<SearchResult>> {
        filters.check(&["is-automated", "is-official", "stars"])?;
        let official = filters.boolean("is-official")?;
        let mut stars = 0;
        for wanted in filters.get("stars").unwrap_or_default() {
            let wanted: i64 = wanted.parse().map_err(|_| {
                Error::invalid(format!(
                    "invalid filter 'stars={wanted}': strconv.Atoi: parsing {wanted:?}: invalid syntax"
                ))
            })?;
            stars = stars.max(wanted);
        }
        // Docker Hub builds no image by itself any more.
        if filters.boolean("is-automated")? == Some(true) {
            return Ok(Vec::new());
        }
        let found = self.0.config.images.search(search).await;
        let mut found = found.map_err(|error| image_error(&error))?;
        found.retain(|result| {
            official.is_none_or(|official| result.is_official == official) && result.star_count >= stars
        });
        Ok(found)
    }
}
