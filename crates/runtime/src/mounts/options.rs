//! The options of a mount, in the words of mount(8) and the OCI spec.

use crate::error::Error;
use oci_spec::runtime::Mount;
use skiff_linux_sys::mount::{MountAttr, Scope};

// MOUNT_ATTR_* of linux/mount.h.
const RDONLY: u64 = 0x01;
const NOSUID: u64 = 0x02;
const NODEV: u64 = 0x04;
const NOEXEC: u64 = 0x08;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// What the options of one mount say.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Whether it is a bind mount, and of what.
    pub bind: Option<Scope>,
    /// Attributes of the mount itself.
    pub attributes: MountAttr,
    /// Attributes of everything below it too (`rro` and the like).
    pub tree_attributes: MountAttr,
    /// Propagation, when one is given.
    pub propagation: Option<(Scope, u64)>,
    /// Whether, and how far, ids are shown through the container's mapping.
    pub idmap: Option<Scope>,
    /// Whether a tmpfs begins with what it covers.
    pub copy_up: bool,
    /// What is left for the file system.
    pub data: Vec<(String, Option<String>)>,
}

/// The attribute bits that an option turns on and off.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (RDONLY, 0),
        "rw" => (0, RDONLY),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "nodev" => (NODEV, 0),
        "dev" => (0, NODEV),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "noatime" => (NOATIME, ATIME),
        "strictatime" => (STRICTATIME, ATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (0, ATIME),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<(Scope, u64)> {
    Some(match option {
        "private" => (Scope::Single, libc::MS_PRIVATE),
        "rprivate" => (Scope::Tree, libc::MS_PRIVATE),
        "slave" => (Scope::Single, libc::MS_SLAVE),
        "rslave" => (Scope::Tree, libc::MS_SLAVE),
        "shared" => (Scope::Single, libc::MS_SHARED),
        "rshared" => (Scope::Tree, libc::MS_SHARED),
        "unbindable" => (Scope::Single, libc::MS_UNBINDABLE),
        "runbindable" => (Scope::Tree, libc::MS_UNBINDABLE),
        _ => return None,
    })
}

/// Every option with a meaning here; the rest goes to the file system.
pub(super) fn known() -> Vec<&'static str> {
    vec![
        "acl",
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "idmap",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noacl",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "noiversion",
        "nolazytime",
        "nomand",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "private",
        "ratime",
        "rbind",
        "rdev",
        "rdiratime",
        "relatime",
        "rexec",
        "ridmap",
        "rnoatime",
        "rnodev",
        "rnodiratime",
        "rnoexec",
        "rnorelatime",
        "rnostrictatime",
        "rnosuid",
        "rnosymfollow",
        "ro",
        "rprivate",
        "rrelatime",
        "rro",
        "rrw",
        "rshared",
        "rslave",
        "rstrictatime",
        "rsuid",
        "rsymfollow",
        "runbindable",
        "rw",
        "shared",
        "silent",
        "slave",
        "strictatime",
        "suid",
        "symfollow",
        "sync",
        "tmpcopyup",
        "unbindable",
    ]
}

fn apply(to: &mut MountAttr, (set, clear): (u64, u64)) {
    // The later option wins.
    to.set = to.set & !clear | set;
    to.clear = to.clear & !set | clear;
}

impl Options {
    pub fn parse(mount: &Mount) -> Result<Self, Error> {
        let mut options = Self::default();
        if mount.typ().as_deref() == Some("bind") {
            options.bind = Some(Scope::Single);
        }
        if mount.typ().as_deref() == Some("rbind") {
            options.bind = Some(Scope::Tree);
        }
        for option in mount.options().iter().flatten() {
            match option.as_str() {
                "" | "defaults" => {}
                "bind" => options.bind = Some(options.bind.unwrap_or(Scope::Single)),
                "rbind" => options.bind = Some(Scope::Tree),
                "idmap" => options.idmap = Some(Scope::Single),
                "ridmap" => options.idmap = Some(Scope::Tree),
                "tmpcopyup" => options.copy_up = true,
                // Words of mount(8) that change nothing for a new mount.
                "async" | "nomand" | "nolazytime" | "noiversion" | "silent" | "loud" | "acl" | "noacl" => {}
                "remount" => {
                    let what = format!("mounts: \"remount\" of {} is refused", mount.destination().display());
                    return Err(Error::Spec { what });
                }
                word => {
                    if let Some(bits) = attribute(word) {
                        apply(&mut options.attributes, bits);
                    } else if let Some(bits) = word.strip_prefix('r').and_then(attribute) {
                        apply(&mut options.tree_attributes, bits);
                    } else if let Some(given) = propagation(word) {
                        options.propagation = Some(given);
                    } else {
                        let (name, value) = match word.split_once('=') {
                            Some((name, value)) => (name, Some(value.to_owned())),
                            None => (word, None),
                        };
                        options.data.push((name.to_owned(), value));
                    }
                }
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::MountBuilder;

    fn parse(words: &[&str]) -> Options {
        let words: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
        Options::parse(&MountBuilder::default().typ("tmpfs").options(words).build().unwrap()).unwrap()
    }

    #[test]
    fn words_are_sorted_into_attributes_and_data() {
        let options = parse(&["nosuid", "strictatime", "mode=755", "size=64k", "rro", "rslave"]);
        assert_eq!(options.attributes, MountAttr::new(NOSUID | STRICTATIME, ATIME, 0));
        assert_eq!(options.tree_attributes, MountAttr::new(RDONLY, 0, 0));
        assert_eq!(options.propagation, Some((Scope::Tree, libc::MS_SLAVE)));
        assert_eq!(options.data, [("mode".into(), Some("755".into())), ("size".into(), Some("64k".into()))]);
    }

    #[test]
    fn the_later_word_wins() {
        assert_eq!(parse(&["ro", "rw"]).attributes.set & RDONLY, 0);
        assert_eq!(parse(&["rw", "ro"]).attributes.set & RDONLY, RDONLY);
    }

    #[test]
    fn rbind_covers_the_tree() {
        assert_eq!(parse(&["rbind"]).bind, Some(Scope::Tree));
        assert_eq!(parse(&["rbind", "bind"]).bind, Some(Scope::Tree));
    }
}
