//! What an engine must not leave behind.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Processes, mounts, links and listeners that belong to one engine directory, or came up since a snapshot.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leftovers {
    /// `pid command line` of processes that name the directory in their command line or mounts.
    pub processes: BTreeSet<String>,
    /// Mount points of this namespace below the directory.
    pub mounts: BTreeSet<String>,
    /// New network interfaces of this namespace that are the engine's bridge, on it, or a veth end on no bridge at all.
    pub links: BTreeSet<String>,
    /// The engine's table in the packet filter.
    pub tables: BTreeSet<String>,
    /// `address:port` of TCP listeners of this namespace that those processes hold.
    pub listeners: BTreeSet<String>,
}

/// What the machine had before an engine started.
#[derive(Debug, Clone)]
pub struct Before {
    links: BTreeSet<String>,
}

impl Before {
    /// Takes the snapshot.
    pub fn now() -> Self {
        Self { links: links() }
    }
}

impl Leftovers {
    /// Looks for everything that belongs to `root`. Programs of the test itself are not counted.
    pub fn of(root: &Path, before: &Before) -> Self {
        let pids = processes(root);
        Self {
            processes: pids.iter().map(|pid| format!("{pid} {}", command_line(*pid))).collect(),
            mounts: mounts(root),
            links: links().difference(&before.links).filter(|name| is_of(root, name)).cloned().collect(),
            tables: tables(root).into_iter().filter(|name| crate::nftables::exists(name)).collect(),
            listeners: listeners(&pids),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same without what a running engine without containers may have: its own processes, its default bridge, its
    /// table.
    #[must_use]
    pub fn beside_idle_engine(mut self) -> Self {
        self.processes.retain(|line| !line.contains("skiff-agent"));
        self.links.retain(|name| !name.starts_with("skf") || master(name).is_some());
        self.tables.clear();
        self
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("process", &self.processes),
            ("mount", &self.mounts),
            ("link", &self.links),
            ("firewall table", &self.tables),
            ("listener", &self.listeners),
        ];
        for (what, items) in parts {
            items.iter().try_for_each(|item| writeln!(f, "  left over {what}: {item}"))?;
        }
        Ok(())
    }
}

/// The processes that belong to `root`: it is in their command line, or in the mounts of their own mount namespace.
pub fn processes(root: &Path) -> Vec<i32> {
    let root = root.to_string_lossy();
    let me = std::process::id().cast_signed();
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let mut found = Vec::new();
    for pid in all_pids() {
        if pid == me {
            continue;
        }
        let elsewhere = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() != own;
        let mounted =
            || fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| text.contains(&*root));
        // The tests' own tools (a docker CLI with the socket in its arguments) are not the engine's.
        let line = command_line(pid);
        // A container of another engine, still on its way into its own root, sees all mounts of the machine.
        let foreign = line.contains("skiff-agent") && !line.contains(&*root);
        if (line.contains(&*root) && line.contains("skiff")) || (elsewhere && !foreign && mounted()) {
            found.push(pid);
        }
    }
    found
}

/// All process ids of this PID namespace.
pub fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The command line, words joined by spaces; empty when the process is gone.
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
}

/// The parent, or `None` when the process is gone.
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The process and everything below it.
pub fn tree(pid: i32) -> Vec<i32> {
    let pairs: Vec<_> = all_pids().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        found.extend(pairs.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// Kills at once; a process that is gone is fine.
pub fn kill_hard(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn mounts(root: &Path) -> BTreeSet<String> {
    let root = root.to_string_lossy();
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|at| at.starts_with(&*root))
        .map(str::to_owned)
        .collect()
}

/// The bridge that `skiff-agent serve` makes for a root.
pub fn bridge_name(root: &Path) -> String {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.into());
    format!("skf{}", hex::encode(&Sha256::digest(root.as_os_str().as_encoded_bytes())[..4]))
}

/// The packet filter's table of the engine on a root.
pub fn table_name(root: &Path) -> String {
    format!("skiff_{}", bridge_name(root))
}

/// All of its tables: that of its networks, and that of its published ports.
fn tables(root: &Path) -> [String; 2] {
    [table_name(root), format!("{}_ports", table_name(root))]
}

/// The bridges of user-defined networks of the engine on a root: they name its default bridge as their owner.
pub fn network_bridges(root: &Path) -> Vec<String> {
    let owner = bridge_name(root);
    links().into_iter().filter(|name| alias(name).as_deref() == Some(owner.as_str())).collect()
}

fn alias(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifalias")).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn links() -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return BTreeSet::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Other engines on the machine come and go meanwhile: what is on their bridges is not counted.
fn is_of(root: &Path, name: &str) -> bool {
    let bridge = bridge_name(root);
    match master(name) {
        Some(master) => master == bridge || alias(&master).as_ref() == Some(&bridge),
        None => {
            name.starts_with(&bridge) || name.starts_with("veth") || alias(name).as_ref() == Some(&bridge)
        }
    }
}

/// The bridge that an interface is on.
fn master(name: &str) -> Option<String> {
    let link = fs::read_link(Path::new("/sys/class/net").join(name).join("master")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

/// The listening TCP sockets of this namespace that one of `pids` holds.
fn listeners(pids: &[i32]) -> BTreeSet<String> {
    const LISTEN: &str = "0A";
    let held: BTreeSet<String> = pids.iter().flat_map(|pid| sockets(*pid)).collect();
    let mut found = BTreeSet::new();
    for file in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = words[..] else { continue };
            let Some((address, port)) = local.split_once(':') else { continue };
            let Ok(port) = u16::from_str_radix(port, 16) else { continue };
            if state == LISTEN && held.contains(inode) {
                found.insert(format!("{file} {address}:{port}"));
            }
        }
    }
    found
}

/// The inodes of the sockets that a process holds.
fn sockets(pid: i32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_by_the_process_that_holds_them() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = format!("tcp 0100007F:{}", listener.local_addr().unwrap().port());
        assert!(listeners(&[std::process::id().cast_signed()]).contains(&expected));
        assert!(!listeners(&[1]).contains(&expected));
    }

    #[test]
    fn a_directory_that_nobody_uses_has_no_leftovers() {
        let left = Leftovers::of(Path::new("/nonexistent/skiff-root"), &Before::now());
        assert!(left.processes.is_empty() && left.mounts.is_empty() && left.listeners.is_empty(), "{left}");
    }

    #[test]
    fn a_process_tree_contains_grandchildren() {
        let child = std::process::Command::new("sh").args(["-c", "sleep 30 & wait"]).spawn().unwrap();
        let pid = child.id().cast_signed();
        let found = crate::wait_until("the grandchild", std::time::Duration::from_secs(5), || {
            let tree = tree(pid);
            (tree.len() == 2 && command_line(tree[1]).starts_with("sleep")).then_some(tree)
        });
        tree(pid).into_iter().for_each(kill_hard);
        let mut child = child;
        child.wait().unwrap();
        found.unwrap();
    }
}
