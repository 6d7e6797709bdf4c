//! Repositories: checked out by the machine's own git.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::files::act::Ownership;
use crate::files::copy::{Options, copy};
use crate::files::{Selection, View, read_only_root};
use crate::graph::pb;
use crate::solver::cache::{Record, seconds};
use crate::solver::report::Reporter;
use crate::solver::value::{Snapshot, Value, add_layer};
use crate::solver::{Job, blocking, key};
use crate::step::Output;

/// What a git source names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remote {
    url: String,
    reference: String,
    directory: String,
}

/// Takes `host/path#ref:directory` apart; `full` is the address when the definition gives it.
fn parse(identifier: &str, full: Option<&str>) -> Result<Remote> {
    let (address, fragment) = identifier.split_once('#').unwrap_or((identifier, ""));
    let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
    let url = match full {
        Some(full) => full.split('#').next().unwrap_or(full).to_owned(),
        None => format!("https://{address}"),
    };
    let scheme = ["https://", "http://", "git://", "ssh://"].iter().any(|scheme| url.starts_with(scheme));
    let scp = !url.contains("://") && url.contains('@') && url.contains(':');
    if !(scheme || scp) || url.starts_with('-') || reference.starts_with('-') {
        return Err(Error::invalid(format!("invalid git address \"{url}\"")));
    }
    if directory.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!("invalid directory \"{directory}\" of {url}")));
    }
    Ok(Remote { url, reference: reference.to_owned(), directory: directory.trim_matches('/').to_owned() })
}

pub(super) async fn load(
    job: &Job,
    rest: &str,
    op: &pb::SourceOp,
    reporter: &Reporter,
) -> Result<(Value, bool)> {
    let attribute = |key: &str| op.attrs.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let remote = parse(rest, attribute("git.fullurl"))?;
    let keep = attribute("git.keepgitdir") == Some("true");
    let inner = &job.inner.solver.inner;
    let header = authorization(job, op).await?;
    let git = Git { header, reporter };
    let commit = match remote.reference.len() == 40 && remote.reference.bytes().all(|c| c.is_ascii_hexdigit())
    {
        true => remote.reference.clone(),
        false => git.find(&remote).await?,
    };
    if let Some(wanted) = attribute("git.checksum").filter(|wanted| !commit.starts_with(*wanted)) {
        return Err(Error::failed(format!("expected checksum to match {wanted}, got {commit}")));
    }
    let fragment = if remote.reference.is_empty() { String::new() } else { format!("#{}", remote.reference) };
    job.inner.materials.add(format!("{}{fragment}", remote.url), format!("sha1:{commit}"));
    let text = format!("git {} {commit} {} {keep}", remote.url, remote.directory);
    let key = key::output(crate::graph::digest(text.as_bytes()).trim_start_matches("sha256:"), 0);
    if let Some((_, record)) = inner.cache.find(&key)
        && let Some(held) = inner.config.images.hold(&record.layers)
    {
        return Ok((Value::Layers(Snapshot::held(held, None)), true));
    }
    let checkout = inner.config.images.scratch()?;
    git.check_out(&remote, &commit, checkout.path()).await?;
    let worker = Arc::clone(inner);
    let directory = remote.directory.clone();
    let held = blocking(move || {
        let from = read_only_root(checkout.path()).map_err(|e| Error::io("open", checkout.path(), e))?;
        let tree = worker.config.images.new_tree()?;
        let root = read_only_root(tree.path()).map_err(|error| Error::io("open", tree.path(), error))?;
        let exclude = if keep { Vec::new() } else { vec![".git".to_owned()] };
        let selection =
            Selection { path: directory.into_bytes(), exclude, follow: true, ..Selection::default() };
        copy(
            &View::Mounted(Arc::new(from)),
            &root,
            &Options {
                selection: &selection,
                destination: b"/",
                ownership: Ownership { owner: Some((0, 0)), time: None },
                mode: None,
                contents: true,
                create: true,
                unpack: false,
                allow_empty: false,
                replace: true,
                required: &[],
            },
        )?;
        drop((root, checkout));
        add_layer(&worker, tree)
    })
    .await?;
    let now = seconds();
    let record = Record {
        kind: "source.git.checkout".to_owned(),
        description: format!("git snapshot for {}#{}", remote.url, remote.reference),
        parents: Vec::new(),
        keys: vec![key.clone()],
        own: 1,
        size: 0,
        created: now,
        last_used: now,
        uses: 1,
        layers: Vec::new(),
    };
    let snapshot = Snapshot::held(held.clone(), None);
    inner.note(&snapshot, &key);
    inner.cache.add(&key, record, held);
    Ok((Value::Layers(snapshot), false))
}

