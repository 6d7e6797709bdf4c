//! Looks at source files: module trees, lengths, crate attributes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Longest source file in lines.
const MAX_LINES: usize = 1000;

/// Directories that hold no sources of ours.
const SKIPPED: &[&str] = &["target", "node_modules", "dist", "corpus"];

/// What counts as a source file.
const EXTENSIONS: &[&str] = &["rs", "ts", "svelte", "js", "css", "sh"];

/// Tells whether a crate root forbids unsafe code.
pub fn forbids_unsafe(root: &Path) -> anyhow::Result<bool> {
    Ok(read(root)?.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]"))
}

/// Returns the Rust files of a package that no target reaches by `mod`.
pub fn forgotten(package: &Path, roots: &[&Path]) -> anyhow::Result<Vec<PathBuf>> {
    let mut reached = BTreeSet::new();
    for root in roots {
        reach(root, true, &mut reached)?;
    }
    let mut files = Vec::new();
    for directory in ["src", "tests", "examples", "benches"] {
        list(&package.join(directory), &mut files)?;
    }
    files.retain(|file| {
        file.extension().is_some_and(|extension| extension == "rs") && !reached.contains(file)
    });
    Ok(files)
}

/// Returns a sentence for each source file with too many lines.
pub fn too_long(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    list(root, &mut files)?;
    let mut findings = Vec::new();
    for file in files {
        let counted = file.extension().and_then(|extension| extension.to_str());
        if counted.is_some_and(|extension| EXTENSIONS.contains(&extension)) {
            let lines = read(&file)?.lines().count();
            if lines > MAX_LINES {
                findings.push(format!("{} has {lines} lines; the limit is {MAX_LINES}", file.display()));
            }
        }
    }
    Ok(findings)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?
    {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_ref()) {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Follows the `mod` lines of one file. `owner`: the file's modules are beside it, as for a crate root and `mod.rs`.
fn reach(file: &Path, owner: bool, reached: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if !reached.insert(file.to_owned()) {
        return Ok(());
    }
    let beside = file.parent().unwrap_or(Path::new(".")).to_owned();
    let below = if owner { beside.clone() } else { file.with_extension("") };
    for module in modules(&read(file)?) {
        let (path, owner) = match module {
            Module::At(path) => (beside.join(path), true),
            Module::Named(name) => {
                let flat = below.join(format!("{name}.rs"));
                if flat.is_file() { (flat, false) } else { (below.join(&name).join("mod.rs"), true) }
            }
        };
        // A module behind a `cfg` of another system may be absent; the compiler complains where it matters.
        if path.is_file() {
            reach(&path, owner, reached)?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Module {
    Named(String),
    At(String),
}

/// Finds `mod name;`, `#[path = "…"] mod name;` and `include!("…")`.
fn modules(text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(str::to_owned);
        }
        if let Some((_, rest)) = line.split_once("include!(\"") {
            found.extend(rest.split('"').next().map(|path| Module::At(path.to_owned())));
        }
        let Some(declaration) =
            line.split("//").next().map(str::trim).and_then(|line| line.strip_suffix(';'))
        else {
            continue;
        };
        // What comes before `mod` is attributes on the same line and visibility.
        let words: Vec<&str> = declaration.split_whitespace().collect();
        if let [.., "mod", name] = words.as_slice()
            && !line.starts_with("//")
        {
            found.push(match path.take() {
                Some(path) => Module::At(path),
                None => Module::Named((*name).to_owned()),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_however_they_are_declared() {
        let text = "mod a;\npub(crate) mod b; // why\n#[cfg(unix)] pub mod c;\n// mod no;\nmod inline { }\n\
                    #[path = \"other/d.rs\"]\nmod d;\nlet mod_e = 1;\ninclude!(\"f.rs\");\n";
        let named = |name: &str| Module::Named(name.to_owned());
        let at = |path: &str| Module::At(path.to_owned());
        assert_eq!(modules(text), [named("a"), named("b"), named("c"), at("other/d.rs"), at("f.rs")]);
    }

    fn package(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn a_file_in_no_module_tree_is_found() {
        let package = package(&[
            ("src/lib.rs", "mod a;\npub mod b;\n"),
            ("src/a.rs", "mod deep;\n"),
            ("src/a/deep.rs", ""),
            ("src/b/mod.rs", "mod leaf;\n"),
            ("src/b/leaf.rs", ""),
            ("src/b/lost.rs", ""),
            ("tests/first.rs", "mod common;\n"),
            ("tests/common/mod.rs", ""),
            ("tests/scenarios/lost.rs", ""),
        ]);
        let root = package.path();
        let roots = [root.join("src/lib.rs"), root.join("tests/first.rs")];
        let roots: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
        let mut lost = forgotten(root, &roots).unwrap();
        lost.sort();
        assert_eq!(lost, [root.join("src/b/lost.rs"), root.join("tests/scenarios/lost.rs")]);
    }

    #[test]
    fn a_long_file_is_named_with_its_length() {
        let package = package(&[
            ("src/lib.rs", &"\n".repeat(1001)),
            ("src/ok.rs", &"\n".repeat(1000)),
            ("target/x.rs", &"\n".repeat(2000)),
        ]);
        let findings = too_long(package.path()).unwrap();
        assert_eq!(findings.len(), 1);
        assert!(findings[0].ends_with("src/lib.rs has 1001 lines; the limit is 1000"), "{findings:?}");
    }

    #[test]
    fn a_crate_root_must_forbid_unsafe_code() {
        let package = package(&[
            ("src/lib.rs", "//! X.\n#![forbid(unsafe_code)]\n"),
            ("src/main.rs", "// #![forbid(unsafe_code)]\n"),
        ]);
        assert!(forbids_unsafe(&package.path().join("src/lib.rs")).unwrap());
        assert!(!forbids_unsafe(&package.path().join("src/main.rs")).unwrap());
    }
}
