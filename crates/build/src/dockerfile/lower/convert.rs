//! One Dockerfile for one platform: from text to a definition and a configuration.

use std::collections::{BTreeMap, BTreeSet};

use skiff_images::Platform;

use super::arguments;
use super::context::{Late, Named};
use super::draft::{Draft, Out};
use super::image::Image;
use super::lint;
use super::stage::{Needs, StageState, Stages};
use crate::dockerfile::check::{Linter, Rule};
use crate::dockerfile::expand::{Lex, Variables};
use crate::dockerfile::fault::{At as _, Fault, Lines, Result};
use crate::dockerfile::ignore::Matcher;
use crate::dockerfile::instruction::{self, Document, Kind};
use crate::dockerfile::parse::{self, Parsed};
use crate::dockerfile::request::Settings;
use crate::dockerfile::sources::Sources;
use crate::dockerfile::suggest::suggest;
use crate::graph::pb;

/// What a Dockerfile is made into a graph with.
pub struct Input<'a> {
    /// The file.
    pub text: &'a str,
    /// The same for messages.
    pub source: &'a pb::SourceInfo,
    /// What the user asks for.
    pub settings: &'a Settings,
    /// What the solver knows.
    pub sources: &'a dyn Sources,
    /// The platform of the result.
    pub platform: Platform,
    /// The build's context.
    pub context: &'a MainContext,
    /// Whether all stages are made, not only those that the target needs: for checks.
    pub all_stages: bool,
}

/// The build's context.
#[derive(Debug, Clone)]
pub enum MainContext {
    /// A directory of the client.
    Local {
        /// The name that the client knows it by.
        name: String,
        /// What is left out.
        excludes: Vec<String>,
    },
    /// Something else, as part of a graph of its own.
    Graph(Box<Draft>, Option<Out>),
}

/// What a Dockerfile becomes.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The graph.
    pub definition: pb::Definition,
    /// The image's configuration, without layers.
    pub image: Image,
    /// That of the base image.
    pub base_config: Option<Vec<u8>>,
    /// The steps, for clients of the classic builder.
    pub steps: Vec<StepNote>,
    /// What it takes from outside.
    pub outline: Outline,
}

/// One instruction that is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepNote {
    /// The instruction as it is written.
    pub text: String,
    /// The digest of the vertex whose result is the file system after it; `None` for scratch.
    pub vertex: Option<String>,
    /// Whether it is an `ARG` before the first stage.
    pub global: bool,
}

/// What the target and the stages that it needs take from outside.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    /// The target's name.
    pub name: String,
    /// What a comment says about it.
    pub description: String,
    /// Everything together.
    pub needs: Needs,
}

/// The state of a conversion.
pub struct Converter<'a> {
    pub(super) settings: &'a Settings,
    pub(super) sources: &'a dyn Sources,
    pub(super) target_platform: Platform,
    pub(super) lex: Lex,
    pub(super) globals: Variables,
    pub(super) stages: Stages,
    pub(super) draft: Draft,
    /// The paths that are taken from stages, by [`StageState::paths`].
    pub(super) paths: BTreeMap<usize, BTreeSet<String>>,
    pub(super) context: Option<Out>,
    pub(super) context_paths: BTreeSet<String>,
    pub(super) late: Vec<(usize, Late)>,
    pub(super) ignored: Option<Matcher>,
    pub(super) created: Option<String>,
    pub(super) all_stages: bool,
    /// The text of a base image's trigger, for the classic builder's steps.
    pub(super) source: &'a pb::SourceInfo,
    /// The instructions before the first stage.
    global_steps: Vec<String>,
}

/// Makes a Dockerfile into a graph. What the checks find is in `linter`, also when it fails.
///
/// # Errors
/// What is wrong with the file or with what it asks for.
pub async fn convert(input: Input<'_>, linter: &mut Linter) -> Result<Converted> {
    let parsed = read(input.text)?;
    for lines in &parsed.empty_continuations {
        // Where it ends: that is where BuildKit notices.
        let lines = Lines::new(lines.end, lines.end);
        linter.warn(Rule::NoEmptyContinuation, lines, "Empty continuation line".to_owned());
    }
    let document = instruction::parse(&parsed.nodes, linter)?;
    if document.stages.is_empty() {
        return Err(Fault::new("dockerfile contains no stages to build"));
    }
    lint::stage_names(&document.stages, linter);
    lint::casing(&document.stages, linter);
    let (mut converter, globals) = Converter::new(&input, &parsed, &document, linter)?;
    converter.add_stages(document, &globals, linter)?;
    let target = converter.target()?;
    converter.find_sources()?;
    converter.stages.check_circles()?;
    // A mount counts as another stage, whatever it is of.
    if converter.stages.len() == 1 && !converter.stages.get(0).has_mounts() {
        converter.stages.get_mut(0).shown.clear();
    }
    let reachable = converter.resolve(target, linter).await?;
    for (number, needed) in reachable.iter().enumerate() {
        if (*needed || converter.all_stages) && !converter.stages.get(number).done {
            converter.stage(number, linter)?;
        }
    }
    // All of the target is used, whatever its own instructions look at.
    let own = converter.stages.get(target).paths;
    converter.paths.entry(own).or_default().insert("/".to_owned());
    linter.check()?;
    converter.finish(target, &input)
}

