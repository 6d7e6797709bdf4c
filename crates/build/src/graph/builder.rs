//! Makes definitions.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message as _;

use super::{digest, pb};

/// One output of a vertex: what inputs refer to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Output {
    /// The vertex's digest.
    pub digest: String,
    /// Which of its outputs.
    pub index: i64,
}

impl Output {
    fn input(&self) -> pb::Input {
        pb::Input { digest: self.digest.clone(), index: self.index }
    }
}

/// Collects vertices and writes definitions of those that a result needs.
///
/// Equal operations are one vertex; the metadata of the last one added stands.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    vertices: HashMap<String, (Vec<u8>, Vec<String>)>,
    metadata: HashMap<String, pb::OpMetadata>,
    locations: BTreeMap<String, Vec<pb::Location>>,
    infos: Vec<pb::SourceInfo>,
}

impl Builder {
    /// Begins an empty graph.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Adds a vertex; returns its output 0. Other outputs (of exec and file operations) have the same digest.
    pub fn add(
        &mut self,
        operation: pb::op::Op,
        inputs: &[Output],
        platform: Option<pb::Platform>,
        metadata: pb::OpMetadata,
    ) -> Output {
        let op = pb::Op {
            inputs: inputs.iter().map(Output::input).collect(),
            platform,
            constraints: None,
            op: Some(operation),
        };
        let bytes = op.encode_to_vec();
        let digest = digest(&bytes);
        let needs = inputs.iter().map(|input| input.digest.clone()).collect();
        self.vertices.insert(digest.clone(), (bytes, needs));
        self.metadata.insert(digest.clone(), metadata);
        Output { digest, index: 0 }
    }

    /// Takes over the vertices of a definition; returns what its result is, or nothing for an empty one.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn import(&mut self, definition: &pb::Definition) -> crate::Result<Option<Output>> {
        let graph = super::Graph::parse(definition)?;
        for vertex in graph.vertices() {
            let needs = vertex.op.inputs.iter().map(|input| input.digest.clone()).collect();
            self.vertices.insert(vertex.digest.clone(), (vertex.bytes.clone(), needs));
            self.metadata.insert(vertex.digest.clone(), vertex.metadata.clone());
        }
        Ok(graph.result().cloned())
    }

    /// Adds a file of the user's that vertices come from; returns its number for [`pb::Location::source_index`].
    pub fn source(&mut self, info: pb::SourceInfo) -> i32 {
        if let Some(at) = self.infos.iter().position(|have| *have == info) {
            return i32::try_from(at).unwrap_or(i32::MAX);
        }
        self.infos.push(info);
        i32::try_from(self.infos.len() - 1).unwrap_or(i32::MAX)
    }

    /// Says which lines a vertex comes from.
    pub fn locate(&mut self, output: &Output, location: pb::Location) {
        let locations = self.locations.entry(output.digest.clone()).or_default();
        if !locations.contains(&location) {
            locations.push(location);
        }
    }

    /// Writes the definition of a result. `None` is scratch: an empty definition.
    pub fn definition(&self, result: Option<&Output>) -> pb::Definition {
        let Some(result) = result else { return pb::Definition::default() };
        let mut definition = pb::Definition::default();
        let mut source = pb::Source { infos: self.infos.clone(), locations: BTreeMap::new() };
        let mut done = HashSet::new();
        // Depth first without recursion: a vertex is written once its inputs are.
        let mut todo = vec![(result.digest.clone(), false)];
        while let Some((vertex, inputs_done)) = todo.pop() {
            let Some((bytes, needs)) = self.vertices.get(&vertex) else { continue };
            if !inputs_done {
                if !done.contains(&vertex) {
                    todo.push((vertex, true));
                    todo.extend(needs.iter().rev().map(|need| (need.clone(), false)));
                }
                continue;
            }
            if !done.insert(vertex.clone()) {
                continue;
            }
            definition.def.push(bytes.clone());
            if let Some(metadata) = self.metadata.get(&vertex) {
                definition.metadata.insert(vertex.clone(), metadata.clone());
            }
            if let Some(locations) = self.locations.get(&vertex) {
                source.locations.insert(vertex, pb::Locations { locations: locations.clone() });
            }
        }
        let last = pb::Op { inputs: vec![result.input()], ..pb::Op::default() }.encode_to_vec();
        definition.metadata.insert(digest(&last), pb::OpMetadata::default());
        definition.def.push(last);
        definition.source = Some(source);
        definition
    }
}
