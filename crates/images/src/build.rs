//! Layers and images that are made here, step by step: what the builder needs of the store.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::Error;
use crate::hashed::HashedFile;
use crate::image::{Image, ParsedConfig};
use crate::layer::{Decoder, clamp_times};
use crate::load::{ZSTD_LEVEL, keep_blob, store_layer};
use crate::reference::Reference;
use crate::store::{Held, LayerRecord, NewImage, StagedPath, Store};

/// A directory of the store where a layer is being made; removed when dropped.
#[derive(Debug)]
pub struct Tree {
    staged: StagedPath,
}

impl Tree {
    /// The directory: the upper directory of an overlay in the end.
    pub fn path(&self) -> &Path {
        self.staged.path()
    }
}

/// An image whose layers are here already.
#[derive(Debug, Clone, Default)]
pub struct NewBuilt {
    /// The configuration, byte for byte; its `rootfs` names the layers.
    pub config: Vec<u8>,
    /// Names to give it; a name that another image has moves.
    pub names: Vec<String>,
}

impl Store {
    /// Makes an empty directory for a layer, with the mode that a root has.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn new_tree(&self) -> Result<Tree, Error> {
        Ok(Tree { staged: self.inner.layout.stage_directory()? })
    }

    /// Makes an empty directory that goes with what is returned: an overlay's work directory.
    ///
    /// # Errors
    /// As [`Store::new_tree`].
    pub fn scratch(&self) -> Result<Tree, Error> {
        self.new_tree()
    }

    /// The path of the store's staging area, on whose file system trees must be.
    pub fn staging(&self) -> PathBuf {
        self.inner.layout.staging()
    }

    /// Makes a tree a layer. `pack` writes the layer's archive, which is what it is known by, and returns the bytes of its
    /// files. Blocks.
    ///
    /// # Errors
    /// What `pack` fails with; storage errors.
    pub fn add_layer(
        &self,
        tree: Tree,
        pack: impl FnOnce(&mut dyn Write) -> io::Result<u64>,
    ) -> Result<Held, Error> {
        let inner = &self.inner;
        let copy = inner.layout.stage();
        let write = |e| Error::io("write", copy.path(), e);
        let file = std::fs::File::create(copy.path()).map_err(|e| Error::io("create", copy.path(), e))?;
        let encoder = zstd::Encoder::new(HashedFile::new(file), ZSTD_LEVEL).map_err(write)?;
        let mut sink =
            Hashing { hasher: Sha256::new(), out: io::BufWriter::with_capacity(128 << 10, encoder) };
        let size = pack(&mut sink).map_err(|e| Error::io("pack", tree.path(), e))?;
        let encoder = sink.out.into_inner().map_err(|e| write(e.into_error()))?;
        let (blob, blob_size) = encoder.finish().map_err(write)?.finish();
        let diff_id = Digest::finish(sink.hasher);
        keep_blob(inner, copy.path(), &blob)?;
        let record = LayerRecord { size, blob: Some(blob), blob_size };
        let lease = inner.publish_layer(&diff_id, tree.path(), record)?;
        Ok(Held::new(vec![lease]))
    }

    /// Makes a layer of another one: the same files, with no time later than `epoch` (seconds since 1970). Blocks.
    ///
    /// # Errors
    /// A layer whose archive is not here; storage errors.
    pub fn with_times_until(&self, layer: &Digest, epoch: u32) -> Result<Held, Error> {
        let inner = &self.inner;
        let missing = || Error::Malformed {
            what: format!("layer {layer}"),
            reason: "its archive is not in the store".to_owned(),
        };
        let path = inner.layout.stored(&inner.blob_of(layer).ok_or_else(missing)?);
        let file = std::fs::File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        let fail = |cause| Error::Layer { layer: layer.to_string(), cause };
        let source = Decoder::buffered(file).map_err(fail)?;
        let copy = inner.layout.stage();
        let write = |e| Error::io("write", copy.path(), e);
        let target = std::fs::File::create(copy.path()).map_err(write)?;
        let target = io::BufWriter::with_capacity(128 << 10, target);
        clamp_times(source, target, epoch).map_err(write)?;
        let file = std::fs::File::open(copy.path()).map_err(|e| Error::io("open", copy.path(), e))?;
        let (lease, _) = store_layer(inner, io::BufReader::with_capacity(128 << 10, file), None)?;
        Ok(Held::new(vec![lease]))
    }

    /// Commits an image of layers that are held. Blocks.
    ///
    /// # Errors
    /// A configuration that names other layers; a wrong name; storage errors.
    pub fn add_image(&self, new: NewBuilt, layers: &Held) -> Result<Image, Error> {
        let names = new.names.iter().map(|name| Ok(Reference::parse(name)?.or_latest()));
        let names = names.collect::<Result<Vec<_>, Error>>()?;
        let parsed = ParsedConfig::parse(&new.config)?;
        if !parsed.diff_ids.iter().eq(layers.layers()) {
            return Err(Error::Invalid { message: "the configuration names other layers".to_owned() });
        }
        let missing = || Error::Invalid { message: "a layer is not in the store".to_owned() };
        let leases = parsed.diff_ids.iter().map(|layer| self.inner.lease(layer).ok_or_else(missing));
        let leases = leases.collect::<Result<Vec<_>, Error>>()?;
        let id = parsed.id.to_string();
        Arc::clone(&self.inner).commit_image(NewImage {
            config: new.config,
            parsed,
            manifests: Vec::new(),
            layer_blobs: Vec::new(),
            names,
            parent: None,
            seed: None,
            leases,
        })?;
        self.get(&id)
    }

    /// Reads the configuration of an image of the store, byte for byte. Blocks.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; storage errors.
    pub fn config_of(&self, id: &str) -> Result<Vec<u8>, Error> {
        let digest = id.parse().map_err(|_| Error::NoSuchImage { reference: id.to_owned() })?;
        let path = self.inner.layout.blob(&digest);
        std::fs::read(&path).map_err(|e| Error::io("read", &path, e))
    }
}

/// Hashes what goes by.
struct Hashing<W> {
    hasher: Sha256,
    out: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
