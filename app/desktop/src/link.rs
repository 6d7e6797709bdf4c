//! Deep links: `skiff://container/NAME` shows a container.

use std::str::FromStr;

use crate::Error;

/// Longest name that is taken from a link, in bytes.
const LONGEST: usize = 255;

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The window, wherever it is.
    Window,
    /// A view of the interface.
    View(String),
    /// A container by name or id.
    Container(String),
}

/// Views that a link may name.
const VIEWS: [&str; 7] = ["overview", "containers", "images", "volumes", "networks", "events", "machine"];

impl Link {
    /// Where that is in the page, as the part of its address after the hash. Holds no character that would need an escape.
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Window => None,
            Self::View(name) => Some(format!("/{name}")),
            Self::Container(name) => Some(format!("/containers/{name}")),
        }
    }
}

impl FromStr for Link {
    type Err = Error;

    /// Links come from web pages: only what we make ourselves is one.
    fn from_str(link: &str) -> Result<Self, Error> {
        let wrong = || Error::Link { link: link.chars().take(80).collect() };
        let rest = link.strip_prefix("skiff://").ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut parts = rest.split('/');
        let found = match (parts.next().unwrap_or_default(), parts.next()) {
            ("", None) => Self::Window,
            ("container", Some(name)) if is_name(name) => Self::Container(name.to_owned()),
            (view, None) if VIEWS.contains(&view) => Self::View(view.to_owned()),
            _ => return Err(wrong()),
        };
        if parts.next().is_some() { Err(wrong()) } else { Ok(found) }
    }
}

/// Whether this can be a container's name or id.
fn is_name(name: &str) -> bool {
    name.len() <= LONGEST
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_to_containers_views_and_the_window_are_understood() {
        let place = |link: &str| link.parse::<Link>().unwrap().place();
        assert_eq!(place("skiff://container/web").unwrap(), "/containers/web");
        assert_eq!(place("skiff://container/shop-db_1.x/").unwrap(), "/containers/shop-db_1.x");
        assert_eq!(place("skiff://images").unwrap(), "/images");
        assert_eq!(place("skiff://"), None);
    }

    #[test]
    fn what_is_no_link_of_ours_is_refused() {
        for bad in [
            "http://container/web",
            "skiff:container/web",
            "skiff://container",
            "skiff://container/",
            "skiff://container/../x",
            "skiff://container/a/b",
            "skiff://container/a%20b",
            "skiff://container/-x",
            "skiff://container/a'b",
            "skiff://images/x",
            "skiff://elsewhere",
            "--hidden",
        ] {
            assert!(bad.parse::<Link>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_place_never_leaves_the_hash_of_the_address(link in "skiff://(container/)?.{0,40}") {
            if let Ok(link) = link.parse::<Link>() {
                let place = link.place().unwrap_or_default();
                prop_assert!(place.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-".contains(&b)), "{place}");
            }
        }
    }
}
