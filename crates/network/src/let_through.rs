//! Other firewalls of the machine.
//!
//! In the kernel a packet is passed on only if every table lets it through. Where dockerd or ufw have written iptables
//! rules, forwarding is forbidden by default there, and what [`Firewall`](crate::Firewall) allows is dropped after all. As
//! dockerd does for its own bridges, a chain of ours at the head of `FORWARD` lets ours pass; who may reach whom is decided
//! in our own table, before or after.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};

use crate::links::{self, Link};
use crate::nft::{Family, Socket};
use crate::{Error, netlink};

/// The two implementations of iptables, which a machine can have rules of at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Tables of nftables.
    Nft,
    /// Tables of their own.
    Legacy,
}

/// The names of a kernel's tables with rules of the older kind.
const LEGACY_TABLES: [(Family, &str); 2] = [
    (Family::Ipv4, "/proc/thread-self/net/ip_tables_names"),
    (Family::Ipv6, "/proc/thread-self/net/ip6_tables_names"),
];

/// What the names of our chains begin with.
const PREFIX: &str = "SKIFF-";

/// The chain of one engine in the other firewalls' tables.
#[derive(Debug)]
pub struct LetThrough {
    chain: String,
    /// Tells other engines that the chain is in use. The kernel takes it away, however we end.
    _alive: Option<UnixDatagram>,
}

impl LetThrough {
    /// Names the chain after the engine; no firewall is touched yet.
    pub fn new(owner: &str) -> Self {
        // The limit is 28 bytes.
        let chain: String = format!("{PREFIX}{owner}").chars().take(28).collect();
        let alive = sign_of_life(&chain).and_then(|name| UnixDatagram::bind_addr(&name));
        let alive = alive
            .inspect_err(|error| tracing::debug!(%error, chain, "others can't see that the chain is in use"));
        Self { _alive: alive.ok(), chain }
    }

    /// Has the packets from and to these bridges let through, by the firewalls that are there now and no others: on a
    /// machine without any this costs a few system calls.
    ///
    /// # Errors
    /// When one of them can't be changed.
    pub fn apply(&self, bridges: &[String]) -> Result<(), Error> {
        let mut rules = format!("*filter\n:{} - [0:0]\n", self.chain);
        for bridge in bridges {
            rules.push_str(&format!(
                "-A {0} -i {bridge} -j ACCEPT\n-A {0} -o {bridge} -j ACCEPT\n",
                self.chain
            ));
        }
        rules.push_str("COMMIT\n");
        for (kind, family) in present()? {
            if !self.has_a_say(kind, family)? {
                continue;
            }
            // Chains that are not named in what is restored stay; this one is emptied first.
            run(&program(kind, family, "-restore"), &["-w", "10", "--noflush"], Some(&rules))?;
            let tables = program(kind, family, "");
            let jump = |what| ["-w", "10", what, "FORWARD", "-j", self.chain.as_str()];
            if run(&tables, &jump("-C"), None).is_err() {
                run(&tables, &jump("-I"), None)?;
            }
        }
        Ok(())
    }

    /// Whether a firewall does anything but let everything through. That of most machines does not.
    fn has_a_say(&self, kind: Kind, family: Family) -> Result<bool, Error> {
        let rules = run(&program(kind, family, ""), &["-w", "10", "-S", "FORWARD"], None)?;
        let is_quiet = |line: &str| line == "-P FORWARD ACCEPT" || line.starts_with("-A FORWARD -j SKIFF-");
        Ok(!rules.lines().all(is_quiet))
    }

    /// Takes the chain away; where it is gone already, that is fine.
    pub fn remove(&self) {
        for (kind, family) in present().unwrap_or_default() {
            let tables = program(kind, family, "");
            if run(&tables, &["-w", "10", "-n", "-L", &self.chain], None).is_ok() {
                remove_chain(&tables, &self.chain);
            }
        }
    }
}

