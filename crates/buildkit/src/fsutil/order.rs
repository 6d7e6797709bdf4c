//! The rules for the paths of a transfer: relative, clean, in order, each below a directory that came before.

use thiserror::Error;

/// The longest path, as the kernel has it.
const PATH_LIMIT: usize = 4096;
/// The longest name in a directory.
const NAME_LIMIT: usize = 255;

/// A path that may not come, or not here.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PathError {
    /// It is absolute, has `.`, `..`, empty or overlong parts, or a zero byte.
    #[error("invalid unclean path {path:?}")]
    Unclean {
        /// The path as it came.
        path: String,
    },
    /// A sibling that sorts later came earlier, or its directory never came.
    #[error("changes out of order: {path:?} {last:?}")]
    OutOfOrder {
        /// The path as it came.
        path: String,
        /// The one before it.
        last: String,
    },
}

/// Splits a path into its directory (empty for the top) and its name.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Checks that a path stays below its root, whatever lies there, if no link is followed.
pub(crate) fn check_clean(path: &str) -> Result<(), PathError> {
    let fine = !path.is_empty()
        && path.len() < PATH_LIMIT
        && !path.contains('\0')
        && path.split('/').all(|name| !matches!(name, "" | "." | "..") && name.len() <= NAME_LIMIT);
    if fine { Ok(()) } else { Err(PathError::Unclean { path: path.to_owned() }) }
}

/// One directory that is being gone through.
#[derive(Debug)]
struct Level {
    /// Its path; empty for the top.
    dir: String,
    /// The name that came last in it.
    last: String,
}

/// Follows the order of a transfer.
#[derive(Debug)]
pub(crate) struct Order {
    levels: Vec<Level>,
}

impl Default for Order {
    fn default() -> Self {
        Self { levels: vec![Level { dir: String::new(), last: String::new() }] }
    }
}

impl Order {
    /// Takes the next path.
    ///
    /// # Errors
    /// When the path may not come, or not here.
    pub fn accept(&mut self, path: &str, is_dir: bool) -> Result<(), PathError> {
        check_clean(path)?;
        let (dir, name) = split(path);
        let before = self.last();
        // Directories are left for good: what came in them was all of it.
        while self.levels.len() > 1 && self.levels[self.levels.len() - 1].dir != dir {
            self.levels.pop();
        }
        let level = self.levels.last_mut().expect("the top is never left");
        if level.dir != dir || level.last.as_bytes() >= name.as_bytes() {
            return Err(PathError::OutOfOrder { path: path.to_owned(), last: before });
        }
        name.clone_into(&mut level.last);
        if is_dir {
            self.levels.push(Level { dir: path.to_owned(), last: String::new() });
        }
        Ok(())
    }

    fn last(&self) -> String {
        let level = &self.levels[self.levels.len() - 1];
        match (level.dir.as_str(), level.last.as_str()) {
            ("", last) => last.to_owned(),
            (dir, "") => dir.to_owned(),
            (dir, last) => format!("{dir}/{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(paths: &[(&str, bool)]) -> Result<(), PathError> {
        let mut order = Order::default();
        paths.iter().try_for_each(|(path, is_dir)| order.accept(path, *is_dir))
    }

    #[test]
    fn an_ordinary_walk_is_accepted() {
        // A walk goes by names, not by whole paths: "a" and all in it come before "a.txt".
        all(&[("a", true), ("a/b", true), ("a/b/c", false), ("a/d", false), ("a.txt", false), ("b", false)])
            .unwrap();
    }

    #[test]
    fn what_leaves_the_root_or_is_not_clean_is_refused() {
        for path in ["", "/a", "../a", "a/../b", "a//b", "a/", ".", "./a", "a\0b", &"x".repeat(256)] {
            assert!(matches!(all(&[(path, false)]), Err(PathError::Unclean { .. })), "{path:?}");
        }
    }

    #[test]
    fn a_file_without_its_directory_or_out_of_order_is_refused() {
        for paths in [
            &[("a/b", false)][..],
            &[("a", false), ("a/b", false)],
            &[("b", false), ("a", false)],
            &[("a", false), ("a", false)],
            &[("a", true), ("b", true), ("a/c", false)],
            &[("a", true), ("a/b", false), ("a", true)],
        ] {
            assert!(matches!(all(paths), Err(PathError::OutOfOrder { .. })), "{paths:?}");
        }
        let error = all(&[("a", true), ("a/z", false), ("a/b", false)]).unwrap_err();
        assert_eq!(error.to_string(), "changes out of order: \"a/b\" \"a/z\"");
    }

    proptest! {
        #[test]
        fn whatever_comes_every_accepted_path_is_new_and_has_its_directory(
            paths in proptest::collection::vec(("[ab./]{0,5}", any::<bool>()), 0..40),
        ) {
            let mut order = Order::default();
            let mut directories = std::collections::HashSet::from([String::new()]);
            let mut seen = std::collections::HashSet::new();
            for (path, is_dir) in paths {
                if order.accept(&path, is_dir).is_ok() {
                    prop_assert!(seen.insert(path.clone()));
                    prop_assert!(directories.contains(split(&path).0));
                    prop_assert!(!path.split('/').any(|name| name == ".." || name.is_empty()));
                    if is_dir {
                        directories.insert(path);
                    }
                }
            }
        }

        #[test]
        fn a_sorted_tree_is_accepted(names in proptest::collection::btree_set("[a-c.]{1,3}", 1..10)) {
            let names: Vec<&String> = names.iter().filter(|name| !matches!(name.as_str(), "." | "..")).collect();
            let mut order = Order::default();
            for name in &names {
                prop_assert!(order.accept(name, true).is_ok());
                for inner in &names {
                    let path = format!("{name}/{inner}");
                    prop_assert!(order.accept(&path, false).is_ok());
                }
            }
        }
    }
}
