//! Repositories: over HTTP by our own means, else by the machine's own git, which a guest has not.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use skiff_images::Store;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::files::act::Ownership;
use crate::files::copy::{Options, copy};
use crate::files::{Selection, View, read_only_root};
use crate::git;
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
    let checksum = attribute("git.checksum");
    if let Some(wrong) =
        checksum.filter(|text| text.len() > 40 || !text.bytes().all(|c| c.is_ascii_hexdigit()))
    {
        let url = &remote.url;
        return Err(Error::invalid(format!(
            "invalid checksum {wrong} for Git source {url}, expected hex commit hash"
        )));
    }
    let git = Git { header, origin: origin(&remote.url), reporter };
    // All of a repository is what a program of git keeps, where there is one.
    let server = match keep && git.is_there().await {
        true => None,
        false => git.server(&inner.config.images, &remote.url).await?,
    };
    let is_whole = |text: &str| text.len() == 40 && text.bytes().all(|c| c.is_ascii_hexdigit());
    let commit = match (remote.reference.as_str(), checksum) {
        (name, _) if is_whole(name) => name.to_owned(),
        ("", Some(checksum)) if is_whole(checksum) => checksum.to_owned(),
        ("", Some(beginning)) => git.beginning_with(&remote, server.as_ref(), beginning).await?,
        (name, _) => match &server {
            Some(server) => server.find(name).await?.to_string(),
            None => git.find(&remote).await?,
        },
    };
    if let Some(wanted) = attribute("git.checksum").filter(|wanted| !commit.starts_with(*wanted)) {
        return Err(Error::failed(format!("expected checksum to match {wanted}, got {commit}")));
    }
    let fragment = if remote.reference.is_empty() { String::new() } else { format!("#{}", remote.reference) };
    job.inner.materials.add(format!("{}{fragment}", remote.url), format!("sha1:{commit}"));
    let alone = attribute("git.skipsubmodules") == Some("true");
    let text = format!("git {} {commit} {} {keep} {alone}", remote.url, remote.directory);
    let key = key::output(crate::graph::digest(text.as_bytes()).trim_start_matches("sha256:"), 0);
    if let Some((_, record)) = inner.cache.find(&key)
        && let Some(held) = inner.config.images.hold(&record.layers)
    {
        return Ok((Value::Layers(Snapshot::held(held, None)), true));
    }
    let checkout = inner.config.images.scratch()?;
    match server {
        Some(server) => {
            let images = &inner.config.images;
            git.fetch(images, server, &remote, &commit, checkout.path(), keep, !alone).await?;
        }
        None => git.check_out(&remote, &commit, checkout.path(), !alone).await?,
    }
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

/// How deep repositories may be in each other, and how many there may be in all.
const DEEPEST: usize = 8;
const MOST_LINKED: usize = 256;

/// `https://host:port` of an address.
fn origin(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let host = rest.split('/').next().unwrap_or_default();
    format!("{scheme}://{}", host.rsplit_once('@').map_or(host, |(_, host)| host))
}

/// The address of a repository in another one, which may be relative to that one's.
fn linked_url(parent: &str, url: &str) -> String {
    if !url.starts_with("./") && !url.starts_with("../") {
        return url.to_owned();
    }
    let (mut base, mut rest) = (parent.trim_end_matches('/'), url);
    loop {
        if let Some(next) = rest.strip_prefix("../") {
            base = base.rsplit_once('/').map_or(base, |(base, _)| base);
            rest = next;
        } else if let Some(next) = rest.strip_prefix("./") {
            rest = next;
        } else {
            return format!("{base}/{rest}");
        }
    }
}

struct Git<'a> {
    header: Option<String>,
    /// The server that the header is for, and no other.
    origin: String,
    reporter: &'a Reporter,
}

