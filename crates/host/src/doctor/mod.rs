//! `doctor`: what Skiff needs on this machine, and the way out of what is wrong.

#[cfg(unix)]
mod disk;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use skiff_settings::{BackendChoice, Paths, Settings};

use crate::control::{Client, Finding, MachineState, chain};
use crate::docker_context;

/// Looks at this host, and at the daemon if one runs. Neither starts anything nor wakes a guest.
pub async fn check(paths: &Paths) -> Vec<Finding> {
    let (backend, of_daemon) = daemon(paths).await;
    let paths = paths.clone();
    let mut findings = match tokio::task::spawn_blocking(move || host(&paths, backend.as_deref())).await {
        Ok(findings) => findings,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    findings.extend(of_daemon);
    findings
}

/// What can be seen without asking anybody; `backend` is the one that a daemon has. Blocks.
fn host(paths: &Paths, backend: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![state_directory(paths)];
    let settings = match Settings::load(&paths.settings()) {
        Ok(settings) => {
            findings.push(Finding::good(format!("settings: {}", paths.settings().display())));
            settings
        }
        Err(error) => {
            let way_out = format!("mend or remove {}", paths.settings().display());
            findings.push(Finding::bad(format!("settings can't be read: {}", chain(&error)), way_out));
            Settings::default()
        }
    };
    let is_native = match backend {
        Some(backend) => backend == "native",
        None => settings.machine.backend == BackendChoice::Native,
    };
    if is_native {
        findings.push(Finding::good("backend: native (the engine runs on this host, no guest)"));
    } else {
        findings.push(qemu());
        findings.push(guest_image(paths));
        findings.extend(accelerator(paths));
    }
    #[cfg(unix)]
    findings.extend(disk::space(paths.state()));
    findings.push(docker_client());
    findings
}

fn read(path: &Path) -> Option<Result<Value, serde_json::Error>> {
    Some(serde_json::from_slice(&std::fs::read(path).ok()?))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Finds out whether we can write where the state is, or will be.
fn state_directory(paths: &Paths) -> Finding {
    let state = paths.state();
    let existing = state.ancestors().find(|path| path.exists()).unwrap_or(state);
    let probe = existing.join(format!(".skiff-doctor-{}", std::process::id()));
    match std::fs::write(&probe, b"") {
        Ok(()) => {
            let _ = std::fs::remove_file(&probe);
            Finding::good(format!("state directory: {}", state.display()))
        }
        Err(error) => Finding::bad(
            format!("state directory {} can't be written: {error}", state.display()),
            format!(
                "make {} yours, or set {} to another directory",
                existing.display(),
                skiff_settings::env::SKIFF_STATE
            ),
        ),
    }
}

fn qemu_program() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "qemu-system-aarch64",
        _ => "qemu-system-x86_64",
    }
}

fn qemu() -> Finding {
    let program = qemu_program();
    let way_out = if cfg!(target_os = "macos") {
        "brew install qemu"
    } else if cfg!(windows) {
        "install QEMU for Windows and add it to PATH"
    } else {
        "apt install qemu-system-x86 (Debian, Ubuntu), dnf install qemu-kvm (Fedora), or use `skiff daemon --backend native`"
    };
    match Command::new(program).arg("--version").output() {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            Finding::good(format!("qemu: {}", said.lines().next().unwrap_or(program)))
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Finding::bad(
                format!("{program} does not run: {}", said.lines().next().unwrap_or("no output")),
                way_out,
            )
        }
        Err(error) => Finding::bad(format!("{program} can't be started: {error}"), way_out),
    }
}

fn guest_image(paths: &Paths) -> Finding {
    let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("skiff"));
    let candidates = paths.guest_image_candidates(&exe);
    for candidate in &candidates {
        let Some(manifest) = read(&candidate.join("manifest.json")) else { continue };
        let path = candidate.canonicalize().unwrap_or_else(|_| candidate.clone());
        return match manifest {
            Ok(manifest) => Finding::good(format!(
                "guest image: {} (version {})",
                path.display(),
                text(&manifest, "version")
            )),
            Err(error) => Finding::bad(
                format!("guest image: {} has no valid manifest: {error}", path.display()),
                "build or install the guest image again",
            ),
        };
    }
    let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Finding::bad(
        format!("no guest image; looked in {}", looked.join(", ")),
        format!(
            "build it (see guest-image/README.md), or set {} to its directory",
            skiff_settings::env::SKIFF_GUEST_IMAGE
        ),
    )
}

