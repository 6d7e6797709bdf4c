//! File operations: copy, mkdir, mkfile, rm, symlink.
//!
//! Actions form a small graph of their own: each has an input, which is one of the operation's or the output of an
//! earlier action, and yields the next. Actions that follow one another work in one writable directory, which becomes
//! one layer.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use skiff_images::Tree as LayerTree;

use super::merge::input_of;
use super::value::{Outputs, Overlay, Snapshot, Value, Viewed, add_layer};
use super::vertex::{Counts, Plan};
use super::{Inner, Job, blocking};
use skiff_runtime::user::{Error as UserError, Identity};

use crate::error::{Error, Result};
use crate::files::act::{self, Ownership, open_in};
use crate::files::copy::{self, ModeChange, Options};
use crate::files::{Selection, View, read_only_root};
use crate::graph::pb::{self, file_action::Action};

const MOST_ACTIONS: usize = 10_000;

/// Checks the actions, and says how inputs count.
pub(crate) fn plan(op: &pb::FileOp, inputs: usize) -> Result<Plan> {
    if op.actions.len() > MOST_ACTIONS {
        return Err(Error::invalid("file operation has too many actions"));
    }
    let wrong = |at: usize| Error::invalid(format!("invalid input of file action {at}"));
    let mut whole = vec![false; inputs];
    let mut parts: Vec<Vec<Selection>> = vec![Vec::new(); inputs];
    let mut outputs = Vec::new();
    for (at, action) in op.actions.iter().enumerate() {
        for index in [action.input, action.secondary_input] {
            // Inputs of the operation come first, then the actions before this one.
            if index < -1 || index >= i64::try_from(inputs + at).unwrap_or(i64::MAX) {
                return Err(wrong(at));
            }
        }
        let own = |index: i64| usize::try_from(index).ok().filter(|index| *index < inputs);
        if let Some(index) = own(action.input) {
            whole[index] = true;
        }
        let owner = match &action.action {
            Some(Action::Copy(copy)) => {
                if let Some(index) = own(action.secondary_input) {
                    parts[index].push(selection(copy));
                }
                &copy.owner
            }
            Some(Action::Mkfile(file)) => &file.owner,
            Some(Action::Mkdir(directory)) => &directory.owner,
            Some(Action::Symlink(link)) => &link.owner,
            Some(Action::Rm(_)) => &None,
            None => return Err(Error::invalid(format!("invalid file action {at}"))),
        };
        for user in owner.iter().flat_map(|owner| [&owner.user, &owner.group]).flatten() {
            if let Some(pb::user_opt::User::ByName(named)) = &user.user
                && let Some(index) = own(named.input)
            {
                whole[index] = true;
            }
        }
        if action.output >= 0 {
            let output = usize::try_from(action.output).unwrap_or(usize::MAX);
            if output >= MOST_ACTIONS || outputs.contains(&output) {
                return Err(Error::invalid(format!("invalid output of file action {at}")));
            }
            outputs.push(output);
        }
    }
    let inputs = whole
        .into_iter()
        .zip(parts)
        .map(|(whole, parts)| match whole || parts.is_empty() {
            true => Counts::Whole,
            false => Counts::Parts(parts),
        })
        .collect();
    Ok(Plan { inputs, outputs })
}

fn selection(copy: &pb::FileActionCopy) -> Selection {
    Selection {
        path: copy.src.clone().into_bytes(),
        follow: copy.follow_symlink,
        wildcard: copy.allow_wildcard,
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
    }
}

/// A result that is being worked on.
enum Work {
    /// On top of layers.
    Overlay(Box<Overlay>, OwnedFd),
    /// On top of nothing.
    Plain(LayerTree, OwnedFd),
}

impl Work {
    fn begin(inner: &Inner, lower: skiff_images::Held) -> Result<Work> {
        if lower.is_empty() {
            let tree = inner.config.images.new_tree()?;
            let root = read_only_root(tree.path()).map_err(|error| Error::io("open", tree.path(), error))?;
            return Ok(Work::Plain(tree, root));
        }
        let overlay = Overlay::new(inner, lower)?;
        let root = overlay.mount()?;
        Ok(Work::Overlay(Box::new(overlay), root))
    }

