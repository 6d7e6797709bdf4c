//! Loading images from archives: what `docker save` writes, and OCI image layouts.
//!
//! The archive is spooled to the staging directory first, because what its files are is told by one that may
//! come last.

mod archive;
mod spool;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;

use self::archive::Plan;
use self::spool::Spool;
use crate::chunks::{self, Chunk, ChunkReader};
use crate::digest::Digest;
use crate::error::Error;
use crate::hashed::HashedFile;
use crate::image::{Image, ParsedConfig};
use crate::layer::{self, Limits, Unpacked};
use crate::progress::{Progress, ProgressEvent};
use crate::reference::Reference;
use crate::store::{Inner, LayerLease, LayerRecord, NewImage, Store};

const READ_SIZE: usize = 256 << 10;
/// Uncompressed layers are kept compressed; the fastest level halves them at the speed of a disk.
pub(crate) const ZSTD_LEVEL: i32 = 1;

/// One image that came out of an archive.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// The names that the archive gave it, in their familiar form.
    pub names: Vec<String>,
    /// Names that other images had before, with the ids of those.
    pub moved: Vec<(String, String)>,
}

impl Store {
    /// Loads the images of an archive, compressed or not, and gives them the archive's names.
    ///
    /// `platform` chooses from manifest lists; by default it is this machine's, or the only one there.
    ///
    /// # Errors
    /// [`Error::Archive`] when it is no image archive or is damaged; layer and storage errors.
    pub async fn load(
        &self,
        reader: impl AsyncRead + Send + Unpin,
        platform: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, Error> {
        self.load_marked(reader, platform, progress, None).await
    }

    /// Brings in a built-in image from a file, once: a marker that was seen before does nothing, so that an
    /// image which the user has removed stays removed.
    ///
    /// # Errors
    /// As [`Store::load`], and when the file can't be read.
    pub async fn seed(&self, archive: &Path, marker: &str) -> Result<Vec<Loaded>, Error> {
        if self.is_seeded(marker) {
            return Ok(Vec::new());
        }
        let file = tokio::fs::File::open(archive).await.map_err(|e| Error::io("open", archive, e))?;
        self.load_marked(file, None, &crate::progress::Silent, Some(marker)).await
    }

    async fn load_marked(
        &self,
        reader: impl AsyncRead + Send + Unpin,
        platform: Option<&str>,
        progress: &dyn Progress,
        marker: Option<&str>,
    ) -> Result<Vec<Loaded>, Error> {
        let asked = platform.is_some();
        let platform = Store::platform(platform)?;
        let inner = Arc::clone(&self.inner);
        let spool =
            blocking_read(reader, move |chunks| spool::spool(&inner.layout, inner.limits, chunks)).await?;
        let spool = Arc::new(spool);
        let (for_plan, wanted) = (Arc::clone(&spool), platform.clone());
        let mut plans = blocking(move || archive::plans(&for_plan, &wanted)).await?;
        if asked {
            plans.retain(|plan| plan.is_for(&platform));
            if plans.is_empty() {
                let message =
                    format!("no image of the archive matches the specified platform: wanted {platform}");
                return Err(Error::Invalid { message });
            }
        }
        let count = plans.len();
        let mut loaded = Vec::with_capacity(count);
        for (at, plan) in plans.into_iter().enumerate() {
            let marker = marker.filter(|_| at + 1 == count);
            loaded.push(self.load_image(&spool, plan, marker, progress).await?);
        }
        // Removing the spooled files is work for a blocking thread too.
        blocking(move || {
            drop(spool);
            Ok(())
        })
        .await?;
        Ok(loaded)
    }

    async fn load_image(
        &self,
        spool: &Arc<Spool>,
        plan: Plan,
        marker: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Loaded, Error> {
        let parsed = ParsedConfig::parse(&plan.config)?;
        parsed.check()?;
        if parsed.diff_ids.len() != plan.layers.len() {
            return Err(Error::Archive {
                reason: format!(
                    "invalid archive: {} layers for {} diff ids in image {}",
                    plan.layers.len(),
                    parsed.diff_ids.len(),
                    parsed.id
                ),
            });
        }
        let mut leases = Vec::with_capacity(plan.layers.len());
        for (path, diff_id) in plan.layers.iter().zip(&parsed.diff_ids) {
            leases.push(self.load_layer(spool, path.clone(), diff_id, progress).await?);
        }
        let id = parsed.id.to_string();
        let names: Vec<String> = plan.names.iter().map(|name| name.familiar()).collect();
        let before = |name: &Reference| {
            let old = self.inner.named(name).filter(|old| *old != id)?;
            Some((name.familiar(), old))
        };
        let moved = plan.names.iter().filter_map(before).collect();
        self.commit(NewImage {
            config: plan.config,
            parsed,
            manifests: plan.manifests,
            layer_blobs: plan.layer_blobs,
            names: plan.names,
            parent: None,
            seed: marker.map(str::to_owned),
            leases,
        })
        .await?;
        progress.event(ProgressEvent::line(match names.is_empty() {
            true => format!("Loaded image ID: {id}"),
            false => format!("Loaded image: {}", names.join(", ")),
        }));
        Ok(Loaded { image: self.get(&id)?, names, moved })
    }

    async fn load_layer(
        &self,
        spool: &Arc<Spool>,
        path: PathBuf,
        diff_id: &Digest,
        progress: &dyn Progress,
    ) -> Result<LayerLease, Error> {
        if let Some(lease) = self.inner.lease(diff_id) {
            return Ok(lease);
        }
        let guard = self.inner.work.lock(diff_id.as_str()).await;
        if let Some(lease) = self.inner.lease(diff_id) {
            return Ok(lease);
        }
        let size = tokio::fs::metadata(&path).await.map_or(0, |m| m.len());
        progress.event(ProgressEvent::measured(diff_id.short(), "Loading layer", 0, size));
        let (inner, wanted, spool) = (Arc::clone(&self.inner), diff_id.clone(), Arc::clone(spool));
        let lease = blocking(move || {
            let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
            let result =
                store_layer(&inner, BufReader::with_capacity(READ_SIZE, file), Some((&path, &wanted)));
            drop((guard, spool));
            result.map(|(lease, _)| lease)
        })
        .await?;
        progress.event(ProgressEvent::measured(diff_id.short(), "Loading layer", size, size));
        Ok(lease)
    }
}

/// Unpacks a layer, keeps a compressed blob of it, and puts it in its place.
///
/// `from` is the file that the bytes come from, which is kept as it is when it is compressed, and the diff id
/// that they must have.
pub(crate) fn store_layer(
    inner: &Arc<Inner>,
    source: impl std::io::BufRead,
    from: Option<(&Path, &Digest)>,
) -> Result<(LayerLease, Unpacked), Error> {
    let staged = inner.layout.stage_directory()?;
    let compressed = match from {
        Some((path, _)) => spool::is_compressed(path)?,
        None => false,
    };
    let layer = from.map_or_else(|| "import".to_owned(), |(_, diff_id)| diff_id.to_string());
    let fail = |cause| Error::Layer { layer: layer.clone(), cause };
    let (unpacked, blob, blob_size) = match from.filter(|_| compressed) {
        Some((path, _)) => {
            let unpacked = layer::unpack(source, staged.path(), inner.limits, None).map_err(fail)?;
            let (digest, size) = spool::digest_of(path)?;
            keep_blob(inner, path, &digest)?;
            (unpacked, digest, size)
        }
        None => {
            let copy = inner.layout.stage();
            let file = File::create(copy.path()).map_err(|e| Error::io("create", copy.path(), e))?;
            let sink = HashedFile::new(file);
            let write = |e| Error::io("write", copy.path(), e);
            let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL).map_err(write)?;
            let unpacked =
                layer::unpack(source, staged.path(), inner.limits, Some(&mut encoder)).map_err(fail)?;
            let sink = encoder.finish().map_err(write)?;
            let (digest, written) = sink.finish();
            keep_blob(inner, copy.path(), &digest)?;
            (unpacked, digest, written)
        }
    };
    if let Some((_, wanted)) = from
        && *wanted != unpacked.diff_id
    {
        inner.layout.remove_partial(&blob)?;
        return Err(Error::WrongDiffId { layer: wanted.to_string(), actual: unpacked.diff_id.to_string() });
    }
    let record = LayerRecord { size: unpacked.size, blob: Some(blob), blob_size };
    let lease = inner.publish_layer(&unpacked.diff_id, staged.path(), record)?;
    Ok((lease, unpacked))
}

/// Puts a finished blob where a commit will look for it.
pub(crate) fn keep_blob(inner: &Inner, path: &Path, digest: &Digest) -> Result<(), Error> {
    let partial = inner.layout.partial(digest);
    match std::fs::hard_link(path, &partial) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            // What is there may be half a download; this one is whole.
            inner.layout.remove_partial(digest)?;
            std::fs::hard_link(path, &partial).map_err(|e| Error::io("link", &partial, e))
        }
        other => other.map_err(|e| Error::io("link", &partial, e)),
    }
}

