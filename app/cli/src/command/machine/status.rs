//! `machine status`: looking never starts anything.

use clap::Args;
use skiff_host::control::{Client, ClientError, MachineState, Status as HostStatus};

use crate::command::Context;
use crate::command::context::control_failed;
use crate::error::Error;
use crate::format::list::object;
use crate::format::units;
use crate::format::value::Value;
use crate::terminal::{print, print_line};

/// Show the state of the machine
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine status [OPTIONS]")]
pub struct Status {
    #[doc = include_str!("../format_object.txt")]
    #[arg(short = 'f', long, value_name = "string")]
    format: Option<String>,
}

/// Carries `machine status` out.
pub async fn run(context: &Context, args: &Status) -> Result<(), Error> {
    let paths = context.paths()?;
    let status = match Client::connect(&paths.control_socket()).await {
        Ok(control) => Some(control.status().await.map_err(control_failed)?),
        Err(ClientError::NotRunning { .. }) => None,
        Err(error) => return Err(control_failed(error)),
    };
    match args.format.as_deref().filter(|format| !format.is_empty()) {
        Some(format) => {
            let json = serde_json::to_vec(&status).map_err(|error| Error::plain(error.to_string()))?;
            let value = match &status {
                Some(_) => Value::parse(&json).map_err(|error| Error::plain(error.to_string()))?,
                None => Value::Map(vec![
                    ("daemon".to_owned(), Value::Null),
                    ("machine".to_owned(), Value::Map(vec![("state".to_owned(), Value::from("stopped"))])),
                ]),
            };
            print_line(object(format, &value)?);
        }
        None => match &status {
            Some(status) => print(&describe(status)),
            None => print("Machine:      stopped\nDaemon:       not running (the first command starts it)\n"),
        },
    }
    Ok(())
}