fn read(text: &str) -> Result<Parsed> {
    if text.is_empty() {
        return Err(Fault::new("the Dockerfile cannot be empty"));
    }
    parse::parse(text)
}

type Globals = BTreeMap<String, super::stage::ArgInfo>;

impl<'a> Converter<'a> {
    fn new(
        input: &Input<'a>,
        parsed: &Parsed,
        document: &Document,
        linter: &mut Linter,
    ) -> Result<(Converter<'a>, Globals)> {
        let settings = input.settings;
        let lex = Lex::new(parsed.escape);
        let last = document.stages.last().map_or("", |stage| stage.name.as_str());
        let stage = if settings.target.is_empty() { last } else { &settings.target };
        let predefined =
            arguments::predefined(&settings.build_platform, &input.platform, stage, &settings.build_args)?;
        let defaults = arguments::global(predefined.clone(), lex, &document.globals, &BTreeMap::new());
        if let Ok((defaults, _)) = defaults {
            lint::default_bases(&document.stages, lex, &defaults, linter);
        }
        let (globals, infos) = arguments::global(predefined, lex, &document.globals, &settings.build_args)?;
        let (mut draft, context, ignored) = match input.context {
            MainContext::Local { excludes, .. } => {
                let matcher = Matcher::new(excludes)?;
                (Draft::default(), None, (!matcher.is_empty()).then_some(matcher))
            }
            MainContext::Graph(draft, out) => (draft.as_ref().clone(), *out, None),
        };
        let context = match input.context {
            MainContext::Local { .. } => Some(draft.reserve()?),
            MainContext::Graph(..) => context,
        };
        let converter = Converter {
            settings,
            sources: input.sources,
            target_platform: input.platform.clone(),
            lex,
            globals,
            stages: Stages::default(),
            draft,
            paths: BTreeMap::new(),
            context,
            context_paths: BTreeSet::new(),
            late: Vec::new(),
            ignored,
            created: settings.created(),
            all_stages: input.all_stages,
            source: input.source,
            global_steps: document.globals.iter().map(|global| global.code.clone()).collect(),
        };
        Ok((converter, infos))
    }

    fn add_stages(&mut self, document: Document, globals: &Globals, linter: &mut Linter) -> Result<()> {
        let known: BTreeSet<String> =
            globals.keys().cloned().chain(self.globals.names().map(str::to_owned)).collect();
        for (number, mut stage) in document.stages.into_iter().enumerate() {
            let lines = stage.lines;
            let base = self.lex.expand(&stage.base, &self.globals).at(lines)?;
            lint::undefined_in_from(&base.missing, &known, lines, linter);
            if base.text.is_empty() {
                let message = format!("base name ({}) should not be blank", stage.base);
                return Err(Fault::new(message).at(lines));
            }
            let mut used = base.found;
            stage.base = base.text;
            let mut platform = None;
            if !stage.platform.is_empty() {
                let expanded = self
                    .lex
                    .expand(&stage.platform, &self.globals)
                    .map_err(|fault| {
                        fault.within(&format!("failed to process arguments for platform {}", stage.platform))
                    })
                    .at(lines)?;
                lint::undefined_in_from(&expanded.missing, &known, lines, linter);
                lint::platform_flag(&stage, &expanded, &self.globals, linter);
                platform = Some(
                    self.stage_platform(&stage.platform, &expanded.text, &expanded.missing, &known)
                        .at(lines)?,
                );
                used.extend(expanded.found);
            }
            let mut state = StageState::new(stage);
            state.needs.all = globals.clone();
            state.needs.used = used;
            state.platform = platform;
            state.shown = match state.stage.name.as_str() {
                "" => format!("stage-{number}"),
                name => name.to_owned(),
            };
            state.ignore_cache = self.settings.ignores_cache(&state.stage.name);
            if !state.stage.name.is_empty() {
                let platform = state.platform.clone().unwrap_or_else(|| self.target_platform.clone());
                state.named = Named::find(self.settings, &state.stage.name, &platform).at(lines)?;
            }
            let number = self.stages.add(state)?;
            let state = self.stages.get_mut(number);
            if state.named.is_none() {
                state.count();
            }
        }
        Ok(())
    }

