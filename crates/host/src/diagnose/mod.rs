//! A report for whoever helps: what runs how, what was found, and the ends of the logs, without what is private.
//!
//! It is made where the daemon is, and shown to its user before it goes anywhere; nothing is sent by itself.

mod redact;

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;
use skiff_settings::{Paths, Settings};

use self::redact::Redactor;
use crate::control::{Client, Finding, Grade, chain};
use crate::doctor;

/// Bytes of a log that are told, from its end.
const TAIL: u64 = 96 << 10;

/// One file of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: String,
}

/// Makes the report. Neither starts a daemon nor wakes a guest.
pub async fn report(paths: &Paths) -> Vec<Part> {
    let redactor = Redactor::of_this_user();
    let mut parts = vec![
        Part { name: "about.txt", text: about() },
        Part { name: "doctor.txt", text: listed(&doctor::check(paths).await) },
        Part { name: "settings.json", text: settings(paths) },
    ];
    if let Ok(client) = Client::connect(&paths.control_socket()).await {
        let text = match client.status().await {
            Ok(status) => pretty(&status),
            Err(error) => chain(&error),
        };
        parts.push(Part { name: "status.json", text });
    }
    if let Ok(client) = Client::connect(&paths.control_socket()).await {
        let text = match client.network().await {
            Ok(findings) => listed(&findings),
            Err(error) => chain(&error),
        };
        parts.push(Part { name: "network.txt", text });
    }
    for (name, path) in [("daemon.log", paths.daemon_log()), ("console.log", paths.console_log())] {
        parts.push(Part { name, text: tail(&path) });
    }
    for part in &mut parts {
        part.text = redactor.redact(&part.text);
    }
    parts
}

fn about() -> String {
    let mut text = format!(
        "skiff {}\nsystem {} {}\nprocessors {}\nmemory {} MiB\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        std::thread::available_parallelism().map_or(1, usize::from),
        skiff_machine::host_memory_mib(),
    );
    #[cfg(unix)]
    {
        let system = rustix::system::uname();
        text.push_str(&format!(
            "kernel {} {}\n",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy()
        ));
    }
    if let Ok(release) = std::fs::read_to_string("/etc/os-release") {
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        text.push_str(&format!("distribution {}\n", name.unwrap_or_default().trim_matches('"')));
    }
    text
}

fn settings(paths: &Paths) -> String {
    match Settings::load(&paths.settings()) {
        Ok(settings) => pretty(&settings),
        Err(error) => chain(&error),
    }
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn listed(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let grade = match finding.grade {
            Grade::Good => "good",
            Grade::Note => "note",
            Grade::Bad => "bad ",
        };
        text.push_str(&format!("{grade}  {}\n", finding.what));
        if let Some(way_out) = &finding.way_out {
            text.push_str(&format!("      → {way_out}\n"));
        }
    }
    text
}

/// The end of a log, from a whole line on, without what steers terminals.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<(Vec<u8>, bool)> {
        let mut file = std::fs::File::open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let start = size.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok((bytes, start > 0))
    };
    match read() {
        Ok((bytes, cut)) => {
            let text = String::from_utf8_lossy(&bytes);
            let text = match text.split_once('\n') {
                Some((_, rest)) if cut => rest,
                _ => &text,
            };
            text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
        }
        Err(error) => format!("{error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_report_is_made_where_nothing_runs() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::discover(Some(directory.path())).unwrap();
        std::fs::create_dir_all(paths.daemon_log().parent().unwrap()).unwrap();
        std::fs::write(paths.daemon_log(), "pulled from http://me:hidden@registry.example\n\x1b[31mred\n")
            .unwrap();
        std::fs::write(
            paths.settings(),
            r#"{"network":{"proxy":{"http":"http://me:hidden@proxy.example"}}}"#,
        )
        .unwrap();
        let parts = report(&paths).await;
        let names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        assert_eq!(names, ["about.txt", "doctor.txt", "settings.json", "daemon.log", "console.log"]);
        let all: String = parts.iter().map(|part| part.text.as_str()).collect();
        assert!(all.contains("registry.example") && all.contains("proxy.example"), "{all}");
        assert!(!all.contains("hidden") && !all.contains('\x1b'), "{all}");
    }

    #[test]
    fn a_long_log_is_told_from_a_whole_line_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = "a line of a log that is long\n";
        std::fs::write(file.path(), line.repeat(10_000)).unwrap();
        let text = tail(file.path());
        assert!(text.len() as u64 <= TAIL && text.lines().all(|found| found == line.trim_end()));
    }
}
