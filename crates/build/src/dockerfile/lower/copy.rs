//! `COPY` and `ADD`.

use super::context::http_source;
use super::convert::Converter;
use super::dispatch::{Step, joined, owner};
use super::draft::{Inputs, Out, Vertex};
use super::image::Layer;
use super::lint;
use super::names;
use crate::dockerfile::check::Linter;
use crate::dockerfile::expand::Lex;
use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::ignore::clean;
use crate::dockerfile::instruction::{Kind, Transfer};
use crate::dockerfile::request::GitRef;
use crate::graph::pb;

/// One thing to copy.
struct Part {
    from: Option<Out>,
    copy: pb::FileActionCopy,
}

impl Converter<'_> {
    /// Makes the vertex of a copy.
    pub(super) fn copy(&mut self, step: &Step<'_>, written: &Transfer, linter: &mut Linter) -> Result<()> {
        let is_add = matches!(step.instruction.kind, Kind::Add(_));
        let transfer = self.expanded(step, written, linter)?;
        let (source, from_context) = self.copied_from(step, &transfer)?;
        let destination = self.destination(step, &transfer.destination);
        let (mode, mode_str) = chmod(&transfer.chmod)?;
        let base = pb::FileActionCopy {
            dest: destination,
            mode,
            mode_str,
            create_dest_path: true,
            timestamp: -1,
            exclude_patterns: transfer.excludes.clone(),
            ..pb::FileActionCopy::default()
        };
        check_checksum(&transfer, is_add)?;

        let shown = names::shown(self.lex, &step.instruction.code, &self.stages.get(step.stage).state.env);
        let name = self.prefixed(step, &shown);
        let mut parts = Vec::new();
        for path in &transfer.sources {
            parts.push(match self.remote(step, path, &transfer, is_add, &name, &base)? {
                Some(part) => part,
                None => {
                    if from_context && let Some(ignored) = &self.ignored {
                        lint::ignored(ignored, path, is_add, step.instruction.lines, linter);
                    }
                    self.take_path(step, path, from_context);
                    local(path, &transfer, is_add, source, &base)
                }
            });
        }
        for content in &transfer.contents {
            let file = self.inline(step, &content.name, 0o644, content.data.clone())?;
            let src = joined("/", &content.name);
            parts.push(Part { from: Some(file), copy: pb::FileActionCopy { src, ..base.clone() } });
        }
        // With `--link` too: Docker's own store of images merges no layers, and what is copied onto what is there already
        // has other owners and links than what is merged with it.
        let below = self.stages.get(step.stage).state.root;
        let (op, inputs) = file_op(below, parts, &transfer.chown);
        let vertex = self.vertex(step, name, op, inputs);
        let root = self.draft.add(vertex)?;
        let created = self.created.clone();
        let state = self.stages.get_mut(step.stage);
        state.state.root = Some(root);
        state.image.record(history(&transfer, is_add), Layer::Built, created.as_deref());
        Ok(())
    }

    fn expanded(&self, step: &Step<'_>, written: &Transfer, linter: &mut Linter) -> Result<Transfer> {
        let mut transfer = written.clone();
        for text in
            [&mut transfer.chown, &mut transfer.chmod, &mut transfer.checksum, &mut transfer.destination]
                .into_iter()
                .chain(&mut transfer.sources)
                .chain(&mut transfer.excludes)
        {
            *text = self.expand(step, text, linter)?;
        }
        let lex = Lex::new('\\').plain_quotes();
        for content in transfer.contents.iter_mut().filter(|content| content.expand) {
            content.data = self.expand_with(lex, step, &content.data, linter)?;
        }
        Ok(transfer)
    }

    fn copied_from(&self, step: &Step<'_>, transfer: &Transfer) -> Result<(Option<Out>, bool)> {
        let Some(source) = step.sources.first().copied().flatten() else { return Ok((self.context, true)) };
        let state = self.stages.get(source);
        if !state.done {
            return Err(Fault::new(format!(
                "cannot copy from stage {:?}, it needs to be defined before current stage {:?}",
                transfer.from,
                self.stages.get(step.stage).shown
            )));
        }
        Ok((state.state.root, false))
    }

    /// Remembers that a path is needed.
    fn take_path(&mut self, step: &Step<'_>, path: &str, from_context: bool) {
        let path = joined("/", path);
        match step.sources.first().copied().flatten() {
            Some(source) if !from_context => {
                let paths = self.stages.get(source).paths;
                self.paths.entry(paths).or_default().insert(path);
            }
            _ => {
                self.context_paths.insert(path);
            }
        }
    }

    /// Where it is copied to; with a slash at the end when that is a directory.
    fn destination(&self, step: &Step<'_>, path: &str) -> String {
        let mut destination = joined(&self.stages.get(step.stage).state.dir, path);
        let directory = matches!(path, "" | ".") || path.ends_with('/') || path.ends_with("/.");
        if directory && !destination.ends_with('/') {
            destination.push('/');
        }
        destination
    }

    /// A repository or a URL.
    fn remote(
        &mut self,
        step: &Step<'_>,
        path: &str,
        transfer: &Transfer,
        is_add: bool,
        name: &str,
        base: &pb::FileActionCopy,
    ) -> Result<Option<Part>> {
        let git = GitRef::parse(path)?.filter(|git| !git.may_be_local);
        let is_url = path.starts_with("http://") || path.starts_with("https://");
        let (op, file) = match git {
            Some(_) if !is_add => return Err(Fault::new("source can't be a git ref for COPY")),
            None if is_url && !is_add => return Err(Fault::new("source can't be a URL for COPY")),
            None if !is_url => return Ok(None),
            Some(mut git) => {
                if let (Some(flag), Some(url)) = (transfer.keep_git_dir, git.keep_git_dir)
                    && flag != url
                {
                    return Err(Fault::new("inconsistent keep-git-dir configuration"));
                }
                git.keep_git_dir = git.keep_git_dir.or(transfer.keep_git_dir);
                if !transfer.checksum.is_empty() {
                    if !git.checksum.is_empty() && git.checksum != transfer.checksum {
                        return Err(Fault::new(format!(
                            "checksum mismatch {:?} != {:?}",
                            transfer.checksum, git.checksum
                        )));
                    }
                    git.checksum.clone_from(&transfer.checksum);
                }
                (git.source(), "/".to_owned())
            }
            None => {
                if !transfer.checksum.is_empty() {
                    transfer
                        .checksum
                        .parse::<skiff_images::Digest>()
                        .map_err(|error| Fault::new(error.to_string()))?;
                }
                let file = file_of(path);
                (http_source(path, &file, &transfer.checksum), file)
            }
        };
        let vertex = self.vertex(step, name.to_owned(), pb::op::Op::Source(op), Vec::new());
        let from = self.draft.add(Vertex { platform: None, ignore_cache: false, ..vertex })?;
        let unpack = file != "/" && transfer.unpack == Some(true);
        Ok(Some(Part {
            from: Some(from),
            copy: pb::FileActionCopy {
                src: joined("/", &file),
                attempt_unpack_docker_compatibility: unpack,
                ..base.clone()
            },
        }))
    }
}

