//! A table of Dockerfiles as people write them, built through every door, compared file by file with what must be there.
//!
//! `SKIFF_REFERENCE=/path/to/docker.sock` builds them with that engine too (`tests/compat/reference` starts one) and fails
//! where it makes something else than the table says.

mod base;
mod table;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use skiff_testkit::process::Finished;
use skiff_testkit::{DockerCli, Program};

use self::table::Case;
use crate::{Subject, scenarios};

scenarios![dockerfiles_yield_the_same_files_through_every_door];

/// What an engine puts into a container's file system, whatever the image.
const NOT_OF_THE_IMAGE: [&str; 8] =
    ["dev", "proc", "sys", ".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"];

/// Paths with what they are: `f644 0:0 contents`, `d755 0:0`, `l target`.
type Files = BTreeMap<String, String>;

/// A way to have an image built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The docker command with the classic builder.
    Classic,
    /// The docker command of 20.10 with BuildKit's session.
    Session,
    /// buildx.
    Buildx,
}

/// Every door.
pub(crate) const DOORS: [Door; 3] = [Door::Classic, Door::Session, Door::Buildx];

impl Door {
    /// The client's command for this door; `None` where it was not fetched.
    pub(crate) fn program(self, on: &Subject, docker: &DockerCli, config: &Path) -> Option<Program> {
        let program = match self {
            Self::Classic => return Some(docker.command("build").env("DOCKER_BUILDKIT", "0")),
            Self::Session => on.tool("docker-20.10")?,
            Self::Buildx => on.tool("docker-buildx")?,
        };
        let program = Program::new(program)
            .env("DOCKER_HOST", docker.host())
            .env("DOCKER_CONFIG", config)
            .env("BUILDX_CONFIG", config.join("buildx"))
            .env("BUILDKIT_PROGRESS", "plain")
            .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
            .env("DOCKER_BUILDKIT", "1");
        Some(program.args(["build"]))
    }
}

fn dockerfiles_yield_the_same_files_through_every_door(on: &Subject) -> anyhow::Result<()> {
    let base = exported(&on.docker, "busybox")?;
    let reference = reference(on)?;
    let config = tempfile::tempdir()?;
    let mut wrong = Vec::new();
    for (number, case) in table::CASES.iter().chain(base::CASES).enumerate() {
        let context = case.context()?;
        // Behind a daemon each case takes one door, the next case the next; a guest is slow and takes every fourth case.
        if on.in_guest && number % 4 != 0 {
            continue;
        }
        let mut doors: Vec<Door> = match on.daemon_under_test() {
            Some(_) => vec![DOORS[number % DOORS.len()]],
            None => DOORS.to_vec(),
        };
        doors.retain(|door| case.classic || *door != Door::Classic);
        let mut first: Option<(String, Files)> = None;
        for door in doors {
            let Some(program) = door.program(on, &on.docker, config.path()) else { continue };
            let name = format!("table/{}", case.name);
            let checked =
                case.build(program.timeout(on.patience(60)), &name, context.path()).and_then(|_| {
                    let id = on.docker.inspect(&name, "{{.Id}}")?;
                    let files = match &first {
                        Some((other, files)) if *other == id => files.clone(),
                        _ => changed(&base, exported(&on.docker, &name)?),
                    };
                    case.check(&on.docker, &name, &files)?;
                    first.get_or_insert((id, files));
                    Ok(())
                });
            if let Err(error) = checked {
                wrong.push(format!("{} by {door:?}: {error:#}", case.name));
            }
        }
        // The reference would fetch the frontend that a file names.
        if let Some((docker, base)) = &reference
            && !case.dockerfile.starts_with("# syntax")
        {
            let door = if on.tool("docker-buildx").is_some() { Door::Buildx } else { Door::Classic };
            let Some(program) = door.program(on, docker, config.path()) else { continue };
            let name = format!("table/{}", case.name);
            let checked = case
                .build(program, &name, context.path())
                .and_then(|_| case.check(docker, &name, &changed(base, exported(docker, &name)?)));
            if let Err(error) = checked {
                wrong.push(format!("{} by the reference: {error:#}", case.name));
            }
        }
    }
    let images = on.docker.run("images -q --filter reference=table/*")?.ok()?.out();
    let ids: std::collections::BTreeSet<&str> = images.split_whitespace().collect();
    on.docker.command("rmi -f").args(ids).run()?.ok()?;
    ensure!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// Another engine with the same base image.
fn reference(on: &Subject) -> anyhow::Result<Option<(DockerCli, Files)>> {
    let Some(socket) = std::env::var_os("SKIFF_REFERENCE") else { return Ok(None) };
    let docker = DockerCli::new(Path::new(&socket))?;
    docker.feed("load", on.docker.run("save busybox")?.ok()?.stdout)?.ok()?;
    let base = exported(&docker, "busybox")?;
    Ok(Some((docker, base)))
}

/// All files of an image.
fn exported(docker: &DockerCli, image: &str) -> anyhow::Result<Files> {
    let container = docker.args(&["create", image, "true"])?.ok()?.out();
    let tar = docker.args(&["export", container.trim()])?.ok()?.stdout;
    docker.args(&["rm", container.trim()])?.ok()?;
    let mut files = Files::new();
    for entry in tar::Archive::new(tar.as_slice()).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_matches('/').trim_start_matches("./").to_owned();
        let foreign = |name: &&str| {
            path.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if path.is_empty() || path == "." || NOT_OF_THE_IMAGE.iter().any(foreign) {
            continue;
        }
        let header = entry.header();
        let (mode, owner) = (header.mode()? & 0o7777, format!("{}:{}", header.uid()?, header.gid()?));
        let link = entry.link_name()?.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
        let what = match entry.header().entry_type() {
            tar::EntryType::Directory => format!("d{mode:o} {owner}"),
            tar::EntryType::Symlink => format!("l {link}"),
            // Which of several names is the file and which the link is chance: all are the file.
            tar::EntryType::Link => files.get(link.trim_matches('/')).cloned().unwrap_or_default(),
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                let text = match bytes.len() {
                    0..200 => String::from_utf8_lossy(&bytes).replace('\n', "\\n"),
                    length => format!("{length} bytes"),
                };
                format!("f{mode:o} {owner} {text}").trim_end().to_owned()
            }
            other => format!("{other:?}"),
        };
        files.insert(path, what);
    }
    Ok(files)
}

