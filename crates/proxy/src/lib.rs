//! HTTP proxies, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name them.
//!
//! The rules are those of Go's programs, dockerd among them: [`Proxies`] finds the proxy for a server, [`Proxy::tunnel`]
//! asks it for a connection (`CONNECT`), whatever is spoken over that afterwards.
#![forbid(unsafe_code)]

mod bypass;
mod tunnel;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use crate::bypass::Bypass;

/// The port of a proxy whose address names none.
const DEFAULT_PORT: u16 = 80;

/// Which proxy to use for whom.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    plain: Option<Proxy>,
    secure: Option<Proxy>,
    bypass: Bypass,
    variables: Variables,
}

/// What the variables say, without what is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    /// `HTTP_PROXY`.
    pub http: String,
    /// `HTTPS_PROXY`.
    pub https: String,
    /// `NO_PROXY`.
    pub no: String,
}

/// One proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it wants to know of us: a secret.
    authorization: Option<String>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Proxies {
    /// Reads the variables of this process.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads variables; names in capitals go before the others.
    ///
    /// A proxy that is not understood is left out with a word in the log.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let find = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            value.filter(|value| !value.is_empty())
        };
        let proxy = |name: &str| {
            let value = find(name)?;
            let proxy = Proxy::parse(&value);
            if proxy.is_none() {
                // The value may hold a password.
                tracing::warn!(
                    name,
                    "proxy is not used: its address is not http://[user:password@]host[:port]"
                );
            }
            proxy
        };
        let shown = |name: &str| mask(find(name).unwrap_or_default());
        let variables =
            Variables { http: shown("HTTP_PROXY"), https: shown("HTTPS_PROXY"), no: shown("NO_PROXY") };
        Self {
            variables,
            plain: proxy("HTTP_PROXY"),
            secure: proxy("HTTPS_PROXY"),
            bypass: Bypass::parse(&find("NO_PROXY").unwrap_or_default()),
        }
    }

    /// What was read, as it may be shown.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// The proxy for a server, with TLS or without; `None` when it is to be reached directly.
    pub fn for_server(&self, tls: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if tls { &self.secure } else { &self.plain };
        proxy.as_ref().filter(|_| !self.bypass.has(host, port))
    }
}

/// Puts in place of credentials what dockerd shows in their place.
fn mask(text: String) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    match text[start..end].rfind('@') {
        Some(at) => format!("{}xxxxx:xxxxx{}", &text[..start], &text[start + at..]),
        None => text,
    }
}

impl Proxy {
    /// Reads `[http://][user[:password]@]host[:port]`.
    fn parse(text: &str) -> Option<Self> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return None,
            None => text,
        };
        let rest = rest.split(['/', '?', '#']).next()?;
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        let (host, port) = split_port(place)?;
        let authorization = credentials.map(|credentials| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let mut plain: Vec<u8> = percent_decode_str(user).collect();
            plain.push(b':');
            plain.extend(percent_decode_str(password));
            STANDARD.encode(plain)
        });
        Some(Self { host: host.to_owned(), port: port.unwrap_or(DEFAULT_PORT), authorization })
    }
}

/// Splits `host[:port]` and takes brackets off; `None` when it makes no sense.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        // More than one colon: an address of IPv6 without brackets has no port.
        None if text.matches(':').count() > 1 => (text, ""),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let fine = |c: char| c.is_ascii_graphic() && c != '@';
    if host.is_empty() || !host.chars().all(fine) {
        return None;
    }
    match rest {
        "" | ":" => Some((host, None)),
        _ => Some((host, Some(rest.strip_prefix(':')?.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Proxies::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn each_scheme_has_its_proxy_and_capitals_go_first() {
        let all = proxies(&[
            ("http_proxy", "http://small:3128"),
            ("HTTP_PROXY", "http://plain:3128/"),
            ("https_proxy", "secure"),
        ]);
        let of =
            |tls| all.for_server(tls, "registry.example", 443).map(|proxy| (proxy.host.as_str(), proxy.port));
        assert_eq!(of(false), Some(("plain", 3128)));
        assert_eq!(of(true), Some(("secure", 80)));
        assert_eq!(proxies(&[("HTTP_PROXY", "")]).for_server(false, "a.example", 80), None);
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let all = proxies(&[("HTTPS_PROXY", "http://ann:open%20sesame@[fd00::1]:8080")]);
        let proxy = all.for_server(true, "registry.example", 443).unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("fd00::1", 8080));
        assert_eq!(proxy.authorization.as_deref(), Some("YW5uOm9wZW4gc2VzYW1l"));
        assert!(!format!("{all:?}").contains("YW5u") && !format!("{all:?}").contains("sesame"));
        assert_eq!(all.variables().https, "http://xxxxx:xxxxx@[fd00::1]:8080");
        let plain = proxies(&[("http_proxy", "ann:b@ox:3128/"), ("no_proxy", "a.example,10.0.0.0/8")]);
        assert_eq!(plain.variables().http, "xxxxx:xxxxx@ox:3128/");
        assert_eq!(plain.variables().no, "a.example,10.0.0.0/8");
        assert_eq!(plain.variables().https, "");
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        for wrong in
            ["socks5://x:1", "http://", "http://a:b:c@", "http://x:port", "http://[::1", "http://a b"]
        {
            assert_eq!(Proxy::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_address_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _ = (mask(text.clone()), Proxy::parse(&text), Bypass::parse(&text).has(&text, 1));
        }
    }
}
