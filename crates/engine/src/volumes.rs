//! Volumes of the local driver: a directory and a record each.

mod mounts;
mod options;

pub(crate) use options::words_of;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard_stubs::models::{
    Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse, VolumeScopeEnum, VolumeUsageData,
};

use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::events::Kind;
use crate::filters::{Filters, name_matches};
use crate::names;
use crate::state::{Database, MountKind, Op, Table, VolumeRecord};

/// The volumes by name.
pub(crate) struct Volumes {
    root: PathBuf,
    database: Database,
    records: Mutex<BTreeMap<String, VolumeRecord>>,
    held: mounts::Held,
}

/// Whether a volume was made or was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Made,
    Found,
}

impl Volumes {
    pub fn open(root: PathBuf, database: Database) -> Result<Self> {
        let records = database.all::<VolumeRecord>(Table::Volumes)?;
        let records: BTreeMap<_, _> =
            records.into_iter().map(|record| (record.name.clone(), record)).collect();
        // A directory without a record is what a kill between the two steps of a creation or removal left.
        for entry in std::fs::read_dir(&root).map_err(|error| Error::file("read", &root, &error))?.flatten() {
            let name = entry.file_name();
            // What is mounted there is not ours to delete.
            if !name.to_str().is_some_and(|name| records.contains_key(name))
                && !mounts::is_mounted(&entry.path().join("_data"))
            {
                tracing::info!(volume = ?name, "half-made volume removed");
                if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    tracing::warn!(%error, path = %entry.path().display(), "directory can't be removed");
                }
            }
        }
        Ok(Self { root, database, records: Mutex::new(records), held: mounts::Held::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VolumeRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory that is mounted.
    pub fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    pub fn get(&self, name: &str) -> Option<VolumeRecord> {
        self.lock().get(name).cloned()
    }

    pub fn all(&self) -> Vec<VolumeRecord> {
        self.lock().values().cloned().collect()
    }

    /// Makes a volume, or finds the one of that name. Blocks.
    pub fn ensure(&self, wanted: VolumeRecord) -> Result<(VolumeRecord, Outcome)> {
        check_name(&wanted.name)?;
        let mut records = self.lock();
        if let Some(found) = records.get(&wanted.name) {
            return Ok((found.clone(), Outcome::Found));
        }
        let data = self.data(&wanted.name);
        std::fs::create_dir_all(&data).map_err(|error| Error::file("create volume", &data, &error))?;
        self.database.commit([Op::put(Table::Volumes, &wanted.name, &wanted)])?;
        records.insert(wanted.name.clone(), wanted.clone());
        Ok((wanted, Outcome::Made))
    }

    /// Removes a volume: first for everybody, then from the disk. Blocks.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut records = self.lock();
        if !records.contains_key(name) {
            return Err(missing(name));
        }
        // Or what is mounted there would be deleted.
        self.unmount(name)?;
        self.database.commit([Op::delete(Table::Volumes, name)])?;
        records.remove(name);
        let dir = self.root.join(name);
        std::fs::remove_dir_all(&dir).map_err(|error| Error::file("remove volume", &dir, &error))
    }
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

/// Docker's rule for the names of local volumes.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.len() < 2 {
        return Err(Error::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    let mut bytes = name.bytes();
    let fine = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && name.len() <= 255;
    if fine {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

/// Bytes below a directory, links not followed; what vanishes meanwhile counts nothing.
pub(crate) fn directory_size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_size(&entry.path()),
            // As du(1) counts: blocks that are really there.
            Ok(metadata) if metadata.nlink() <= 1 => metadata.len().min(metadata.blocks() * 512 + 4096),
            Ok(metadata) => metadata.len() / metadata.nlink(),
            Err(_) => 0,
        })
        .sum()
}

impl Engine {
    /// Makes a volume, or returns the one of that name.
    ///
    /// # Errors
    /// When the name or the driver can't be used.
    pub async fn create_volume(&self, request: VolumeCreateRequest) -> Result<Volume> {
        let given = request.name.filter(|name| !name.is_empty());
        let anonymous = given.is_none();
        let name = given.unwrap_or_else(names::random_id);
        check_new(&name, request.driver.as_deref(), request.driver_opts.as_ref())?;
        let record = VolumeRecord {
            anonymous,
            name,
            created: clock::now_ns(),
            labels: request.labels.unwrap_or_default(),
            options: request.driver_opts.unwrap_or_default(),
        };
        let engine = self.clone();
        let record = blocking(move || {
            let (record, outcome) = engine.0.volumes.ensure(record)?;
            if outcome == Outcome::Made {
                engine.volume_event(&record.name, "create", &[]);
            }
            Ok(record)
        })
        .await?;
        Ok(self.volume_model(&record))
    }