/// The header for a private repository, from the client's secrets.
async fn authorization(job: &Job, op: &pb::SourceOp) -> Result<Option<String>> {
    let secrets = &job.client().secrets;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if let Some(id) = op.attrs.get("git.authheadersecret")
        && let Some(secret) = secrets.secret(id).await?
    {
        return Ok(Some(format!("Authorization: {}", text(secret))));
    }
    if let Some(id) = op.attrs.get("git.authtokensecret")
        && let Some(secret) = secrets.secret(id).await?
    {
        let pair = format!("x-access-token:{}", text(secret));
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        return Ok(Some(format!("Authorization: basic {encoded}")));
    }
    Ok(None)
}

struct Git<'a> {
    header: Option<String>,
    reporter: &'a Reporter,
}

impl Git<'_> {
    async fn run(&self, directory: &Path, arguments: &[&str]) -> Result<String> {
        let mut settings = vec![
            ("protocol.allow", "never"),
            ("protocol.https.allow", "always"),
            ("protocol.http.allow", "always"),
            ("protocol.git.allow", "always"),
            ("protocol.ssh.allow", "always"),
            // Nothing of a repository is run.
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("advice.detachedHead", "false"),
        ];
        settings.extend(self.header.as_deref().map(|header| ("http.extraHeader", header)));
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", directory)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_COUNT", settings.len().to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        // Secrets are not for the command line, which everybody may read.
        for (number, (name, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        let output = command.output().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::failed("a git source needs the program git, which is not on this machine")
            }
            _ => Error::failed(format!("git: {error}")),
        })?;
        if !output.status.success() {
            self.reporter.log(Output::Stderr, &output.stderr);
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
            return Err(Error::failed(format!("failed to fetch remote: git: {last}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Asks which commit a reference is.
    async fn find(&self, remote: &Remote) -> Result<String> {
        let name = if remote.reference.is_empty() { "HEAD" } else { &remote.reference };
        let dereferenced = format!("{name}^{{}}");
        let answer = self.run(Path::new("/"), &["ls-remote", "--", &remote.url, name, &dereferenced]).await?;
        let lines: Vec<(&str, &str)> = answer.lines().filter_map(|line| line.split_once('\t')).collect();
        // A tag that is an object of its own is followed by what it is of.
        let best = lines.iter().find(|(_, found)| found.ends_with("^{}")).or_else(|| lines.first());
        let commit = best.map(|(commit, _)| (*commit).to_owned());
        commit.ok_or_else(|| Error::not_found(format!("repository does not contain ref {name}")))
    }

    async fn check_out(&self, remote: &Remote, commit: &str, into: &Path) -> Result<()> {
        self.run(into, &["-c", "init.defaultBranch=master", "init", "--quiet", "."]).await?;
        let one = self.run(into, &["fetch", "--quiet", "--depth=1", "--", &remote.url, commit]).await;
        let at = match one {
            Ok(_) => "FETCH_HEAD",
            // Not every server gives out one commit alone (plain files over HTTP, old protocols): then everything.
            Err(_) => {
                let all = "+refs/*:refs/fetched/*";
                self.run(into, &["fetch", "--quiet", "--no-tags", "--", &remote.url, all]).await?;
                commit
            }
        };
        self.run(into, &["checkout", "--quiet", "--force", "--detach", at]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_options_refused() {
        let remote = parse("example.com/a.git#main:sub/dir", None).unwrap();
        assert_eq!(remote.url, "https://example.com/a.git");
        assert_eq!((remote.reference.as_str(), remote.directory.as_str()), ("main", "sub/dir"));
        assert_eq!(parse("x", Some("git@example.com:a.git#v")).unwrap().url, "git@example.com:a.git");
        for wrong in ["file:///etc", "--upload-pack=x", "ext::sh -c x"] {
            assert!(parse("x", Some(wrong)).is_err(), "{wrong}");
        }
        assert!(parse("example.com/a.git#-x", None).is_err());
        assert!(parse("example.com/a.git#v:../x", None).is_err());
    }
}
