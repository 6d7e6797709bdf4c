//! Pulling one layer: bytes go to the partial file, into the hash and into the unpacker while they arrive.
//!
//! ```text
//! registry ─► async loop ─► keeper thread: partial file + digest ─► unpacker thread: staging directory
//!               ▲    cut? ask again from where the last byte came
//! ```
//! A later pull's keeper first feeds what the partial file has, then asks for the rest. Only when the digest and
//! the diff id are right does the directory get its place.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::chunks::{self, Chunk};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::{self, LayerError, Unpacked};
use crate::manifest::Descriptor;
use crate::progress::{Progress, ProgressEvent};
use crate::registry::{Failure, Repository};
use crate::store::{LayerLease, LayerRecord, Store, WorkGuard};

/// Attempts without a single new byte before a download is given up.
const MAX_ATTEMPTS: u32 = 5;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
const READ_BUFFER: usize = 256 << 10;

impl Store {
    /// Makes sure that a layer is here and leases it.
    pub(super) async fn pull_layer(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        diff_id: &Digest,
        progress: &dyn Progress,
    ) -> Result<LayerLease, Error> {
        let id = descriptor.digest.short();
        if let Some(lease) = self.inner.lease(diff_id) {
            progress.event(ProgressEvent::about(id, "Already exists"));
            return Ok(lease);
        }
        progress.event(ProgressEvent::about(id, "Waiting"));
        // By diff id first, so that two pulls of one layer do the work once; then by blob, because two images
        // may (wrongly) claim different contents for one blob, and both would write the same partial file.
        let by_content = self.inner.work.lock(diff_id.as_str()).await;
        if let Some(lease) = self.inner.lease(diff_id) {
            progress.event(ProgressEvent::about(id, "Pull complete"));
            return Ok(lease);
        }
        let by_blob = self.inner.work.lock(&format!("blob {}", descriptor.digest)).await;
        let permit =
            Arc::clone(&self.inner.downloads).acquire_owned().await.map_err(|_| Error::Interrupted)?;
        let guards = [by_content, by_blob];
        let job = Job { store: self, repository, descriptor, diff_id, progress, guards };
        let lease = match job.run().await {
            Err((error, Resumed::Yes)) if is_about_content(&error) => {
                // What an earlier pull left may have been damaged by a crash: once more, from nothing.
                tracing::info!(layer = %descriptor.digest, %error, "kept part of the download is not usable");
                self.inner.layout.remove_partial(&descriptor.digest)?;
                job.run().await.map_err(|(error, _)| error)?
            }
            Err((error, _)) => {
                if error.is_storage_full() {
                    // Half a layer is worth less than the space that it would keep from everybody.
                    self.inner.layout.remove_partial(&descriptor.digest)?;
                }
                return Err(error);
            }
            Ok(lease) => lease,
        };
        drop(permit);
        progress.event(ProgressEvent::about(id, "Pull complete"));
        Ok(lease)
    }
}

/// Whether a download started with bytes that an earlier pull had left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resumed {
    Yes,
    No,
}

fn is_about_content(error: &Error) -> bool {
    match error {
        Error::DigestMismatch { .. } => true,
        Error::Layer { cause, .. } => cause.is_about_content(),
        _ => false,
    }
}

struct Job<'a> {
    store: &'a Store,
    repository: &'a Repository,
    descriptor: &'a Descriptor,
    diff_id: &'a Digest,
    progress: &'a dyn Progress,
    guards: [WorkGuard; 2],
}