    fn root(&self) -> &OwnedFd {
        match self {
            Work::Overlay(_, root) | Work::Plain(_, root) => root,
        }
    }

    fn finish(self, inner: &Inner) -> Result<skiff_images::Held> {
        match self {
            Work::Overlay(overlay, root) => {
                drop(root);
                overlay.commit(inner)
            }
            Work::Plain(tree, root) => {
                drop(root);
                add_layer(inner, tree)
            }
        }
    }
}

/// Runs the actions.
pub(crate) async fn run(job: &Job, op: &pb::FileOp, inputs: &[Value], plan: &Plan) -> Result<Outputs> {
    let inner = &job.inner.solver.inner;
    let mut values: Vec<Value> = inputs.to_vec();
    let mut outputs: Vec<Option<Value>> = vec![None; plan.outputs.iter().max().map_or(0, |max| max + 1)];
    let mut at = 0;
    while at < op.actions.len() {
        // As many as may work in one directory: each takes what the one before it made, which nobody else wants.
        let mut end = at + 1;
        while end < op.actions.len() && continues(op, inputs.len(), end) {
            end += 1;
        }
        let first = &op.actions[at];
        let Value::Layers(below) = input_of(&values, first.input)?.clone() else {
            return Err(Error::invalid("a local source can't be written to"));
        };
        let held = below.realize(inner).await?;
        let mut sources = HashMap::new();
        for action in &op.actions[at..end] {
            for index in needed(action) {
                if let std::collections::hash_map::Entry::Vacant(place) = sources.entry(index) {
                    place.insert(input_of(&values, index)?.viewed(inner).await?);
                }
            }
        }
        let actions = op.actions[at..end].to_vec();
        let worker = Arc::clone(inner);
        let held = blocking(move || {
            let work = Work::begin(&worker, held)?;
            for action in &actions {
                act(work.root(), action, &sources)?;
            }
            drop(sources);
            work.finish(&worker)
        })
        .await?;
        let value = Value::Layers(Snapshot::held(held, below.base.clone()));
        // The ones in between were nobody's.
        for _ in at..end {
            values.push(value.clone());
        }
        if let Ok(output) = usize::try_from(op.actions[end - 1].output) {
            outputs[output] = Some(value);
        }
        at = end;
    }
    Ok(Arc::new(outputs))
}

/// Says whether an action goes on where the one before it stopped, and is the only one that does.
fn continues(op: &pb::FileOp, inputs: usize, at: usize) -> bool {
    let before = i64::try_from(inputs + at - 1).unwrap_or(i64::MAX);
    let users = op.actions.iter().flat_map(|action| {
        std::iter::once(action.input).chain(needed(action)).filter(|index| *index == before)
    });
    op.actions[at - 1].output < 0 && op.actions[at].input == before && users.count() == 1
}

/// The inputs that an action reads from.
fn needed(action: &pb::FileAction) -> Vec<i64> {
    let mut needed = Vec::new();
    let owner = match &action.action {
        Some(Action::Copy(copy)) => {
            needed.push(action.secondary_input);
            &copy.owner
        }
        Some(Action::Mkfile(file)) => &file.owner,
        Some(Action::Mkdir(directory)) => &directory.owner,
        Some(Action::Symlink(link)) => &link.owner,
        Some(Action::Rm(_)) | None => &None,
    };
    for user in owner.iter().flat_map(|owner| [&owner.user, &owner.group]).flatten() {
        if let Some(pb::user_opt::User::ByName(named)) = &user.user {
            needed.push(named.input);
        }
    }
    needed
}