/// Tells what the remembered verdict says, and what `/dev/kvm` would allow.
fn accelerator(paths: &Paths) -> Option<Finding> {
    if let Some(Ok(verdict)) = read(&paths.verdict()) {
        let name = text(&verdict, "accelerator");
        if verdict["works"] == true {
            return Some(Finding::good(format!("acceleration: {name} runs the guest")));
        }
        return Some(Finding::note(
            format!(
                "acceleration: {name} does not run the guest ({}); it is emulated",
                text(&verdict, "reason")
            ),
            "mend it, then `skiff machine restart --retry-accelerator`",
        ));
    }
    if !cfg!(target_os = "linux") {
        return None;
    }
    let kvm = Path::new("/dev/kvm");
    Some(match std::fs::OpenOptions::new().read(true).write(true).open(kvm) {
        Ok(_) => Finding::good(
            "acceleration: /dev/kvm can be opened; the first start tells whether it runs the guest",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::note(
            "acceleration: there is no /dev/kvm; the guest is emulated, which is slower",
            "turn virtualization on in the firmware, or load the kvm module",
        ),
        Err(error) => Finding::note(
            format!(
                "acceleration: /dev/kvm can't be opened ({error}); the guest is emulated, which is slower"
            ),
            "sudo usermod -aG kvm $USER, then log in again",
        ),
    })
}

/// Finds the docker CLI's context, which the daemon writes on its first start.
fn docker_client() -> Finding {
    let Some(config) = docker_context::config_dir() else {
        return Finding::note("docker context: no home directory, so none is written", "set DOCKER_CONFIG");
    };
    let named = |entry: &std::fs::DirEntry| matches!(read(&entry.path().join("meta.json")), Some(Ok(meta)) if text(&meta, "Name") == docker_context::NAME);
    let found = std::fs::read_dir(config.join("contexts").join("meta"))
        .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| named(&entry))));
    if found {
        Finding::good(format!(
            "docker context: {} (docker context use {})",
            docker_context::NAME,
            docker_context::NAME
        ))
    } else {
        Finding::note(
            "docker context: not written yet",
            "the daemon writes it when it starts: `skiff machine start`",
        )
    }
}

/// What the daemon says of itself, and its backend.
async fn daemon(paths: &Paths) -> (Option<String>, Vec<Finding>) {
    let control = match Client::connect(&paths.control_socket()).await {
        Ok(control) => control,
        Err(_) => {
            let way_out = "any command starts it, for example `skiff ps`";
            return (None, vec![Finding::note("daemon: not running", way_out)]);
        }
    };
    let status = match control.status().await {
        Ok(status) => status,
        Err(error) => {
            let what = format!("daemon: does not answer: {}", chain(&error));
            let way_out = "see `skiff machine logs --daemon`, then end it and try again";
            return (None, vec![Finding::bad(what, way_out)]);
        }
    };
    let mut findings = vec![
        Finding::good(format!("daemon: version {}, process {}", status.daemon.version, status.daemon.pid)),
        socket(&status.daemon.docker_socket),
    ];
    if status.daemon.version != env!("CARGO_PKG_VERSION") {
        findings.push(Finding::note(
            format!(
                "daemon: its version is {}, this program's {}",
                status.daemon.version,
                env!("CARGO_PKG_VERSION")
            ),
            "`skiff machine stop --daemon`; the next command starts the new one",
        ));
    }
    let reason = status.machine.reason.unwrap_or_default();
    findings.push(match status.machine.state {
        MachineState::Failed => {
            Finding::bad(format!("machine: failed: {reason}"), "`skiff machine logs` shows its console")
        }
        state => Finding::good(format!("machine: {state}, backend {}", status.machine.backend)),
    });
    (Some(status.machine.backend), findings)
}

#[cfg(unix)]
fn socket(path: &Path) -> Finding {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match meta.permissions().mode() & 0o077 {
            0 => Finding::good(format!("docker socket: {}", path.display())),
            _ => Finding::note(
                format!(
                    "docker socket: {} is open to other users, who become root in the machine with it",
                    path.display()
                ),
                format!("chmod 600 {}", path.display()),
            ),
        },
        Ok(_) => Finding::bad(
            format!("docker socket: {} is no socket", path.display()),
            "remove it and restart the daemon",
        ),
        Err(error) => {
            Finding::bad(format!("docker socket: {}: {error}", path.display()), "restart the daemon")
        }
    }
}

#[cfg(not(unix))]
fn socket(path: &Path) -> Finding {
    Finding::good(format!("docker socket: {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Grade;

    #[test]
    fn a_state_directory_that_can_t_be_made_is_bad() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let paths = Paths::discover(Some(&file.join("state"))).unwrap();
        assert_eq!(state_directory(&paths).grade, Grade::Bad);
        let paths = Paths::discover(Some(&directory.path().join("state"))).unwrap();
        assert_eq!(state_directory(&paths).grade, Grade::Good);
        assert_eq!(guest_image(&paths).grade, Grade::Bad);
    }
}
