//! Base images, named contexts, and what base images ask for (`ONBUILD`).

use futures_util::future::try_join_all;
use skiff_images::{Platform, Reference};

use super::context::{Loaded, Named, image_source, message, pinned};
use super::convert::{Converter, trigger};
use super::draft::Vertex;
use super::image::Image;
use super::lint;
use super::names;
use super::stage::{State, Task, makes_vertex};
use crate::dockerfile::check::Linter;
use crate::dockerfile::fault::{At as _, Fault, Lines, Result};
use crate::dockerfile::instruction::{Instruction, Kind, parse_trigger};
use crate::dockerfile::parse;
use crate::dockerfile::suggest::suggest;
use crate::frontend::ResolvedImage;

/// How many instructions base images may ask for.
const MAX_TRIGGERS: usize = 1_000;
/// How often triggers may name further stages and images.
const MAX_ROUNDS: usize = 100;
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// A base image to be resolved.
struct Wanted {
    stage: usize,
    reference: Reference,
    platform: Platform,
}

impl Converter<'_> {
    /// Resolves what the target needs until no trigger names anything new. Returns which stages it needs.
    pub(super) async fn resolve(&mut self, target: usize, linter: &mut Linter) -> Result<Vec<bool>> {
        for _ in 0..MAX_ROUNDS {
            let reachable = self.stages.reachable(target);
            self.resolve_bases(&reachable, linter).await?;
            let mut changed = false;
            for number in self.wanted(&reachable) {
                changed |= self.take_triggers(number, linter)?;
            }
            if !changed {
                return Ok(self.stages.reachable(target));
            }
            self.stages.check_circles()?;
        }
        Err(Fault::new("the ONBUILD triggers of base images lead to ever more images"))
    }

    fn wanted(&self, reachable: &[bool]) -> Vec<usize> {
        (0..reachable.len()).filter(|number| reachable[*number] || self.all_stages).collect()
    }

    async fn resolve_bases(&mut self, reachable: &[bool], linter: &mut Linter) -> Result<()> {
        let mut images = Vec::new();
        for number in self.wanted(reachable) {
            let state = self.stages.get_mut(number);
            if state.base.is_some() || state.resolved {
                continue;
            }
            state.resolved = true;
            let lines = state.stage.lines;
            let platform = state.platform.clone().unwrap_or_else(|| self.target_platform.clone());
            if let Some(named) = state.named.clone() {
                self.load_stage(number, &named, &platform).await.at(lines)?;
                continue;
            }
            if state.stage.base == "scratch" {
                state.image = Image::empty(&self.target_platform);
                state.platform = Some(self.target_platform.clone());
                state.done = state.implicit;
                continue;
            }
            let base = state.stage.base.clone();
            let reference = Reference::parse(&base)
                .map_err(|error| Fault::new(format!("failed to parse stage name {base:?}: {error}")))
                .at(lines)?;
            if let Some(named) = Named::find(self.settings, &base, &platform).at(lines)? {
                self.load_base(number, &named, &platform).await.at(lines)?;
                continue;
            }
            images.push(Wanted { stage: number, reference: reference.or_latest(), platform });
        }
        let resolved = try_join_all(images.iter().map(|wanted| self.ask(wanted))).await?;
        for (wanted, resolved) in images.into_iter().zip(resolved) {
            let lines = self.stages.get(wanted.stage).stage.lines;
            self.take_image(wanted, resolved, linter).at(lines)?;
        }
        Ok(())
    }

    async fn ask(&self, wanted: &Wanted) -> Result<ResolvedImage> {
        let state = self.stages.get(wanted.stage);
        let prefix = match self.settings.multi_platform {
            true => format!("[{} internal]", wanted.platform),
            false => "[internal]".to_owned(),
        };
        let log = format!("{prefix} load metadata for {}", wanted.reference);
        self.sources
            .resolve_image(
                &wanted.reference.to_string(),
                &message(&wanted.platform),
                self.settings.resolve_mode,
                &log,
            )
            .await
            .map_err(|error| {
                let base = &state.stage.base;
                let words: Vec<&str> = self.stages.shown().chain(COMMON_IMAGES).collect();
                suggest(Fault::from(error).within(base), base, words, true).at(state.stage.lines)
            })
    }

    fn take_image(&mut self, wanted: Wanted, resolved: ResolvedImage, linter: &mut Linter) -> Result<()> {
        let mut image = Image::parse(&resolved.config)?;
        image.created = None;
        let place = pinned(&resolved.name, &resolved.digest);
        let state = self.stages.get_mut(wanted.stage);
        let scratch = image.is_scratch();
        if !scratch {
            let shown = self.settings.multi_platform.then_some(&wanted.platform);
            // The base's environment is not the stage's yet, so no name of a target platform is shown.
            // An image without a manifest is pinned by its id, which is no digest for people.
            let by_id = skiff_images::Digest::of(&resolved.config).to_string() == resolved.digest;
            let place_shown = if by_id { &resolved.name } else { &place };
            let name = names::prefixed(state, &format!("FROM {place_shown}"), shown, false);
            state.state.root = Some(self.draft.add(Vertex {
                op: Some(image_source(&place, self.settings.resolve_mode)),
                platform: Some(message(&wanted.platform)),
                name,
                command: state.stage.code.clone(),
                lines: Some(state.stage.lines),
                ..Vertex::default()
            })?);
            lint::base_platform(
                &state.stage.base,
                &wanted.platform,
                &image.platform(),
                state.stage.lines,
                linter,
            );
        }
        state.image = image;
        state.base_config = Some(resolved.config);
        state.platform = Some(wanted.platform);
        state.done = state.implicit;
        Ok(())
    }

    /// A context stands in the place of a stage: none of its instructions are carried out.
    async fn load_stage(&mut self, number: usize, named: &Named, platform: &Platform) -> Result<()> {
        let loaded = self.load(number, named, platform).await?;
        let state = self.stages.get_mut(number);
        if let Some(image) = &loaded.image
            && !image.os.is_empty()
            && !image.architecture.is_empty()
        {
            state.platform = Some(image.platform());
        }
        state.image = loaded.image.unwrap_or_else(|| Image::empty(platform));
        state.base_config = loaded.config;
        state.tasks.clear();
        state.done = true;
        Ok(())
    }

    /// A context stands in the place of a stage's base image.
    async fn load_base(&mut self, number: usize, named: &Named, platform: &Platform) -> Result<()> {
        let loaded = self.load(number, named, platform).await?;
        let state = self.stages.get_mut(number);
        state.image = loaded.image.unwrap_or_else(|| Image::empty(platform));
        state.base_config = loaded.config;
        state.platform = Some(platform.clone());
        state.done = state.implicit;
        // What would have been the image's vertex is the context's.
        state.total = state.total.saturating_sub(1);
        Ok(())
    }

    async fn load(&mut self, number: usize, named: &Named, platform: &Platform) -> Result<Loaded> {
        // A stage of the file may stand in the place of another or of an image.
        if let Some(stage) = named.place.strip_prefix("target:") {
            return Err(Fault::new(format!(
                "context target:{stage} of {} must be built by the client and given as input:",
                named.name
            )));
        }
        let mut loaded = named.load(self.settings, self.sources, &mut self.draft, platform).await?;
        let state = self.stages.get_mut(number);
        state.state = State { root: loaded.root, ..State::default() };
        if let Some(late) = loaded.late.take() {
            self.late.push((state.paths, late));
        }
        Ok(loaded)
    }

    /// Makes what a base image or stage asks for into instructions of this stage. Says whether they name other stages.
    fn take_triggers(&mut self, number: usize, linter: &mut Linter) -> Result<bool> {
        let state = self.stages.get_mut(number);
        let mut expressions = std::mem::take(&mut state.image.config.on_build);
        if state.implicit || state.named.is_some() {
            // Nothing is built on it; its own configuration does not matter.
            state.image.config.on_build = expressions;
            return Ok(false);
        }
        if let (Some(base), false) = (state.base, state.triggered) {
            state.triggered = true;
            let base = self.stages.get(base);
            let of_stage = base.tasks.iter().filter(|task| !task.on_build);
            expressions
                .extend(of_stage.filter_map(|task| trigger(&task.instruction.kind).map(str::to_owned)));
            expressions
                .extend(base.named.as_ref().map(|_| base.image.config.on_build.clone()).unwrap_or_default());
        }
        if expressions.is_empty() {
            return Ok(false);
        }
        if expressions.len() > MAX_TRIGGERS {
            return Err(Fault::new(format!("more than {MAX_TRIGGERS} ONBUILD triggers")));
        }
        let lines = self.stages.get(number).stage.lines;
        let mut tasks = Vec::with_capacity(expressions.len());
        let mut changed = false;
        for expression in expressions {
            let parsed = parse::parse(&expression).map_err(|mut fault| {
                fault.lines.clear();
                fault.at(lines)
            })?;
            let instruction = parse_trigger(&parsed.nodes, lines, linter).at(lines)?;
            let task = self.task(number, instruction, true).at(lines)?;
            changed |= task.sources.iter().any(Option::is_some);
            tasks.push(task);
        }
        let state = self.stages.get_mut(number);
        state.total += tasks.iter().filter(|task| makes_vertex(&task.instruction.kind)).count();
        tasks.append(&mut state.tasks);
        state.tasks = tasks;
        Ok(changed)
    }

    /// Finds what an instruction copies or mounts from.
    pub(super) fn task(&mut self, number: usize, instruction: Instruction, on_build: bool) -> Result<Task> {
        let lines = instruction.lines;
        let names: Vec<(Option<String>, bool)> = match &instruction.kind {
            Kind::Copy(copy) if !copy.from.is_empty() => vec![(Some(copy.from.clone()), true)],
            Kind::Run(run) => run.mount_sources.iter().map(|from| (from.clone(), false)).collect(),
            _ => Vec::new(),
        };
        let mut sources = Vec::with_capacity(names.len());
        for (name, numbers) in names {
            sources.push(match name {
                None => None,
                Some(name) => {
                    let source = self.stages.source(&name, numbers, lines)?;
                    self.need(number, source, lines);
                    Some(source)
                }
            });
        }
        Ok(Task { instruction, sources, on_build })
    }

    fn need(&mut self, number: usize, source: usize, lines: Lines) {
        let needs = &mut self.stages.get_mut(number).needs_stages;
        if !needs.iter().any(|(have, _)| *have == source) {
            needs.push((source, lines));
        }
    }
}
