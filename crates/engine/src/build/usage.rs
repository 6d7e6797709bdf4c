//! The build cache in the API's words.

use std::time::Duration;

use skiff_build::{PruneOptions, UsageRecord};

use super::build_error;
use crate::clock;
use crate::container::until;
use crate::engine::Engine;
use crate::error::Result;
use crate::filters::Filters;

/// A record of the build cache as `docker system df` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildCacheRecord {
    /// Its id.
    pub id: String,
    /// The records that it was made from.
    pub parents: Vec<String>,
    /// `regular`, `source.local`, `exec.cachemount`, ….
    pub kind: String,
    /// What it is of.
    pub description: String,
    /// Whether a build uses it now.
    pub in_use: bool,
    /// Whether an image has the same layers.
    pub shared: bool,
    /// Bytes.
    pub size: u64,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it was used last.
    pub last_used: Option<String>,
    /// How often.
    pub usage_count: u64,
}

/// What `POST /build/prune` asks for.
#[derive(Debug, Clone, Default)]
pub struct PruneBuilds {
    /// Everything, not only what nothing refers to.
    pub all: bool,
    /// So many bytes may stay.
    pub keep_storage: Option<u64>,
    /// So many bytes may be used afterwards.
    pub max_used_space: Option<u64>,
    /// So many bytes are to be free on the disk.
    pub min_free_space: Option<u64>,
    /// Which ones.
    pub filters: Filters,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedBuilds {
    /// The records' ids.
    pub deleted: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

const FILTERS: [&str; 10] =
    ["description", "id", "inuse", "mutable", "immutable", "parent", "private", "shared", "type", "until"];

impl Engine {
    /// Lists the build cache.
    ///
    /// # Errors
    /// When it can't be opened.
    pub async fn build_cache(&self) -> Result<Vec<BuildCacheRecord>> {
        let solver = self.solver()?;
        let records = solver.disk_usage(&[]).await.map_err(|error| build_error(&error))?;
        Ok(records.into_iter().map(shown).collect())
    }

    /// Removes build cache that no build uses. Filters of other objects are passed over, as `docker system prune` sends them
    /// to all.
    ///
    /// # Errors
    /// When a time can't be read, or the cache not be opened.
    pub async fn prune_builds(&self, request: PruneBuilds) -> Result<PrunedBuilds> {
        let PruneBuilds { all, keep_storage, max_used_space, min_free_space, mut filters } = request;
        // An older name for it.
        if let Some(values) = filters.0.remove("unused-for") {
            filters.0.insert("until".to_owned(), values);
        }
        let mut options = PruneOptions {
            all,
            keep_bytes: keep_storage,
            max_used: max_used_space,
            min_free: min_free_space,
            ..PruneOptions::default()
        };
        let kept_since = until(&filters)?;
        options.keep_duration = kept_since.map(|at| Duration::from_nanos(clock::now_ns().saturating_sub(at)));
        let mut terms = Vec::new();
        for field in FILTERS {
            for value in filters.get(field).into_iter().flatten() {
                if field == "until" {
                    continue;
                }
                let name = if field == "parent" { "parents" } else { field };
                terms.push(match field {
                    "id" | "parent" => format!("{name}~={value}"),
                    "description" => format!("description~={value}"),
                    "type" => format!("type=={value}"),
                    _ => field.to_owned(),
                });
            }
        }
        if !terms.is_empty() {
            options.filters = vec![terms.join(",")];
        }
        let removed = self.solver()?.prune(options).await.map_err(|error| build_error(&error))?;
        let pruned = PrunedBuilds {
            reclaimed: removed.iter().filter(|record| !record.shared).map(|record| record.size).sum(),
            deleted: removed.into_iter().map(|record| record.id).collect(),
        };
        let attributes = [("reclaimed".to_owned(), pruned.reclaimed.to_string())].into();
        self.0.events.publish(crate::events::Kind::Builder, "prune", "", attributes);
        Ok(pruned)
    }
}

fn shown(record: UsageRecord) -> BuildCacheRecord {
    let text = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        clock::rfc3339(Some(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
    };
    BuildCacheRecord {
        id: record.id,
        parents: record.parents,
        kind: record.kind,
        description: record.description,
        in_use: record.in_use,
        shared: record.shared,
        size: record.size,
        created: text(record.created),
        last_used: record.last_used.map(text),
        usage_count: record.usage_count,
    }
}
