//! The graph while it is made.
//!
//! What a build takes from its context is known only when all instructions are, and operations name their inputs by
//! digest: so vertices are numbered here, may be filled in late, and become a definition at the end.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;

use crate::dockerfile::fault::{Fault, Lines, Result};
use crate::graph::{self, Builder, pb};

/// How large the operations of one build may be together, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// An output of a vertex. Scratch is `None` of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Out {
    vertex: usize,
    index: i64,
}

/// What a vertex does and how it is shown.
#[derive(Debug, Clone, Default)]
pub struct Vertex {
    /// What it does.
    pub op: Option<pb::op::Op>,
    /// What it does it to.
    pub inputs: Vec<Out>,
    /// For which platform.
    pub platform: Option<pb::Platform>,
    /// Its name.
    pub name: String,
    /// The instruction as it is written.
    pub command: String,
    /// Where that is.
    pub lines: Option<Lines>,
    /// Whether the cache is not asked.
    pub ignore_cache: bool,
    /// The vertex that stands for this one and others.
    pub group: Option<pb::ProgressGroup>,
}

#[derive(Debug, Clone)]
enum Slot {
    Vertex(Box<Vertex>),
    Definition(Box<pb::Definition>),
}

/// Vertices by number; inputs come before what uses them, but for those that are filled in late, which have none.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    slots: Vec<Slot>,
    bytes: usize,
}

impl Draft {
    /// Adds a vertex.
    ///
    /// # Errors
    /// When the build becomes too large.
    pub fn add(&mut self, vertex: Vertex) -> Result<Out> {
        let size = match &vertex.op {
            Some(pb::op::Op::Exec(op)) => op.encoded_len(),
            Some(pb::op::Op::File(op)) => op.encoded_len(),
            Some(pb::op::Op::Source(op)) => op.encoded_len(),
            _ => 0,
        };
        self.grow(size + vertex.name.len() + vertex.command.len() + 128)?;
        self.slots.push(Slot::Vertex(Box::new(vertex)));
        Ok(Out { vertex: self.slots.len() - 1, index: 0 })
    }

    /// Adds what a client's definition stands for.
    ///
    /// # Errors
    /// When the build becomes too large.
    pub fn import(&mut self, definition: pb::Definition) -> Result<Out> {
        self.grow(definition.encoded_len())?;
        self.slots.push(Slot::Definition(Box::new(definition)));
        Ok(Out { vertex: self.slots.len() - 1, index: 0 })
    }

    /// Adds a vertex without inputs that is filled in later.
    ///
    /// # Errors
    /// When the build becomes too large.
    pub fn reserve(&mut self) -> Result<Out> {
        self.add(Vertex::default())
    }

    /// Fills in a vertex.
    pub fn fill(&mut self, out: Out, vertex: Vertex) {
        debug_assert!(vertex.inputs.iter().all(|input| input.vertex < out.vertex), "inputs come before");
        self.slots[out.vertex] = Slot::Vertex(Box::new(vertex));
    }

    /// Counts what is kept for a build beside its vertices: histories, inherited environments.
    ///
    /// # Errors
    /// When the build becomes too large.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        if self.bytes > MAX_BYTES {
            return Err(Fault::new(format!("the build is larger than {} MiB", MAX_BYTES >> 20)));
        }
        Ok(())
    }

    /// Writes the definition of a result, and finds the digests of other outputs that are part of it.
    ///
    /// # Errors
    /// A client's definition that is malformed.
    pub fn definition(
        &self,
        result: Option<Out>,
        source: Option<&pb::SourceInfo>,
        marks: &[Option<Out>],
    ) -> crate::Result<(pb::Definition, Vec<Option<String>>)> {
        let mut needed = vec![false; self.slots.len()];
        let mut todo: Vec<usize> = result.iter().map(|out| out.vertex).collect();
        while let Some(number) = todo.pop() {
            if std::mem::replace(&mut needed[number], true) {
                continue;
            }
            if let Slot::Vertex(vertex) = &self.slots[number] {
                todo.extend(vertex.inputs.iter().map(|input| input.vertex));
            }
        }
        let mut builder = Builder::new();
        let source_index = source.map(|source| builder.source(source.clone()));
        let mut outputs: Vec<Option<graph::Output>> = vec![None; self.slots.len()];
        for (number, slot) in self.slots.iter().enumerate().filter(|(number, _)| needed[*number]) {
            outputs[number] = match slot {
                Slot::Definition(definition) => builder.import(definition)?,
                Slot::Vertex(vertex) => {
                    let Some(op) = &vertex.op else { continue };
                    let inputs: Vec<graph::Output> =
                        vertex.inputs.iter().filter_map(|input| output(&outputs, *input)).collect();
                    let made = builder.add(op.clone(), &inputs, vertex.platform.clone(), vertex.metadata());
                    if let (Some(source_index), Some(lines)) = (source_index, vertex.lines) {
                        let location = pb::Location { source_index, ranges: vec![lines.range()] };
                        builder.locate(&made, location);
                    }
                    Some(made)
                }
            };
        }
        let definition = builder.definition(result.and_then(|out| output(&outputs, out)).as_ref());
        let digests =
            marks.iter().map(|mark| output(&outputs, (*mark)?).map(|output| output.digest)).collect();
        Ok((definition, digests))
    }
}

fn output(outputs: &[Option<graph::Output>], out: Out) -> Option<graph::Output> {
    let made = outputs[out.vertex].as_ref()?;
    // A client's result may itself be another output than the first.
    let index = if out.index == 0 { made.index } else { out.index };
    Some(graph::Output { digest: made.digest.clone(), index })
}

impl Vertex {
    fn metadata(&self) -> pb::OpMetadata {
        let mut description = BTreeMap::new();
        if !self.name.is_empty() {
            description.insert(graph::CUSTOM_NAME.to_owned(), self.name.clone());
        }
        if !self.command.is_empty() {
            description.insert("com.docker.dockerfile.v1.command".to_owned(), self.command.clone());
        }
        pb::OpMetadata {
            ignore_cache: self.ignore_cache,
            description,
            progress_group: self.group.clone(),
            ..pb::OpMetadata::default()
        }
    }
}

/// Collects the inputs of one operation; equal ones are one.
#[derive(Debug, Default)]
pub struct Inputs {
    list: Vec<Out>,
    numbers: HashMap<Out, i64>,
}

impl Inputs {
    /// Returns the number of an input; -1 for scratch.
    pub fn number(&mut self, out: Option<Out>) -> i64 {
        let Some(out) = out else { return -1 };
        let next = self.len();
        *self.numbers.entry(out).or_insert_with(|| {
            self.list.push(out);
            next
        })
    }

    /// Returns how many there are.
    pub fn len(&self) -> i64 {
        i64::try_from(self.list.len()).unwrap_or(i64::MAX)
    }

    /// Returns them in their order.
    pub fn into_list(self) -> Vec<Out> {
        self.list
    }
}
