//! Between the shell and clap: Docker's ways of writing flags, and Docker's words for mistakes.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command};

/// What is to be printed instead of carrying a command out.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    /// The text.
    pub text: String,
    /// 0 for help that was asked for.
    pub code: u8,
}

/// Finds the command that the words name; returns it, its path, and where its own words begin.
fn locate<'a>(root: &'a Command, words: &[String]) -> (&'a Command, Vec<&'a str>, usize) {
    let (mut command, mut path, mut at) = (root, vec!["skiff"], 1);
    while let Some(word) = words.get(at) {
        if word.starts_with('-') && word.len() > 1 && command.has_subcommands() {
            let takes_next = option(command, word).is_some_and(|(takes, inline)| takes && !inline);
            at += if takes_next { 2 } else { 1 };
            continue;
        }
        match command.find_subcommand(word) {
            Some(next) => {
                command = next;
                path.push(next.get_name());
                at += 1;
            }
            None => break,
        }
    }
    (command, path, at.min(words.len()))
}

/// Tells of an option word whether it takes a value, and whether the value is part of the word.
fn option(command: &Command, word: &str) -> Option<(bool, bool)> {
    let takes = |arg: &clap::Arg| {
        matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set()
    };
    if let Some(long) = word.strip_prefix("--") {
        let (name, inline) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
        let arg = command.get_arguments().find(|arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
        })?;
        return Some((takes(arg), inline));
    }
    let letters: Vec<char> = word.chars().skip(1).collect();
    for (index, letter) in letters.iter().enumerate() {
        let arg = command.get_arguments().find(|arg| arg.get_short() == Some(*letter))?;
        if takes(arg) {
            return Some((true, index + 1 < letters.len()));
        }
    }
    Some((false, false))
}

/// Rewrites `--rm=true`, `-d=false` and the like, which Docker's flags allow and clap's don't. Nothing is touched
/// behind the first word of a command line that runs inside a container.
pub fn normalise(root: &Command, words: Vec<String>) -> Vec<String> {
    let (command, _, start) = locate(root, &words);
    let trailing = command.get_positionals().any(|arg| arg.is_trailing_var_arg_set());
    let mut out: Vec<String> = words[..start].to_vec();
    let mut rest = words[start..].iter();
    while let Some(word) = rest.next() {
        if word == "--" || (trailing && (!word.starts_with('-') || word == "-")) {
            out.push(word.clone());
            break;
        }
        if !word.starts_with('-') {
            out.push(word.clone());
            continue;
        }
        match boolean(command, word) {
            Some((flag, true)) => out.push(flag),
            Some((_, false)) => {}
            None => {
                out.push(word.clone());
                if option(command, word) == Some((true, false)) {
                    out.extend(rest.next().cloned());
                }
            }
        }
    }
    out.extend(rest.cloned());
    out
}

/// Reads `--flag=true` or `-f=false` of a flag without a value; returns the flag and the value.
fn boolean(command: &Command, word: &str) -> Option<(String, bool)> {
    let (flag, value) = word.split_once('=')?;
    let value = match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => return None,
    };
    let known = command.get_arguments().any(|arg| {
        matches!(arg.get_action(), ArgAction::SetTrue)
            && match flag.strip_prefix("--") {
                Some(long) => arg.get_long() == Some(long),
                None => flag.len() == 2 && arg.get_short() == flag.chars().nth(1),
            }
    });
    known.then(|| (flag.to_owned(), value))
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned()
}