    /// Lists volumes.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn list_volumes(&self, filters: Filters) -> Result<VolumeListResponse> {
        filters.check(&["dangling", "driver", "label", "label!", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let users = self.volume_users();
        let volumes = self
            .0
            .volumes
            .all()
            .iter()
            .filter(|record| {
                filters.any("name", |wanted| name_matches(wanted, &record.name))
                    && filters.any("driver", |wanted| wanted == "local")
                    && filters.labels(Some(&record.labels))
                    && filters.not_labels(Some(&record.labels))
                    && dangling.is_none_or(|wanted| wanted != users.contains_key(&record.name))
            })
            .map(|record| self.volume_model(record))
            .collect();
        Ok(VolumeListResponse { volumes: Some(volumes), warnings: None })
    }

    /// Describes a volume.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.0.volumes.get(name).map(|record| self.volume_model(&record)).ok_or_else(|| missing(name))
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// When it is in use, or is not there and `force` is not given.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        if self.0.volumes.get(name).is_none() {
            return if force { Ok(()) } else { Err(missing(name)) };
        }
        if let Some(users) = self.volume_users().get(name) {
            return Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        let (engine, name) = (self.clone(), name.to_owned());
        blocking(move || {
            engine.0.volumes.remove(&name)?;
            engine.volume_event(&name, "destroy", &[]);
            Ok(())
        })
        .await
    }

    /// Removes the unused volumes; without the filter `all` only anonymous ones.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn prune_volumes(&self, filters: Filters) -> Result<VolumePruneResponse> {
        filters.check(&["all", "label", "label!"])?;
        let all = filters.boolean("all")?.unwrap_or(false);
        let users = self.volume_users();
        let candidates: Vec<_> = self
            .0
            .volumes
            .all()
            .into_iter()
            .filter(|record| {
                // A mount's content is not the engine's, and may take long to count.
                record.options.is_empty()
                    && (all || record.anonymous)
                    && !users.contains_key(&record.name)
                    && filters.labels(Some(&record.labels))
                    && filters.not_labels(Some(&record.labels))
            })
            .collect();
        let engine = self.clone();
        blocking(move || {
            let (mut deleted, mut reclaimed) = (Vec::new(), 0);
            for record in candidates {
                let size = directory_size(&engine.0.volumes.data(&record.name));
                engine.0.volumes.remove(&record.name)?;
                engine.volume_event(&record.name, "destroy", &[]);
                reclaimed += size;
                deleted.push(record.name);
            }
            engine.0.events.publish(
                Kind::Volume,
                "prune",
                "",
                HashMap::from([("reclaimed".to_owned(), reclaimed.to_string())]),
            );
            Ok(VolumePruneResponse {
                volumes_deleted: Some(deleted),
                space_reclaimed: i64::try_from(reclaimed).ok(),
            })
        })
        .await
    }

    pub(crate) fn volume_event(&self, name: &str, action: &str, more: &[(&str, &str)]) {
        let mut attributes = HashMap::from([("driver".to_owned(), "local".to_owned())]);
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.0.events.publish(Kind::Volume, action, name, attributes);
    }

    /// Who uses which volume, running or not.
    pub(crate) fn volume_users(&self) -> HashMap<String, Vec<String>> {
        let mut users: HashMap<String, Vec<String>> = HashMap::new();
        for container in self.0.registry.all() {
            let record = container.record();
            for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
                if let Some(name) = &mount.name {
                    users.entry(name.clone()).or_default().push(record.id.clone());
                }
            }
        }
        users
    }

    fn volume_model(&self, record: &VolumeRecord) -> Volume {
        let mut labels = record.labels.clone();
        if record.anonymous {
            labels.insert("com.docker.volume.anonymous".to_owned(), String::new());
        }
        Volume {
            name: record.name.clone(),
            driver: "local".to_owned(),
            mountpoint: self.0.volumes.data(&record.name).display().to_string(),
            // Whole seconds, as Docker gives them.
            created_at: Some(clock::rfc3339(Some(record.created / 1_000_000_000 * 1_000_000_000))),
            labels,
            scope: Some(VolumeScopeEnum::LOCAL),
            options: record.options.clone(),
            ..Volume::default()
        }
    }

    /// All volumes with their sizes and users. Blocks.
    pub(crate) fn volumes_with_usage(&self) -> Vec<Volume> {
        let users = self.volume_users();
        let with_usage = |record: &VolumeRecord| Volume {
            usage_data: Some(VolumeUsageData {
                size: i64::try_from(directory_size(&self.0.volumes.data(&record.name))).unwrap_or(i64::MAX),
                ref_count: users.get(&record.name).map_or(0, |users| users.len() as i64),
            }),
            ..self.volume_model(record)
        };
        // As dockerd: what is mounted from elsewhere takes no room here, and may take long to count.
        self.0.volumes.all().iter().filter(|record| record.options.is_empty()).map(with_usage).collect()
    }
}

/// Fails when a volume of that name can't be made so.
pub(crate) fn check_new(
    name: &str,
    driver: Option<&str>,
    options: Option<&HashMap<String, String>>,
) -> Result<()> {
    let none = HashMap::new();
    check_driver(driver)
        .and_then(|()| options::check(options.unwrap_or(&none)))
        .map_err(|error| Error { message: format!("create {name}: {}", error.message), ..error })
}

/// Fails for any driver but the built-in one.
pub(crate) fn check_driver(driver: Option<&str>) -> Result<()> {
    match driver {
        None | Some("" | "local") => Ok(()),
        Some(other) => Err(Error::not_found(format!(
            "error looking up volume plugin {other}: plugin \"{other}\" not found"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_follow_dockers_rule() {
        for fine in ["ab", "data.1", "A_b-c"] {
            assert!(check_name(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "a", "../x", "a/b", ".hidden", "a b"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
