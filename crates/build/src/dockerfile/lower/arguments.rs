//! Arguments before the first stage, and the platform's.

use std::collections::BTreeMap;

use skiff_images::Platform;

use super::stage::ArgInfo;
use crate::dockerfile::expand::{Lex, Variables};
use crate::dockerfile::fault::{At as _, Result};
use crate::dockerfile::instruction::{Instruction, Kind};

/// The arguments that are always there, unless the user gives others.
pub fn predefined(
    build: &Platform,
    target: &Platform,
    stage: &str,
    given: &BTreeMap<String, String>,
) -> Result<Variables> {
    let mut variables = Variables::default();
    for (name, value) in [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", String::new()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", String::new()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", if stage.is_empty() { "default".to_owned() } else { stage.to_owned() }),
    ] {
        variables.set(name, given.get(name).cloned().unwrap_or(value))?;
    }
    Ok(variables)
}

/// Adds those of the file.
pub fn global(
    mut variables: Variables,
    lex: Lex,
    instructions: &[Instruction],
    given: &BTreeMap<String, String>,
) -> Result<(Variables, BTreeMap<String, ArgInfo>)> {
    let mut all = BTreeMap::new();
    for instruction in instructions {
        let Kind::Arg(arguments) = &instruction.kind else { continue };
        for argument in arguments {
            let value = match (given.get(&argument.key), &argument.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(lex.expand(default, &variables).at(instruction.lines)?.text),
                (None, None) => None,
            };
            if let Some(value) = &value {
                variables.set(&argument.key, value.clone()).at(instruction.lines)?;
            }
            let info = ArgInfo { argument: argument.clone(), value, lines: instruction.lines };
            all.insert(argument.key.clone(), info);
        }
    }
    Ok((variables, all))
}