/// Runs blocking work to its end.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Interrupted)?
}

/// Lets blocking work read an async stream. When the caller goes away, the work sees an interruption.
pub(crate) async fn blocking_read<T: Send + 'static>(
    mut reader: impl AsyncRead + Send + Unpin,
    work: impl FnOnce(ChunkReader) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, chunks, _) = chunks::channel();
    let work = tokio::task::spawn_blocking(move || work(chunks));
    let fed = feed(&mut reader, sender).await;
    let result = work.await.map_err(|_| Error::Interrupted)?;
    // A failed stream is why the work failed, not the other way round.
    fed.map_err(|cause| Error::Input { cause })?;
    result
}

async fn feed(reader: &mut (impl AsyncRead + Unpin), sender: mpsc::Sender<Chunk>) -> std::io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_SIZE);
        if reader.read_buf(&mut buffer).await? == 0 {
            let _ = sender.send(Chunk::End).await;
            return Ok(());
        }
        if sender.send(Chunk::Data(buffer.split().freeze())).await.is_err() {
            // The work has ended early; its result says why.
            return Ok(());
        }
    }
}

/// Limits for archives that hold layers: the same bytes, far fewer entries.
pub(crate) fn archive_limits(limits: Limits) -> Limits {
    Limits { entries: limits.entries.min(100_000), names: limits.names.min(64 << 20), ..limits }
}
