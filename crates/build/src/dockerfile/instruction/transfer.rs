//! `COPY` and `ADD`.

use super::flags::{Flags, Takes};
use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::parse::{Arguments, Heredoc, Node};

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// What is copied.
    pub sources: Vec<String>,
    /// Here-documents that are copied.
    pub contents: Vec<Content>,
    /// Where it is copied to.
    pub destination: String,
    /// `--from`.
    pub from: String,
    /// `--chown`.
    pub chown: String,
    /// `--chmod`.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub excludes: Vec<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`.
    pub checksum: String,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// A file from a here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub data: String,
    /// Whether variables in it are expanded.
    pub expand: bool,
}

const COPY: [(&str, Takes); 6] = [
    ("chown", Takes::Value),
    ("from", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::Values),
];
const ADD: [(&str, Takes); 7] = [
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Value),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Values),
];

impl Transfer {
    /// Reads a `COPY`.
    pub fn copy(node: &Node) -> Result<Transfer> {
        Transfer::parse(node, "COPY", &COPY)
    }

    /// Reads an `ADD`.
    pub fn add(node: &Node) -> Result<Transfer> {
        Transfer::parse(node, "ADD", &ADD)
    }

    fn parse(node: &Node, name: &str, known: &[(&'static str, Takes)]) -> Result<Transfer> {
        let (words, json) = match &node.arguments {
            Arguments::Words(words) => (words.as_slice(), false),
            Arguments::Json(words) => (words.as_slice(), true),
            _ => (&[][..], false),
        };
        let [sources @ .., destination] = words else {
            return Err(no_destination(name));
        };
        if sources.is_empty() {
            return Err(no_destination(name));
        }
        let flags = Flags::parse(&node.flags, known)?;
        if !json && Heredoc::parse(destination).is_some() {
            return Err(Fault::new(format!("{name} cannot accept a heredoc as a destination")));
        }
        let mut transfer = Transfer {
            destination: destination.clone(),
            from: flags.text("from"),
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.switch("link").unwrap_or(false),
            parents: flags.switch("parents").unwrap_or(false),
            excludes: flags.values("exclude"),
            keep_git_dir: flags.switch("keep-git-dir"),
            checksum: flags.text("checksum"),
            unpack: flags.switch("unpack"),
            ..Transfer::default()
        };
        for source in sources {
            match Heredoc::parse(source).filter(|_| !json) {
                None => transfer.sources.push(source.clone()),
                Some(named) => {
                    let read = node.heredocs.iter().rfind(|have| have.name == named.name);
                    transfer.contents.push(Content {
                        data: read.map(Heredoc::text).unwrap_or_default(),
                        name: named.name,
                        expand: named.expand,
                    });
                }
            }
        }
        Ok(transfer)
    }
}

fn no_destination(name: &str) -> Fault {
    Fault::new(format!(
        "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
    ))
}
