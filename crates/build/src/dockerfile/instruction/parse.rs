//! Gives each instruction its meaning, and puts them into stages.

use super::device::Device;
use super::flags::{Flags, Takes};
use super::health::Health;
use super::mount::Mount;
use super::transfer::Transfer;
use super::{Argument, Command, Instruction, KEYWORDS, Kind, Network, Pair, Run, Stage};
use crate::dockerfile::check::{Linter, Rule};
use crate::dockerfile::fault::{At as _, Fault, Lines, Result};
use crate::dockerfile::parse::{Arguments, Heredoc, Node};
use crate::dockerfile::suggest::suggest;

/// A Dockerfile whose instructions are understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The `ARG`s before the first stage.
    pub globals: Vec<Instruction>,
    /// The stages.
    pub stages: Vec<Stage>,
}

/// Understands all instructions.
///
/// # Errors
/// The first one that makes no sense, with its line.
pub fn parse(nodes: &[Node], linter: &mut Linter) -> Result<Document> {
    let mut document = Document { globals: Vec::new(), stages: Vec::new() };
    for node in nodes {
        let fault = |fault: Fault| {
            let what = format!("dockerfile parse error on line {}", node.lines.start);
            fault.within(&what).at(node.lines)
        };
        if node.keyword.eq_ignore_ascii_case("from") {
            document.stages.push(stage(node, linter).map_err(fault)?);
            continue;
        }
        let instruction = instruction(node, linter).map_err(fault)?;
        match document.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.kind, Kind::Arg(_)) => document.globals.push(instruction),
            None => return Err(Fault::new("no build stage in current context").at(node.lines)),
        }
    }
    Ok(document)
}

/// Understands one instruction that an image has for what is built on it.
///
/// # Errors
/// One that makes no sense, or is not one.
pub fn parse_trigger(nodes: &[Node], lines: Lines, linter: &mut Linter) -> Result<Instruction> {
    let [node] = nodes else { return Err(Fault::new("onbuild trigger should be a single expression")) };
    let node = Node { lines, ..node.clone() };
    if node.keyword.eq_ignore_ascii_case("from") {
        return Err(Fault::new("FROM isn't allowed as an ONBUILD trigger").at(lines));
    }
    instruction(&node, linter).at(lines)
}

