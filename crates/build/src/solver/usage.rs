//! What the cache takes, and cutting it down.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use skiff_images::Digest;

use super::cache::{Record, time};
use super::mounts::{self, RECORD};
use super::{Inner, PruneOptions, Solver, UsageRecord, blocking};
use crate::error::{Error, Result};

/// What nobody has used for so long goes, as with dockerd, however much room there is.
const UNUSED: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// How long after a new record the cache is measured.
const SOON: Duration = Duration::from_secs(30);

impl Solver {
    /// Lists what the cache has that fits the filters (see [`PruneOptions::filters`]).
    ///
    /// # Errors
    /// A filter that makes no sense.
    pub async fn disk_usage(&self, filters: &[String]) -> Result<Vec<UsageRecord>> {
        let inner = Arc::clone(&self.inner);
        let filters = parse(filters)?;
        blocking(move || {
            let mut records = inner.usage();
            records.retain(|record| fits(&filters, record));
            Ok(records)
        })
        .await
    }

    /// Removes what no build uses; returns what was removed.
    ///
    /// # Errors
    /// A filter that makes no sense; database errors.
    pub async fn prune(&self, options: PruneOptions) -> Result<Vec<UsageRecord>> {
        let inner = Arc::clone(&self.inner);
        let filters = parse(&options.filters)?;
        inner.shown.clear();
        blocking(move || inner.prune(&options, &filters)).await
    }
}

impl Inner {
    /// Measures the cache soon, and cuts it down when it is too large.
    pub(crate) fn collect_soon(self: &Arc<Inner>) {
        if self.collecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(SOON).await;
            let Some(inner) = weak.upgrade() else { return };
            inner.collecting.store(false, Ordering::Release);
            let collected = blocking(move || inner.collect());
            match collected.await {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => tracing::info!(records = removed.len(), "build cache cut down"),
                Err(error) => tracing::warn!(%error, "build cache can't be cut down"),
            }
        });
    }

    /// Removes what nobody has used for long, then the oldest while there is too much.
    fn collect(&self) -> Result<Vec<UsageRecord>> {
        let old = PruneOptions { keep_duration: Some(UNUSED), all: true, ..PruneOptions::default() };
        let large =
            PruneOptions { max_used: Some(self.config.keep_storage), all: true, ..PruneOptions::default() };
        let mut removed = self.prune(&old, &[])?;
        removed.extend(self.prune(&large, &[])?);
        Ok(removed)
    }

    fn usage(&self) -> Vec<UsageRecord> {
        let images = &self.config.images;
        let busy = self.jobs.load(Ordering::Acquire) > 0;
        let recently = SystemTime::now() - Duration::from_secs(2);
        let describe = |(id, record): (String, Record)| {
            let own: Vec<&Digest> = record.layers.iter().rev().take(record.own).collect();
            let mut size = record.size + own.iter().map(|layer| images.layer_size(layer)).sum::<u64>();
            let mount = id.strip_prefix(RECORD);
            if let Some(name) = mount {
                size = mounts::size(&self.mounts.path(name));
            }
            let used = record.last_used;
            UsageRecord {
                in_use: match mount {
                    Some(name) => self.mounts.in_use(name),
                    None => busy && time(used) > recently,
                },
                shared: !own.is_empty() && own.iter().any(|layer| images.image_has(layer)),
                mutable: mount.is_some() || record.kind == "source.local",
                kind: record.kind,
                description: record.description,
                parents: record.parents,
                size,
                created: time(record.created),
                last_used: (used > 0).then(|| time(used)),
                usage_count: record.uses,
                id,
            }
        };
        let mut records: Vec<UsageRecord> = self.cache.all().into_iter().map(describe).collect();
        records.sort_by(|a, b| a.last_used.cmp(&b.last_used).then_with(|| a.id.cmp(&b.id)));
        records
    }

    fn prune(&self, options: &PruneOptions, filters: &[Vec<Term>]) -> Result<Vec<UsageRecord>> {
        let records = self.usage();
        let total: u64 = records.iter().filter(|record| !record.shared).map(|record| record.size).sum();
        let now = SystemTime::now();
        let bound = bound(options, total, || self.free());
        let mut left = total;
        let mut gone = Vec::new();
        for record in records {
            if bound.is_some_and(|bound| left <= bound) {
                break;
            }
            let young = options.keep_duration.is_some_and(|keep| {
                let used = record.last_used.unwrap_or(record.created);
                now.duration_since(used).is_ok_and(|age| age < keep)
            });
            let special = record.kind == "internal" || record.kind == "frontend";
            if record.in_use || young || (special && !options.all) || !fits(filters, &record) {
                continue;
            }
            if !record.shared {
                left = left.saturating_sub(record.size);
            }
            gone.push(record);
        }
        if gone.is_empty() {
            return Ok(gone);
        }
        let ids: Vec<String> = gone.iter().map(|record| record.id.clone()).collect();
        self.cache.remove(&ids)?;
        for id in &ids {
            match id.strip_prefix(RECORD) {
                Some(name) => self.mounts.remove(name)?,
                None if id.starts_with("local.") => self.locals.remove(id),
                None => {}
            }
        }
        self.sweep_files()?;
        Ok(gone)
    }

    /// Bytes that are free on the disk of the cache; as many as there can be when that is not known.
    fn free(&self) -> u64 {
        let about = rustix::fs::statvfs(&self.config.root);
        about.map_or(u64::MAX, |about| about.f_bavail.saturating_mul(about.f_frsize))
    }

    /// Removes contents of files that no context has; not while a build may be receiving some.
    fn sweep_files(&self) -> Result<()> {
        let trees = self.locals.all();
        let needed: HashSet<&str> = trees.iter().flat_map(|(_, tree)| tree.hashes()).collect();
        let freed = self.files.sweep(&needed, || self.jobs.load(Ordering::Acquire) > 0)?;
        tracing::debug!(freed, "files of contexts removed");
        Ok(())
    }
}

