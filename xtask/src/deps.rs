//! `cargo xtask deps`: holds the workspace against its rules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::sources;
use crate::table::{self, Edge, Kind};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

/// The one package that may hold unsafe code.
const UNSAFE: &str = "skiff-linux-sys";

/// Returns everything that is wrong, one sentence each.
pub fn run() -> anyhow::Result<Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")?;

    let mut findings = Vec::new();
    for package in &metadata.packages {
        findings.extend(check_imports(package));
        findings.extend(check_sources(package)?);
    }
    findings.extend(sources::too_long(&metadata.workspace_root)?);
    findings.sort();
    findings.dedup();
    Ok(findings)
}

fn check_imports(package: &Package) -> Vec<String> {
    let mut findings = Vec::new();
    if table::allowed(&package.name).is_none() {
        findings.push(format!("{} is not in the import table (xtask/src/table.rs)", package.name));
        return findings;
    }
    for dependency in &package.dependencies {
        let kind = if dependency.kind.as_deref() == Some("dev") { Kind::Dev } else { Kind::Normal };
        let ours = dependency.path.is_some();
        findings.extend(table::check(Edge { from: &package.name, to: &dependency.name, kind, ours }));
    }
    findings
}

fn check_sources(package: &Package) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for target in &package.targets {
        let shipped = target.kind.iter().any(|kind| kind == "lib" || kind == "bin");
        if shipped && package.name != UNSAFE && !sources::forbids_unsafe(&target.src_path)? {
            findings.push(format!("{} lacks #![forbid(unsafe_code)]", target.src_path.display()));
        }
    }
    let roots: Vec<&Path> = package.targets.iter().map(|target| target.src_path.as_path()).collect();
    let directory = package.manifest_path.parent().unwrap_or(Path::new("."));
    for file in sources::forgotten(directory, &roots)? {
        findings.push(format!("{} is in no module tree", file.display()));
    }
    Ok(findings)
}
