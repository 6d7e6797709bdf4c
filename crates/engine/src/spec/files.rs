//! The files that Docker makes for every container: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// What a container's `/etc/resolv.conf` says.
#[derive(Debug, Default, Clone, Copy)]
pub struct Dns<'a> {
    /// Its own name servers instead of the inherited.
    pub servers: &'a [String],
    /// Its own search domains; a single `.` means none.
    pub search: &'a [String],
    /// Its own options.
    pub options: &'a [String],
}

/// Makes a `resolv.conf` from the engine's own and what the container wants (resolv.conf(5)).
///
/// Name servers on the engine's loopback can't be reached from another network namespace: they are left out unless
/// `own_network` is false; if none is left, `fallback` is used.
pub fn resolv_conf(inherited: &str, dns: &Dns<'_>, own_network: bool, fallback: &[IpAddr]) -> String {
    let field = |key: &str| -> Vec<Vec<String>> {
        inherited
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some(key)).then(|| words.map(str::to_owned).collect())
            })
            .collect()
    };
    let mut servers: Vec<String> = dns.servers.to_vec();
    if servers.is_empty() {
        servers = field("nameserver").into_iter().filter_map(|words| words.into_iter().next()).collect();
        if own_network {
            servers.retain(|server| reachable(server));
        }
        if servers.is_empty() {
            servers = fallback.iter().map(IpAddr::to_string).collect();
        }
    }
    let or_last = |own: &[String], key: &str| match own {
        [] => field(key).pop().unwrap_or_default(),
        own => own.to_vec(),
    };
    let mut search = or_last(dns.search, "search");
    search.retain(|domain| domain != ".");
    let options = or_last(dns.options, "options");
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            let _ = writeln!(text, "{key} {}", words.join(" "));
        }
    }
    text
}

/// Reads what containers with a network of their own inherit.
///
/// Where the machine's only server is systemd's stub, which they can't reach, those behind it are named in another file:
/// dockerd looks there too.
pub fn inherited(path: &Path, behind_stub: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    match (servers.next(), servers.next()) {
        (Some("127.0.0.53"), None) => std::fs::read_to_string(behind_stub).unwrap_or(text),
        _ => text,
    }
}

fn reachable(server: &str) -> bool {
    let bare = server.split('%').next().unwrap_or(server);
    bare.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback())
}

/// Makes a `resolv.conf` that names the engine's own resolver at `server`.
///
/// It answers names without dots too: `ndots:0` keeps the search domains from being tried first.
pub fn resolv_conf_of_resolver(inherited: &str, dns: &Dns<'_>, server: IpAddr) -> String {
    let servers = [server.to_string()];
    let mut text = resolv_conf(inherited, &Dns { servers: &servers, ..*dns }, true, &[]);
    if !text.contains("ndots:") {
        match text.find("\noptions ") {
            Some(_) => text.insert_str(text.len() - 1, " ndots:0"),
            None => text.push_str("options ndots:0\n"),
        }
    }
    text
}

/// The line of a container's own address and names.
pub fn own_line(ip: IpAddr, hostname: &str, domain: &str) -> String {
    let names =
        if domain.is_empty() { hostname.to_owned() } else { format!("{hostname}.{domain} {hostname}") };
    format!("{ip}\t{names}\n")
}

/// Makes an `/etc/hosts`: loopback, then `extra` (`name:ip` or `name=ip`), then the container's own lines.
pub fn hosts(own: &[String], extra: &[String], gateway: Option<IpAddr>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for line in extra {
        let Some((name, ip)) = line.split_once('=').or_else(|| line.split_once(':')) else { continue };
        let ip = ip.trim_start_matches('[').trim_end_matches(']');
        match (ip, gateway) {
            ("host-gateway", Some(gateway)) => {
                let _ = writeln!(text, "{gateway}\t{name}");
            }
            ("host-gateway", None) => {}
            _ => {
                let _ = writeln!(text, "{ip}\t{name}");
            }
        }
    }
    own.iter().for_each(|line| text.push_str(line));
    text
}