fn stage(node: &Node, linter: &mut Linter) -> Result<Stage> {
    let words = words(node);
    let name = match words.as_slice() {
        [_] => String::new(),
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            if !is_stage_name(&lower) {
                return Err(Fault::new(format!(
                    "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                )));
            }
            if lower != *name {
                linter.warn(
                    Rule::StageNameCasing,
                    node.lines,
                    format!("Stage name '{name}' should be lowercase"),
                );
            }
            if is_lower(&node.keyword) != is_lower(keyword) {
                linter.warn(
                    Rule::FromAsCasing,
                    node.lines,
                    format!("'{keyword}' and '{}' keywords' casing do not match", node.keyword),
                );
            }
            lower
        }
        _ => return Err(Fault::new("FROM requires either one or three arguments")),
    };
    let flags = Flags::parse(&node.flags, &[("platform", Takes::Value)])?;
    if !name.is_empty() {
        describe("FROM", &[&name], node, linter);
    }
    Ok(Stage {
        keyword: node.keyword.clone(),
        base: words[0].clone(),
        description: description(&node.comments, &name),
        name,
        platform: flags.text("platform"),
        code: node.original.trim().to_owned(),
        lines: node.lines,
        instructions: Vec::new(),
    })
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

fn instruction(node: &Node, linter: &mut Linter) -> Result<Instruction> {
    let keyword = node.keyword.to_uppercase();
    let none = &[];
    let kind = match keyword.as_str() {
        "ADD" => Kind::Add(Transfer::add(node)?),
        "ARG" => Kind::Arg(arguments(node, linter)?),
        "CMD" => {
            Flags::parse(&node.flags, none)?;
            Kind::Cmd(command(&node.arguments))
        }
        "COPY" => Kind::Copy(Transfer::copy(node)?),
        "ENTRYPOINT" => {
            Flags::parse(&node.flags, none)?;
            Kind::Entrypoint(command(&node.arguments))
        }
        "ENV" => Kind::Env(pairs(node, "ENV")?),
        "EXPOSE" => {
            let mut ports = some(node, "EXPOSE")?;
            ports.sort();
            Kind::Expose(ports)
        }
        "HEALTHCHECK" => Kind::Healthcheck(Health::parse(node)?),
        "LABEL" => Kind::Label(pairs(node, "LABEL")?),
        "MAINTAINER" => {
            linter.warn(
                Rule::MaintainerDeprecated,
                node.lines,
                "Maintainer instruction is deprecated in favor of using label".to_owned(),
            );
            Kind::Maintainer(one(node, "MAINTAINER")?)
        }
        "ONBUILD" => Kind::Onbuild(trigger(node)?),
        "RUN" => Kind::Run(run(node)?),
        "SHELL" => {
            Flags::parse(&node.flags, none)?;
            match &node.arguments {
                Arguments::Json(words) if !words.is_empty() => Kind::Shell(words.clone()),
                Arguments::Words(_) => {
                    return Err(Fault::new("SHELL requires the arguments to be in JSON form"));
                }
                _ => return Err(Fault::new("SHELL requires at least one argument")),
            }
        }
        "STOPSIGNAL" => Kind::StopSignal(one(node, "STOPSIGNAL")?),
        "USER" => Kind::User(one(node, "USER")?),
        "VOLUME" => {
            let volumes: Vec<String> =
                some(node, "VOLUME")?.iter().map(|volume| volume.trim().to_owned()).collect();
            if volumes.iter().any(String::is_empty) {
                return Err(Fault::new("VOLUME specified can not be an empty string"));
            }
            Kind::Volume(volumes)
        }
        "WORKDIR" => Kind::Workdir(one(node, "WORKDIR")?),
        _ => {
            let fault = Fault::new(format!("unknown instruction: {}", node.keyword));
            return Err(suggest(fault, &node.keyword, KEYWORDS, false));
        }
    };
    Ok(Instruction {
        keyword: node.keyword.clone(),
        code: node.original.trim().to_owned(),
        lines: node.lines,
        kind,
    })
}

fn words(node: &Node) -> Vec<String> {
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.clone(),
        _ => Vec::new(),
    }
}

fn some(node: &Node, name: &str) -> Result<Vec<String>> {
    let words = words(node);
    if words.is_empty() {
        return Err(Fault::new(format!("{name} requires at least one argument")));
    }
    Flags::parse(&node.flags, &[])?;
    Ok(words)
}

fn one(node: &Node, name: &str) -> Result<String> {
    let words = words(node);
    let [word] = words.as_slice() else {
        return Err(Fault::new(format!("{name} requires exactly one argument")));
    };
    Flags::parse(&node.flags, &[])?;
    Ok(word.clone())
}

fn pairs(node: &Node, name: &str) -> Result<Vec<Pair>> {
    Flags::parse(&node.flags, &[])?;
    match &node.arguments {
        Arguments::Pairs(pairs) if pairs.iter().any(|pair| pair.key.is_empty()) => {
            Err(Fault::new(format!("{name} names can not be blank")))
        }
        Arguments::Pairs(pairs) if !pairs.is_empty() => Ok(pairs.clone()),
        _ => Err(Fault::new(format!("{name} requires at least one argument"))),
    }
}

fn arguments(node: &Node, linter: &mut Linter) -> Result<Vec<Argument>> {
    let words = words(node);
    if words.is_empty() {
        return Err(Fault::new("ARG requires at least one argument"));
    }
    let mut arguments = Vec::new();
    for word in words {
        let (key, value) = match word.split_once('=') {
            Some(("", _)) => return Err(Fault::new("ARG names can not be blank")),
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let description = description(&node.comments, &key);
        arguments.push(Argument { key, value, description });
    }
    let keys: Vec<&str> = arguments.iter().map(|argument| argument.key.as_str()).collect();
    describe("ARG", &keys, node, linter);
    Ok(arguments)
}

fn command(arguments: &Arguments) -> Command {
    match arguments {
        Arguments::Json(words) => Command { words: words.clone(), shell: false },
        Arguments::Words(words) => Command { words: words.clone(), shell: true },
        _ => Command { words: Vec::new(), shell: true },
    }
}

fn run(node: &Node) -> Result<Run> {
    let flags = Flags::parse(
        &node.flags,
        &[
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
            ("device", Takes::Values),
        ],
    )?;
    let network = match flags.text("network").to_lowercase().as_str() {
        "" | "default" => Network::Default,
        "none" => Network::None,
        "host" => Network::Host,
        _ => return Err(Fault::new(format!("invalid network mode {:?}", flags.text("network")))),
    };
    let insecure = match flags.text("security").to_lowercase().as_str() {
        "" | "sandbox" => false,
        "insecure" => true,
        _ => return Err(Fault::new(format!("security {:?} is not valid", flags.text("security")))),
    };
    let devices = flags.values("device").iter().map(|text| Device::parse(text)).collect::<Result<_>>()?;
    let mounts = flags.values("mount");
    let mount_sources = mounts.iter().map(|mount| Mount::source_of(mount)).collect::<Result<_>>()?;
    let heredocs: Vec<Heredoc> = node.heredocs.clone();
    Ok(Run { command: command(&node.arguments), heredocs, mounts, mount_sources, network, insecure, devices })
}

fn trigger(node: &Node) -> Result<String> {
    let Arguments::Instruction(inner) = &node.arguments else {
        return Err(Fault::new("ONBUILD requires at least one argument"));
    };
    Flags::parse(&node.flags, &[])?;
    match inner.keyword.to_uppercase().as_str() {
        "ONBUILD" => {
            return Err(Fault::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
        }
        keyword @ ("MAINTAINER" | "FROM") => {
            return Err(Fault::new(format!("{keyword} isn't allowed as an ONBUILD trigger")));
        }
        _ => {}
    }
    let mut expression = inner.original.clone();
    node.heredocs.iter().for_each(|heredoc| heredoc.append_to(&mut expression));
    Ok(expression)
}

/// What a comment `# name …` right before an instruction says about what it defines.
fn description(comments: &[String], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    comments
        .iter()
        .find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_default()
        .to_owned()
}

fn describe(instruction: &str, names: &[&str], node: &Node, linter: &mut Linter) {
    let (Some(comment), Some(first)) = (node.comments.last(), names.first()) else { return };
    let word = comment.split(' ').next().unwrap_or_default();
    if names.contains(&word) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    linter.warn(
        Rule::InvalidDefinitionDescription,
        node.lines,
        format!("Comment for {instruction} should follow the format: `# {example} <description>`"),
    );
}
