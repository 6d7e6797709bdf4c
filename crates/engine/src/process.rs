//! What `/proc` says about processes (proc(5)).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ticks of the clock in `/proc`, which Linux fixes at 100 a second for user space.
pub const TICKS: u64 = 100;

/// One line of `ps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id in the engine's namespace.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its owner.
    pub uid: u32,
    /// The letter of its state.
    pub state: char,
    /// The leader of its session.
    pub session: i32,
    /// The terminal's device number.
    pub tty: i64,
    /// CPU time in ticks.
    pub ticks: u64,
    /// The part of it in user mode.
    pub user_ticks: u64,
    /// CPU time of ended children that were waited for, in user mode and in the kernel.
    pub waited_ticks: (u64, u64),
    /// How many threads it has.
    pub threads: u64,
    /// When it began, in ticks after boot.
    pub began: u64,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Resident memory in pages.
    pub resident_pages: u64,
    /// The command line.
    pub command: String,
}

impl Process {
    /// Reads a process; `None` when it is gone.
    pub fn read(pid: i32) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let uid = std::fs::metadata(&dir).ok()?.uid();
        let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
        let line = std::fs::read(dir.join("cmdline")).unwrap_or_default();
        parse(pid, uid, &stat, &line)
    }

    /// The second after boot at which it began.
    pub fn began_after_boot(&self) -> u64 {
        self.began / TICKS
    }

    /// Its CPU time in seconds.
    pub fn cpu_seconds(&self) -> u64 {
        self.ticks / TICKS
    }
}

fn parse(pid: i32, uid: u32, stat: &str, line: &[u8]) -> Option<Process> {
    // The name is in parentheses and may contain anything, parentheses too.
    let (before, after) = stat.rsplit_once(") ")?;
    let name = before.split_once(" (")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let words: Vec<_> =
        line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    Some(Process {
        pid,
        uid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        tty: fields.get(4)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        user_ticks: number(11)?,
        waited_ticks: (number(13)?, number(14)?),
        threads: number(17)?,
        began: number(19)?,
        virtual_bytes: number(20)?,
        resident_pages: number(21)?,
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
    })
}

/// How long a process has been there as the machine counts: a guest that slept has had no time meanwhile, whatever the clock
/// on the wall says. `None` when the process is gone.
pub fn age(pid: i32) -> Option<Duration> {
    let began = Process::read(pid)?.began;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = Duration::try_from_secs_f64(uptime).ok()?;
    Some(now.saturating_sub(Duration::from_millis(began * 1000 / TICKS)))
}

/// When the machine was booted, in seconds since the epoch.
pub fn booted_at() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The processes of the pid namespace of `first` and of those below it; just `first` and its descendants where the
/// namespace is the engine's own.
pub fn in_namespace_of(first: i32) -> Vec<i32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&first.to_string());
    let all: Vec<i32> = std::fs::read_dir("/proc")
        .map(|entries| {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        })
        .unwrap_or_default();
    if wanted.is_some() && wanted != namespace("self") {
        return all.into_iter().filter(|pid| namespace(&pid.to_string()) == wanted).collect();
    }
    let parents: HashMap<i32, i32> =
        all.iter().filter_map(|pid| Some((*pid, Process::read(*pid)?.parent))).collect();
    let descends = |mut pid: i32| {
        while pid != first {
            match parents.get(&pid) {
                Some(parent) if *parent > 1 => pid = *parent,
                _ => return false,
            }
        }
        true
    };
    all.iter().copied().filter(|pid| descends(*pid)).collect()
}

/// How long a look at all processes serves: everybody who measures in the same second shares it.
const FRESH: Duration = Duration::from_millis(300);

/// The processes of every pid namespace, as they were a moment ago.
type Namespaces = HashMap<PathBuf, Vec<i32>>;

/// The processes of a container, as they were at most a moment ago: for many containers at once this is one look at
/// `/proc` instead of one each.
pub fn of_container(first: i32) -> Vec<i32> {
    static LAST: Mutex<Option<(Instant, Arc<Namespaces>)>> = Mutex::new(None);
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&first.to_string());
    if wanted.is_none() || wanted == namespace("self") {
        return in_namespace_of(first);
    }
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let all = match &*last {
        Some((at, all)) if at.elapsed() < FRESH => Arc::clone(all),
        _ => {
            let mut all = Namespaces::new();
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                if let Some(namespace) = namespace(&format!("{pid}")) {
                    all.entry(namespace).or_default().push(pid);
                }
            }
            let all = Arc::new(all);
            *last = Some((Instant::now(), Arc::clone(&all)));
            all
        }
    };
    wanted.and_then(|namespace| all.get(&namespace).cloned()).unwrap_or_else(|| vec![first])
}

/// The memory that a process does not share with files, in bytes.
pub fn own_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let lines = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
    lines.filter_map(kib).sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn own_process_is_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = Process::read(pid).unwrap();
        assert!(own.command.contains("engine"), "{}", own.command);
        assert!(own.began_after_boot() + booted_at() > 1_600_000_000);
        assert!(in_namespace_of(pid).contains(&pid));
        assert!(age(pid).unwrap() <= age(1).unwrap(), "nobody is older than the first process");
        assert_eq!(age(-1), None);
    }

    #[test]
    fn names_with_parentheses_are_read() {
        let stat = "7 (a) b (c) S 1 7 7 34816 7 0 0 0 0 0 12 30 0 0 20 0 1 0 500 4096 10 0";
        let process = parse(7, 0, stat, b"").unwrap();
        assert_eq!((process.state, process.ticks, process.began), ('S', 42, 500));
        assert_eq!(process.session, 7);
        assert_eq!(process.command, "[a) b (c]");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(stat in "\\PC{0,80}", line in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = parse(1, 0, &stat, &line);
        }
    }
}