impl Job<'_> {
    async fn run(&self) -> Result<LayerLease, (Error, Resumed)> {
        let layout = &self.store.inner.layout;
        let (blob, size) = (&self.descriptor.digest, self.descriptor.size);
        let path = layout.partial(blob);
        let mut have = std::fs::metadata(&path).map_or(0, |m| m.len());
        if have > size {
            layout.remove_partial(blob).map_err(|e| (e, Resumed::No))?;
            have = 0;
        }
        let resumed = if have > 0 { Resumed::Yes } else { Resumed::No };
        self.attempt(path, have).await.map_err(|error| (error, resumed))
    }

    async fn attempt(&self, path: PathBuf, have: u64) -> Result<LayerLease, Error> {
        let inner = &self.store.inner;
        let (blob, size) = (&self.descriptor.digest, self.descriptor.size);
        let (to_unpacker, mut reader, consumed) = chunks::channel();
        let (to_keeper, from_network) = mpsc::channel::<Chunk>(32);
        let give_up = Arc::new(AtomicBool::new(false));

        let staged = inner.layout.stage_directory()?;
        let (limits, guards, stop) = (inner.limits, self.guards.clone(), Arc::clone(&give_up));
        let unpacker = tokio::task::spawn_blocking(move || {
            let result = layer::unpack(&mut reader, staged.path(), limits, None);
            // Bad contents may be the fault of bad bytes, which the digest will tell; a full disk is final.
            if matches!(&result, Err(error) if !error.is_about_content()) {
                stop.store(true, Ordering::Relaxed);
            }
            drop(reader);
            // The guards go last: whoever works next on this layer finds nothing of ours in motion.
            let result = result.map(|unpacked| (staged, unpacked));
            drop(guards);
            result
        });
        let keeper = Keeper { path, have, give_up, from_network, to_unpacker, guards: self.guards.clone() };
        let keeper = tokio::task::spawn_blocking(move || keeper.run());

        let downloaded = self.download(have, to_keeper).await;
        if downloaded.is_ok() {
            self.event("Verifying Checksum");
        }
        let kept = keeper.await.map_err(|_| Error::Interrupted)?;
        if let Err(error) = downloaded {
            // Only an interrupted download failed because of a worker; any other error is its own.
            let unpacked = unpacker.await;
            return Err(match (error, kept, unpacked) {
                (Error::Interrupted, Err(worker), _) if !matches!(worker, Error::Interrupted) => worker,
                (Error::Interrupted, _, Ok(Err(cause))) if !matches!(cause, LayerError::Interrupted) => {
                    self.layer_error(cause)
                }
                (error, _, _) => error,
            });
        }
        let digest = match kept {
            Ok(digest) => digest,
            Err(error) => {
                return Err(match unpacker.await {
                    Ok(Err(cause)) if !matches!(cause, LayerError::Interrupted) => self.layer_error(cause),
                    _ => error,
                });
            }
        };
        if digest != *blob {
            let _ = unpacker.await;
            inner.layout.remove_partial(blob)?;
            return Err(Error::DigestMismatch { digest: blob.to_string() });
        }
        self.event("Download complete");
        let (staged, unpacked) = self.wait_unpacked(unpacker, &consumed).await?;
        if unpacked.diff_id != *self.diff_id {
            return Err(Error::LayersMismatch);
        }
        let record = LayerRecord { size: unpacked.size, blob: Some(blob.clone()), blob_size: size };
        inner.publish_layer(self.diff_id, staged.path(), record)
    }

    /// Fetches the bytes from `have` on, however often the connection is cut.
    async fn download(&self, mut have: u64, to_keeper: mpsc::Sender<Chunk>) -> Result<(), Error> {
        let size = self.descriptor.size;
        let mut failures = 0;
        let mut last_event = Instant::now();
        let mut from_start = false;
        while have < size {
            let before = have;
            let outcome: Result<(), Failure> = async {
                let ask = if from_start { 0 } else { have };
                let mut body = self.repository.blob(&self.descriptor.digest, ask).await?;
                if body.offset > have {
                    return Err(Failure::RangeRefused);
                }
                let mut skip = have - body.offset;
                while let Some(mut data) = body.next().await.map_err(Failure::Again)? {
                    // The server ignored the range: these bytes are here already.
                    let known = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
                    skip -= known as u64;
                    let data = data.split_off(known);
                    if data.is_empty() {
                        continue;
                    }
                    have += data.len() as u64;
                    if have > size {
                        return Err(Failure::Final(Error::Registry {
                            message: format!(
                                "layer {}: the registry sends more than the {size} bytes of the manifest",
                                self.descriptor.digest
                            ),
                        }));
                    }
                    if to_keeper.send(Chunk::Data(data)).await.is_err() {
                        return Err(Failure::Final(Error::Interrupted));
                    }
                    if last_event.elapsed() >= PROGRESS_INTERVAL {
                        last_event = Instant::now();
                        self.measured("Downloading", have);
                    }
                }
                Ok(())
            }
            .await;
            if have == size {
                break;
            }
            if have > before {
                failures = 0;
            }
            let error = match outcome {
                Ok(()) => crate::registry::request_error(
                    "Get",
                    &format!("{} blob {}", self.descriptor.media_type, self.descriptor.digest),
                    "unexpected EOF".to_owned(),
                ),
                Err(Failure::Again(error)) => error,
                Err(failure @ Failure::RangeRefused) => {
                    from_start = true;
                    failure.into_error()
                }
                Err(Failure::Final(error)) => return Err(error),
            };
            failures += 1;
            if failures >= MAX_ATTEMPTS {
                return Err(error);
            }
            tracing::info!(layer = %self.descriptor.digest, %error, have, size, "download is resumed");
            self.event(&format!(
                "Retrying in {} second",
                self.repository.client().backoff(failures).as_secs().max(1)
            ));
            tokio::time::sleep(self.repository.client().backoff(failures)).await;
        }
        self.measured("Downloading", size);
        to_keeper.send(Chunk::End).await.map_err(|_| Error::Interrupted)
    }

    async fn wait_unpacked<T>(
        &self,
        mut unpacker: JoinHandle<Result<(T, Unpacked), LayerError>>,
        consumed: &AtomicU64,
    ) -> Result<(T, Unpacked), Error> {
        loop {
            self.measured("Extracting", consumed.load(Ordering::Relaxed));
            match tokio::time::timeout(PROGRESS_INTERVAL, &mut unpacker).await {
                Err(_) => {}
                Ok(Err(_)) => return Err(Error::Interrupted),
                Ok(Ok(result)) => return result.map_err(|cause| self.layer_error(cause)),
            }
        }
    }

    fn layer_error(&self, cause: LayerError) -> Error {
        Error::Layer { layer: self.descriptor.digest.to_string(), cause }
    }

    fn event(&self, status: &str) {
        self.progress.event(ProgressEvent::about(self.descriptor.digest.short(), status));
    }

    fn measured(&self, status: &str, current: u64) {
        let id = self.descriptor.digest.short();
        self.progress.event(ProgressEvent::measured(id, status, current, self.descriptor.size));
    }
}

