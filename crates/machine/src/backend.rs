//! Which backend runs the guest on this host.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use skiff_settings::{BackendChoice, Paths};
use skiff_vm::{
    Backend,
    native::{self, Native},
    qemu::{self, Qemu, args::Arch, find_program},
};

use crate::{Error, Image};

/// A backend and what it needs.
#[derive(Clone)]
pub struct Selected {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// The guest image; none without a virtual machine.
    pub image: Option<Image>,
    /// Other backends whose guests may still run from another time; they are ended.
    pub others: Vec<Arc<dyn Backend>>,
}

/// Chooses the backend for a program at `exe`.
///
/// `auto` takes QEMU where QEMU and a guest image are found, else native on Linux for root with the agent beside us.
///
/// # Errors
/// [`Error::NoBackend`] with what to install when nothing fits, or what the backend asked for lacks.
pub fn select(paths: &Paths, choice: BackendChoice, exe: &Path) -> Result<Selected, Error> {
    let qemu: Arc<dyn Backend> = Arc::new(Qemu::new(qemu_files(paths)));
    let agent = agent_beside(exe);
    let native: Arc<dyn Backend> =
        Arc::new(Native::new(native_files(paths, agent.clone().unwrap_or_default())));
    let image = || -> Result<Image, Error> {
        find_program(Arch::host().program()).map_err(Error::Start)?;
        Ok(Image::find(&paths.guest_image_candidates(exe))?)
    };
    let with_qemu = |image: Image| Selected {
        backend: Arc::clone(&qemu),
        image: Some(image),
        others: vec![Arc::clone(&native)],
    };
    let with_native =
        || Selected { backend: Arc::clone(&native), image: None, others: vec![Arc::clone(&qemu)] };
    match choice {
        BackendChoice::Qemu => image().map(with_qemu),
        BackendChoice::Native => match native_lacks(agent.as_deref()) {
            None => Ok(with_native()),
            Some((reason, hint)) => Err(Error::NoBackend { reason: format!("native: {reason}"), hint }),
        },
        BackendChoice::Auto => {
            let error = match image() {
                Ok(image) => return Ok(with_qemu(image)),
                Err(error) => error,
            };
            match native_lacks(agent.as_deref()) {
                None => {
                    tracing::info!(%error, "no virtual machine, containers run on this host");
                    Ok(with_native())
                }
                Some((reason, _)) => {
                    let hint = error.hint().unwrap_or_else(|| "install QEMU and the guest image".to_owned());
                    Err(Error::NoBackend { reason: format!("{}; native: {reason}", chain(&error)), hint })
                }
            }
        }
    }
}

/// What the native backend lacks, and what would help.
fn native_lacks(agent: Option<&Path>) -> Option<(String, String)> {
    if !cfg!(target_os = "linux") {
        return Some(("it needs Linux".to_owned(), "use the qemu backend".to_owned()));
    }
    if agent.is_none() {
        let reason = "skiff-agent is not beside skiff".to_owned();
        return Some((reason, "install skiff-agent into the directory of skiff".to_owned()));
    }
    #[cfg(unix)]
    if !rustix::process::geteuid().is_root() {
        let hint = "run the daemon as root, or use the qemu backend".to_owned();
        return Some(("it needs root".to_owned(), hint));
    }
    None
}

fn agent_beside(exe: &Path) -> Option<PathBuf> {
    let dir = exe.parent()?;
    [dir.join("skiff-agent"), dir.join("../lib/skiff/skiff-agent")].into_iter().find(|path| path.is_file())
}

fn qemu_files(paths: &Paths) -> qemu::Files {
    let monitor = paths.qmp_socket();
    qemu::Files {
        console: monitor.with_file_name("console.sock"),
        monitor,
        link: paths.link_socket(),
        console_log: paths.console_log(),
        stderr_log: paths.log_dir().join("qemu.log"),
        verdict: paths.verdict(),
        record: paths.machine_dir().join("guest.json"),
    }
}

fn native_files(paths: &Paths, agent: PathBuf) -> native::Files {
    native::Files {
        agent,
        root: paths.native_root(),
        api_socket: paths.native_api_socket(),
        link: paths.native_link_socket(),
        host: paths.native_host_socket(),
        log: paths.console_log(),
        record: paths.state().join("native").join("guest.json"),
    }
}

/// Joins an error and its sources by colons.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &Path) -> Paths {
        Paths::discover_with(Some(dir), |_| None).unwrap()
    }

    #[test]
    fn lacking_backends_say_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("bin").join("skiff");
        let refused = |choice| match select(&paths(dir.path()), choice, &exe) {
            Ok(_) => panic!("nothing is installed"),
            Err(error) => (chain(&error), error.hint()),
        };
        let (text, hint) = refused(BackendChoice::Auto);
        assert!(text.contains("native: "), "{text}");
        assert!(hint.is_some());
        let (text, _) = refused(BackendChoice::Native);
        assert!(text.contains("skiff-agent") || text.contains("Linux"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn agent_beside_us_makes_native_possible_for_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("skiff-agent"), b"").unwrap();
        let selected = select(&paths(dir.path()), BackendChoice::Native, &dir.path().join("skiff"));
        if rustix::process::geteuid().is_root() {
            assert_eq!(selected.ok().unwrap().backend.name(), "native");
        } else {
            assert!(selected.is_err());
        }
    }
}
