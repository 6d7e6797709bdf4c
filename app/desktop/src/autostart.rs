//! Starting with the user's session: an entry as the XDG autostart specification has it.
//!
//! Whether it is on is whether the entry is there, so that what desktops show in their own settings stays true.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::memory::replace;

/// What a start with the session says to us.
pub const HIDDEN: &str = "--hidden";

/// The entry of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autostart {
    entry: PathBuf,
}

impl Autostart {
    /// Finds its place: `$XDG_CONFIG_HOME/autostart`, else `~/.config/autostart`.
    ///
    /// # Errors
    /// [`Error::NoHome`] when the environment names neither.
    pub fn discover(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|home| home.join(".config")));
        let config = config.ok_or(Error::NoHome)?;
        Ok(Self { entry: config.join("autostart").join("dev.skiff.Desktop.desktop") })
    }

    /// Whether it is on. An entry that a desktop has switched off stays, with `Hidden` or its own key.
    pub fn is_on(&self) -> bool {
        std::fs::read_to_string(&self.entry).is_ok_and(|text| {
            let off = ["Hidden=true", "X-GNOME-Autostart-enabled=false"];
            !text.lines().any(|line| off.contains(&line.trim()))
        })
    }

    /// Switches it on, for this program, or off.
    ///
    /// # Errors
    /// [`Error::File`] when the entry can't be written or removed.
    pub fn set(&self, on: bool, program: &Path) -> Result<(), Error> {
        if on == self.is_on() {
            return Ok(());
        }
        if !on {
            let removed = std::fs::remove_file(&self.entry);
            return removed.map_err(|source| Error::File {
                action: "remove",
                path: self.entry.clone(),
                source,
            });
        }
        if let Some(parent) = self.entry.parent() {
            std::fs::create_dir_all(parent).map_err(|source| Error::File {
                action: "create",
                path: parent.to_owned(),
                source,
            })?;
        }
        replace(&self.entry, entry(program).as_bytes())
    }
}

fn entry(program: &Path) -> String {
    format!(
        "[Desktop Entry]\nType=Application\nName=Skiff\nExec={} {HIDDEN}\nIcon=skiff\nTerminal=false\n\
         X-GNOME-Autostart-enabled=true\n",
        quoted(&program.to_string_lossy())
    )
}

/// An argument of `Exec`: quoted, then escaped once more as every value is, with `%` doubled.
fn quoted(argument: &str) -> String {
    let mut text = String::from("\"");
    for character in argument.chars() {
        match character {
            '"' | '`' | '$' => text.extend(["\\\\", &character.to_string()]),
            '\\' => text.push_str("\\\\\\\\"),
            '%' => text.push_str("%%"),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_comes_and_goes_and_what_the_desktop_switched_off_is_off() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_owned();
        let autostart =
            Autostart::discover(|name| (name == "HOME").then(|| home.clone().into_os_string())).unwrap();
        let program = Path::new("/opt/my skiff/skiff-desktop");
        assert!(!autostart.is_on());
        autostart.set(false, program).unwrap();
        autostart.set(true, program).unwrap();
        autostart.set(true, program).unwrap();
        assert!(autostart.is_on());
        let path = dir.path().join(".config/autostart/dev.skiff.Desktop.desktop");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\nExec=\"/opt/my skiff/skiff-desktop\" --hidden\n"), "{text}");
        std::fs::write(&path, text.replace("enabled=true", "enabled=false")).unwrap();
        assert!(!autostart.is_on());
        autostart.set(true, program).unwrap();
        assert!(autostart.is_on());
        autostart.set(false, program).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn paths_are_written_as_the_specification_wants_them() {
        assert_eq!(quoted("/a b/c"), r#""/a b/c""#);
        assert_eq!(quoted(r#"/100%/$x"y\z"#), r#""/100%%/\\$x\\"y\\\\z""#);
    }

    #[test]
    fn without_a_home_there_is_no_place() {
        assert!(matches!(Autostart::discover(|_| None), Err(Error::NoHome)));
        assert!(matches!(Autostart::discover(|_| Some("relative".into())), Err(Error::NoHome)));
    }
}
