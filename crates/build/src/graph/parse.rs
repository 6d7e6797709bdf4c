//! Checks definitions: whatever a client sends, what comes out is a finite graph without cycles.

use std::collections::HashMap;

use prost::Message as _;

use super::{Output, digest, pb};
use crate::error::{Error, Location, Result};

/// More vertices than any build has.
const MOST_VERTICES: usize = 100_000;
const MOST_INPUTS: usize = 10_000;
const MOST_WAITING: usize = 4_000_000;
const LARGEST_OP: usize = 16 << 20;

/// A vertex of a checked graph.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// The digest of its bytes.
    pub digest: String,
    /// The operation, marshalled, as it came.
    pub bytes: Vec<u8>,
    /// The operation.
    pub op: pb::Op,
    /// What the definition says about it.
    pub metadata: pb::OpMetadata,
    /// Where in the user's file it is asked for.
    pub location: Option<Location>,
}

/// A checked definition.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// In an order in which inputs come first.
    vertices: Vec<Vertex>,
    index: HashMap<String, usize>,
    result: Option<Output>,
}

impl Graph {
    /// Checks a definition. An empty one is scratch.
    ///
    /// # Errors
    /// Bytes that are no operation, an input that no earlier vertex is, too much of anything.
    pub fn parse(definition: &pb::Definition) -> Result<Graph> {
        let mut graph = Graph::default();
        let Some((last, all)) = definition.def.split_last() else { return Ok(graph) };
        if all.len() > MOST_VERTICES {
            return Err(Error::invalid("definition has too many vertices"));
        }
        let mut ops = HashMap::new();
        let mut order = Vec::new();
        for bytes in all {
            let op = parse_op(bytes)?;
            let digest = digest(bytes);
            if op.op.is_none() {
                return Err(Error::invalid(format!("invalid nil op of vertex {digest}")));
            }
            if op.inputs.len() > MOST_INPUTS {
                return Err(Error::invalid(format!("vertex {digest} has too many inputs")));
            }
            if ops.insert(digest.clone(), (bytes, op)).is_none() {
                order.push(digest);
            }
        }
        // Depth first without recursion: a vertex comes once its inputs have.
        let mut todo: Vec<(String, bool)> = order.into_iter().rev().map(|digest| (digest, false)).collect();
        while let Some((digest, inputs_done)) = todo.pop() {
            if graph.index.contains_key(&digest) {
                continue;
            }
            let Some((bytes, op)) = ops.get(&digest) else {
                return Err(Error::invalid(format!("invalid missing input digest {digest}")));
            };
            if !inputs_done {
                todo.push((digest, true));
                for input in op.inputs.iter().rev() {
                    if input.index < 0 {
                        return Err(Error::invalid(format!("invalid input index {}", input.index)));
                    }
                    if !graph.index.contains_key(&input.digest) {
                        todo.push((input.digest.clone(), false));
                    }
                }
                // A digest can't be in what it is made of: there are no cycles, and no end without this.
                if todo.len() > MOST_WAITING {
                    return Err(Error::invalid("definition is nested too deeply"));
                }
                continue;
            }
            graph.index.insert(digest.clone(), graph.vertices.len());
            graph.vertices.push(Vertex {
                metadata: definition.metadata.get(&digest).cloned().unwrap_or_default(),
                location: location(definition, &digest),
                digest,
                bytes: (*bytes).clone(),
                op: op.clone(),
            });
        }
        let last = parse_op(last)?;
        match (last.inputs.as_slice(), &last.op) {
            ([input], None) if graph.index.contains_key(&input.digest) && input.index >= 0 => {
                graph.result = Some(Output { digest: input.digest.clone(), index: input.index });
            }
            ([], None) => {}
            ([input], None) => {
                return Err(Error::invalid(format!("invalid missing input digest {}", input.digest)));
            }
            _ => return Err(Error::invalid("invalid definition: the last vertex is no result")),
        }
        Ok(graph)
    }

    /// All vertices, inputs first.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// Finds a vertex.
    pub fn get(&self, digest: &str) -> Option<&Vertex> {
        self.index.get(digest).map(|&at| &self.vertices[at])
    }

    /// What the definition stands for; `None`: scratch.
    pub fn result(&self) -> Option<&Output> {
        self.result.as_ref()
    }
}

fn parse_op(bytes: &[u8]) -> Result<pb::Op> {
    if bytes.len() > LARGEST_OP {
        return Err(Error::invalid("vertex is too large"));
    }
    pb::Op::decode(bytes).map_err(|error| Error::invalid(format!("failed to parse llb proto op: {error}")))
}

fn location(definition: &pb::Definition, digest: &str) -> Option<Location> {
    let source = definition.source.as_ref()?;
    let location = source.locations.get(digest)?.locations.first()?;
    let info = source.infos.get(usize::try_from(location.source_index).ok()?)?;
    Some(Location { source: info.clone(), ranges: location.ranges.clone() })
}
