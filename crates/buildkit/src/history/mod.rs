//! The history of builds: what was asked for, how it went, what was told, for as long as it is kept.
//!
//! ```text
//!  prepare ─► Recording ──(its end, whichever)──► Disk: one directory for each build, its record and its blobs
//!                 │                                  │
//!                 └── STARTED, COMPLETE, DELETED ──► listeners        blobs ─► content service, Status
//! ```
//! Clients list and read it (`buildx history`), and take the provenance of a build that has just ended from it
//! (`--metadata-file`).

mod disk;
mod filter;
mod provenance;
mod recording;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, StatusResponse,
    UpdateBuildHistoryRequest,
};
use prost::Message;
use tokio::sync::{broadcast, mpsc};
use tonic::Status as Refusal;

use self::disk::Disk;
use self::filter::Filters;
pub(crate) use self::recording::{Evidence, Recording};
pub use self::shown::{PastBuild, Tale, Told};

/// As many finished builds are kept, those that are pinned beside them.
const MOST: usize = 50;
/// As many builds may be pinned.
const MOST_PINNED: usize = 50;
/// As many bytes of blobs are kept, whatever the number of builds.
const MOST_BYTES: u64 = 256 << 20;
/// As many events a listener may be behind; then it is told where everything stands.
const BEHIND: usize = 256;

/// A blob that a record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub path: PathBuf,
    pub size: u64,
}

/// The history. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    state: Mutex<BTreeMap<String, Entry>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

#[derive(Debug, Clone)]
struct Entry {
    record: BuildHistoryRecord,
    /// Its blobs by digest; empty while it runs.
    blobs: BTreeMap<String, Blob>,
}

impl Entry {
    fn ended(&self) -> bool {
        self.record.completed_at.is_some()
    }

    fn bytes(&self) -> u64 {
        self.blobs.values().map(|blob| blob.size).sum()
    }
}

