//! Names of repositories, tags and digests, as the specification has them.

use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Refusal, Result};

const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// Checks a repository's name.
pub fn repository(name: &str) -> Result<&str> {
    if name.len() <= MAX_NAME && name.split('/').all(is_part) {
        Ok(name)
    } else {
        Err(Refusal::name_invalid(name))
    }
}

/// `[a-z0-9]+` words with `.`, `_`, `__` or dashes between.
fn is_part(part: &str) -> bool {
    let mut rest = part.as_bytes();
    loop {
        let word = rest.iter().take_while(|b| b.is_ascii_digit() || b.is_ascii_lowercase()).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        let separator = match rest {
            [] => return true,
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            _ => rest.iter().take_while(|b| **b == b'-').count(),
        };
        if separator == 0 {
            return false;
        }
        rest = &rest[separator..];
    }
}

/// What follows `/manifests/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A tag.
    Tag(String),
    /// A digest.
    Digest(Digest),
}

impl Reference {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Reference> {
        if text.contains(':') {
            return Digest::parse(text).map(Reference::Digest);
        }
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if first && rest && text.len() <= MAX_TAG {
            Ok(Reference::Tag(text.to_owned()))
        } else {
            Err(Refusal::tag_invalid(text))
        }
    }
}

/// How a digest is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Begins to compute one.
    pub fn hasher(self) -> Hasher {
        match self {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
}

/// A digest: algorithm and hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The digits, in small letters.
    pub hex: String,
}

impl Digest {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Digest> {
        let invalid = || Refusal::digest_invalid(text);
        let (algorithm, hex) = text.split_once(':').ok_or_else(invalid)?;
        let (algorithm, length) = match algorithm {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return Err(invalid()),
        };
        let digits = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex.len() != length || !digits {
            return Err(invalid());
        }
        Ok(Digest { algorithm, hex: hex.to_owned() })
    }

    /// The name of its link.
    pub fn file(&self) -> String {
        format!("{}-{}", self.algorithm.name(), self.hex)
    }

    /// Computes one.
    pub fn of(algorithm: Algorithm, data: &[u8]) -> Digest {
        let mut hasher = algorithm.hasher();
        hasher.update(data);
        hasher.finish()
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Computes a digest piece by piece.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// Takes a piece.
    pub fn update(&mut self, data: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(data),
            Hasher::Sha512(hasher) => hasher.update(data),
        }
    }

    /// Ends.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => {
                Digest { algorithm: Algorithm::Sha256, hex: hex::encode(hasher.finalize()) }
            }
            Hasher::Sha512(hasher) => {
                Digest { algorithm: Algorithm::Sha512, hex: hex::encode(hasher.finalize()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_the_specifications() {
        for name in ["a", "a/b", "a-b", "a--b", "a_b", "a__b", "a.b/c0", "0"] {
            assert!(repository(name).is_ok(), "{name}");
        }
        for name in [
            "", "A", "a//b", "/a", "a/", "-a", "a-", "a___b", "a..b", "_a", "a/_tags", "a b", "a/../b", "..",
            ".",
        ] {
            assert!(repository(name).is_err(), "{name}");
        }
        assert!(repository(&"a".repeat(256)).is_err());
    }

    #[test]
    fn references_are_tags_or_digests() {
        let hex = "a".repeat(64);
        assert_eq!(Reference::parse("v1.0_x-y").unwrap(), Reference::Tag("v1.0_x-y".into()));
        assert!(matches!(Reference::parse(&format!("sha256:{hex}")).unwrap(), Reference::Digest(_)));
        for text in
            ["", ".a", "-a", "a/b", "sha256:a", "md5:aa", &format!("sha256:{}", hex.to_uppercase()), "é"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        let digest = Digest::of(Algorithm::Sha512, b"x");
        assert_eq!(Digest::parse(&digest.to_string()).unwrap(), digest);
        assert!(digest.file().starts_with("sha512-"));
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_directory(name in "[a-z./_-]{0,20}") {
            if repository(&name).is_ok() {
                prop_assert!(name.split('/').all(|part| !part.starts_with(['.', '_']) && !part.is_empty()));
            }
        }
    }
}