    fn stage_platform(
        &self,
        written: &str,
        text: &str,
        missing: &BTreeSet<String>,
        known: &BTreeSet<String>,
    ) -> Result<Platform> {
        let near = |fault: Fault| match missing.iter().next() {
            Some(name) => suggest(fault, name, known.iter().map(String::as_str), true),
            None => fault,
        };
        if text.is_empty() {
            return Err(near(Fault::new(format!("empty platform value from expression {written}"))));
        }
        text.parse().map_err(|error| near(Fault::new(format!("failed to parse platform {written}: {error}"))))
    }

    fn target(&self) -> Result<usize> {
        let wanted = &self.settings.target;
        if wanted.is_empty() {
            return Ok(self.stages.len() - 1);
        }
        self.stages
            .named(wanted)
            .or_else(|| wanted.parse().ok().filter(|number| *number < self.stages.len()))
            .ok_or_else(|| {
                let fault = Fault::new(format!("target stage {wanted:?} could not be found"));
                suggest(fault, wanted, self.stages.shown(), true)
            })
    }

    /// Finds the stages that each stage copies and mounts from.
    fn find_sources(&mut self) -> Result<()> {
        let mut number = 0;
        while number < self.stages.len() {
            let instructions = std::mem::take(&mut self.stages.get_mut(number).stage.instructions);
            let mut tasks = Vec::with_capacity(instructions.len());
            for instruction in instructions {
                let lines = instruction.lines;
                tasks.push(self.task(number, instruction, false).at(lines)?);
            }
            self.stages.get_mut(number).tasks = tasks;
            number += 1;
        }
        Ok(())
    }

    fn finish(mut self, target: usize, input: &Input<'_>) -> Result<Converted> {
        for (paths, late) in std::mem::take(&mut self.late) {
            let used = self.paths.get(&paths).cloned().unwrap_or_default();
            self.draft.fill(late.out, late.vertex(&used));
        }
        if let (MainContext::Local { name, excludes }, Some(out)) = (input.context, self.context) {
            let late = Late {
                out,
                local: name.clone(),
                name: "[internal] load build context".to_owned(),
                hint: name.clone(),
                excludes: excludes.clone(),
            };
            self.draft.fill(out, late.vertex(&self.context_paths));
        }
        let reachable = self.stages.reachable(target);
        let mut outline = Outline::default();
        let mut notes = Vec::new();
        for (number, _) in reachable.iter().enumerate().filter(|(_, needed)| **needed) {
            let state = self.stages.get_mut(number);
            notes.append(&mut state.steps);
            outline.needs.merge(&state.needs);
        }
        let state = self.stages.get_mut(target);
        outline.name.clone_from(&state.stage.name);
        outline.description.clone_from(&state.stage.description);
        let mut image = std::mem::take(&mut state.image);
        image.config.labels.extend(self.settings.labels.clone());
        let platform = match self.settings.platforms.is_empty() {
            true => image.platform(),
            false => self.target_platform.clone(),
        };
        image.os = platform.os;
        image.architecture = platform.architecture;
        image.variant = platform.variant;
        let (root, base_config) = (state.state.root, state.base_config.take());
        let marks: Vec<Option<Out>> = notes.iter().map(|(_, out)| *out).collect();
        let (definition, digests) = self.draft.definition(root, Some(self.source), &marks)?;
        let globals = self.global_steps.into_iter();
        let globals = globals.map(|text| StepNote { text, vertex: None, global: true });
        let steps = notes.into_iter().zip(digests);
        let steps = steps.map(|((text, _), vertex)| StepNote { text, vertex, global: false });
        let steps = globals.chain(steps).collect();
        Ok(Converted { definition, image, base_config, steps, outline })
    }
}

impl Needs {
    fn merge(&mut self, other: &Needs) {
        for name in &other.used {
            if let Some(info) = other.all.get(name) {
                self.all.entry(name.clone()).or_insert_with(|| info.clone());
                self.used.insert(name.clone());
            }
        }
        self.secrets.extend(other.secrets.clone());
        self.ssh.extend(other.ssh.clone());
        self.caches.extend(other.caches.clone());
    }
}

/// Says whether an instruction is a trigger for later.
pub(super) fn trigger(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Onbuild(expression) => Some(expression),
        _ => None,
    }
}
