//! Stages while the graph is made.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use skiff_images::Platform;

use super::context::Named;
use super::draft::Out;
use super::image::Image;
use crate::dockerfile::expand::Variables;
use crate::dockerfile::fault::{Fault, Lines, Result};
use crate::dockerfile::instruction::{Argument, Instruction, Kind, Stage};

/// How many stages there may be, with those that `COPY --from=image` makes.
const MAX_STAGES: usize = 10_000;

/// One instruction and the stages that it copies or mounts from.
#[derive(Debug, Clone)]
pub struct Task {
    /// The instruction.
    pub instruction: Instruction,
    /// For `COPY` one, for `RUN` one for each mount; `None` where it is the context.
    pub sources: Vec<Option<usize>>,
    /// Whether the base image asks for it.
    pub on_build: bool,
}

/// The file system that the next instruction finds, and how it runs there.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The file system; `None` is scratch.
    pub root: Option<Out>,
    /// Environment, with the values of `ARG`.
    pub env: Variables,
    /// Directory; empty before the first one.
    pub dir: String,
    /// User.
    pub user: String,
}

/// The arguments that are declared, in their order.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    list: Vec<Argument>,
    index: HashMap<String, usize>,
}

impl Declared {
    /// Adds one; one that is declared again keeps its place.
    pub fn declare(&mut self, argument: Argument) {
        match self.index.get(&argument.key) {
            Some(at) => self.list[*at] = argument,
            None => {
                self.index.insert(argument.key.clone(), self.list.len());
                self.list.push(argument);
            }
        }
    }

    /// Says whether there is one of that name.
    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = &Argument> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

/// An `ARG` for outlines.
#[derive(Debug, Clone)]
pub struct ArgInfo {
    /// The argument.
    pub argument: Argument,
    /// Its value.
    pub value: Option<String>,
    /// Where it is.
    pub lines: Lines,
}

/// What a stage takes from outside, for outlines.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// All arguments.
    pub all: BTreeMap<String, ArgInfo>,
    /// Those that are used.
    pub used: BTreeSet<String>,
    /// Secrets: id, whether it is required, where.
    pub secrets: BTreeMap<String, (bool, Lines)>,
    /// SSH agents.
    pub ssh: BTreeMap<String, (bool, Lines)>,
    /// Cache mounts.
    pub caches: BTreeMap<String, Lines>,
}

/// A stage, or an image or context that is only copied from.
#[derive(Debug, Clone)]
pub struct StageState {
    /// The stage as it is written.
    pub stage: Stage,
    /// Whether it is no stage of the file.
    pub implicit: bool,
    /// The stage that it begins with.
    pub base: Option<usize>,
    /// The context that stands in its place.
    pub named: Option<Named>,
    /// Its platform.
    pub platform: Option<Platform>,
    /// The stages that it copies from.
    pub needs_stages: Vec<(usize, Lines)>,
    /// What is to be done.
    pub tasks: Vec<Task>,
    /// The name in vertices.
    pub shown: String,
    /// How many vertices it has, and how many of them were named.
    pub total: usize,
    /// The number of the last one.
    pub index: usize,
    /// Whether it does without the cache.
    pub ignore_cache: bool,
    /// Whether its base was resolved.
    pub resolved: bool,
    /// Whether the base stage's triggers were taken over.
    pub triggered: bool,
    /// Whether it is done.
    pub done: bool,
    /// Its configuration.
    pub image: Image,
    /// The base image's, byte for byte.
    pub base_config: Option<Vec<u8>>,
    /// What the next instruction finds.
    pub state: State,
    /// The arguments that are declared.
    pub args: Declared,
    /// Which set of used paths is its own: that of the stage it begins with.
    pub paths: usize,
    /// Whether a `WORKDIR` of the file was there.
    pub workdir_set: bool,
    /// Where the last `CMD` is.
    pub cmd: Option<Lines>,
    /// Where the last `ENTRYPOINT` is.
    pub entrypoint: Option<Lines>,
    /// Where the last `HEALTHCHECK` is.
    pub healthcheck: Option<Lines>,
    /// What it takes from outside.
    pub needs: Needs,
    /// What was done, with the file system after it: the classic builder's steps.
    pub steps: Vec<(String, Option<Out>)>,
}

/// All stages, by number and by name.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    list: Vec<StageState>,
    names: HashMap<String, usize>,
    implicit: HashMap<String, usize>,
}

impl StageState {
    /// Whether any of its commands has a mount.
    pub fn has_mounts(&self) -> bool {
        self.tasks.iter().any(|task| match &task.instruction.kind {
            Kind::Run(run) => !run.mounts.is_empty(),
            _ => false,
        })
    }

