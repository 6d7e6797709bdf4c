//! What a build was made from that others can have too: what its provenance names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use skiff_images::Reference;

/// More than any build has.
const MOST: usize = 1000;

/// Something that a build used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// Its address: `pkg:docker/busybox@1?platform=linux%2Famd64`, `https://…`.
    pub uri: String,
    /// Its digest with the algorithm: `sha256:…`, `sha1:…` for a commit.
    pub digest: String,
}

/// The materials of a job, in the order of their addresses.
#[derive(Debug, Default)]
pub(super) struct Materials(Mutex<BTreeMap<String, String>>);

impl Materials {
    pub fn add(&self, uri: String, digest: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST {
            all.insert(uri, digest);
        }
    }

    pub fn all(&self) -> Vec<Material> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(uri, digest)| Material { uri: uri.clone(), digest: digest.clone() }).collect()
    }
}

/// The package address of an image, as BuildKit forms it.
pub(super) fn package(name: &str, platform: Option<&str>) -> Option<String> {
    let reference = Reference::parse(name).ok()?;
    let familiar = reference.familiar();
    let bare = familiar.split('@').next().unwrap_or(&familiar);
    let bare = match reference.tag() {
        Some(tag) => bare.strip_suffix(&format!(":{tag}")).unwrap_or(bare),
        None => bare,
    };
    let digest = reference.digest().map(ToString::to_string);
    let version = match (reference.tag(), &digest) {
        (Some(tag), _) => tag.to_owned(),
        (None, Some(digest)) => digest.replace(':', "%3A"),
        (None, None) => "latest".to_owned(),
    };
    let mut uri = format!("pkg:docker/{bare}@{version}");
    let mut sign = '?';
    if let (Some(_), Some(digest)) = (reference.tag(), &digest) {
        let _ = write!(uri, "{sign}digest={}", digest.replace(':', "%3A"));
        sign = '&';
    }
    if let Some(platform) = platform {
        let _ = write!(uri, "{sign}platform={}", platform.replace('/', "%2F"));
    }
    Some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_addresses() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let package = |name: &str| package(name, Some("linux/amd64")).unwrap();
        assert_eq!(package("busybox"), "pkg:docker/busybox@latest?platform=linux%2Famd64");
        assert_eq!(package("h:5/a/b:1"), "pkg:docker/h:5/a/b@1?platform=linux%2Famd64");
        let pinned = digest.replace(':', "%3A");
        assert_eq!(package(&format!("a@{digest}")), format!("pkg:docker/a@{pinned}?platform=linux%2Famd64"));
        assert_eq!(
            package(&format!("a:1@{digest}")),
            format!("pkg:docker/a@1?digest={pinned}&platform=linux%2Famd64")
        );
    }
}