/// Keeps the bytes: in the partial file and in the hash.
struct Keeper {
    path: PathBuf,
    have: u64,
    give_up: Arc<AtomicBool>,
    from_network: mpsc::Receiver<Chunk>,
    to_unpacker: mpsc::Sender<Chunk>,
    guards: [WorkGuard; 2],
}

impl Keeper {
    fn run(mut self) -> Result<Digest, Error> {
        let result = self.keep();
        drop(self.guards);
        result
    }

    fn keep(&mut self) -> Result<Digest, Error> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&self.path)
            .map_err(|e| Error::io("open", &self.path, e))?;
        let mut hasher = Sha256::new();
        self.replay(&mut file, &mut hasher)?;
        loop {
            match self.from_network.blocking_recv() {
                None => return Err(Error::Interrupted),
                Some(Chunk::End) => {
                    let _ = self.to_unpacker.blocking_send(Chunk::End);
                    return Ok(Digest::finish(hasher));
                }
                Some(Chunk::Data(data)) => {
                    file.write_all(&data).map_err(|e| Error::io("write", &self.path, e))?;
                    self.take(data, &mut hasher)?;
                }
            }
        }
    }

    /// Feeds what an earlier pull has left.
    fn replay(&self, file: &mut File, hasher: &mut Sha256) -> Result<(), Error> {
        let mut left = self.have;
        while left > 0 {
            let mut buffer = vec![0; READ_BUFFER.min(usize::try_from(left).unwrap_or(READ_BUFFER))];
            file.read_exact(&mut buffer).map_err(|e| Error::io("read", &self.path, e))?;
            left -= buffer.len() as u64;
            self.take(Bytes::from(buffer), hasher)?;
        }
        Ok(())
    }

    fn take(&self, data: Bytes, hasher: &mut Sha256) -> Result<(), Error> {
        hasher.update(&data);
        // An unpacker that choked on the contents is gone; the digest is still wanted, to tell why it choked.
        if self.to_unpacker.blocking_send(Chunk::Data(data)).is_err() && self.give_up.load(Ordering::Relaxed)
        {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}
