//! Carries out the instructions of a stage.

use skiff_images::Platform;

use super::context::message;
use super::convert::Converter;
use super::draft::{Out, Vertex};
use super::expose;
use super::go;
use super::image::{DEFAULT_PATH, Healthcheck, Layer};
use super::lint;
use super::names;
use super::stage::{ArgInfo, StageState, Task};
use crate::dockerfile::check::{Linter, Rule};
use crate::dockerfile::expand::{Lex, Variables};
use crate::dockerfile::fault::{At as _, Fault, Lines, Result};
use crate::dockerfile::ignore::clean;
use crate::dockerfile::instruction::{Argument, Command, Instruction, Kind, Pair};
use crate::graph::pb;

/// The longest path that the kernel takes.
const MAX_PATH: usize = 4096;
/// Arguments that are for scanners of the result, and no environment.
const FOR_SCANNERS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Says whether an argument is for scanners of the result.
pub(super) fn is_for_scanners(name: &str) -> bool {
    FOR_SCANNERS.contains(&name)
}

/// One instruction while it is carried out.
pub(super) struct Step<'t> {
    /// Its stage.
    pub stage: usize,
    /// The instruction.
    pub instruction: &'t Instruction,
    /// The stages that it copies or mounts from.
    pub sources: &'t [Option<usize>],
    /// Whether the base image asks for it.
    pub on_build: bool,
}

