//! Image references with Docker's rules: `[host[:port]/]path[:tag][@digest]`, short names meaning Docker Hub.
//!
//! The grammar is that of <https://github.com/distribution/reference>, and so are the error texts.

use std::fmt;

use crate::digest::{Digest, DigestError};

/// The registry that names without a host mean.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;

/// Why a text is no reference, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text does not follow the grammar.
    #[error("invalid reference format")]
    InvalidFormat,
    /// The repository name has capitals.
    #[error("invalid reference format: repository name ({name}) must be lowercase")]
    Uppercase {
        /// The name without its tag.
        name: String,
    },
    /// The repository name is too long.
    #[error("repository name must not be more than {MAX_PATH} characters")]
    TooLong,
    /// The name would look like an image id.
    #[error("invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId {
        /// The name.
        name: String,
    },
    /// What follows `@` is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// A complete reference: host and path are always there, tag and digest as given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What a user may mean when naming an image: an id, or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A complete image id.
    Id(Digest),
    /// A name, with tag or digest or neither.
    Name(Reference),
}

impl Reference {
    /// Parses a reference as users write it, without adding a tag.
    ///
    /// # Errors
    /// [`ParseError`] with Docker's text.
    pub fn parse(text: &str) -> Result<Reference, ParseError> {
        if is_hex_id(text) {
            return Err(ParseError::LooksLikeId { name: text.to_owned() });
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(ParseError::Uppercase { name: remote.to_owned() });
        }
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_domain(&domain) || !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(ParseError::InvalidFormat);
        }
        if path.len() > MAX_PATH {
            return Err(ParseError::TooLong);
        }
        let digest = match digest {
            // Something that is not even shaped like a digest is a wrong reference; the digest rules come after.
            Some(text) if !is_digest_shaped(text) => return Err(ParseError::InvalidFormat),
            Some(text) => Some(text.parse::<Digest>()?),
            None => None,
        };
        Ok(Reference { domain, path: path.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// Returns the registry's host, with its port if one is given.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the repository's path inside the registry, such as `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the tag, if one is given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if one is given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the complete repository name, `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Returns the repository name as Docker shows it, `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Returns the reference as Docker shows it, `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// Adds `:latest` where neither tag nor digest is given.
    #[must_use]
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// Returns the same repository at a digest.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns the same repository at another tag.
    ///
    /// # Errors
    /// [`ParseError::InvalidFormat`] when `tag` is no tag.
    pub fn at_tag(&self, tag: &str) -> Result<Reference, ParseError> {
        if !is_tag(tag) {
            return Err(ParseError::InvalidFormat);
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Drops the tag where a digest is given as well: the digest decides, as in Docker.
    #[must_use]
    pub(crate) fn prefer_digest(mut self) -> Reference {
        if self.digest.is_some() {
            self.tag = None;
        }
        self
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    /// Writes the complete form, `docker.io/library/busybox:latest`, which parses back to the same reference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl Target {
    /// Parses what a user gives to name an image that exists here.
    ///
    /// # Errors
    /// [`ParseError`] with Docker's text.
    pub fn parse(text: &str) -> Result<Target, ParseError> {
        if is_hex_id(text) {
            // Sixty-four lower-case hexadecimal digits always make a digest.
            return Ok(Target::Id(format!("sha256:{text}").parse()?));
        }
        match text.parse::<Digest>() {
            Ok(digest) => Ok(Target::Id(digest)),
            Err(_) => Reference::parse(text).map(Target::Name),
        }
    }

    /// Returns the form that error messages show.
    pub fn familiar(&self) -> String {
        match self {
            Target::Id(digest) => digest.to_string(),
            Target::Name(reference) => reference.clone().or_latest().familiar(),
        }
    }
}

fn split_domain(text: &str) -> (String, String) {
    let (domain, remainder) = match text.split_once('/') {
        None => (DEFAULT_DOMAIN, text),
        Some(("localhost", rest)) => ("localhost", rest),
        Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) if first.contains(['.', ':']) || first.chars().any(char::is_uppercase) => {
            (first, rest)
        }
        Some(_) => (DEFAULT_DOMAIN, text),
    };
    let remainder = if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        format!("{OFFICIAL_PREFIX}{remainder}")
    } else {
        remainder.to_owned()
    };
    (domain.to_owned(), remainder)
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, after)) => {
                let v6 = !host.is_empty() && host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                let port = match after {
                    "" => None,
                    _ => after.strip_prefix(':').or(Some("")),
                };
                return v6 && port.is_none_or(is_port);
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let component = |c: &str| {
        !c.is_empty()
            && !c.starts_with('-')
            && !c.ends_with('-')
            && c.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(component) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Checks `alphanumeric (separator alphanumeric)*` with `.`, `_`, `__` or any number of `-` as separators.
fn is_path_component(text: &str) -> bool {
    let mut bytes = text.as_bytes();
    loop {
        let word = bytes.iter().take_while(|b| b.is_ascii_digit() || b.is_ascii_lowercase()).count();
        if word == 0 {
            return false;
        }
        bytes = &bytes[word..];
        let separator = match bytes {
            [] => return true,
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            _ => bytes.iter().take_while(|b| **b == b'-').count(),
        };
        if separator == 0 {
            return false;
        }
        bytes = &bytes[separator..];
    }
}

fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_digest_shaped(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        algorithm.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'.'))
            && digits.len() >= 32
            && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(text: &str) -> String {
        Reference::parse(text).unwrap().or_latest().to_string()
    }

    #[test]
    fn short_names_mean_docker_hub() {
        assert_eq!(complete("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(complete("busybox:1.36"), "docker.io/library/busybox:1.36");
        assert_eq!(complete("skiff/toolbox"), "docker.io/skiff/toolbox:latest");
        assert_eq!(complete("docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(complete("index.docker.io/library/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(complete("localhost/x"), "localhost/x:latest");
        assert_eq!(complete("localhost:5000/x/y:z"), "localhost:5000/x/y:z");
        assert_eq!(complete("[::1]:5000/x"), "[::1]:5000/x:latest");
        assert_eq!(complete("ghcr.io/a/b/c"), "ghcr.io/a/b/c:latest");
        assert_eq!(complete("Foo/bar"), "Foo/bar:latest");
    }

    #[test]
    fn familiar_names_are_the_short_ones() {
        for name in ["busybox:latest", "skiff/toolbox:1", "localhost:5000/x:y", "ghcr.io/a/b:c"] {
            assert_eq!(Reference::parse(name).unwrap().familiar(), name);
        }
        assert_eq!(Reference::parse("docker.io/library/a").unwrap().familiar(), "a");
        assert_eq!(Reference::parse("docker.io/library/a/b").unwrap().familiar(), "library/a/b");
    }

    #[test]
    fn wrong_names_fail_with_the_words_of_docker() {
        let text = |name: &str| Reference::parse(name).unwrap_err().to_string();
        for name in [
            "", ":", "a:", "a b", "a//b", "/a", "a/", "a..b", "-a", "a_", "a:b:c", "a@b", "a:-x", "é",
            "a.b_c/x",
        ] {
            assert_eq!(text(name), "invalid reference format", "{name:?}");
        }
        assert_eq!(
            text("Busybox"),
            "invalid reference format: repository name (library/Busybox) must be lowercase"
        );
        assert_eq!(text("a/B:x"), "invalid reference format: repository name (a/B) must be lowercase");
        assert_eq!(
            text(&"a".repeat(64)),
            format!(
                "invalid repository name ({}), cannot specify 64-byte hexadecimal strings",
                "a".repeat(64)
            )
        );
        assert_eq!(text(&"x".repeat(256)), "repository name must not be more than 255 characters");
        assert_eq!(text(&format!("a@sha256:{}", "0".repeat(40))), "invalid checksum digest length");
        assert_eq!(text(&format!("a@sha512:{}", "0".repeat(128))), "unsupported digest algorithm");
    }

    #[test]
    fn ids_are_told_from_names() {
        let digits = "0123456789abcdef".repeat(4);
        assert!(matches!(Target::parse(&digits), Ok(Target::Id(_))));
        assert!(matches!(Target::parse(&format!("sha256:{digits}")), Ok(Target::Id(_))));
        assert!(matches!(Target::parse("sha256:0123"), Ok(Target::Name(_))));
        let pinned = format!("busybox:1@sha256:{digits}");
        let Ok(Target::Name(name)) = Target::parse(&pinned) else { panic!("not a name") };
        assert_eq!((name.tag(), name.digest().map(Digest::hex)), (Some("1"), Some(digits.as_str())));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,80}") {
            let _ = Target::parse(&text);
        }

        #[test]
        fn what_parses_is_its_own_complete_form(
            text in "(([a-zA-Z0-9-]{1,5}[.:]?){1,3}/)?[a-z0-9]{1,4}([._/-]{1,2}[a-z0-9]{1,4}){0,3}(:[a-z0-9_.-]{1,6})?"
        ) {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference.clone()));
                prop_assert_eq!(Reference::parse(&reference.familiar()), Ok(reference));
            }
        }
    }
}
