//! The two ends of a copy as words, and where an archive has to go: Docker's rules for `cp`, which are those of cp(1)
//! where they can be.

use crate::error::Error;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Standard input or output.
    Stream,
    /// A path on this machine.
    Local(String),
    /// A path in a container.
    Container {
        /// Its name or id.
        name: String,
        /// The path.
        path: String,
    },
}

impl End {
    /// Reads `container:path`, a path, or `-`.
    pub fn parse(word: &str) -> End {
        let local = word.starts_with('.') || std::path::Path::new(word).is_absolute();
        match word.split_once(':') {
            _ if word == "-" => End::Stream,
            Some((name, path)) if !local && !name.is_empty() => {
                End::Container { name: name.to_owned(), path: path.to_owned() }
            }
            _ => End::Local(word.to_owned()),
        }
    }
}

/// What is at an end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The path, with the slash or `/.` that was written after it.
    pub path: String,
    /// Whether there is anything.
    pub exists: bool,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The name that the archive's first entry has, where it is not the path's own (a link was followed).
    pub name: Option<String>,
}

/// Where an archive goes, and the new name of its first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The directory in which it is unpacked.
    pub directory: String,
    /// The entry's name in the archive and the one that it gets; the same when nothing changes.
    pub rename: (String, String),
}

/// Splits a path into its directory and its last part, which is `.` when the path asks for a directory's contents.
pub fn split(path: &str) -> (String, String) {
    let clean = clean(path);
    if path == "." || path.ends_with("/.") {
        return (clean, ".".to_owned());
    }
    match clean.rsplit_once('/') {
        Some(("", "")) => ("/".to_owned(), "/".to_owned()),
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((directory, name)) => (directory.to_owned(), name.to_owned()),
        None => (".".to_owned(), clean),
    }
}

/// A path without doubled slashes, dots, and names that are taken back.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Joins the target of a link with the directory that the link is in.
pub fn follow(link: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { format!("{}/{target}", split(link).0) }
}

/// Decides where an archive of `source` goes so that it ends up at `target`.
pub fn plan(source: &Node, target: &Node) -> Result<Plan, Error> {
    let (directory, name) = split(&target.path);
    let own = source.name.clone().unwrap_or_else(|| split(&source.path).1);
    let same = (own.clone(), own.clone());
    if target.exists && target.is_directory {
        return Ok(Plan { directory: target.path.clone(), rename: same });
    }
    if target.exists && source.is_directory {
        return Err(Error::plain("cannot copy directory"));
    }
    let asserted = target.path.ends_with('/') || target.path.ends_with("/.");
    if asserted && !source.is_directory {
        return Err(Error::plain(if target.exists { "not a directory" } else { "no such directory" }));
    }
    Ok(Plan { directory, rename: (own, name) })
}

/// The name that an entry of the archive gets.
pub fn renamed(entry: &str, (old, new): &(String, String)) -> String {
    let old = if old == "/" { "" } else { old.as_str() };
    match entry.strip_prefix(old) {
        Some(rest) if old != new && (rest.is_empty() || rest.starts_with('/') || old.is_empty()) => {
            match (old.is_empty(), rest) {
                (true, rest) => format!("{new}/{rest}"),
                (false, rest) => format!("{new}{rest}"),
            }
        }
        _ => entry.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, exists: bool, is_directory: bool) -> Node {
        Node { path: path.to_owned(), exists, is_directory, name: None }
    }

    #[test]
    fn ends_are_told_apart() {
        let container = |name: &str, path: &str| End::Container { name: name.into(), path: path.into() };
        assert_eq!(End::parse("web:/etc/hosts"), container("web", "/etc/hosts"));
        assert_eq!(End::parse("web:a:b"), container("web", "a:b"));
        assert_eq!(End::parse("./web:a"), End::Local("./web:a".into()));
        assert_eq!(End::parse("/a:b"), End::Local("/a:b".into()));
        assert_eq!(End::parse("file"), End::Local("file".into()));
        assert_eq!(End::parse("-"), End::Stream);
    }

    #[test]
    fn paths_are_split_as_docker_splits_them() {
        for (path, directory, name) in [
            ("/a/b", "/a", "b"),
            ("/a/b/", "/a", "b"),
            ("/a/b/.", "/a/b", "."),
            ("/", "/", "/"),
            (".", ".", "."),
            ("a", ".", "a"),
            ("/a/../b//c", "/b", "c"),
            ("../x", "..", "x"),
        ] {
            assert_eq!(split(path), (directory.to_owned(), name.to_owned()), "{path}");
        }
    }

    #[test]
    fn copies_go_where_cp_would_put_them() {
        let file = node("/s/file", true, false);
        let directory = node("/s/dir", true, true);
        let contents = node("/s/dir/.", true, true);
        let to = |source: &Node, target: Node| {
            plan(source, &target)
                .map(|plan| (plan.directory, plan.rename.1))
                .map_err(|error| error.to_string())
        };
        let pair = |directory: &str, name: &str| Ok((directory.to_owned(), name.to_owned()));
        assert_eq!(to(&file, node("/t", true, true)), pair("/t", "file"));
        assert_eq!(to(&file, node("/t/x", true, false)), pair("/t", "x"));
        assert_eq!(to(&file, node("/t/new", false, false)), pair("/t", "new"));
        assert_eq!(to(&file, node("/t/new/", false, false)), Err("no such directory".to_owned()));
        assert_eq!(to(&directory, node("/t", true, true)), pair("/t", "dir"));
        assert_eq!(to(&directory, node("/t/new", false, false)), pair("/t", "new"));
        assert_eq!(to(&directory, node("/t/x", true, false)), Err("cannot copy directory".to_owned()));
        assert_eq!(to(&contents, node("/t", true, true)), pair("/t", "."));
        assert_eq!(to(&contents, node("/t/new", false, false)), pair("/t", "new"));
    }

    #[test]
    fn only_the_first_name_of_an_entry_changes() {
        let rename = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        assert_eq!(renamed("dir/a/dir", &rename("dir", "new")), "new/a/dir");
        assert_eq!(renamed("dirt", &rename("dir", "new")), "dirt");
        assert_eq!(renamed("./a", &rename(".", "new")), "new/a");
        assert_eq!(renamed("etc/x", &rename("/", "new")), "new/etc/x");
        assert_eq!(renamed("dir/a", &rename("dir", "dir")), "dir/a");
    }
}