fn local(
    path: &str,
    transfer: &Transfer,
    is_add: bool,
    source: Option<Out>,
    base: &pb::FileActionCopy,
) -> Part {
    let mut copy = pb::FileActionCopy {
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack_docker_compatibility: transfer.unpack.unwrap_or(is_add),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..base.clone()
    };
    if transfer.parents {
        // What is before `/./` is not part of the path that is kept.
        let (root, pattern) = path.split_once("/./").unwrap_or(("/", path));
        let pattern = joined("/", pattern).trim_start_matches('/').to_owned();
        copy.src = joined("/", root);
        if !has_wildcards(root) && !has_wildcards(&pattern) {
            copy.required_paths = vec![joined(&copy.src, &pattern)];
        }
        copy.include_patterns = vec![pattern];
    } else {
        copy.src = joined("/", path);
        // A directory is asked for.
        if path.ends_with('/') && copy.src != "/" {
            copy.src.push('/');
        }
    }
    Part { from: source, copy }
}

/// One operation with several copies: each goes on with what the one before it made.
fn file_op(below: Option<Out>, parts: Vec<Part>, chown: &str) -> (pb::op::Op, Vec<Out>) {
    let mut inputs = Inputs::default();
    let first = inputs.number(below);
    let sources: Vec<i64> = parts.iter().map(|part| inputs.number(part.from)).collect();
    let last = parts.len().saturating_sub(1);
    let mut actions = Vec::with_capacity(parts.len());
    for (index, (part, secondary_input)) in parts.into_iter().zip(sources).enumerate() {
        let before = i64::try_from(index).unwrap_or(i64::MAX) - 1;
        let input = if index == 0 { first } else { inputs.len() + before };
        let copy = pb::FileActionCopy { owner: owner(chown, input), ..part.copy };
        actions.push(pb::FileAction {
            input,
            secondary_input,
            output: if index == last { 0 } else { -1 },
            action: Some(pb::file_action::Action::Copy(copy)),
        });
    }
    (pb::op::Op::File(pb::FileOp { actions }), inputs.into_list())
}