impl Git<'_> {
    /// Whether this machine has a git program.
    async fn is_there(&self) -> bool {
        let asked = Command::new("git").arg("--version").stdin(Stdio::null()).output().await;
        asked.is_ok_and(|asked| asked.status.success())
    }

    /// Asks a server over HTTP; `None` for one that speaks in other ways.
    async fn server<'s>(&self, images: &'s Store, url: &str) -> Result<Option<git::Remote<'s>>> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Ok(None);
        }
        let own = self.header.as_deref().filter(|_| origin(url) == self.origin);
        let header = own.and_then(|header| header.split_once(": ")).map(|(_, value)| value.to_owned());
        match git::Remote::open(images, url, header).await {
            Ok(server) => Ok(Some(server)),
            Err(git::Failure::Other) => Ok(None),
            Err(git::Failure::Error(error)) => Err(error),
        }
    }

    /// Fetches a commit and the repositories in it.
    #[allow(clippy::too_many_arguments, reason = "what a checkout is of, and where it goes")]
    async fn fetch(
        &self,
        images: &Store,
        server: git::Remote<'_>,
        remote: &Remote,
        commit: &str,
        into: &Path,
        keep: bool,
        with_linked: bool,
    ) -> Result<()> {
        let id = git::Id::parse(commit).ok_or_else(|| Error::invalid(format!("invalid commit {commit}")))?;
        let linked = self.fetch_one(images, &server, &remote.url, id, into, keep).await?;
        let (mut left, mut count) = (Vec::new(), 0);
        let mut enter = |parent: &str,
                         place: &Path,
                         linked: Vec<git::Linked>,
                         depth: usize,
                         left: &mut Vec<_>| {
            let modules = place.join(".gitmodules");
            let is_file = std::fs::symlink_metadata(&modules).is_ok_and(|found| found.is_file());
            let text =
                if is_file { std::fs::read_to_string(&modules).unwrap_or_default() } else { String::new() };
            let modules = git::modules(&text);
            for (path, id) in linked {
                let Some((_, url)) = modules.iter().find(|(known, _)| *known == path) else { continue };
                count += 1;
                if depth > DEEPEST || count > MOST_LINKED {
                    return Err(Error::failed("git: the repository has too many others in it"));
                }
                left.push((linked_url(parent, url), place.join(&path), id, depth));
            }
            Ok(())
        };
        if with_linked {
            enter(&remote.url, into, linked, 1, &mut left)?;
        }
        while let Some((url, place, id, depth)) = left.pop() {
            let Some(server) = self.server(images, &url).await? else {
                return Err(Error::failed(format!("git: the submodule at {url} can't be fetched by HTTP")));
            };
            let linked = self.fetch_one(images, &server, &url, id, &place, false).await?;
            enter(&url, &place, linked, depth + 1, &mut left)?;
        }
        Ok(())
    }

    async fn fetch_one(
        &self,
        images: &Store,
        server: &git::Remote<'_>,
        url: &str,
        id: git::Id,
        into: &Path,
        keep: bool,
    ) -> Result<Vec<git::Linked>> {
        let spool = images.scratch()?;
        let pack = spool.path().join("pack");
        let told = AtomicU64::new(0);
        server
            .fetch(id, &pack, |bytes| {
                if bytes - told.load(Ordering::Relaxed) > 1 << 20 {
                    told.store(bytes, Ordering::Relaxed);
                    self.reporter.status("fetching", bytes, 0, false);
                }
            })
            .await?;
        let (into, url) = (into.to_owned(), url.to_owned());
        blocking(move || {
            let mut opened = git::Pack::open(&pack)?;
            let kept = keep.then(|| git::Kept { pack: &pack, url: &url });
            let linked = git::check_out(&mut opened, id, &into, kept.as_ref())?;
            drop(spool);
            Ok(linked)
        })
        .await
    }

    /// Finds a branch or tag whose commit begins in a way.
    async fn beginning_with(
        &self,
        remote: &Remote,
        server: Option<&git::Remote<'_>>,
        beginning: &str,
    ) -> Result<String> {
        let commits: Vec<String> = match server {
            Some(server) => {
                server.refs(&[]).await?.into_iter().map(|found| found.commit.to_string()).collect()
            }
            None => {
                let all = self.run(Path::new("/"), &["ls-remote", "--", &remote.url]).await?;
                all.lines().filter_map(|line| Some(line.split_once('\t')?.0.to_owned())).collect()
            }
        };
        let beginning = beginning.to_lowercase();
        let found = commits.into_iter().find(|commit| commit.starts_with(&beginning));
        found.ok_or_else(|| {
            Error::not_found(format!("repository does not contain a branch or tag at commit {beginning}"))
        })
    }

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
        let key = format!("http.{}/.extraHeader", self.origin);
        settings.extend(self.header.as_deref().map(|header| (key.as_str(), header)));
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

    async fn check_out(&self, remote: &Remote, commit: &str, into: &Path, with_linked: bool) -> Result<()> {
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
        if with_linked && into.join(".gitmodules").is_file() {
            self.run(into, &["remote", "add", "origin", &remote.url]).await?;
            self.run(into, &["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_in_others_have_addresses_of_their_own() {
        assert_eq!(linked_url("https://h/a/b.git", "../c.git"), "https://h/a/c.git");
        assert_eq!(linked_url("https://h/a/b.git/", "../../c/d"), "https://h/c/d");
        assert_eq!(linked_url("https://h/a", "https://i/b"), "https://i/b");
        assert_eq!(origin("https://u:p@h:1/a/b"), "https://h:1");
    }

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