/// Whether `line` is a usable extra host, as Docker checks it.
pub fn is_extra_host(line: &str) -> bool {
    let Some((name, ip)) = line.split_once('=').or_else(|| line.split_once(':')) else { return false };
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    !name.is_empty() && (ip == "host-gateway" || ip.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INHERITED: &str = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch corp.example lab\n\
                             options ndots:2\n";

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn loopback_servers_stay_with_the_host_network() {
        let text = resolv_conf(INHERITED, &Dns::default(), true, &[]);
        assert_eq!(text, "nameserver 10.0.0.2\nsearch corp.example lab\noptions ndots:2\n");
        let text = resolv_conf(INHERITED, &Dns::default(), false, &[]);
        assert!(text.starts_with("nameserver 127.0.0.53\nnameserver 10.0.0.2\n"));
    }

    #[test]
    fn fallback_is_used_only_when_nothing_is_left() {
        let fallback = ["9.9.9.9".parse().unwrap()];
        assert_eq!(
            resolv_conf("nameserver 127.0.0.1\n", &Dns::default(), true, &fallback),
            "nameserver 9.9.9.9\n"
        );
        assert!(!resolv_conf(INHERITED, &Dns::default(), true, &fallback).contains("9.9.9.9"));
    }

    #[test]
    fn servers_behind_a_stub_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let (own, behind) = (directory.path().join("own"), directory.path().join("behind"));
        std::fs::write(&behind, "nameserver 10.0.0.2\n").unwrap();
        std::fs::write(&own, "# stub\nnameserver 127.0.0.53\noptions edns0\n").unwrap();
        assert_eq!(inherited(&own, &behind), "nameserver 10.0.0.2\n");
        assert!(inherited(&own, Path::new("/nonexistent")).contains("127.0.0.53"));
        let two = "nameserver 127.0.0.53\nnameserver 10.0.0.9\n";
        std::fs::write(&own, two).unwrap();
        assert_eq!(inherited(&own, &behind), two);
    }

    #[test]
    fn own_settings_replace_the_inherited() {
        let (servers, search, options) = (owned(&["1.1.1.1"]), owned(&["."]), owned(&["timeout:1"]));
        let dns = Dns { servers: &servers, search: &search, options: &options };
        assert_eq!(resolv_conf(INHERITED, &dns, true, &[]), "nameserver 1.1.1.1\noptions timeout:1\n");
    }

    #[test]
    fn the_resolver_is_the_only_server_and_options_are_kept() {
        let server = "127.0.0.11".parse().unwrap();
        assert_eq!(
            resolv_conf_of_resolver(INHERITED, &Dns::default(), server),
            "nameserver 127.0.0.11\nsearch corp.example lab\noptions ndots:2\n"
        );
        assert_eq!(
            resolv_conf_of_resolver("options timeout:1\n", &Dns::default(), server),
            "nameserver 127.0.0.11\noptions timeout:1 ndots:0\n"
        );
        assert_eq!(
            resolv_conf_of_resolver("", &Dns::default(), server),
            "nameserver 127.0.0.11\noptions ndots:0\n"
        );
    }

    #[test]
    fn hosts_has_loopback_extra_and_own_names() {
        let ip = "172.17.0.2".parse().unwrap();
        let extra = owned(&["db:10.1.1.1", "six=[fe80::1]", "host.docker.internal:host-gateway"]);
        let text = hosts(&[own_line(ip, "web", "example.org")], &extra, Some("172.17.0.1".parse().unwrap()));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.1.1.1\tdb\n"));
        assert!(text.contains("fe80::1\tsix\n"));
        assert!(text.contains("172.17.0.1\thost.docker.internal\n"));
        assert!(text.ends_with("172.17.0.2\tweb.example.org web\n"));
    }

    #[test]
    fn extra_hosts_need_a_name_and_an_address() {
        for fine in ["a:1.2.3.4", "a=::1", "a:::1", "a:host-gateway"] {
            assert!(is_extra_host(fine), "{fine}");
        }
        for wrong in ["", "a", "a:", ":1.2.3.4", "a:b"] {
            assert!(!is_extra_host(wrong), "{wrong}");
        }
    }
}
