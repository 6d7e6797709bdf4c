//! What vertices are called when nobody named them, as BuildKit does.

use crate::graph::pb::{self, file_action::Action, op::Op};
use crate::graph::{CUSTOM_NAME, Vertex};

/// The name that progress shows.
pub(crate) fn name(vertex: &Vertex) -> String {
    if let Some(name) = vertex.metadata.description.get(CUSTOM_NAME) {
        return name.clone();
    }
    match &vertex.op.op {
        Some(Op::Source(source)) => source.identifier.clone(),
        Some(Op::Exec(exec)) => exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default(),
        Some(Op::File(file)) => {
            let names: Vec<String> = file.actions.iter().map(action).collect();
            names.join(", ")
        }
        Some(Op::Merge(_)) => "merge".to_owned(),
        Some(Op::Diff(_)) => "diff".to_owned(),
        Some(Op::Build(_)) => "build".to_owned(),
        None => vertex.digest.clone(),
    }
}

fn action(action: &pb::FileAction) -> String {
    match &action.action {
        Some(Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
        Some(Action::Mkfile(file)) => format!("mkfile {}", file.path),
        Some(Action::Mkdir(directory)) => format!("mkdir {}", directory.path),
        Some(Action::Rm(remove)) => format!("rm {}", remove.path),
        Some(Action::Symlink(link)) => format!("symlink {} {}", link.newpath, link.oldpath),
        None => String::new(),
    }
}