/// Takes away the chains of engines that were killed; returns their names.
///
/// Containers may run on without their engine, and need what lets their packets through: a chain goes only when no engine is
/// there and nothing is on the bridges that it is about.
///
/// # Errors
/// When the other firewalls don't tell what they have.
pub fn remove_stale_chains() -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for (kind, family) in present()? {
        let tables = program(kind, family, "");
        let rules = run(&tables, &["-w", "10", "-S"], None)?;
        let links = links::all(&mut netlink::Socket::open()?)?;
        for (chain, bridges) in chains(&rules) {
            let in_use = is_alive(&chain) || bridges.iter().any(|bridge| has_ports(&links, bridge));
            if !in_use {
                remove_chain(&tables, &chain);
                removed.push(chain);
            }
        }
    }
    removed.dedup();
    Ok(removed)
}

/// Our chains among rules as iptables lists them, with the interfaces that each of them is about.
fn chains(rules: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in rules.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["-N", chain] if chain.starts_with(PREFIX) => {
                found.entry(chain.to_owned()).or_default();
            }
            ["-A", chain, "-i" | "-o", bridge, ..] if chain.starts_with(PREFIX) => {
                found.entry(chain.to_owned()).or_default().push(bridge.to_owned());
            }
            _ => {}
        }
    }
    found
}

/// The socket that is there as long as an engine.
fn sign_of_life(chain: &str) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("skiff/{chain}"))
}

fn is_alive(chain: &str) -> bool {
    let looked = sign_of_life(chain).and_then(|name| UnixDatagram::unbound()?.connect_addr(&name));
    // Only a name that nobody has is the sign of an end.
    !looked.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Whether something is connected to a bridge.
fn has_ports(links: &[Link], bridge: &str) -> bool {
    let index = links.iter().find(|link| link.name == bridge).map(|link| link.index);
    index.is_some_and(|index| links.iter().any(|link| link.bridge == Some(index)))
}

fn remove_chain(tables: &[String; 2], chain: &str) {
    for what in [&["-D", "FORWARD", "-j"][..], &["-F"], &["-X"]] {
        let arguments: Vec<&str> = ["-w", "10"].iter().chain(what).copied().chain([chain]).collect();
        if let Err(error) = run(tables, &arguments, None) {
            tracing::debug!(%error, op = what[0], "chain of the other firewall is left");
        }
    }
}

/// The firewalls that have a say about forwarding now.
fn present() -> Result<Vec<(Kind, Family)>, Error> {
    let mut socket = Socket::open()?;
    let mut found = Vec::new();
    for (family, names) in LEGACY_TABLES {
        if socket.has_chain(family, "filter", "FORWARD")? {
            found.push((Kind::Nft, family));
        }
        if std::fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "filter")) {
            found.push((Kind::Legacy, family));
        }
    }
    Ok(found)
}

/// The program for it. Where a machine has only one kind, its program may have the short name alone.
fn program(kind: Kind, family: Family, suffix: &str) -> [String; 2] {
    let name = if family == Family::Ipv6 { "ip6tables" } else { "iptables" };
    let kind = if kind == Kind::Nft { "nft" } else { "legacy" };
    [format!("{name}-{kind}{suffix}"), format!("{name}{suffix}")]
}

fn run(programs: &[String; 2], arguments: &[&str], input: Option<&str>) -> Result<String, Error> {
    let failed = |source| Error::OtherFirewall { program: programs[0].clone(), source };
    let start = |program: &String| {
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new(program)
            .args(arguments)
            // Services are often started without the directories of system programs.
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    let child = match start(&programs[0]) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => start(&programs[1]),
        other => other,
    };
    let mut child = child.map_err(failed)?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_chains_are_found_among_those_of_others() {
        let rules = "-P FORWARD DROP\n-N DOCKER\n-N SKIFF-skf1\n-N SKIFF-skf2\n-A FORWARD -j SKIFF-skf1\n\
                     -A DOCKER -i docker0 -j ACCEPT\n-A SKIFF-skf1 -i skf1 -j ACCEPT\n-A SKIFF-skf1 -o br-a -j ACCEPT\n";
        let found = chains(rules);
        let expected = [("SKIFF-skf1", vec!["skf1", "br-a"]), ("SKIFF-skf2", vec![])];
        let expected = expected.map(|(chain, bridges)| {
            (chain.to_owned(), bridges.into_iter().map(str::to_owned).collect::<Vec<_>>())
        });
        assert_eq!(found, BTreeMap::from(expected));
    }
}
