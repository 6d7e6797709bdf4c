//! Merging and subtracting.

use std::sync::Arc;

use super::Inner;
use super::value::{Outputs, Snapshot, Value, add_layer};
use crate::error::{Error, Result};
use crate::graph::pb;

/// Lays the inputs on top of each other, the first one lowest.
pub(crate) async fn merge(inner: &Arc<Inner>, op: &pb::MergeOp, inputs: &[Value]) -> Result<Outputs> {
    let mut held = skiff_images::Held::nothing();
    let mut base = None;
    for input in &op.inputs {
        let Value::Layers(snapshot) = input_of(inputs, input.input)? else {
            return Err(Error::invalid("a local source can't be merged"));
        };
        base = base.or_else(|| snapshot.base.clone());
        held = held.with(&snapshot.realize(inner).await?);
    }
    Ok(Arc::new(vec![Some(Value::Layers(Snapshot::held(held, base)))]))
}

/// What the upper input has that the lower one has not.
pub(crate) async fn diff(inner: &Arc<Inner>, op: &pb::DiffOp, inputs: &[Value]) -> Result<Outputs> {
    let nothing = Value::Layers(Snapshot::scratch());
    let lower = op.lower.as_ref().map_or(Ok(&nothing), |lower| input_of(inputs, lower.input))?;
    let upper = op.upper.as_ref().map_or(Ok(&nothing), |upper| input_of(inputs, upper.input))?;
    let (Value::Layers(below), Value::Layers(above)) = (lower, upper) else {
        return Err(Error::invalid("a local source has no layers to subtract"));
    };
    let held = above.realize(inner).await?;
    if above.layers.starts_with(&below.layers) {
        let held = held.above(below.layers.len());
        return Ok(Arc::new(vec![Some(Value::Layers(Snapshot::held(held, None)))]));
    }
    let (lower, upper) = (lower.viewed(inner).await?, upper.viewed(inner).await?);
    let inner = Arc::clone(inner);
    let held = super::blocking(move || {
        let tree = inner.config.images.new_tree()?;
        let root = crate::files::read_only_root(tree.path())
            .map_err(|error| Error::io("open", tree.path(), error))?;
        crate::files::subtract(&lower.view, &upper.view, &root)?;
        drop(root);
        add_layer(&inner, tree)
    })
    .await?;
    Ok(Arc::new(vec![Some(Value::Layers(Snapshot::held(held, None)))]))
}

/// The input of a number; -1 is scratch.
pub(crate) fn input_of(inputs: &[Value], index: i64) -> Result<&Value> {
    static SCRATCH: std::sync::LazyLock<Value> =
        std::sync::LazyLock::new(|| Value::Layers(Snapshot::scratch()));
    if index == -1 {
        return Ok(&SCRATCH);
    }
    usize::try_from(index)
        .ok()
        .and_then(|index| inputs.get(index))
        .ok_or_else(|| Error::invalid(format!("invalid input index {index}")))
}
