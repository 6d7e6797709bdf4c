//! Git repositories by URL: `https://host/repo.git#ref:dir`, `git@host:repo.git`, `…?ref=…&subdir=…`.

use std::collections::BTreeMap;

use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::instruction::boolean;
use crate::graph::pb;

/// A place in a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitRef {
    /// Where to fetch it from.
    pub remote: String,
    /// Branch, tag or commit; empty: what HEAD is.
    pub reference: String,
    /// A directory of it.
    pub subdirectory: String,
    /// What the commit's hash begins with.
    pub checksum: String,
    /// Whether `.git` is kept.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: Option<bool>,
    /// `github.com/a/b` could be a directory.
    pub may_be_local: bool,
}

impl GitRef {
    /// Reads a reference; nothing when it is none.
    ///
    /// # Errors
    /// One with options that there aren't.
    pub fn parse(text: &str) -> Result<Option<GitRef>> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let (url, may_be_local) = match text.starts_with("github.com/") {
            true => (format!("https://{text}"), true),
            false => (text.to_owned(), false),
        };
        let (address, fragment) = match url.split_once('#') {
            Some((address, fragment)) => (address, fragment),
            None => (url.as_str(), ""),
        };
        let (remote, query) = match address.split_once('?') {
            Some((remote, query)) => (remote, query),
            None => (address, ""),
        };
        let wanted = match remote.split_once("://") {
            Some(("http" | "https", rest)) => {
                let path = rest.split_once('/').map_or("", |(_, path)| path);
                may_be_local || path.ends_with(".git")
            }
            Some(("ssh" | "git", rest)) => !rest.is_empty(),
            Some(_) => false,
            None => is_scp(remote),
        };
        if !wanted {
            return Ok(None);
        }
        let mut git = GitRef { remote: remote.to_owned(), may_be_local, ..GitRef::default() };
        if !query.is_empty() {
            git.options(query)?;
        }
        if !fragment.is_empty() {
            let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
            if !git.reference.is_empty() && !reference.is_empty() && git.reference != reference {
                return Err(Fault::new("ref conflicts with the fragment of the git URL"));
            }
            if !reference.is_empty() {
                git.reference = reference.to_owned();
            }
            if !directory.is_empty() {
                git.subdirectory = directory.to_owned();
            }
        }
        Ok(Some(git))
    }

    fn options(&mut self, query: &str) -> Result<()> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            let switch = || match value.as_str() {
                "" => Ok(Some(true)),
                text => boolean(text)
                    .map(Some)
                    .ok_or_else(|| Fault::new(format!("invalid {key} value: {text:?}"))),
            };
            match key {
                "ref" | "tag" | "branch" if !self.reference.is_empty() => {
                    return Err(Fault::new("ref, tag and branch of a git URL exclude each other"));
                }
                "ref" => self.reference = value,
                "tag" => self.reference = format!("refs/tags/{value}"),
                "branch" => self.reference = format!("refs/heads/{value}"),
                "subdir" => self.subdirectory = value,
                "checksum" | "commit" => self.checksum = value,
                "keep-git-dir" => self.keep_git_dir = switch()?,
                "submodules" => self.submodules = switch()?,
                _ => return Err(Fault::new(format!("unexpected query {key:?}"))),
            }
        }
        Ok(())
    }

    /// Makes the source of it.
    pub fn source(&self) -> pb::SourceOp {
        let place = match self.remote.split_once("://") {
            Some((_, rest)) => rest.rsplit_once('@').map_or(rest, |(_, host)| host).to_owned(),
            None => {
                let host = self.remote.rsplit_once('@').map_or(self.remote.as_str(), |(_, host)| host);
                host.replacen(':', "/", 1)
            }
        };
        let mut identifier = format!("git://{place}");
        if !self.reference.is_empty() || !self.subdirectory.is_empty() {
            identifier.push('#');
            identifier.push_str(&self.reference);
        }
        if !self.subdirectory.is_empty() {
            identifier.push(':');
            identifier.push_str(&self.subdirectory);
        }
        let mut attrs = BTreeMap::from([
            ("git.fullurl".to_owned(), self.remote.clone()),
            ("git.authtokensecret".to_owned(), "GIT_AUTH_TOKEN".to_owned()),
            ("git.authheadersecret".to_owned(), "GIT_AUTH_HEADER".to_owned()),
        ]);
        if self.keep_git_dir == Some(true) {
            attrs.insert("git.keepgitdir".to_owned(), "true".to_owned());
        }
        if self.submodules == Some(false) {
            attrs.insert("git.skipsubmodules".to_owned(), "true".to_owned());
        }
        if !self.checksum.is_empty() {
            attrs.insert("git.checksum".to_owned(), self.checksum.clone());
        }
        if self.remote.starts_with("ssh://") || !self.remote.contains("://") {
            attrs.insert("git.mountsshsock".to_owned(), "default".to_owned());
        }
        pb::SourceOp { identifier, attrs }
    }
}

/// `user@host:path`, and no drive or image name.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    word(user) && word(host) && !path.is_empty()
        // `name@sha256:…` is an image.
        && !(host == "sha256" || host == "sha512")
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_other_sources() {
        for (text, expected) in [
            ("https://github.com/a/b.git", Some(("https://github.com/a/b.git", "", ""))),
            ("https://github.com/a/b.git#v1:dir", Some(("https://github.com/a/b.git", "v1", "dir"))),
            ("https://github.com/a/b.git#:dir", Some(("https://github.com/a/b.git", "", "dir"))),
            ("http://h/a.git#main", Some(("http://h/a.git", "main", ""))),
            ("git://h/a#b", Some(("git://h/a", "b", ""))),
            ("ssh://git@h:22/a", Some(("ssh://git@h:22/a", "", ""))),
            ("git@h:a/b.git#c", Some(("git@h:a/b.git", "c", ""))),
            ("github.com/a/b", Some(("https://github.com/a/b", "", ""))),
            ("https://h/a.git?branch=x&subdir=d%2Fe", Some(("https://h/a.git", "refs/heads/x", "d/e"))),
            ("https://github.com/a/b", None),
            ("https://h/a.tar.gz", None),
            ("./github.com/a", None),
            ("a/b", None),
            ("docker-image://a@sha256:0", None),
            ("a@sha256:00", None),
            (".", None),
        ] {
            let found = GitRef::parse(text).unwrap();
            let found =
                found.as_ref().map(|g| (g.remote.as_str(), g.reference.as_str(), g.subdirectory.as_str()));
            assert_eq!(found, expected, "{text}");
        }
        assert!(GitRef::parse("https://h/a.git?x=y").is_err());
        assert!(GitRef::parse("https://h/a.git?ref=a&tag=b").is_err());
        assert!(GitRef::parse("github.com/a/b").unwrap().unwrap().may_be_local);
    }

    #[test]
    fn a_source_has_the_full_address_in_its_attributes() {
        let source = GitRef::parse("git@h:a/b.git?keep-git-dir=1&commit=abc#c").unwrap().unwrap().source();
        assert_eq!(source.identifier, "git://h/a/b.git#c");
        assert_eq!(source.attrs["git.fullurl"], "git@h:a/b.git");
        assert_eq!(source.attrs["git.keepgitdir"], "true");
        assert_eq!(source.attrs["git.checksum"], "abc");
        assert_eq!(source.attrs["git.mountsshsock"], "default");
    }
}
