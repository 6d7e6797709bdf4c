//! What vertices yield.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use skiff_images::{Digest, Held, Tree as LayerTree};
use skiff_runtime::RootFs;

use super::Inner;
use super::image::Base;
use crate::error::{Error, Result};
use crate::files::{Tree, View};
use crate::graph;

/// The diff id of a layer without entries. Overlays go without it.
const EMPTY_LAYER: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// The outputs of a vertex.
pub(crate) type Outputs = Arc<Vec<Option<Value>>>;

/// One output.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Layers, lowest first; none: scratch.
    Layers(Snapshot),
    /// A directory of the client's.
    Context(Context),
}

/// A directory of the client's as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub tree: Arc<Tree>,
    pub digest: String,
}

/// Layers, which may have to be pulled yet.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub layers: Arc<[Digest]>,
    /// The image that the lowest of them come from.
    pub base: Option<Arc<Base>>,
    held: Arc<Mutex<Option<Held>>>,
}

impl Snapshot {
    /// Nothing.
    pub fn scratch() -> Snapshot {
        Snapshot::held(Held::nothing(), None)
    }

    /// Layers that are here.
    pub fn held(held: Held, base: Option<Arc<Base>>) -> Snapshot {
        let layers = held.layers().cloned().collect();
        Snapshot { layers, base, held: Arc::new(Mutex::new(Some(held))) }
    }

    /// Layers of an image, most likely not here.
    pub fn of_image(layers: Vec<Digest>, base: Arc<Base>) -> Snapshot {
        Snapshot { layers: layers.into(), base: Some(base), held: Arc::default() }
    }

    /// How many of its layers are those of the image that it is based on.
    pub fn of_base(&self) -> usize {
        let Some(base) = &self.base else { return 0 };
        self.layers.iter().zip(base.layers()).take_while(|(own, theirs)| own == theirs).count()
    }

    /// Sees to it that the layers are here, and stay while the answer is held.
    pub async fn realize(&self, inner: &Inner) -> Result<Held> {
        if let Some(held) = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(held);
        }
        let images = &inner.config.images;
        let held = match images.hold(&self.layers) {
            Some(held) => held,
            None => {
                let Some(base) = &self.base else {
                    return Err(Error::failed("a cached layer is not there any more"));
                };
                // Held until all are.
                let _pulled = base.pull(inner, &self.layers).await?;
                images
                    .hold(&self.layers)
                    .ok_or_else(|| Error::failed("a layer of the image is not there any more"))?
            }
        };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held.clone());
        Ok(held)
    }
}

impl Value {
    /// Identifies what it is, by content.
    pub fn id(&self) -> String {
        match self {
            Value::Layers(snapshot) => {
                let text: Vec<&str> = snapshot.layers.iter().map(Digest::as_str).collect();
                format!("layers:{}", graph::digest(text.join(" ").as_bytes()))
            }
            Value::Context(context) => format!("tree:{}", context.digest),
        }
    }

    /// Makes it readable.
    pub async fn viewed(&self, inner: &Arc<Inner>) -> Result<Viewed> {
        match self {
            Value::Context(context) => Ok(Viewed {
                view: View::Tree { tree: Arc::clone(&context.tree), store: Arc::clone(&inner.files) },
                _overlay: None,
            }),
            Value::Layers(snapshot) if snapshot.layers.is_empty() => {
                Ok(Viewed { view: View::Empty, _overlay: None })
            }
            Value::Layers(snapshot) => {
                let held = snapshot.realize(inner).await?;
                let inner = Arc::clone(inner);
                super::blocking(move || {
                    let overlay = Overlay::new(&inner, held)?;
                    let root = Arc::new(overlay.mount()?);
                    Ok(Viewed { view: View::Mounted(root), _overlay: Some(Arc::new(overlay)) })
                })
                .await
            }
        }
    }
}

/// A view with what it needs.
#[derive(Debug, Clone)]
pub(crate) struct Viewed {
    pub view: View,
    _overlay: Option<Arc<Overlay>>,
}

/// Layers with a writable directory on top. Goes with everything that was written, unless that becomes a layer.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub lower: Held,
    pub upper: LayerTree,
    work: LayerTree,
    /// Stands for layers where there are none.
    nothing: Option<LayerTree>,
    dirs: Vec<std::path::PathBuf>,
}

impl Overlay {
    pub fn new(inner: &Inner, lower: Held) -> Result<Overlay> {
        let images = &inner.config.images;
        let mut seen = std::collections::HashSet::new();
        // An overlay takes no directory twice; the upper of two hides the other.
        let layers: Vec<Digest> = lower
            .layers()
            .rev()
            .filter(|layer| layer.as_str() != EMPTY_LAYER && seen.insert((*layer).clone()))
            .cloned()
            .collect();
        let mut dirs = images.layer_dirs(layers.iter());
        let nothing = match dirs.is_empty() {
            true => Some(images.new_tree()?),
            false => None,
        };
        dirs.extend(nothing.as_ref().map(|tree| tree.path().to_owned()));
        Ok(Overlay { upper: images.new_tree()?, work: images.scratch()?, nothing, lower, dirs })
    }

    pub fn rootfs(&self) -> RootFs {
        RootFs::Overlay {
            lower: self.dirs.clone(),
            upper: self.upper.path().to_owned(),
            work: self.work.path().to_owned(),
        }
    }

    /// Mounts it; attached nowhere.
    pub fn mount(&self) -> Result<OwnedFd> {
        skiff_runtime::mount_rootfs(&self.rootfs()).map_err(|error| Error::failed(chain(&error)))
    }

    /// Makes what was written a layer on top of the others. Nothing may be mounted any more. Blocks.
    pub fn commit(self, inner: &Inner) -> Result<Held> {
        let Overlay { lower, upper, work, nothing, .. } = self;
        drop((work, nothing));
        let layer = add_layer(inner, upper)?;
        Ok(lower.with(&layer))
    }
}

/// Makes an upper directory a layer. Blocks.
pub(crate) fn add_layer(inner: &Inner, upper: LayerTree) -> Result<Held> {
    let path = upper.path().to_owned();
    let layer = inner.config.images.add_layer(upper, move |out| {
        let root = crate::files::read_only_root(&path)?;
        let mut packer = skiff_images::archive::Packer::new(out);
        packer.add_upper(root)?;
        let size = packer.size();
        packer.finish()?;
        Ok(size)
    })?;
    Ok(layer)
}

/// An error with its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
