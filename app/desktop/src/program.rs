//! Where the command line is, which is also the daemon.

use std::path::{Path, PathBuf};

/// Its name.
const NAME: &str = if cfg!(windows) { "skiff.exe" } else { "skiff" };

/// Finds it: beside this program (as packages and builds have it), else on the search path.
pub fn command_line(own: &Path, search_path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let beside = own.parent().map(|directory| directory.join(NAME));
    let listed = search_path.map(std::env::split_paths).into_iter().flatten();
    let listed = listed.filter(|directory| directory.is_absolute()).map(|directory| directory.join(NAME));
    beside.into_iter().chain(listed).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_beside_comes_before_those_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        for directory in [&own, &other] {
            std::fs::create_dir(directory).unwrap();
        }
        let window = own.join("skiff-desktop");
        let list = std::env::join_paths([Path::new("relative"), &other]).unwrap();
        assert_eq!(command_line(&window, Some(&list)), None);
        std::fs::write(other.join(NAME), "").unwrap();
        assert_eq!(command_line(&window, Some(&list)), Some(other.join(NAME)));
        std::fs::write(own.join(NAME), "").unwrap();
        assert_eq!(command_line(&window, Some(&list)), Some(own.join(NAME)));
        assert_eq!(command_line(&window, None), Some(own.join(NAME)));
    }
}
