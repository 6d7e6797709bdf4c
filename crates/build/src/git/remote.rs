//! A repository at a server.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skiff_images::{Reply, Store};
use tokio::io::AsyncWriteExt as _;

use super::Id;
use super::wire::{self, Line};
use crate::error::{Error, Result};

/// The largest pack, in bytes.
const LARGEST: u64 = 32 << 30;
/// How many names a repository may have.
const MOST_REFS: usize = 1 << 20;

/// Why a repository can't be asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server has plain files, or speaks the protocol's first version.
    Other,
    /// Anything else.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

/// A name at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ref {
    /// Its whole form, `refs/heads/main`.
    pub name: String,
    /// The commit.
    pub commit: Id,
}

/// See the module's text.
pub(crate) struct Remote<'a> {
    store: &'a Store,
    /// The address in front of `/info/refs`, after redirects.
    url: String,
    authorization: Option<String>,
}

impl<'a> Remote<'a> {
    /// Asks a server what it can do. `authorization` is a header's value.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn open(
        store: &'a Store,
        url: &str,
        authorization: Option<String>,
    ) -> std::result::Result<Remote<'a>, Failure> {
        let (url, own) = without_user(url);
        let mut remote = Remote { store, url, authorization: own.or(authorization) };
        let address = format!("{}/info/refs?service=git-upload-pack", remote.url.trim_end_matches('/'));
        let mut reply = remote.ask(&address, None).await?;
        // Some servers name the service before the version. Whatever is not in this protocol is a file, or the first version.
        let mut lines = 0;
        loop {
            lines += 1;
            match wire::read(&mut reply.body).await {
                Ok(Some(line)) if line.text() == "version 2" => break,
                Ok(Some(Line::Flush)) if lines < 4 => {}
                Ok(Some(line)) if lines < 4 && line.text() == "# service=git-upload-pack" => {}
                _ => return Err(Failure::Other),
            }
        }
        if let Some((before, _)) = reply.url.split_once("/info/refs") {
            before.clone_into(&mut remote.url);
        }
        Ok(remote)
    }

    /// Lists names that begin in one of the given ways, each with the commit that it stands for in the end.
    ///
    /// # Errors
    /// A server that answers something else.
    pub async fn refs(&self, prefixes: &[String]) -> Result<Vec<Ref>> {
        let mut lines = vec![Some("command=ls-refs".to_owned()), None, Some("peel".to_owned())];
        lines.extend(prefixes.iter().map(|prefix| Some(format!("ref-prefix {prefix}"))));
        let mut reply = self.command(&lines).await?;
        let mut refs = Vec::new();
        while let Some(line @ Line::Data(_)) = wire::read(&mut reply.body).await? {
            let text = line.text();
            let mut words = text.split(' ');
            let (Some(id), Some(name)) = (words.next().and_then(Id::parse), words.next()) else { continue };
            let peeled = words.find_map(|word| word.strip_prefix("peeled:")).and_then(Id::parse);
            refs.push(Ref { name: name.to_owned(), commit: peeled.unwrap_or(id) });
            if refs.len() > MOST_REFS {
                return Err(Error::failed("git: the repository has too many names"));
            }
        }
        Ok(refs)
    }

    /// Finds the commit that a name stands for; branches come before tags.
    ///
    /// # Errors
    /// A name that is not there, in BuildKit's words.
    pub async fn find(&self, name: &str) -> Result<Id> {
        let name = if name.is_empty() { "HEAD" } else { name };
        let wanted = match name.starts_with("refs/") || name == "HEAD" {
            true => vec![name.to_owned()],
            false => vec![
                format!("refs/heads/{name}"),
                format!("refs/tags/{name}"),
                format!("refs/{name}"),
                name.to_owned(),
            ],
        };
        let refs = self.refs(&wanted).await?;
        let found = wanted.iter().find_map(|wanted| refs.iter().find(|one| one.name == *wanted));
        let missing = || Error::not_found(format!("repository does not contain ref {name}"));
        found.map(|one| one.commit).ok_or_else(missing)
    }

    /// Fetches a commit with all its files, and without its past, as a pack in a file. `on_bytes` is told how far it is.
    ///
    /// # Errors
    /// What the server says against it; a pack past all bounds.
    pub async fn fetch(&self, commit: Id, into: &Path, on_bytes: impl Fn(u64) + Send + Sync) -> Result<()> {
        let line = |text: &str| Some(text.to_owned());
        let lines = [
            line("command=fetch"),
            None,
            line("no-progress"),
            line("ofs-delta"),
            line("deepen 1"),
            Some(format!("want {commit}")),
            line("done"),
        ];
        let mut reply = self.command(&lines).await?;
        let failed = |error: std::io::Error| Error::io("write", into, error);
        let mut file = tokio::fs::File::create(into).await.map_err(failed)?;
        let (mut packed, mut size) = (false, 0u64);
        loop {
            match wire::read(&mut reply.body).await? {
                None => return Err(Error::unavailable("git: the answer breaks off")),
                Some(Line::Flush) if packed => break,
                Some(Line::Flush | Line::Delimiter) => {}
                Some(data) if data.text() == "packfile" => packed = true,
                Some(Line::Data(data)) if !packed => {
                    if let Some(why) = data.strip_prefix(b"ERR ") {
                        return Err(refused(why));
                    }
                }
                Some(Line::Data(data)) => match data.split_first() {
                    Some((1, bytes)) => {
                        size += bytes.len() as u64;
                        if size > LARGEST {
                            return Err(Error::failed("git: the repository is too large"));
                        }
                        file.write_all(bytes).await.map_err(failed)?;
                        on_bytes(size);
                    }
                    Some((3, why)) => return Err(refused(why)),
                    _ => {}
                },
            }
        }
        file.flush().await.map_err(failed)
    }

    async fn command(&self, lines: &[Option<String>]) -> Result<Reply> {
        let address = format!("{}/git-upload-pack", self.url);
        self.ask(&address, Some(wire::message(lines))).await
    }

    async fn ask(&self, address: &str, body: Option<Vec<u8>>) -> Result<Reply> {
        let mut headers = vec![("git-protocol", "version=2".to_owned())];
        if body.is_some() {
            headers.push(("content-type", "application/x-git-upload-pack-request".to_owned()));
            headers.push(("accept", "application/x-git-upload-pack-result".to_owned()));
        }
        if let Some(value) = &self.authorization {
            headers.push(("authorization", value.clone()));
        }
        let reply = self.store.ask(address, &headers, body).await;
        let reply = reply
            .map_err(|error| Error::unavailable(format!("failed to fetch remote {}: {error}", self.url)))?;
        let why = match reply.status {
            200 => return Ok(reply),
            401 | 403 => "the server wants other credentials".to_owned(),
            404 => "repository not found".to_owned(),
            status => format!("the server answers with status {status}"),
        };
        Err(Error::failed(format!("failed to fetch remote {}: {why}", self.url)))
    }
}

fn refused(why: &[u8]) -> Error {
    Error::failed(format!("failed to fetch remote: git: {}", String::from_utf8_lossy(why).trim()))
}

/// Takes the user out of an address, as a header's value.
fn without_user(url: &str) -> (String, Option<String>) {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = host.rsplit_once('@')?;
        Some((format!("{scheme}://{host}/{path}"), user))
    });
    match parts {
        None => (url.to_owned(), None),
        Some((url, user)) => {
            let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
            (url, Some(format!("Basic {}", STANDARD.encode(user))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_an_address_is_a_header() {
        assert_eq!(without_user("https://h/a.git"), ("https://h/a.git".to_owned(), None));
        let (url, header) = without_user("https://me:pw@h:1/a.git");
        assert_eq!((url.as_str(), header.as_deref()), ("https://h:1/a.git", Some("Basic bWU6cHc=")));
    }
}