    /// Makes one that has done nothing yet.
    pub fn new(stage: Stage) -> StageState {
        StageState {
            stage,
            implicit: false,
            base: None,
            named: None,
            platform: None,
            needs_stages: Vec::new(),
            tasks: Vec::new(),
            shown: String::new(),
            total: 0,
            index: 0,
            ignore_cache: false,
            resolved: false,
            triggered: false,
            done: false,
            image: Image::default(),
            base_config: None,
            state: State::default(),
            args: Declared::default(),
            paths: 0,
            workdir_set: false,
            cmd: None,
            entrypoint: None,
            healthcheck: None,
            needs: Needs::default(),
            steps: Vec::new(),
        }
    }

    /// Counts the vertices that it will have.
    pub fn count(&mut self) {
        self.total = usize::from(self.stage.base != "scratch" && self.base.is_none())
            + self.stage.instructions.iter().filter(|instruction| makes_vertex(&instruction.kind)).count();
    }
}

/// Says whether an instruction makes a vertex.
pub fn makes_vertex(kind: &Kind) -> bool {
    matches!(kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
}

impl Stages {
    /// Adds a stage; one whose base is an earlier stage begins with that.
    pub fn add(&mut self, mut state: StageState) -> Result<usize> {
        if self.list.len() >= MAX_STAGES {
            return Err(Fault::new(format!("more than {MAX_STAGES} stages")).at(state.stage.lines));
        }
        let number = self.list.len();
        state.paths = number;
        if state.named.is_none() && !state.implicit {
            state.base = self.names.get(&state.stage.base).copied();
        }
        if let Some(base) = state.base {
            let inherited = self.list[base].needs.clone();
            state.needs.all.extend(inherited.all);
        }
        if !state.stage.name.is_empty() {
            self.names.insert(state.stage.name.to_lowercase(), number);
        }
        self.list.push(state);
        Ok(number)
    }

    /// Finds the stage that `COPY --from` or a mount names: a number, a name, or else an image or context.
    pub fn source(&mut self, from: &str, numbers: bool, lines: Lines) -> Result<usize> {
        if numbers && let Ok(number) = from.parse::<i64>() {
            return usize::try_from(number)
                .ok()
                .filter(|number| *number < self.list.len())
                .ok_or_else(|| Fault::new(format!("invalid stage index {number}")));
        }
        let lower = from.to_lowercase();
        if let Some(number) = self.names.get(&lower).or_else(|| self.implicit.get(from)) {
            return Ok(*number);
        }
        let stage = Stage {
            keyword: "FROM".to_owned(),
            base: from.to_owned(),
            name: String::new(),
            platform: String::new(),
            code: String::new(),
            lines,
            description: String::new(),
            instructions: Vec::new(),
        };
        let number = self.add(StageState { implicit: true, ..StageState::new(stage) })?;
        self.implicit.insert(from.to_owned(), number);
        Ok(number)
    }

    /// Finds a stage by its name.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.names.get(&name.to_lowercase()).copied()
    }

    /// The names in vertices.
    pub fn shown(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|state| state.shown.as_str()).filter(|shown| !shown.is_empty())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// A stage by its number.
    pub fn get(&self, number: usize) -> &StageState {
        &self.list[number]
    }

    /// A stage by its number.
    pub fn get_mut(&mut self, number: usize) -> &mut StageState {
        &mut self.list[number]
    }

    /// Which stages a result needs.
    pub fn reachable(&self, target: usize) -> Vec<bool> {
        let mut reachable = vec![false; self.list.len()];
        let mut todo = vec![target];
        while let Some(number) = todo.pop() {
            if std::mem::replace(&mut reachable[number], true) {
                continue;
            }
            let state = &self.list[number];
            todo.extend(state.base);
            todo.extend(state.needs_stages.iter().map(|(needed, _)| *needed));
        }
        reachable
    }

    /// Refuses stages that copy from each other.
    ///
    /// # Errors
    /// Which stage, and the instructions of the circle.
    pub fn check_circles(&self) -> Result<()> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Closed,
        }
        let mut marks = vec![Mark::New; self.list.len()];
        for start in 0..self.list.len() {
            if marks[start] != Mark::New {
                continue;
            }
            // Each entry is a stage and which of its needs comes next: a walk without recursion.
            let mut path = vec![(start, 0)];
            marks[start] = Mark::Open;
            while let Some((number, next)) = path.last_mut() {
                let Some((needed, _)) = self.list[*number].needs_stages.get(*next) else {
                    marks[*number] = Mark::Closed;
                    path.pop();
                    continue;
                };
                *next += 1;
                match marks[*needed] {
                    Mark::Closed => {}
                    Mark::New => {
                        marks[*needed] = Mark::Open;
                        path.push((*needed, 0));
                    }
                    Mark::Open => {
                        let first = path.iter().position(|(on, _)| on == needed).unwrap_or(0);
                        let message = format!(
                            "circular dependency detected on stage: {}",
                            self.list[path[first].0].shown
                        );
                        return Err(path[first..].iter().fold(Fault::new(message), |fault, (on, next)| {
                            fault.also_at(self.list[*on].needs_stages[next - 1].1)
                        }));
                    }
                }
            }
        }
        Ok(())
    }
}
