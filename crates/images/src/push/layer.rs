//! One layer on its way to a registry.

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::path::Path;
use std::time::Duration;

use flate2::{Compression as Level, GzBuilder};

use crate::digest::Digest;
use crate::error::Error;
use crate::hashed::HashedFile;
use crate::layer::{Compression, Decoder};
use crate::manifest::Descriptor;
use crate::progress::{Progress, ProgressEvent};
use crate::reference::Reference;
use crate::registry::{Repository, Sent};
use crate::store::Store;

/// Pause between two progress events.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many other repositories are asked for a blob before it is sent.
const MAX_MOUNTS: usize = 3;
const BUFFER: usize = 128 << 10;

impl Store {
    /// Brings a layer to a repository: it may be there, or next door, or has to be sent.
    pub(super) async fn push_layer(
        &self,
        repository: &Repository,
        reference: &Reference,
        blob: &Descriptor,
        diff_id: Digest,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let say = |status: &str| progress.event(ProgressEvent::about(diff_id.short(), status));
        say("Preparing");
        if repository.has_blob(&blob.digest).await? {
            say("Layer already exists");
            return Ok(());
        }
        for from in self.inner.repositories_with(reference, &diff_id).into_iter().take(MAX_MOUNTS) {
            if repository.mount_blob(&blob.digest, from.path()).await? {
                say(&format!("Mounted from {}", from.path()));
                return Ok(());
            }
        }
        let path = self.inner.layout.stored(&blob.digest);
        let sent = Sent::default();
        let mut upload = std::pin::pin!(repository.upload(&blob.digest, &path, blob.size, &sent));
        loop {
            match tokio::time::timeout(INTERVAL, &mut upload).await {
                Ok(done) => {
                    done?;
                    break;
                }
                Err(_) => progress.event(ProgressEvent::measured(
                    diff_id.short(),
                    "Pushing",
                    sent.bytes(),
                    blob.size,
                )),
            }
        }
        say("Pushed");
        Ok(())
    }

    /// Returns digest and size of a layer's compressed blob, made now where the layer came uncompressed.
    pub(super) async fn packed_layer(&self, diff_id: &Digest) -> Result<(Digest, u64), Error> {
        if let Some((digest, size)) = self.inner.packed(diff_id)
            && self.inner.layout.stored(&digest).exists()
        {
            return Ok((digest, size));
        }
        let inner = std::sync::Arc::clone(&self.inner);
        let layer = diff_id.clone();
        let packing = tokio::task::spawn_blocking(move || {
            let missing = || Error::Malformed {
                what: format!("layer {layer}"),
                reason: "its archive is not in the store".to_owned(),
            };
            let blob = inner.blob_of(&layer).ok_or_else(missing)?;
            let path = inner.layout.blob(&blob);
            let read = |e| Error::io("read", &path, e);
            let source = File::open(&path).map_err(read)?;
            let size = source.metadata().map_err(read)?.len();
            let source = Decoder::buffered(source)
                .map_err(|cause| Error::Layer { layer: layer.to_string(), cause })?;
            let packed = if source.compression() == Compression::Gzip {
                (blob, size)
            } else {
                let staged = inner.layout.stage();
                let packed = pack(source, staged.path())?;
                inner.layout.publish(staged.path(), &inner.layout.partial(&packed.0))?;
                packed
            };
            inner.keep_packed(layer, packed.clone());
            Ok(packed)
        });
        packing.await.map_err(|_| Error::Interrupted)?
    }
}

/// Compresses an archive that is plain or packed otherwise; the same bytes give the same result.
fn pack(mut source: impl Read, to: &Path) -> Result<(Digest, u64), Error> {
    let failed = |e: io::Error| Error::io("write", to, e);
    // No name and no time in the header: the digest must not depend on them.
    let target = HashedFile::new(File::create_new(to).map_err(failed)?);
    let mut packer = GzBuilder::new().write(BufWriter::with_capacity(BUFFER, target), Level::default());
    io::copy(&mut source, &mut packer).map_err(failed)?;
    let target = packer.finish().map_err(failed)?;
    let target = target.into_inner().map_err(|e| failed(e.into_error()))?;
    Ok(target.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_repeatable_and_undone_by_gzip() {
        let directory = tempfile::tempdir().unwrap();
        let plain = vec![b'x'; 300_000];
        let first = pack(plain.as_slice(), &directory.path().join("a")).unwrap();
        let second = pack(plain.as_slice(), &directory.path().join("b")).unwrap();
        assert_eq!(first, second);
        assert_eq!(Digest::of(&std::fs::read(directory.path().join("a")).unwrap()), first.0);
        let packed = File::open(directory.path().join("b")).unwrap();
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain);
    }
}