impl Converter<'_> {
    /// Carries out a stage.
    pub(super) fn stage(&mut self, number: usize, linter: &mut Linter) -> Result<()> {
        let lines = self.stages.get(number).stage.lines;
        self.begin(number).at(lines)?;
        let tasks = std::mem::take(&mut self.stages.get_mut(number).tasks);
        for Task { instruction, sources, on_build } in &tasks {
            let step = Step { stage: number, instruction, sources, on_build: *on_build };
            let before = self.stages.get(number).image.recorded;
            self.dispatch(&step, linter).at(instruction.lines)?;
            let recorded = self.stages.get(number).image.recorded - before;
            self.draft.grow(recorded + instruction.code.len()).at(instruction.lines)?;
            let state = self.stages.get_mut(number);
            let prefix = if *on_build { "ONBUILD " } else { "" };
            state.steps.push((format!("{prefix}{}", instruction.code), state.state.root));
        }
        let state = self.stages.get_mut(number);
        state.image.config.env = merged_env(&state.image.config.env);
        state.tasks = tasks;
        Ok(())
    }

    fn begin(&mut self, number: usize) -> Result<()> {
        if let Some(base) = self.stages.get(number).base {
            let base = self.stages.get(base);
            let (mut image, base_config) = (base.image.clone(), base.base_config.clone());
            let (platform, paths, workdir_set) = (base.platform.clone(), base.paths, base.workdir_set);
            let (args, inherited) = (base.args.clone(), base.state.clone());
            image.config.on_build.clear();
            // What is inherited is copied, and there may be many stages.
            self.draft.grow(image.recorded + inherited.env.bytes() + 64 * args.len())?;
            let state = self.stages.get_mut(number);
            state.state = inherited;
            state.image = image;
            state.base_config = base_config;
            state.platform = platform;
            state.paths = paths;
            state.workdir_set = workdir_set;
            state.args = args;
        }
        let target = self.target_platform.clone();
        let state = self.stages.get_mut(number);
        state.done = true;
        state.platform.get_or_insert(target);
        let env = &mut state.image.config.env;
        if !env.iter().any(|entry| entry.split('=').next() == Some("PATH")) {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for entry in &state.image.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            state.state.env.set(name, value)?;
        }
        if !state.image.config.working_dir.is_empty() {
            let dir = joined("/", &state.image.config.working_dir);
            state.image.config.working_dir.clone_from(&dir);
            state.state.dir = dir;
        }
        if !state.image.config.user.is_empty() {
            state.state.user.clone_from(&state.image.config.user);
        }
        if !state.stage.code.is_empty() {
            state.steps.push((state.stage.code.clone(), state.state.root));
        }
        Ok(())
    }

    fn dispatch(&mut self, step: &Step<'_>, linter: &mut Linter) -> Result<()> {
        let created = self.created.clone();
        let created = created.as_deref();
        let keyword = step.instruction.keyword.as_str();
        let lines = step.instruction.lines;
        match &step.instruction.kind {
            Kind::Add(transfer) | Kind::Copy(transfer) => self.copy(step, transfer, linter),
            Kind::Run(run) => self.run(step, run, linter),
            Kind::Workdir(path) => {
                let path = self.expand(step, path, linter)?;
                self.workdir(step, &path, linter)
            }
            Kind::Arg(arguments) => self.arguments(step, arguments, linter),
            Kind::Env(pairs) => {
                let pairs = self.pairs(step, pairs, linter)?;
                let state = self.stages.get_mut(step.stage);
                let mut message = String::from("ENV");
                for (key, value) in pairs {
                    lint::secret("ENV", &key, lines, linter);
                    message.push_str(&format!(" {key}={value}"));
                    state.image.config.env.push(format!("{key}={value}"));
                    state.state.env.set(&key, value)?;
                }
                state.image.record(message, Layer::None, created);
                Ok(())
            }
            Kind::Label(pairs) => {
                let pairs = self.pairs(step, pairs, linter)?;
                let state = self.stages.get_mut(step.stage);
                let mut message = String::from("LABEL");
                for (key, value) in pairs {
                    message.push_str(&format!(" {key}={value}"));
                    state.image.config.labels.insert(key, value);
                }
                state.image.record(message, Layer::None, created);
                Ok(())
            }
            Kind::Cmd(command) => {
                let state = self.stages.get_mut(step.stage);
                lint::only_once(keyword, &mut state.cmd, lines, linter);
                let words = for_shell(state, command, keyword, lines, linter);
                state.image.record(format!("CMD {}", go::quote_list(&words)), Layer::None, created);
                state.image.config.cmd = words;
                state.image.config.args_escaped = true;
                Ok(())
            }
            Kind::Entrypoint(command) => {
                let state = self.stages.get_mut(step.stage);
                lint::only_once(keyword, &mut state.entrypoint, lines, linter);
                let words = for_shell(state, command, keyword, lines, linter);
                state.image.record(format!("ENTRYPOINT {}", go::quote_list(&words)), Layer::None, created);
                state.image.config.entrypoint = words;
                // The base image's arguments are not for this entrypoint.
                if state.cmd.is_none() {
                    state.image.config.cmd.clear();
                }
                Ok(())
            }
            Kind::Healthcheck(health) => {
                let state = self.stages.get_mut(step.stage);
                lint::only_once(keyword, &mut state.healthcheck, lines, linter);
                let check = Healthcheck::from(health);
                state.image.record(check.history(), Layer::None, created);
                state.image.config.healthcheck = Some(check);
                Ok(())
            }
            Kind::Expose(words) => {
                let state = self.stages.get_mut(step.stage);
                let mut expanded = Vec::new();
                for word in words {
                    expanded.extend(self.lex.expand(word, &state.state.env)?.words);
                }
                let mut ports = expose::ports(&expanded, lines, linter)?;
                ports.sort();
                ports.dedup();
                let shown: Vec<String> = ports.iter().map(|port| format!("{port}:{{}}")).collect();
                state.image.record(format!("EXPOSE map{}", go::list(&shown)), Layer::None, created);
                state
                    .image
                    .config
                    .exposed_ports
                    .extend(ports.into_iter().map(|port| (port, super::image::Empty {})));
                Ok(())
            }
            Kind::User(user) => {
                let user = self.expand(step, user, linter)?;
                let state = self.stages.get_mut(step.stage);
                state.image.record(format!("USER {user}"), Layer::None, created);
                state.state.user.clone_from(&user);
                state.image.config.user = user;
                Ok(())
            }
            Kind::Volume(volumes) => {
                let mut expanded = Vec::with_capacity(volumes.len());
                for volume in volumes {
                    let volume = self.expand(step, volume, linter)?;
                    if volume.is_empty() {
                        return Err(Fault::new("VOLUME specified can not be an empty string"));
                    }
                    expanded.push(volume);
                }
                let state = self.stages.get_mut(step.stage);
                state.image.record(format!("VOLUME {}", go::list(&expanded)), Layer::None, created);
                state
                    .image
                    .config
                    .volumes
                    .extend(expanded.into_iter().map(|volume| (volume, super::image::Empty {})));
                Ok(())
            }
            Kind::StopSignal(signal) => {
                let signal = self.expand(step, signal, linter)?;
                if !is_signal(&signal) {
                    return Err(Fault::new(format!("invalid signal: {signal}")));
                }
                let state = self.stages.get_mut(step.stage);
                state.image.record(format!("STOPSIGNAL {signal}"), Layer::None, created);
                state.image.config.stop_signal = signal;
                Ok(())
            }
            Kind::Shell(words) => {
                let state = self.stages.get_mut(step.stage);
                state.image.record(format!("SHELL {}", go::list(words)), Layer::None, created);
                state.image.config.shell.clone_from(words);
                Ok(())
            }
            Kind::Maintainer(name) => {
                let state = self.stages.get_mut(step.stage);
                state.image.record(format!("MAINTAINER {name}"), Layer::None, created);
                state.image.author.clone_from(name);
                Ok(())
            }
            Kind::Onbuild(expression) => {
                self.stages.get_mut(step.stage).image.config.on_build.push(expression.clone());
                Ok(())
            }
        }
    }

    /// Expands variables in a word of an instruction.
    pub(super) fn expand(&self, step: &Step<'_>, word: &str, linter: &mut Linter) -> Result<String> {
        self.expand_with(self.lex, step, word, linter)
    }

    /// The same in another way of reading words.
    pub(super) fn expand_with(
        &self,
        lex: Lex,
        step: &Step<'_>,
        word: &str,
        linter: &mut Linter,
    ) -> Result<String> {
        let state = self.stages.get(step.stage);
        let expanded = lex.expand(word, &state.state.env)?;
        if !expanded.missing.is_empty() && !linter.is_full() {
            let declared = |name: &str| state.args.has(name);
            lint::undefined(&expanded.missing, declared, &state.state.env, step.instruction, linter);
        }
        Ok(expanded.text)
    }

    fn pairs(&self, step: &Step<'_>, pairs: &[Pair], linter: &mut Linter) -> Result<Vec<(String, String)>> {
        let keyword = &step.instruction.keyword;
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            if pair.legacy {
                let message = format!(
                    "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
                );
                linter.warn(Rule::LegacyKeyValueFormat, step.instruction.lines, message);
            }
            let key = self.expand(step, &pair.key, linter)?;
            expanded.push((key, self.expand(step, &pair.value, linter)?));
        }
        Ok(expanded)
    }

    fn arguments(&mut self, step: &Step<'_>, arguments: &[Argument], linter: &mut Linter) -> Result<()> {
        let lines = step.instruction.lines;
        let mut shown = Vec::new();
        for argument in arguments {
            lint::secret("ARG", &argument.key, lines, linter);
            let given = self.settings.build_args.get(&argument.key).cloned();
            let mut inherited = false;
            let value = match (given, &argument.value) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.expand(step, default, linter)?),
                (None, None) => {
                    let global = self.globals.get(&argument.key).map(str::to_owned);
                    inherited = global.is_some();
                    global
                }
            };
            let state = self.stages.get_mut(step.stage);
            if let Some(value) = &value
                && !is_for_scanners(&argument.key)
            {
                state.state.env.set(&argument.key, value.clone())?;
            }
            let argument = Argument { value: value.clone(), ..argument.clone() };
            if !inherited {
                let info = ArgInfo { argument: argument.clone(), value, lines };
                state.needs.all.insert(argument.key.clone(), info);
            }
            state.needs.used.insert(argument.key.clone());
            shown.push(argument.to_string());
            state.args.declare(argument);
        }
        let created = self.created.clone();
        let state = self.stages.get_mut(step.stage);
        state.image.record(format!("ARG {}", shown.join(" ")), Layer::None, created.as_deref());
        Ok(())
    }

    fn workdir(&mut self, step: &Step<'_>, path: &str, linter: &mut Linter) -> Result<()> {
        let created = self.created.clone();
        let state = self.stages.get_mut(step.stage);
        if !state.workdir_set && !path.starts_with('/') {
            let message =
                format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            linter.warn(Rule::WorkdirRelativePath, step.instruction.lines, message);
        }
        state.workdir_set = true;
        let current =
            if state.image.config.working_dir.is_empty() { "/" } else { &state.image.config.working_dir };
        let dir = joined(current, path);
        if dir.len() > MAX_PATH {
            return Err(Fault::new(format!("the working directory's path is longer than {MAX_PATH} bytes")));
        }
        state.image.config.working_dir.clone_from(&dir);
        state.state.dir.clone_from(&dir);
        let mut layer = Layer::None;
        if dir != "/" {
            layer = Layer::Directory;
            let user = state.image.config.user.clone();
            let name = self.vertex_name(step, self.lex, &step.instruction.code);
            let root = self.stages.get(step.stage).state.root;
            let mkdir = pb::FileActionMkDir {
                path: dir.clone(),
                mode: 0o755,
                make_parents: true,
                owner: owner(&user, if root.is_some() { 0 } else { -1 }),
                timestamp: -1,
            };
            let op = pb::op::Op::File(pb::FileOp {
                actions: vec![pb::FileAction {
                    input: if root.is_some() { 0 } else { -1 },
                    secondary_input: -1,
                    output: 0,
                    action: Some(pb::file_action::Action::Mkdir(mkdir)),
                }],
            });
            let vertex = self.vertex(step, name, op, root.into_iter().collect());
            self.stages.get_mut(step.stage).state.root = Some(self.draft.add(vertex)?);
        }
        let state = self.stages.get_mut(step.stage);
        state.image.record(format!("WORKDIR {dir}"), layer, created.as_deref());
        Ok(())
    }

    /// The vertex of an instruction.
    pub(super) fn vertex(&self, step: &Step<'_>, name: String, op: pb::op::Op, inputs: Vec<Out>) -> Vertex {
        let state = self.stages.get(step.stage);
        Vertex {
            op: Some(op),
            inputs,
            platform: Some(message(self.platform_of(step.stage))),
            name,
            command: step.instruction.code.clone(),
            lines: Some(step.instruction.lines),
            ignore_cache: state.ignore_cache && !matches!(step.instruction.kind, Kind::Workdir(_)),
            group: None,
        }
    }

    /// The name of an instruction's vertex.
    pub(super) fn vertex_name(&mut self, step: &Step<'_>, lex: Lex, code: &str) -> String {
        let text = names::shown(lex, code, &self.stages.get(step.stage).state.env);
        self.prefixed(step, &text)
    }

    /// Numbers a vertex.
    pub(super) fn prefixed(&mut self, step: &Step<'_>, text: &str) -> String {
        let platform = self.settings.multi_platform.then(|| self.platform_of(step.stage).clone());
        names::prefixed(self.stages.get_mut(step.stage), text, platform.as_ref(), step.on_build)
    }

    /// The platform of a stage.
    pub(super) fn platform_of(&self, stage: usize) -> &Platform {
        self.stages.get(stage).platform.as_ref().unwrap_or(&self.target_platform)
    }
}