/// Words a mistake of the command line as Docker does.
pub fn refusal(root: &Command, words: &[String], error: &clap::Error) -> Refusal {
    let (command, path, _) = locate(root, words);
    let path = path.join(" ");
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let tail = format!("\n\nUsage:  {}\n\nRun '{path} --help' for more information", usage(command));
    let flag_error = |message: String| Refusal { text: format!("{message}{tail}"), code: 125 };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return Refusal { text: error.to_string().trim_end().to_owned(), code: 0 };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            return Refusal {
                text: command.clone().render_help().to_string().trim_end().to_owned(),
                code: 0,
            };
        }
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument if command.has_subcommands() => {
            let word = match error.kind() {
                ErrorKind::InvalidSubcommand => context(ContextKind::InvalidSubcommand),
                _ => context(ContextKind::InvalidArg),
            };
            if word.starts_with('-') {
                return flag_error(unknown_flag(&word));
            }
            let suggestion = match similar(command, &word) {
                names if names.is_empty() => String::new(),
                names => format!("\n\nDid you mean: {}?", names.join(", ")),
            };
            let text = format!(
                "skiff: unknown command: {path} {word}{suggestion}\n\nRun '{path} --help' for more information"
            );
            return Refusal { text, code: 1 };
        }
        ErrorKind::UnknownArgument => {
            let word = context(ContextKind::InvalidArg);
            if word.starts_with('-') {
                return flag_error(unknown_flag(&word));
            }
        }
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            let name = context(ContextKind::InvalidArg);
            return flag_error(format!(
                "flag needs an argument: {}",
                name.split(' ').next().unwrap_or_default()
            ));
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let name = context(ContextKind::InvalidArg);
            let shown = flag_name(command, &name);
            let value = context(ContextKind::InvalidValue);
            let why = match std::error::Error::source(error) {
                Some(source) => source.to_string(),
                None => match error.get(ContextKind::ValidValue) {
                    Some(ContextValue::Strings(values)) => format!("must be one of: {}", values.join(", ")),
                    _ => "invalid value".to_owned(),
                },
            };
            return flag_error(format!("invalid argument {value:?} for {shown:?} flag: {why}"));
        }
        ErrorKind::TooManyValues | ErrorKind::ArgumentConflict
            if context(ContextKind::InvalidArg).starts_with('-') =>
        {
            return flag_error(format!("flag takes no value: {}", context(ContextKind::InvalidArg)));
        }
        _ => {}
    }
    Refusal { text: format!("skiff: '{path}' {}{tail}", expected_arguments(command)), code: 1 }
}

/// Finds commands that the word may stand for: two slips of the finger away at most and less than half of it, or begun
/// with it.
fn similar<'a>(command: &'a Command, word: &str) -> Vec<&'a str> {
    let mut names: Vec<(usize, &str)> = command
        .get_subcommands()
        .map(|sub| (distance(word, sub.get_name()), sub.get_name()))
        .filter(|(slips, name)| {
            (*slips <= 2 && *slips * 2 < word.len()) || (word.len() > 1 && name.starts_with(word))
        })
        .collect();
    names.sort_unstable();
    names.truncate(3);
    names.into_iter().map(|(_, name)| name).collect()
}

/// Counts the letters to add, drop, replace or swap with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    // Longer words than any command have no similar one, and this is quadratic.
    if a.len() > 32 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

fn unknown_flag(word: &str) -> String {
    let word = word.split('=').next().unwrap_or(word);
    match word.strip_prefix("--") {
        Some(_) => format!("unknown flag: {word}"),
        None => format!("unknown shorthand flag: '{}' in {word}", word.chars().nth(1).unwrap_or('-')),
    }
}

/// Spells a flag with its letter, as `-m, --memory`.
fn flag_name(command: &Command, shown: &str) -> String {
    let name = shown.split([' ', '=', '[']).next().unwrap_or(shown);
    let arg = command.get_arguments().find(|arg| {
        arg.get_long().is_some_and(|long| name == format!("--{long}"))
            || arg.get_short().is_some_and(|short| name == format!("-{short}"))
    });
    match arg.map(|arg| (arg.get_short(), arg.get_long())) {
        Some((Some(short), Some(long))) => format!("-{short}, --{long}"),
        _ => name.to_owned(),
    }
}

fn expected_arguments(command: &Command) -> String {
    let (mut least, mut most) = (0, Some(0));
    for arg in command.get_positionals() {
        let range = arg.get_num_args().unwrap_or_else(|| 1.into());
        let many = matches!(arg.get_action(), ArgAction::Append) || range.max_values() == usize::MAX;
        if arg.is_required_set() {
            least += range.min_values().max(1);
        }
        most = if many { None } else { most.map(|most| most + 1) };
    }
    let plural = |count| if count == 1 { "argument" } else { "arguments" };
    match (least, most) {
        (_, Some(0)) => "accepts no arguments".to_owned(),
        (least, Some(most)) if least == most => format!("requires {least} {}", plural(least)),
        (0, Some(most)) => format!("accepts at most {most} {}", plural(most)),
        (least, Some(most)) => format!("requires at least {least} and at most {most} {}", plural(most)),
        (least, None) => format!("requires at least {least} {}", plural(least)),
    }
}