/// So many bytes may stay; without a bound nothing may.
fn bound(options: &PruneOptions, total: u64, free: impl FnOnce() -> u64) -> Option<u64> {
    if (options.keep_bytes, options.max_used, options.min_free) == (None, None, None) {
        return None;
    }
    let used = match options.min_free {
        None => options.max_used.unwrap_or(0),
        Some(wanted) => {
            let missing = wanted.saturating_sub(free());
            total.saturating_sub(missing).min(options.max_used.unwrap_or(u64::MAX))
        }
    };
    Some(used.max(options.keep_bytes.unwrap_or(0)))
}

/// One comparison of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    field: String,
    operator: Operator,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Present,
    Equal,
    NotEqual,
    Contains,
}

/// Reads filters as containerd has them.
fn parse(filters: &[String]) -> Result<Vec<Vec<Term>>> {
    let term = |text: &str| -> Result<Term> {
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("~=", Operator::Contains),
            ("=", Operator::Equal),
        ];
        let found = operators.iter().find_map(|(sign, operator)| Some((text.split_once(sign)?, *operator)));
        let ((field, value), operator) = found.unwrap_or(((text, ""), Operator::Present));
        let fields = [
            "id",
            "parent",
            "parents",
            "type",
            "description",
            "inuse",
            "mutable",
            "immutable",
            "shared",
            "private",
        ];
        if !fields.contains(&field) {
            return Err(Error::invalid(format!("invalid filter \"{text}\"")));
        }
        Ok(Term { field: field.to_owned(), operator, value: value.trim_matches('"').to_owned() })
    };
    filters
        .iter()
        .map(|filter| filter.split(',').filter(|text| !text.is_empty()).map(term).collect())
        .collect()
}

fn fits(filters: &[Vec<Term>], record: &UsageRecord) -> bool {
    filters.is_empty() || filters.iter().any(|terms| terms.iter().all(|term| holds(term, record)))
}

