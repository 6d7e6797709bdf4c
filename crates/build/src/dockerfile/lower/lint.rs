//! Build checks of stages and variables.

use std::collections::{BTreeSet, HashSet};

use skiff_images::{Platform, Reference};

use crate::dockerfile::check::{Linter, Rule};
use crate::dockerfile::expand::{Expanded, Lex, Variables};
use crate::dockerfile::fault::Lines;
use crate::dockerfile::ignore::Matcher;
use crate::dockerfile::instruction::{Instruction, Stage};
use crate::dockerfile::suggest::nearest;

/// Checks the names of stages.
pub fn stage_names(stages: &[Stage], linter: &mut Linter) {
    let mut seen = HashSet::new();
    for stage in stages.iter().filter(|stage| !stage.name.is_empty()) {
        let name = &stage.name;
        if name == "context" || name == "scratch" {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            linter.warn(Rule::ReservedStageName, stage.lines, message);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            linter.warn(Rule::DuplicateStageName, stage.lines, message);
        }
    }
}

/// Checks that keywords are all in capitals, or none.
pub fn casing(stages: &[Stage], linter: &mut Linter) {
    let keywords = || {
        stages.iter().flat_map(|stage| {
            let own = std::iter::once((stage.keyword.as_str(), stage.lines));
            own.chain(stage.instructions.iter().map(|i| (i.keyword.as_str(), i.lines)))
        })
    };
    let (mut lower, mut upper) = (0usize, 0usize);
    for (keyword, _) in keywords() {
        lower += usize::from(keyword == keyword.to_lowercase());
        upper += usize::from(keyword == keyword.to_uppercase());
    }
    let (wanted, name): (fn(&str) -> String, _) =
        if lower > upper { (str::to_lowercase, "lowercase") } else { (str::to_uppercase, "uppercase") };
    for (keyword, lines) in keywords() {
        if wanted(keyword) != keyword {
            let message =
                format!("Command '{keyword}' should match the case of the command majority ({name})");
            linter.warn(Rule::ConsistentInstructionCasing, lines, message);
        }
    }
}

/// Checks that bases are image names even when the user gives no arguments.
pub fn default_bases(stages: &[Stage], lex: Lex, defaults: &Variables, linter: &mut Linter) {
    for stage in stages {
        let Ok(expanded) = lex.expand(&stage.base, defaults) else { return };
        if Reference::parse(&expanded.text).is_err() {
            let message =
                format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
            linter.warn(Rule::InvalidDefaultArgInFrom, stage.lines, message);
        }
    }
}

/// Tells of variables in `FROM` that are no arguments.
pub fn undefined_in_from(
    missing: &BTreeSet<String>,
    known: &BTreeSet<String>,
    lines: Lines,
    linter: &mut Linter,
) {
    for name in missing.iter().filter(|name| !known.contains(*name)) {
        let mut message = format!("FROM argument '{name}' is not declared");
        if let Some(near) = nearest(name, known.iter().map(String::as_str), true) {
            message.push_str(&format!(" (did you mean {near}?)"));
        }
        linter.warn(Rule::UndefinedArgInFrom, lines, message);
    }
}

/// Checks `FROM --platform`.
pub fn platform_flag(stage: &Stage, expanded: &Expanded, globals: &Variables, linter: &mut Linter) {
    if expanded.found.is_empty() && expanded.missing.is_empty() {
        let Ok(platform) = expanded.text.parse::<Platform>() else { return };
        if stage.name.contains(&platform.os) || stage.name.contains(&platform.architecture) {
            return;
        }
        let message = format!("FROM --platform flag should not use constant value {:?}", expanded.text);
        linter.warn(Rule::FromPlatformFlagConstDisallowed, stage.lines, message);
        return;
    }
    let only_target = expanded.missing.is_empty() && expanded.found.iter().eq(["TARGETPLATFORM"]);
    if only_target && globals.get("TARGETPLATFORM") == Some(expanded.text.as_str()) {
        let message = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            stage.platform
        );
        linter.warn(Rule::RedundantTargetPlatform, stage.lines, message);
    }
}

/// Tells of variables that are not set.
pub fn undefined(
    missing: &BTreeSet<String>,
    declared: impl Fn(&str) -> bool,
    known: &Variables,
    instruction: &Instruction,
    linter: &mut Linter,
) {
    for name in missing.iter().filter(|name| !declared(name) && !super::dispatch::is_for_scanners(name)) {
        let mut message = format!("Usage of undefined variable '${name}'");
        if let Some(near) = nearest(name, known.names(), true) {
            message.push_str(&format!(" (did you mean ${near}?)"));
        }
        linter.warn(Rule::UndefinedVar, instruction.lines, message);
    }
}

/// Tells of names that look like a password's.
pub fn secret(instruction: &str, key: &str, lines: Lines, linter: &mut Linter) {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    // Whole words of the name that are separated by `_`.
    let has =
        |words: &[&str]| key.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    if has(&SECRET) && !has(&["public"]) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {key:?})");
        linter.warn(Rule::SecretsUsedInArgOrEnv, lines, message);
    }
}

/// Tells of an image that is for another platform.
pub fn base_platform(name: &str, wanted: &Platform, actual: &Platform, lines: Lines, linter: &mut Linter) {
    if wanted.os != actual.os || wanted.architecture != actual.architecture {
        let message = format!(
            "Base image {name} was pulled with platform \"{actual}\", expected \"{wanted}\" for current build"
        );
        linter.warn(Rule::InvalidBaseImagePlatform, lines, message);
    }
}

/// Tells of instructions of which only the last one counts; remembers this one.
pub fn only_once(keyword: &str, last: &mut Option<Lines>, lines: Lines, linter: &mut Linter) {
    if let Some(earlier) = last.replace(lines) {
        let message = format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        );
        linter.warn(Rule::MultipleInstructionsDisallowed, earlier, message);
    }
}

/// Tells of a path that the ignore file leaves out.
pub fn ignored(ignored: &Matcher, path: &str, is_add: bool, lines: Lines, linter: &mut Linter) {
    if ignored.matches(path) {
        let verb = if is_add { "Add" } else { "Copy" };
        let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
        linter.warn(Rule::CopyIgnoredFile, lines, message);
    }
}
