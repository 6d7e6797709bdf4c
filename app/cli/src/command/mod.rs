//! The commands: one module per noun, one file per verb.

pub mod builder;
pub mod completion;
pub mod container;
pub mod context;
pub mod daemon;
pub mod dashboard;
pub mod doctor;
pub mod explain;
pub mod image;
pub mod login;
pub mod machine;
pub mod manifest;
pub mod network;
pub mod registry;
pub mod search;
pub mod system;
pub mod volume;
mod volume_files;

use std::io::{self, BufRead, Write};

pub use context::Context;

use crate::error::Error;
use crate::format::units;
use crate::format::value::Value;
use crate::terminal::{self, print_line};

/// Encodes a name for the path of a request; slashes, colons and the like of image names stay.
pub fn name_in_path(name: &str) -> String {
    name.split('/')
        .map(|part| {
            part.split(':')
                .map(|part| part.split('@').map(crate::api::query::encode).collect::<Vec<_>>().join("@"))
                .collect::<Vec<_>>()
                .join(":")
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// Does `work` for every name. All names are tried; each failure is told, and the last decides the end.
pub async fn each(
    names: &[String],
    summary: &str,
    work: impl AsyncFn(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut errors = Vec::new();
    for name in names {
        if name.is_empty() {
            errors.push((name, Error::plain("invalid container name or ID: value is empty")));
            continue;
        }
        if let Err(error) = work(name).await {
            errors.push((name, error));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    if summary.is_empty() {
        let last = errors.pop();
        for (_, error) in &errors {
            terminal::warn(error.chain());
        }
        return last.map_or(Ok(()), |(_, error)| Err(error));
    }
    let names: Vec<&str> = errors.iter().map(|(name, _)| name.as_str()).collect();
    for (_, error) in &errors {
        terminal::warn(error.chain());
    }
    Err(Error::plain(format!("{summary}: {}", names.join(", "))))
}

/// Asks before something is removed for good; anything but `y` ends the command.
pub fn confirm(warning: &str) -> Result<(), Error> {
    let mut err = io::stderr().lock();
    let asked = write!(err, "WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
        .and_then(|()| err.flush());
    drop(err);
    let mut answer = String::new();
    if asked.is_ok()
        && io::stdin().lock().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "Y")
    {
        return Ok(());
    }
    Err(Error::plain("nothing has been removed"))
}

/// Prints what a prune has removed.
pub fn report_pruned(title: &str, removed: &[Value], bytes: i64) {
    if !removed.is_empty() {
        print_line(title);
        removed.iter().for_each(print_line);
        print_line("");
    }
    print_line(format_args!("Total reclaimed space: {}", units::size(bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_structure_in_paths() {
        assert_eq!(name_in_path("localhost:5000/a/b:1@sha256:0"), "localhost:5000/a/b:1@sha256:0");
        assert_eq!(name_in_path("a b?x#y%"), "a%20b%3Fx%23y%25");
    }

    #[tokio::test]
    async fn all_names_are_tried_and_the_last_error_is_the_result() {
        let tried = std::cell::RefCell::new(Vec::new());
        let names = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let result = each(&names, "", async |name| {
            tried.borrow_mut().push(name.to_owned());
            if name == "b" { Err(Error::plain("no b")) } else { Ok(()) }
        })
        .await;
        assert_eq!(result.unwrap_err().to_string(), "no b");
        assert_eq!(tried.into_inner(), ["a", "b", "c"]);
        let result = each(&names, "failed to start containers", async |_| Err(Error::plain("no"))).await;
        assert_eq!(result.unwrap_err().to_string(), "failed to start containers: a, b, c");
    }
}