fn holds(term: &Term, record: &UsageRecord) -> bool {
    let flag = |set: bool| if set { vec!["true".to_owned()] } else { Vec::new() };
    let values = match term.field.as_str() {
        "id" => vec![record.id.clone()],
        "parent" | "parents" => record.parents.clone(),
        "type" => vec![record.kind.clone()],
        "description" => vec![record.description.clone()],
        "inuse" => flag(record.in_use),
        "mutable" => flag(record.mutable),
        "immutable" => flag(!record.mutable),
        "shared" => flag(record.shared),
        _ => flag(!record.shared),
    };
    match term.operator {
        Operator::Present => !values.is_empty(),
        Operator::Equal => values.contains(&term.value) || term.value == "false" && values.is_empty(),
        Operator::NotEqual => !values.contains(&term.value),
        Operator::Contains => values.iter().any(|value| value.contains(&term.value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, shared: bool) -> UsageRecord {
        UsageRecord {
            id: "a".to_owned(),
            kind: kind.to_owned(),
            description: "RUN make".to_owned(),
            parents: Vec::new(),
            size: 1,
            in_use: false,
            shared,
            mutable: false,
            created: SystemTime::UNIX_EPOCH,
            last_used: None,
            usage_count: 0,
        }
    }

    struct NoSteps;

    #[async_trait::async_trait]
    impl crate::StepRunner for NoSteps {
        async fn run(&self, _: crate::Step, _: tokio_util::sync::CancellationToken) -> Result<i32> {
            Err(Error::failed("no steps here"))
        }
    }

    #[tokio::test]
    async fn what_nobody_has_used_for_long_goes_and_then_the_oldest() {
        let root = tempfile::tempdir().unwrap();
        let config = crate::Config {
            root: root.path().join("build"),
            images: skiff_images::Store::open(skiff_images::Config::new(root.path())).unwrap(),
            runner: Arc::new(NoSteps),
            keep_storage: 25,
        };
        let solver = Solver::open(config).unwrap();
        let now = crate::solver::cache::seconds();
        let add = |id: &str, age: u64| {
            let record = Record {
                kind: "regular".to_owned(),
                description: id.to_owned(),
                parents: Vec::new(),
                keys: vec![id.to_owned()],
                own: 0,
                size: 10,
                created: now - age,
                last_used: now - age,
                uses: 1,
                layers: Vec::new(),
            };
            solver.inner.cache.add(id, record, skiff_images::Held::nothing());
        };
        let collected = || {
            let removed = solver.inner.collect().unwrap();
            removed.into_iter().map(|record| record.id).collect::<Vec<_>>()
        };
        add("long ago", UNUSED.as_secs() + 60);
        add("before", 200);
        assert_eq!(collected(), ["long ago"], "though there is room");
        add("then", 100);
        add("now", 0);
        assert_eq!(collected(), ["before"], "only as many as are too many");
        assert!(collected().is_empty());
    }

    #[test]
    fn what_may_stay_is_what_all_bounds_together_leave() {
        let bound = |keep_bytes, max_used, min_free| {
            let options = PruneOptions { keep_bytes, max_used, min_free, ..PruneOptions::default() };
            bound(&options, 100, || 50)
        };
        assert_eq!(bound(None, None, None), None);
        assert_eq!(bound(Some(10), None, None), Some(10));
        assert_eq!(bound(Some(10), Some(30), None), Some(30));
        assert_eq!(bound(Some(40), Some(30), None), Some(40));
        assert_eq!(bound(None, None, Some(40)), Some(100), "there is room: nothing goes");
        assert_eq!(bound(None, None, Some(70)), Some(80), "20 are missing");
        assert_eq!(bound(None, Some(30), Some(70)), Some(30));
        assert_eq!(bound(Some(90), None, Some(70)), Some(90), "what is kept in any case");
        assert_eq!(bound(None, None, Some(1000)), Some(0));
    }

    #[test]
    fn filters_choose_records() {
        let fits = |filter: &str| fits(&parse(&[filter.to_owned()]).unwrap(), &record("regular", true));
        for filter in ["type==regular", "type=regular,shared", "id~=a", "description~=make", "!", ""] {
            if filter == "!" {
                assert!(parse(&[filter.to_owned()]).is_err());
                continue;
            }
            assert!(fits(filter), "{filter}");
        }
        for filter in ["type!=regular", "private", "mutable", "id==b", "inuse"] {
            assert!(!fits(filter), "{filter}");
        }
    }
}
