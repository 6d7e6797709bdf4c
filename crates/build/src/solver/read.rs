//! References: lazy results, and reading them.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Stat;

use super::value::{Outputs, Overlay, Snapshot, Value, Viewed};
use super::{Job, blocking};
use crate::error::{Error, Result};
use crate::files::{self, Kind, View, stat_of};
use crate::graph::{Graph, pb};

/// The most that is read of one file.
const LARGEST_READ: u64 = 16 << 20;

/// A name in a directory of a [`Ref`], as `fsutil` has it: `mode` is Go's `os.FileMode`, `path` the bare name.
pub type DirEntry = Stat;

/// A file system that a definition stands for; made when first needed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ref {
    job: Job,
    definition: Arc<pb::Definition>,
    graph: Arc<Graph>,
}

/// A result that can be read as a directory, for as long as this is held.
#[derive(Debug)]
pub struct Mounted {
    root: OwnedFd,
    _overlay: Option<Overlay>,
    _tree: Option<skiff_images::Tree>,
}

impl Mounted {
    /// The root directory (an `O_PATH` descriptor). Resolve paths with
    /// [`open_inside`](skiff_images::archive::open_inside) only: its links are hostile.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Ref {
    pub(super) fn new(job: Job, definition: pb::Definition, graph: Graph) -> Ref {
        Ref { job, definition: Arc::new(definition), graph: Arc::new(graph) }
    }

    /// The definition that it stands for.
    pub fn definition(&self) -> &pb::Definition {
        &self.definition
    }

    /// Says whether it is scratch: nothing at all.
    pub fn is_scratch(&self) -> bool {
        self.graph.result().is_none()
    }

    /// The job that it belongs to.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Makes it, if it is not there yet.
    ///
    /// # Errors
    /// [`Error::Vertex`] of the first vertex that failed.
    pub async fn evaluate(&self) -> Result<()> {
        self.value().await.map(drop)
    }

    pub(crate) async fn value(&self) -> Result<Value> {
        let Some(result) = self.graph.result() else { return Ok(Value::Layers(Snapshot::scratch())) };
        self.job.announce(&self.graph);
        let outputs: Outputs = self.job.start(&self.graph, &result.digest).await?;
        let value = usize::try_from(result.index).ok().and_then(|index| outputs.get(index)?.clone());
        value.ok_or_else(|| Error::invalid(format!("invalid output index {}", result.index)))
    }

    async fn viewed(&self) -> Result<Viewed> {
        self.value().await?.viewed(&self.job.inner.solver.inner).await
    }

    /// Reads a file, or `length` bytes of it from `offset`. Links are followed inside.
    ///
    /// # Errors
    /// [`Error::NotFound`] as BuildKit says it; more than 16 MiB; errors of making it.
    pub async fn read_file(&self, path: &str, range: Option<(u64, u64)>) -> Result<Vec<u8>> {
        let (viewed, path) = (self.viewed().await?, path.to_owned());
        blocking(move || {
            let failed = |error| Error::failed(format!("open {path}: {error}"));
            let (view, resolved) = find(&viewed.view, &path, true)?;
            let mut file = view.open(&resolved).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            let (offset, length) = range.unwrap_or((0, size));
            if length.min(size.saturating_sub(offset)) > LARGEST_READ {
                return Err(Error::invalid(format!("{path} is too large to be read at once")));
            }
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            let mut bytes = Vec::new();
            file.take(length.min(LARGEST_READ)).read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        })
        .await
    }

    /// Lists a directory, by name; `include` is a pattern for the names.
    ///
    /// # Errors
    /// As [`Ref::read_file`].
    pub async fn read_dir(&self, path: &str, include: Option<&str>) -> Result<Vec<DirEntry>> {
        let (viewed, path) = (self.viewed().await?, path.to_owned());
        let include = include.filter(|include| !include.is_empty()).map(str::to_owned);
        blocking(move || {
            let failed = |error| Error::failed(format!("open {path}: {error}"));
            let (view, resolved) = find(&viewed.view, &path, true)?;
            let mut entries = Vec::new();
            for name in view.list(&resolved).map_err(failed)? {
                let fits = include
                    .as_ref()
                    .is_none_or(|include| files::matches(include.as_bytes(), &name) == Some(true));
                let full = if resolved.is_empty() {
                    name.clone()
                } else {
                    [&resolved, b"/".as_slice(), &name].concat()
                };
                if let Some(meta) = view.meta(&full).map_err(failed)?.filter(|_| fits) {
                    let shown = String::from_utf8_lossy(&name).into_owned();
                    entries.push(stat_of(view, &full, &meta, shown).map_err(failed)?);
                }
            }
            Ok(entries)
        })
        .await
    }

    /// Describes a file; a link itself.
    ///
    /// # Errors
    /// As [`Ref::read_file`].
    pub async fn stat_file(&self, path: &str) -> Result<DirEntry> {
        let (viewed, path) = (self.viewed().await?, path.to_owned());
        blocking(move || {
            let failed = |error| Error::failed(format!("lstat {path}: {error}"));
            let (view, resolved) = find(&viewed.view, &path, false)?;
            let meta = view.meta(&resolved).map_err(failed)?.ok_or_else(|| missing("lstat", &path))?;
            let name = resolved.rsplit(|c| *c == b'/').next().unwrap_or_default();
            let name = if name.is_empty() { "/".into() } else { String::from_utf8_lossy(name) };
            stat_of(view, &resolved, &meta, name.into_owned()).map_err(failed)
        })
        .await
    }

    /// Makes it and mounts it for reading: what file exporters read from.
    ///
    /// # Errors
    /// As [`Ref::evaluate`].
    pub async fn mount(&self) -> Result<Mounted> {
        let inner = Arc::clone(&self.job.inner.solver.inner);
        match self.value().await? {
            Value::Layers(snapshot) => {
                let held = snapshot.realize(&inner).await?;
                blocking(move || {
                    let overlay = Overlay::new(&inner, held)?;
                    Ok(Mounted { root: overlay.mount()?, _overlay: Some(overlay), _tree: None })
                })
                .await
            }
            value @ Value::Context(_) => {
                let viewed = value.viewed(&inner).await?;
                blocking(move || {
                    let (tree, root) = super::exec::materialize(&inner, &viewed.view, "/")?;
                    Ok(Mounted { root, _overlay: None, _tree: Some(tree) })
                })
                .await
            }
        }
    }
}

/// Finds a path that must be there.
fn find<'a>(view: &'a View, path: &str, follow: bool) -> Result<(&'a View, Vec<u8>)> {
    let failed = |error| Error::failed(format!("lstat {path}: {error}"));
    let resolved = view.resolve(path.as_bytes(), follow).map_err(failed)?;
    match view.meta(&resolved).map_err(failed)? {
        Some(meta) if follow && meta.kind == Kind::Symlink => Err(missing("open", path)),
        Some(_) => Ok((view, resolved)),
        None => Err(missing("open", path)),
    }
}

fn missing(op: &str, path: &str) -> Error {
    let path = path.trim_start_matches('/');
    Error::not_found(format!("{op} /{path}: no such file or directory"))
}