/// What an image has beyond its base, and without what it has taken away (`gone`).
fn changed(base: &Files, mut files: Files) -> Files {
    let gone: Vec<String> = base.keys().filter(|path| !files.contains_key(*path)).cloned().collect();
    files.retain(|path, what| base.get(path) != Some(what));
    files.extend(gone.into_iter().map(|path| (path, "gone".to_owned())));
    files
}

impl Case {
    /// The files of the context, the Dockerfile among them.
    fn context(&self) -> anyhow::Result<tempfile::TempDir> {
        let directory = tempfile::tempdir()?;
        for (path, text) in self.files.iter().chain([&("Dockerfile", self.dockerfile)]) {
            let at = directory.path().join(path);
            std::fs::create_dir_all(at.parent().context("a file is in a directory")?)?;
            match (text.strip_prefix("-> "), path.ends_with(".tar")) {
                (Some(target), _) => std::os::unix::fs::symlink(target, &at)?,
                (None, true) => std::fs::write(&at, archive(text)?)?,
                (None, false) => std::fs::write(&at, text)?,
            }
        }
        Ok(directory)
    }

    fn build(&self, program: Program, name: &str, context: &Path) -> anyhow::Result<Finished> {
        let at = |word: &&str| word.replace("CONTEXT", &context.display().to_string());
        program.args(["-t", name]).args(self.arguments.iter().map(at)).args([context]).run()?.ok()
    }

    fn check(&self, docker: &DockerCli, name: &str, files: &Files) -> anyhow::Result<()> {
        let shown: Vec<String> = files.iter().map(|(path, what)| format!("/{path} {what}")).collect();
        let mut wanted: Vec<&str> = self.yields.to_vec();
        wanted.sort_unstable_by_key(|line| line.split(' ').next());
        ensure!(shown == wanted, "has\n    {}\n  not\n    {}", shown.join("\n    "), wanted.join("\n    "));
        if !self.format.is_empty() {
            let config = docker.inspect(name, self.format)?;
            ensure!(config == self.config, "its configuration is {config:?}, not {:?}", self.config);
        }
        Ok(())
    }
}

/// A tar of files, `path=contents` each.
fn archive(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, contents) in text.split_whitespace().filter_map(|word| word.split_once('=')) {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_cksum();
        tar.append_data(&mut header, path, contents.as_bytes())?;
    }
    Ok(tar.into_inner()?)
}
