//! `NO_PROXY`: who is reached without a proxy.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::split_port;

/// The servers that are reached directly.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bypass {
    everybody: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    who: Who,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Who {
    Net(IpNet),
    Address(IpAddr),
    /// The names below a domain (with the dot), and the domain itself if it was written without one.
    Domain {
        suffix: String,
        itself: bool,
    },
}

impl Bypass {
    /// Reads a list with commas; what is not understood is passed over.
    pub fn parse(text: &str) -> Self {
        let words = || text.split(',').map(str::trim).filter(|word| !word.is_empty());
        Self { everybody: words().any(|word| word == "*"), rules: words().filter_map(Rule::parse).collect() }
    }

    /// Whether a server, by name or address, is reached directly; this host itself always is.
    pub fn has(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        if self.everybody || host == "localhost" || ip.is_some_and(|ip| ip.to_canonical().is_loopback()) {
            return true;
        }
        self.rules.iter().any(|rule| rule.port.is_none_or(|only| only == port) && rule.who.is(&host, ip))
    }
}

impl Rule {
    fn parse(word: &str) -> Option<Self> {
        if let Ok(net) = word.parse() {
            return Some(Self { who: Who::Net(net), port: None });
        }
        let (host, port) = split_port(word)?;
        if let Ok(ip) = host.parse() {
            return Some(Self { who: Who::Address(ip), port });
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let name = name.strip_prefix('*').unwrap_or(&name);
        let (suffix, itself) = match name.strip_prefix('.') {
            Some("") => return None,
            Some(_) => (name.to_owned(), false),
            None => (format!(".{name}"), true),
        };
        Some(Self { who: Who::Domain { suffix, itself }, port })
    }
}

impl Who {
    fn is(&self, host: &str, ip: Option<IpAddr>) -> bool {
        match self {
            Self::Net(net) => ip.is_some_and(|ip| net.contains(&ip)),
            Self::Address(own) => ip == Some(*own),
            Self::Domain { suffix, itself } => host.ends_with(suffix) || (*itself && host == &suffix[1..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_nets_and_ports_are_told_apart() {
        let list = Bypass::parse(
            "example.org, .inner.test,*.star.test,10.0.0.0/8,192.0.2.7,port.test:5000,[fd00::1]:80",
        );
        for (host, port, expected) in [
            ("example.org", 443, true),
            ("EXAMPLE.org.", 443, true),
            ("sub.example.org", 443, true),
            ("notexample.org", 443, false),
            ("inner.test", 80, false),
            ("a.inner.test", 80, true),
            ("star.test", 80, false),
            ("a.star.test", 80, true),
            ("10.1.2.3", 80, true),
            ("11.1.2.3", 80, false),
            ("192.0.2.7", 80, true),
            ("port.test", 5000, true),
            ("port.test", 443, false),
            ("fd00::1", 80, true),
            ("fd00::1", 81, false),
            ("localhost", 1, true),
            ("127.9.9.9", 1, true),
            ("::1", 1, true),
        ] {
            assert_eq!(list.has(host, port), expected, "{host}:{port}");
        }
        assert!(Bypass::parse("a, *").has("anything.test", 1));
        assert!(!Bypass::parse(" ,, ").has("anything.test", 1));
    }
}