fn event(kind: BuildHistoryEventType, record: &BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { r#type: kind.into(), record: Some(record.clone()) }
}

impl History {
    /// Opens what is kept in a directory. What can't be read is left out: a build needs no history.
    pub fn open(root: PathBuf) -> Self {
        let disk = Disk::new(root);
        let state = disk
            .read()
            .into_iter()
            .map(|(record, blobs)| (record.r#ref.clone(), Entry { record, blobs }))
            .collect();
        Self(Arc::new(Inner { disk, state: Mutex::new(state), events: broadcast::Sender::new(BEHIND) }))
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kind: BuildHistoryEventType, record: &BuildHistoryRecord) {
        // Nobody has to listen.
        let _ = self.0.events.send(event(kind, record));
    }

    /// Enters a build that has begun.
    fn begin(&self, record: &BuildHistoryRecord) {
        let entry = Entry { record: record.clone(), blobs: BTreeMap::new() };
        self.state().insert(record.r#ref.clone(), entry);
        self.tell(BuildHistoryEventType::Started, record);
    }

    /// Enters a build that has ended, with its blobs, and lets the oldest ones go. Blocks.
    fn end(&self, mut record: BuildHistoryRecord, blobs: BTreeMap<String, Vec<u8>>) {
        record.pinned = self.state().get(&record.r#ref).is_some_and(|entry| entry.record.pinned);
        let kept = self.0.disk.write(&record, &blobs);
        match kept {
            Ok(blobs) => {
                let entry = Entry { record: record.clone(), blobs };
                self.state().insert(record.r#ref.clone(), entry);
                self.tell(BuildHistoryEventType::Complete, &record);
            }
            Err(error) => {
                tracing::warn!(%error, "build can't be entered into the history");
                self.state().remove(&record.r#ref);
                self.tell(BuildHistoryEventType::Deleted, &record);
            }
        }
        self.collect();
    }

    /// Lets the oldest builds go while there are too many.
    fn collect(&self) {
        let mut gone = Vec::new();
        {
            let state = self.state();
            let mut ended: Vec<&Entry> =
                state.values().filter(|entry| entry.ended() && !entry.record.pinned).collect();
            ended.sort_by_key(|entry| {
                let at = entry.record.completed_at.unwrap_or_default();
                std::cmp::Reverse((at.seconds, at.nanos))
            });
            let mut bytes = 0;
            for (place, entry) in ended.into_iter().enumerate() {
                bytes += entry.bytes();
                if place >= MOST || (place > 0 && bytes > MOST_BYTES) {
                    gone.push(entry.record.r#ref.clone());
                }
            }
        }
        for name in gone {
            self.remove(&name);
        }
    }

    fn remove(&self, name: &str) -> bool {
        let Some(entry) = self.state().remove(name) else { return false };
        self.0.disk.remove(name);
        self.tell(BuildHistoryEventType::Deleted, &entry.record);
        true
    }

    /// Pins, unpins or removes a build. Blocks.
    ///
    /// # Errors
    /// For a build that is not there; for one that runs.
    pub fn update(&self, request: &UpdateBuildHistoryRequest) -> Result<(), Refusal> {
        let name = &request.r#ref;
        let unknown =
            || Refusal::not_found(format!("failed to retrieve bucket: no build {name} in the history"));
        if request.delete {
            let ended = self.state().get(name).map(Entry::ended);
            return match ended {
                Some(true) if self.remove(name) => Ok(()),
                Some(false) => Err(Refusal::failed_precondition(format!("build {name} is still running"))),
                _ => Err(unknown()),
            };
        }
        if request.finalize {
            // Nothing of a record is written later than the record itself.
            return if self.state().contains_key(name) { Ok(()) } else { Err(unknown()) };
        }
        let record = {
            let mut state = self.state();
            let pinned = state.values().filter(|entry| entry.record.pinned).count();
            let entry = state.get_mut(name).ok_or_else(unknown)?;
            if request.pinned && !entry.record.pinned && pinned >= MOST_PINNED {
                return Err(Refusal::resource_exhausted(format!(
                    "no more than {MOST_PINNED} builds can be pinned"
                )));
            }
            entry.record.pinned = request.pinned;
            entry.record.generation += 1;
            entry.record.clone()
        };
        if record.completed_at.is_some() {
            self.0
                .disk
                .rewrite(&record)
                .map_err(|error| Refusal::internal(format!("write the record of build {name}: {error}")))?;
        }
        self.tell(BuildHistoryEventType::Complete, &record);
        Ok(())
    }

    /// Finds a blob that a record names.
    pub fn blob(&self, digest: &str) -> Option<Blob> {
        self.state().values().find_map(|entry| entry.blobs.get(digest).cloned())
    }

    /// What a build that has ended has told. Blocks. `None`: it is not kept.
    pub fn told(&self, name: &str) -> Option<Vec<StatusResponse>> {
        let path = {
            let state = self.state();
            let entry = state.get(name)?;
            let digest = &entry.record.logs.as_ref()?.digest;
            entry.blobs.get(digest)?.path.clone()
        };
        let bytes = std::fs::read(path).ok()?;
        let mut rest = bytes.as_slice();
        let mut told = Vec::new();
        // Each message follows its length, in four bytes.
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let message = after.get(..length)?;
            told.push(StatusResponse::decode(message).ok()?);
            rest = &after[length..];
        }
        Some(told)
    }

    /// All that fits a request, as it stands: builds that run, then those that have ended; newest first where a number is
    /// asked for.
    fn matching(&self, request: &BuildHistoryRequest, filters: &Filters) -> Vec<BuildHistoryEvent> {
        let mut entries: Vec<Entry> = self
            .state()
            .values()
            .filter(|entry| request.r#ref.is_empty() || entry.record.r#ref == request.r#ref)
            .filter(|entry| !(request.active_only && entry.ended()))
            .filter(|entry| filters.fit(&entry.record))
            .cloned()
            .collect();
        entries.sort_by_key(|entry| {
            let at = entry.record.created_at.unwrap_or_default();
            (entry.ended(), std::cmp::Reverse((at.seconds, at.nanos)))
        });
        if let Ok(limit) = usize::try_from(request.limit)
            && limit > 0
        {
            entries.truncate(limit);
        }
        entries
            .iter()
            .map(|entry| {
                let kind = match entry.ended() {
                    true => BuildHistoryEventType::Complete,
                    false => BuildHistoryEventType::Started,
                };
                event(kind, &entry.record)
            })
            .collect()
    }

    /// Tells what there is and then, unless the request is for what there is alone, what changes.
    ///
    /// # Errors
    /// For a filter that makes no sense.
    pub fn listen(
        &self,
        request: BuildHistoryRequest,
    ) -> Result<mpsc::Receiver<Result<BuildHistoryEvent, Refusal>>, Refusal> {
        let filters = Filters::parse(&request.filter).map_err(Refusal::invalid_argument)?;
        let mut changes = self.0.events.subscribe();
        let (sender, receiver) = mpsc::channel(16);
        let history = self.clone();
        tokio::spawn(async move {
            let mut backlog = history.matching(&request, &filters);
            loop {
                for event in backlog.drain(..) {
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                if request.early_exit {
                    return;
                }
                let change = tokio::select! {
                    change = changes.recv() => change,
                    () = sender.closed() => return,
                };
                match change {
                    Ok(event) => {
                        let record = event.record.as_ref();
                        let wanted = record.is_some_and(|record| {
                            (request.r#ref.is_empty() || record.r#ref == request.r#ref) && filters.fit(record)
                        });
                        if wanted {
                            backlog.push(event);
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        backlog = history.matching(&request, &filters);
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        Ok(receiver)
    }
}
