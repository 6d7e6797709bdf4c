//! What the supervisor remembers: pure bookkeeping, no system calls.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;

use crate::protocol::{Entry, ExitStatus};

/// How many exits of children that nobody has adopted are remembered. An engine adopts within milliseconds of the
/// clone, so only orphans of containers ever wait here, and what an engine had made when it was killed.
const UNCLAIMED: usize = 4096;

#[derive(Debug)]
struct Slot {
    entry: Entry,
    fds: Vec<OwnedFd>,
}

/// The adopted children, and the exits of those not yet adopted.
#[derive(Debug, Default)]
pub struct Table {
    slots: BTreeMap<String, Slot>,
    by_pid: HashMap<i32, String>,
    unclaimed: HashMap<i32, Unclaimed>,
    /// The pids of `unclaimed` with their numbers, oldest first, and of some that are claimed by now.
    order: VecDeque<(i32, u64)>,
    exits: u64,
}

/// The exit of a child that nobody has adopted.
#[derive(Debug)]
struct Unclaimed {
    number: u64,
    status: ExitStatus,
}

impl Table {
    /// Records `key`. Returns the exit at once when the child has already ended, which is when there is none of that
    /// `pid` any more. A child that is there is never the one that has ended under its pid before, as pids come again.
    ///
    /// # Errors
    /// When `key` names another child that still runs.
    pub fn adopt(
        &mut self,
        key: String,
        pid: i32,
        is_there: bool,
        fd_names: Vec<String>,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<ExitStatus>, String> {
        if let Some(old) = self.slots.get(&key) {
            if old.entry.exit.is_none() {
                return Err(format!("{key} is process {} already", old.entry.pid));
            }
            self.forget(&key);
        }
        if fd_names.len() != fds.len() {
            return Err(format!("{} names for {} descriptors", fd_names.len(), fds.len()));
        }
        let exit = self.unclaimed.remove(&pid).filter(|_| !is_there).map(|exit| exit.status);
        if exit.is_none() {
            self.by_pid.insert(pid, key.clone());
        }
        let entry = Entry { key: key.clone(), pid, exit: exit.clone(), fd_names };
        self.slots.insert(key, Slot { entry, fds });
        Ok(exit)
    }

    /// Records that `pid` has ended. Returns its key when it was adopted.
    pub fn exited(&mut self, pid: i32, status: ExitStatus) -> Option<String> {
        if let Some(key) = self.by_pid.remove(&pid) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.entry.exit = Some(status);
            }
            return Some(key);
        }
        self.exits += 1;
        self.unclaimed.insert(pid, Unclaimed { number: self.exits, status });
        self.order.push_back((pid, self.exits));
        if self.order.len() > UNCLAIMED
            && let Some((oldest, number)) = self.order.pop_front()
            && self.unclaimed.get(&oldest).is_some_and(|exit| exit.number == number)
        {
            self.unclaimed.remove(&oldest);
        }
        None
    }

    /// Drops an entry and closes its descriptors.
    pub fn forget(&mut self, key: &str) {
        if let Some(slot) = self.slots.remove(key) {
            self.by_pid.remove(&slot.entry.pid);
        }
    }

    /// All entries, by key.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.values().map(|slot| &slot.entry)
    }

    /// One entry with its descriptors.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<(&Entry, &[OwnedFd])> {
        self.slots.get(key).map(|slot| (&slot.entry, slot.fds.as_slice()))
    }

    /// The adopted children that still run.
    pub fn running(&self) -> impl Iterator<Item = i32> {
        self.by_pid.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn status(code: i32) -> ExitStatus {
        ExitStatus { code, signal: None, at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn exit_of_an_adopted_child_is_kept_until_forgotten() {
        let mut table = Table::default();
        assert_eq!(table.adopt("a".into(), 10, true, vec![], vec![]), Ok(None));
        assert_eq!(table.exited(10, status(3)).as_deref(), Some("a"));
        assert_eq!(table.get("a").unwrap().0.exit, Some(status(3)));
        table.forget("a");
        assert_eq!(table.entries().count(), 0);
    }

    #[test]
    fn exit_before_the_adoption_is_reported_by_it() {
        let mut table = Table::default();
        assert_eq!(table.exited(11, status(7)), None);
        assert_eq!(table.adopt("b".into(), 11, false, vec![], vec![]), Ok(Some(status(7))));
        assert_eq!(table.running().count(), 0);
    }

    #[test]
    fn a_running_child_keeps_its_key_and_a_dead_one_gives_it_up() {
        let mut table = Table::default();
        table.adopt("c".into(), 12, true, vec![], vec![]).unwrap();
        assert_eq!(
            table.adopt("c".into(), 13, true, vec![], vec![]),
            Err("c is process 12 already".to_owned())
        );
        table.exited(12, status(0));
        assert_eq!(table.adopt("c".into(), 13, true, vec![], vec![]), Ok(None));
        assert_eq!(table.running().collect::<Vec<_>>(), [13]);
    }

    #[test]
    fn a_pid_used_again_after_forget_is_another_child() {
        let mut table = Table::default();
        table.adopt("d".into(), 14, true, vec![], vec![]).unwrap();
        table.forget("d");
        assert_eq!(table.exited(14, status(1)), None);
    }

    #[test]
    fn a_child_does_not_inherit_the_exit_of_another_that_had_its_pid() {
        let mut table = Table::default();
        table.exited(15, status(221));
        assert_eq!(table.adopt("e".into(), 15, true, vec![], vec![]), Ok(None));
        assert_eq!(table.exited(15, status(4)).as_deref(), Some("e"));
        assert_eq!(table.get("e").unwrap().0.exit, Some(status(4)));
    }

    #[test]
    fn an_exit_is_not_forgotten_in_place_of_an_older_one() {
        let mut table = Table::default();
        table.exited(1, status(0));
        table.adopt("f".into(), 1, false, vec![], vec![]).unwrap();
        for pid in 2..=UNCLAIMED as i32 {
            table.exited(pid, status(0));
        }
        table.exited(1, status(9));
        assert_eq!(table.adopt("g".into(), 1, false, vec![], vec![]), Ok(Some(status(9))));
    }

    #[test]
    fn unclaimed_exits_are_bounded() {
        let mut table = Table::default();
        for pid in 1..=(UNCLAIMED as i32 + 50) {
            table.exited(pid, status(0));
        }
        assert_eq!(table.unclaimed.len(), UNCLAIMED);
    }
}