/// The arguments of a command, with the shell that runs it.
pub(super) fn with_shell(state: &StageState, words: &[String]) -> Vec<String> {
    let mut all = state.image.config.shell.clone();
    if all.is_empty() {
        all = vec!["/bin/sh".to_owned(), "-c".to_owned()];
    }
    all.push(words.join(" "));
    all
}

fn for_shell(
    state: &StageState,
    command: &Command,
    keyword: &str,
    lines: Lines,
    linter: &mut Linter,
) -> Vec<String> {
    if !command.shell {
        return command.words.clone();
    }
    if state.image.config.shell.is_empty() {
        let message = format!(
            "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
        );
        linter.warn(Rule::JsonArgsRecommended, lines, message);
    }
    with_shell(state, &command.words)
}

/// A path in a directory: cleaned, without a slash at the end.
pub(super) fn joined(dir: &str, path: &str) -> String {
    match path.starts_with('/') {
        true => clean(path),
        false => clean(&format!("/{dir}/{path}")),
    }
}

/// `user[:group]`, by number or by name. `input` is where names are looked up.
pub(super) fn owner(text: &str, input: i64) -> Option<pb::ChownOpt> {
    if text.is_empty() {
        return None;
    }
    let one = |text: &str| {
        use pb::user_opt::User;
        let user = match text.parse::<u32>() {
            Ok(id) => User::ById(id),
            Err(_) => User::ByName(pb::NamedUserOpt { name: text.to_owned(), input }),
        };
        pb::UserOpt { user: Some(user) }
    };
    Some(match text.split_once(':') {
        Some((user, group)) => pb::ChownOpt { user: Some(one(user)), group: Some(one(group)) },
        None => pb::ChownOpt { user: Some(one(text)), group: None },
    })
}

/// Later values of a variable take the place of earlier ones.
fn merged_env(entries: &[String]) -> Vec<String> {
    let mut merged = Variables::default();
    for entry in entries {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        // What does not fit any more was refused when it was set.
        if merged.set(name, value).is_err() {
            break;
        }
    }
    merged.to_list()
}

fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 35] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "UNUSED",
    ];
    if let Ok(number) = text.parse::<i32>() {
        // Which numbers there are is for whoever runs it to know.
        return number != 0;
    }
    let upper = text.to_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |rest: &str, sign: char| {
        rest.is_empty() || rest.strip_prefix(sign).and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n <= 30)
    };
    NAMES.contains(&bare)
        || bare.strip_prefix("RTMIN").is_some_and(|rest| realtime(rest, '+'))
        || bare.strip_prefix("RTMAX").is_some_and(|rest| realtime(rest, '-'))
}
