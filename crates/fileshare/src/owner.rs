//! Who owns a file in the guest's eyes.
//!
//! The daemon is one user of the host, and containers expect theirs to own what they make. So owners, and permissions
//! that would lock the daemon itself out, are kept beside the file: in an extended attribute, or where the file system
//! has none (and for symlinks, which never have) in memory. What nobody has set is shown as root's if it belongs to the
//! daemon's user. Containers may do with files what the daemon's user may; setuid and setgid bits of the host are never
//! shown for files.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::abi::Attr;
use crate::errno::Result;
use crate::host::{Facts, Ident, Kind, Object, S_IFMT};

/// The attribute that remembers.
pub const ATTRIBUTE: &[u8] = b"user.skiff.owner";
/// Most files that are remembered in memory.
const MOST_REMEMBERED: usize = 65_536;

/// What was set for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Set {
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
    /// Its permissions, where the host's differ.
    pub mode: Option<u32>,
}

impl Set {
    fn encode(self) -> String {
        let field = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
        format!(
            "{}:{}:{}",
            field(self.uid),
            field(self.gid),
            self.mode.map(|mode| format!("{mode:o}")).unwrap_or_default()
        )
    }

    /// Anybody on the host may have written it: what makes no sense counts as nothing.
    fn decode(text: &[u8]) -> Set {
        let mut fields = std::str::from_utf8(text).unwrap_or("").split(':');
        let mut next = |radix| fields.next().and_then(|field| u32::from_str_radix(field, radix).ok());
        Set { uid: next(10), gid: next(10), mode: next(8).map(|mode| mode & 0o7777) }
    }
}

/// The owners of one share.
#[derive(Debug)]
pub struct Owners {
    /// The user of the host whose files are shown as root's.
    own_uid: u32,
    remembered: Mutex<HashMap<Ident, Set>>,
    any: AtomicBool,
}

/// The bits of a mode that a kind of file may show.
fn permissions(kind: Kind) -> u32 {
    if kind == Kind::Directory { 0o3777 } else { 0o777 }
}

impl Owners {
    /// Begins with nothing in memory.
    pub fn new(own_uid: u32) -> Owners {
        Owners { own_uid, remembered: Mutex::default(), any: AtomicBool::new(false) }
    }

    fn get(&self, object: &Object, facts: &Facts) -> Set {
        if self.any.load(Ordering::Relaxed) {
            let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(set) = remembered.get(&facts.ident) {
                return *set;
            }
        }
        if !matches!(facts.kind(), Kind::File | Kind::Directory) {
            return Set::default();
        }
        let mut buffer = [0; 64];
        match object.xattr(ATTRIBUTE, &mut buffer) {
            Ok(length) => Set::decode(&buffer[..length]),
            Err(_) => Set::default(),
        }
    }

    /// The attributes as the guest sees them.
    pub fn shown(&self, object: &Object, facts: &Facts) -> Attr {
        let set = self.get(object, facts);
        let mut attr = facts.attr;
        let kind = attr.mode & S_IFMT;
        attr.mode = kind | (set.mode.unwrap_or(attr.mode) & permissions(facts.kind()));
        if attr.uid == self.own_uid {
            (attr.uid, attr.gid) = (0, 0);
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr
    }

    /// Sets what is given of owner, group and permissions.
    pub fn change(&self, object: &Object, facts: &Facts, wish: Set) -> Result<()> {
        let before = self.get(object, facts);
        let mut after = Set { uid: wish.uid.or(before.uid), gid: wish.gid.or(before.gid), mode: before.mode };
        if let Some(mode) = wish.mode {
            let kind = facts.kind();
            let mode = mode & permissions(kind);
            // The daemon must still be able to read and write what a container may.
            let floor = if kind == Kind::Directory { 0o700 } else { 0o600 };
            object.set_mode(mode | floor)?;
            after.mode = (mode != mode | floor).then_some(mode);
        }
        if after != before { self.remember(object, facts, after) } else { Ok(()) }
    }

    /// Gives a new file to the one who made it.
    pub fn give(&self, object: &Object, facts: &Facts, uid: u32, gid: u32) {
        if (uid, gid) != (0, 0) || facts.attr.uid != self.own_uid {
            // A file that is shown as another's is made all the same.
            let _ = self.remember(object, facts, Set { uid: Some(uid), gid: Some(gid), mode: None });
        }
    }

    fn remember(&self, object: &Object, facts: &Facts, set: Set) -> Result<()> {
        if matches!(facts.kind(), Kind::File | Kind::Directory) {
            let stored = if set == Set::default() {
                object.remove_xattr(ATTRIBUTE)
            } else {
                object.set_xattr(ATTRIBUTE, set.encode().as_bytes(), 0)
            };
            if stored.is_ok() {
                return Ok(());
            }
        }
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(facts.ident, set);
        self.any.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets a file that is gone.
    pub fn forget(&self, ident: Ident) {
        if self.any.load(Ordering::Relaxed) {
            self.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(&ident);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_back_and_nonsense_is_nothing() {
        for set in [
            Set::default(),
            Set { uid: Some(999), gid: None, mode: Some(0o400) },
            Set { uid: Some(0), gid: Some(u32::MAX), mode: None },
        ] {
            assert_eq!(Set::decode(set.encode().as_bytes()), set);
        }
        for nonsense in [&b""[..], b"x:y:z", b"\xff\xfe", b"-1", b"99999999999"] {
            assert_eq!(Set::decode(nonsense), Set::default());
        }
        assert_eq!(Set::decode(b"::177777").mode, Some(0o7777));
    }
}
