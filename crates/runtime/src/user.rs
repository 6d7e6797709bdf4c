//! Turning `--user` into numbers, with the files of the container's own root file system.

mod files;
mod root;

pub use root::Root;

use files::{Group, Passwd};
use std::io;

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, ascending.
    pub groups: Vec<u32>,
    /// Home directory: `/` when the user is in no passwd file.
    pub home: String,
}

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name is not in the container's passwd file.
    #[error("unable to find user {name}: no matching entries in passwd file")]
    NoUser {
        /// The name.
        name: String,
    },
    /// A name is not in the container's group file.
    #[error("unable to find group {name}: no matching entries in group file")]
    NoGroup {
        /// The name.
        name: String,
    },
    /// A number is out of range.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
    /// A file is there and cannot be read.
    #[error("unable to read {file} of the container")]
    Read {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The longest passwd or group file that is read.
const LONGEST_FILE: u64 = 16 << 20;

/// Finds the numbers for `user[:group]`, each a name or a number; empty means root.
///
/// `open` opens a file of the container, as [`Root::open`] does, and `additional` are group names or numbers to add.
/// As in Docker, a user's own groups count only when no group is given with it, and numbers need not be in any file.
pub fn resolve(
    mut open: impl FnMut(&str) -> io::Result<std::fs::File>,
    user: &str,
    additional: &[String],
) -> Result<Identity, Error> {
    let passwd = read(&mut open, "etc/passwd")?;
    let group = read(&mut open, "etc/group")?;
    resolve_text(&passwd, &group, user, additional)
}

fn read(
    open: &mut impl FnMut(&str) -> io::Result<std::fs::File>,
    file: &'static str,
) -> Result<String, Error> {
    use std::io::Read as _;
    let opened = match open(file) {
        Ok(opened) => opened,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        Err(source) => return Err(Error::Read { file, source }),
    };
    let mut bytes = Vec::new();
    opened.take(LONGEST_FILE).read_to_end(&mut bytes).map_err(|source| Error::Read { file, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn resolve_text(passwd: &str, group: &str, wanted: &str, additional: &[String]) -> Result<Identity, Error> {
    let (user, given_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user_number = number(user)?;
    let entry = files::passwd(passwd).find(|entry| match user_number {
        // A name wins over the number it looks like only where an entry has that name.
        Some(number) => entry.uid == number,
        None if user.is_empty() => entry.uid == 0,
        None => entry.name == user,
    });
    let named = files::passwd(passwd).find(|entry| !user.is_empty() && entry.name == user);
    let entry = named.or(entry);
    let uid = match (&entry, user_number) {
        (Some(entry), _) => entry.uid,
        (None, Some(number)) => number,
        (None, None) if user.is_empty() => 0,
        (None, None) => return Err(Error::NoUser { name: user.to_owned() }),
    };
    let mut groups = Vec::new();
    let gid = match given_group {
        Some(name) => find_group(group, name)?,
        None => {
            if let Some(Passwd { name, .. }) = &entry {
                groups.extend(files::group(group).filter(|g| g.members.contains(name)).map(|g| g.gid));
            }
            entry.as_ref().map_or(0, |entry| entry.gid)
        }
    };
    for name in additional {
        groups.push(find_group(group, name)?);
    }
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|entry| entry.home.to_owned()).filter(|home| !home.is_empty());
    Ok(Identity { uid, gid, groups, home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn find_group(text: &str, wanted: &str) -> Result<u32, Error> {
    if let Some(Group { gid, .. }) = files::group(text).find(|group| group.name == wanted) {
        return Ok(gid);
    }
    number(wanted)?.ok_or_else(|| Error::NoGroup { name: wanted.to_owned() })
}

/// Reads a decimal number in the range that Docker allows; a text that is none is a name.
fn number(text: &str) -> Result<Option<u32>, Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Go's Atoi reads a sign too, and what it reads is then out of range.
        let signed = text.strip_prefix('-').is_some_and(|rest| rest.parse::<u64>().is_ok());
        return if signed { Err(Error::Range) } else { Ok(None) };
    }
    match text.parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok(Some(number)),
        _ => Err(Error::Range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\n# comment\nbroken\nweb:x:101:102::/srv/web:/bin/false\n\
        1234:x:77:78::/home/odd:\n+nis::::::\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\ndocker:x:990:root,web\nextra:x:55:web\n";

    fn resolve(user: &str, additional: &[&str]) -> Result<Identity, String> {
        let additional: Vec<String> = additional.iter().map(|&g| g.to_owned()).collect();
        resolve_text(PASSWD, GROUP, user, &additional).map_err(|error| error.to_string())
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<Identity, String> {
        Ok(Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(resolve("", &[]), identity(0, 0, &[990], "/root"));
        assert_eq!(resolve("web", &[]), identity(101, 102, &[55, 990], "/srv/web"));
        assert_eq!(resolve("101", &[]), identity(101, 102, &[55, 990], "/srv/web"));
        assert_eq!(resolve("web:docker", &[]), identity(101, 990, &[], "/srv/web"));
        assert_eq!(resolve("web:5", &["extra", "7"]), identity(101, 5, &[7, 55], "/srv/web"));
        assert_eq!(resolve("4000", &[]), identity(4000, 0, &[], "/"));
        assert_eq!(resolve("4000:4001", &[]), identity(4000, 4001, &[], "/"));
        assert_eq!(resolve("1234", &[]), identity(77, 78, &[], "/home/odd"));
    }

    #[test]
    fn unknown_names_have_dockers_words() {
        let user = "unable to find user x: no matching entries in passwd file";
        assert_eq!(resolve("x", &[]), Err(user.to_owned()));
        let group = "unable to find group y: no matching entries in group file";
        assert_eq!(resolve("web:y", &[]), Err(group.to_owned()));
        assert_eq!(resolve("web", &["y"]), Err(group.to_owned()));
        let range = Err("uids and gids must be in range 0-2147483647".to_owned());
        assert_eq!(resolve("-1", &[]), range);
        assert_eq!(resolve("2147483648", &[]), range);
    }

    #[test]
    fn missing_files_still_know_root_and_numbers() {
        let missing = |_: &str| Err(io::ErrorKind::NotFound.into());
        assert_eq!(super::resolve(missing, "", &[]).unwrap().uid, 0);
        assert_eq!(super::resolve(missing, "12:13", &[]).unwrap().gid, 13);
        assert!(super::resolve(missing, "root", &[]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_lookup(passwd in "[a-z0-9:\n#+ -]{0,200}", group in "[a-z0-9:,\n]{0,200}",
                                     user in "[a-z0-9:-]{0,12}") {
            if let Ok(found) = resolve_text(&passwd, &group, &user, &[]) {
                prop_assert!(found.groups.is_sorted());
                prop_assert!(!found.home.is_empty());
            }
        }

        #[test]
        fn a_written_user_is_found_again(name in "[a-z_][a-z0-9_-]{0,15}", uid in 0u32..=0x7fff_ffff,
                                         gid in 0u32..=0x7fff_ffff) {
            let passwd = format!("other:x:1:1::/o:/bin/sh\n{name}:x:{uid}:{gid}:,,,:/home/{name}:/bin/sh\n");
            let found = resolve_text(&passwd, "", &name, &[]).unwrap();
            prop_assume!(name != "other");
            prop_assert_eq!((found.uid, found.gid), (uid, gid));
        }
    }
}