fn spell(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn describe(status: &HostStatus) -> String {
    let machine = &status.machine;
    let mut out = String::new();
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{:<14}{value}\n", format!("{key}:")));
        }
    };
    line("Machine", format!("{} for {}", machine.state, spell(machine.since_seconds)));
    line("Reason", machine.reason.clone().unwrap_or_default());
    line("Backend", machine.backend.clone());
    if let Some(accelerator) = &machine.accelerator {
        let note = machine.accelerator_note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        line("Accelerator", format!("{accelerator}{note}"));
    }
    line("Image", machine.image_version.clone().unwrap_or_default());
    line("CPUs", machine.cpus.map(|cpus| cpus.to_string()).unwrap_or_default());
    let mebibytes =
        |mib: u64| units::binary_size(i64::try_from(mib.saturating_mul(1 << 20)).unwrap_or(i64::MAX));
    line("Memory", machine.memory_mib.map(mebibytes).unwrap_or_default());
    let bytes = |bytes: u64| units::binary_size(i64::try_from(bytes).unwrap_or(i64::MAX));
    if let Some(limit) = machine.disk_bytes {
        let used =
            machine.disk_used_bytes.map(|used| format!("{} used of ", bytes(used))).unwrap_or_default();
        line("Disk", format!("{used}{}", bytes(limit)));
    }
    if let Some(guest) = &machine.guest {
        line("Containers", format!("{} running", guest.containers_running));
        line("Guest", format!("agent {}, kernel {}", guest.version, guest.kernel));
        // Without a guest this would be the uptime of the host.
        if machine.cpus.is_some() || machine.image_version.is_some() {
            line("Uptime", spell(guest.uptime_seconds as u64));
        }
    }
    if let Some(size) = machine.saved_bytes {
        let age = machine.saved_seconds.map(|age| format!(", {} old", spell(age))).unwrap_or_default();
        line("Saved", format!("{}{age}", bytes(size)));
    }
    line("No sleep", machine.cannot_sleep.clone().unwrap_or_default());
    line("No wake", machine.wake_note.clone().unwrap_or_default());
    if let Some(size) = machine.template_bytes {
        let age = machine.template_seconds.map(|age| format!(", {} old", spell(age))).unwrap_or_default();
        line("Template", format!("{}{age}", bytes(size)));
    }
    line("No template", machine.template_note.clone().unwrap_or_default());
    let (start, how) = match (machine.woken, machine.templated) {
        (true, _) => ("Wake", ""),
        (_, true) => ("Start", ", from the template"),
        _ => ("Boot", ""),
    };
    let took = machine.boot_ms.map(|ms| format!("{:.2} s{how}", ms as f64 / 1000.0));
    line(start, took.unwrap_or_default());
    let idle = match machine.idle_stop_seconds {
        Some(seconds) => format!("after {} without containers and connections", spell(seconds)),
        None => "never".to_owned(),
    };
    line(if machine.idle_sleeps { "Idle sleep" } else { "Idle stop" }, idle);
    if machine.state == MachineState::Running {
        line("Connections", machine.connections.to_string());
    }
    line("Process", machine.pid.map(|pid| pid.to_string()).unwrap_or_default());
    let daemon = &status.daemon;
    line(
        "Daemon",
        format!("{}, process {}, up {}", daemon.version, daemon.pid, spell(daemon.uptime_seconds)),
    );
    line("Docker", daemon.docker_socket.display().to_string());
    line("State", daemon.state_dir.display().to_string());
    line("Log", daemon.log.display().to_string());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use skiff_host::control::{DaemonStatus, MachineStatus};

    #[test]
    fn a_stopped_machine_shows_no_empty_lines_and_times_are_spelt() {
        let status = HostStatus {
            daemon: DaemonStatus {
                version: "0.1.0".into(),
                pid: 7,
                uptime_seconds: 3700,
                docker_socket: "/s/docker.sock".into(),
                state_dir: "/s".into(),
                log: "/s/log".into(),
            },
            machine: MachineStatus {
                state: MachineState::Stopped,
                since_seconds: 61,
                reason: None,
                backend: "qemu".into(),
                accelerator: Some("tcg".into()),
                accelerator_note: Some("kvm: no console output within 3 s".into()),
                pid: None,
                boot_ms: None,
                connections: 0,
                image_version: None,
                cpus: Some(1),
                memory_mib: Some(2048),
                disk_bytes: Some(64 << 30),
                disk_used_bytes: Some(1 << 30),
                idle_stop_seconds: Some(300),
                idle_sleeps: false,
                saved_bytes: None,
                saved_seconds: None,
                cannot_sleep: None,
                woken: false,
                wake_note: None,
                template_bytes: None,
                template_seconds: None,
                templated: false,
                template_note: None,
                guest: None,
            },
        };
        assert_eq!(
            describe(&status),
            "Machine:      stopped for 1 min 1 s\nBackend:      qemu\n\
             Accelerator:  tcg (kvm: no console output within 3 s)\nCPUs:         1\nMemory:       2GiB\n\
             Disk:         1GiB used of 64GiB\nIdle stop:    after 5 min 0 s without containers and connections\n\
             Daemon:       0.1.0, process 7, up 1 h 1 min\nDocker:       /s/docker.sock\nState:        /s\nLog:          /s/log\n"
        );
        let mut asleep = status;
        asleep.machine = MachineStatus {
            state: MachineState::Asleep,
            saved_bytes: Some(64 << 20),
            saved_seconds: Some(61),
            idle_sleeps: true,
            wake_note: Some("the disk was used since".into()),
            boot_ms: Some(612),
            template_bytes: Some(80 << 20),
            template_seconds: Some(7),
            templated: true,
            template_note: Some("its description cannot be read".into()),
            ..asleep.machine
        };
        let text = describe(&asleep);
        for line in [
            "Machine:      asleep for 1 min 1 s\n",
            "Saved:        64MiB, 1 min 1 s old\n",
            "No wake:      the disk was used since\n",
            "Template:     80MiB, 7 s old\n",
            "No template:  its description cannot be read\n",
            "Start:        0.61 s, from the template\n",
            "Idle sleep:   after 5 min 0 s without containers and connections\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text:?}");
        }
        assert_eq!(spell(2 * 86400 + 3 * 3600), "2 d 3 h");
    }
}