fn check_checksum(transfer: &Transfer, is_add: bool) -> Result<()> {
    if transfer.checksum.is_empty() {
        return Ok(());
    }
    let [source] = transfer.sources.as_slice() else {
        return Err(Fault::new("checksum can't be specified for multiple sources"));
    };
    let remote = source.starts_with("http://") || source.starts_with("https://");
    if !is_add || !(remote || GitRef::parse(source)?.is_some_and(|git| !git.may_be_local)) {
        return Err(Fault::new("checksum requires HTTP(S) or Git sources"));
    }
    Ok(())
}

/// The name of the file behind a URL.
fn file_of(url: &str) -> String {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    match clean(path).rsplit('/').next() {
        Some(name) if !matches!(name, "" | "." | "..") => name.to_owned(),
        _ => "__unnamed__".to_owned(),
    }
}

fn has_wildcards(path: &str) -> bool {
    let mut letters = path.chars();
    while let Some(c) = letters.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                letters.next();
            }
            _ => {}
        }
    }
    false
}

fn history(transfer: &Transfer, is_add: bool) -> String {
    let mut text = String::from(if is_add { "ADD" } else { "COPY" });
    if transfer.parents {
        text.push_str(" --parents");
    }
    for (name, value) in [("chown", &transfer.chown), ("chmod", &transfer.chmod)] {
        if !value.is_empty() {
            text.push_str(&format!(" --{name}={value}"));
        }
    }
    for source in &transfer.sources {
        text.push_str(&format!(" {source}"));
    }
    for content in &transfer.contents {
        text.push_str(&format!(" <<{}", content.name));
    }
    text.push_str(&format!(" {}", transfer.destination));
    text
}

/// `--chmod`: a number of the base 8, or `u+x,go-w`. Returns mode and text as messages have them.
fn chmod(text: &str) -> Result<(i32, String)> {
    if text.is_empty() {
        return Ok((-1, String::new()));
    }
    let wrong = || {
        Fault::new(format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        ))
    };
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return match i32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok((mode, String::new())),
            _ => Err(wrong()),
        };
    }
    if text.split(',').all(is_symbolic) { Ok((-1, text.to_owned())) } else { Err(wrong()) }
}

/// `[ugoa…][+-=][rwxXst…]…`, or `[ugoa…][+-=][ugo]`.
fn is_symbolic(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if rest.is_empty() {
        return false;
    }
    while let Some(after) = rest.strip_prefix(['+', '-', '=']) {
        rest = match after.chars().next() {
            Some('u' | 'g' | 'o') => &after[1..],
            _ => after.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']),
        };
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_numbers_or_symbols() {
        for text in ["u+x", "a=rX", "go-w,u=rwx", "+x", "u=g", "g=", "u+rw-x", "=t"] {
            assert_eq!(chmod(text).unwrap(), (-1, text.to_owned()), "{text}");
        }
        for (text, mode) in [("755", 0o755), ("0644", 0o644), ("7777", 0o7777), ("0", 0)] {
            assert_eq!(chmod(text).unwrap(), (mode, String::new()));
        }
        for text in ["888", "10000", "x", "u", "u+q", "u+x,", "u+xg", "rwx"] {
            assert_eq!(
                chmod(text).unwrap_err().message,
                format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                )
            );
        }
    }

    #[test]
    fn a_url_names_its_file() {
        for (url, name) in [
            ("https://h/a/b.tar?x=/y", "b.tar"),
            ("https://h/a/", "a"),
            ("https://h/", "__unnamed__"),
            ("https://h", "__unnamed__"),
            ("https://h/..", "__unnamed__"),
        ] {
            assert_eq!(file_of(url), name, "{url}");
        }
    }
}
