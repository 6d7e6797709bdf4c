//! The network that this host is on, as far as files tell: which name servers there are, and whether something changed.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Read,
    net::{IpAddr, SocketAddr},
    path::Path,
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Files whose change means that names may lead elsewhere.
const FILES: [&str; 3] = [RESOLV_CONF, "/etc/hosts", "/etc/nsswitch.conf"];
/// Tables of routes, where the kernel shows them as files.
const ROUTES: [&str; 2] = ["/proc/net/route", "/proc/net/ipv6_route"];
/// As much of a table as is looked at, in bytes.
const LOOKED_AT: u64 = 64 * 1024;
const DOMAIN: u16 = 53;
/// resolv.conf(5): up to three.
const SERVERS: usize = 3;

/// A number that is another one when the network is another one.
///
/// Systems without these files have one number for ever: there the lifetimes of answers are all there is.
pub(super) fn now() -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in FILES {
        if let Ok(metadata) = fs::metadata(path) {
            (metadata.len(), metadata.modified().ok()).hash(&mut hasher);
            #[cfg(unix)]
            {
                use std::os::unix::fs::MetadataExt;
                (metadata.ino(), metadata.ctime_nsec()).hash(&mut hasher);
            }
        }
        path.hash(&mut hasher);
    }
    for path in ROUTES {
        let mut table = Vec::new();
        if let Ok(file) = fs::File::open(path) {
            let _ = file.take(LOOKED_AT).read_to_end(&mut table);
        }
        routes(&table).for_each(|line| line.hash(&mut hasher));
    }
    hasher.finish()
}

/// The lines of a table without the numbers that change by themselves: uses and references.
fn routes(table: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    table.split(|byte| *byte == b'\n').map(|line| {
        let words: Vec<&[u8]> =
            line.split(|byte| byte.is_ascii_whitespace()).filter(|w| !w.is_empty()).collect();
        match words.len() {
            // Iface Destination Gateway Flags RefCnt Use Metric Mask …
            11 => [&words[..4], &words[6..8]].concat(),
            // destination, length, source, length, next hop, metric, references, uses, flags, interface
            10 => [&words[..5], &words[9..]].concat(),
            _ => words,
        }
    })
}

/// The name servers that the system asks at this moment.
pub(super) fn name_servers() -> Vec<SocketAddr> {
    #[cfg(unix)]
    return read(Path::new(RESOLV_CONF));
    #[cfg(not(unix))]
    return adapters();
}

#[cfg_attr(not(unix), allow(dead_code))]
fn read(path: &Path) -> Vec<SocketAddr> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    let mut servers: Vec<SocketAddr> = servers.take(SERVERS).map(|ip| SocketAddr::new(ip, DOMAIN)).collect();
    if servers.is_empty() {
        // So says resolv.conf(5).
        servers.push(([127, 0, 0, 1], DOMAIN).into());
    }
    servers
}

/// Windows keeps them with its adapters; its own program tells them.
#[cfg(not(unix))]
fn adapters() -> Vec<SocketAddr> {
    let listed = std::process::Command::new("netsh").args(["interface", "ip", "show", "dnsservers"]).output();
    let text = listed.map(|told| String::from_utf8_lossy(&told.stdout).into_owned()).unwrap_or_default();
    let addresses = text.split_whitespace().filter_map(|word| word.parse::<IpAddr>().ok());
    addresses.take(SERVERS).map(|ip| SocketAddr::new(ip, DOMAIN)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_library_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "# x\nnameserver 10.0.0.1\nnameserver\nnameserver ::1\nsearch a\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n")
            .unwrap();
        assert_eq!(read(&path), ["10.0.0.1:53", "[::1]:53", "1.1.1.1:53"].map(|a| a.parse().unwrap()));
        assert_eq!(read(Path::new("/nonexistent")), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn a_table_is_the_same_while_only_its_counters_change() {
        let all = |table: &'static str| routes(table.as_bytes()).collect::<Vec<_>>();
        let before = "eth0\t00000000\t0100A8C0\t0003\t0\t7\t0\t00000000\t0\t0\t0";
        let used = "eth0\t00000000\t0100A8C0\t0003\t1\t9\t0\t00000000\t0\t0\t0";
        let moved = "eth0\t00000000\t0200A8C0\t0003\t0\t7\t0\t00000000\t0\t0\t0";
        assert_eq!(all(before), all(used));
        assert_ne!(all(before), all(moved));
        assert_eq!(now(), now());
    }
}