fn act(root: &OwnedFd, action: &pb::FileAction, sources: &HashMap<i64, Viewed>) -> Result<()> {
    match &action.action {
        Some(Action::Copy(op)) => {
            let view = &sources[&action.secondary_input].view;
            let selection = selection(op);
            let mode = match (op.mode, op.mode_str.as_str()) {
                (-1, "") => None,
                (_, text) if !text.is_empty() => Some(ModeChange::Symbolic(text.to_owned())),
                (mode, _) => Some(ModeChange::Set(u32::try_from(mode).unwrap_or(0) & 0o7777)),
            };
            copy::copy(
                view,
                root,
                &Options {
                    selection: &selection,
                    destination: op.dest.as_bytes(),
                    ownership: ownership(op.owner.as_ref(), op.timestamp, sources)?,
                    mode,
                    contents: op.dir_copy_contents,
                    create: op.create_dest_path,
                    unpack: op.attempt_unpack_docker_compatibility,
                    allow_empty: op.allow_empty_wildcard,
                    replace: op.always_replace_existing_dest_paths,
                    required: &op.required_paths,
                },
            )
        }
        Some(Action::Mkfile(op)) => {
            let ownership = ownership(op.owner.as_ref(), op.timestamp, sources)?;
            act::make_file(root, op.path.as_bytes(), bits(op.mode, 0o644), &op.data, &ownership)
        }
        Some(Action::Mkdir(op)) => {
            let ownership = ownership(op.owner.as_ref(), op.timestamp, sources)?;
            act::make_directory(root, op.path.as_bytes(), bits(op.mode, 0o755), op.make_parents, &ownership)
        }
        Some(Action::Symlink(op)) => {
            let ownership = ownership(op.owner.as_ref(), op.timestamp, sources)?;
            act::make_link(root, op.oldpath.as_bytes(), op.newpath.as_bytes(), &ownership)
        }
        Some(Action::Rm(op)) => act::remove(root, op.path.as_bytes(), op.allow_wildcard, op.allow_not_found),
        None => Err(Error::invalid("invalid file action")),
    }
}

fn bits(mode: i32, default: u32) -> u32 {
    u32::try_from(mode).map_or(default, |mode| mode & 0o7777)
}

fn ownership(
    owner: Option<&pb::ChownOpt>,
    timestamp: i64,
    sources: &HashMap<i64, Viewed>,
) -> Result<Ownership> {
    let time = (timestamp != -1).then(|| {
        let nanos = u32::try_from(timestamp.rem_euclid(1_000_000_000)).unwrap_or(0);
        (timestamp.div_euclid(1_000_000_000), nanos)
    });
    let Some(owner) = owner else { return Ok(Ownership { owner: None, time }) };
    let of = |user: &Option<pb::UserOpt>| user.as_ref().and_then(|user| user.user.clone());
    let (uid, default_gid) = match of(&owner.user) {
        None => (0, 0),
        Some(pb::user_opt::User::ById(id)) => (id, id),
        Some(pb::user_opt::User::ByName(named)) => {
            let identity = look_up(&named, &named.name, sources)?;
            (identity.uid, identity.gid)
        }
    };
    let gid = match of(&owner.group) {
        None => default_gid,
        Some(pb::user_opt::User::ById(id)) => id,
        Some(pb::user_opt::User::ByName(named)) => {
            look_up(&named, &format!("0:{}", named.name), sources)?.gid
        }
    };
    Ok(Ownership { owner: Some((uid, gid)), time })
}

fn look_up(named: &pb::NamedUserOpt, text: &str, sources: &HashMap<i64, Viewed>) -> Result<Identity> {
    let nothing = View::Empty;
    let view = sources.get(&named.input).map_or(&nothing, |viewed| &viewed.view);
    match skiff_runtime::user::resolve(|path| open_in(view, path), text, &[]) {
        Ok(identity) => Ok(identity),
        // BuildKit takes a name that nobody has for root's.
        Err(UserError::NoUser { .. } | UserError::NoGroup { .. }) => {
            Ok(Identity { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() })
        }
        Err(error) => Err(Error::failed(super::value::chain(&error))),
    }
}
