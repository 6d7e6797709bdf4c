//! `top`.

use bollard_stubs::models::ContainerTopResponse;

use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::process::{self, Process};

/// The kinds of output that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `ps -ef`.
    Full,
    /// `ps aux`.
    User,
}

impl Engine {
    /// Lists a container's processes as `ps` would.
    ///
    /// # Errors
    /// When the container does not run or the arguments are not known.
    pub async fn top_container(&self, id: &str, ps_args: &str) -> Result<ContainerTopResponse> {
        let container = self.container(id)?;
        let (first, _) = container.process()?;
        self.container_event(&container.record(), "top", &[]);
        if let Some(names) = wanted_columns(ps_args) {
            return self.columns(first, names).await;
        }
        let letters: String = ps_args.chars().filter(|letter| !matches!(letter, '-' | ' ')).collect();
        let format = match letters.as_str() {
            "" => Format::Full,
            letters if letters.chars().all(|letter| "aeAxwf".contains(letter)) => Format::Full,
            letters if letters.chars().all(|letter| "auxw".contains(letter)) => Format::User,
            _ => {
                return Err(Error::invalid(format!(
                    "ps: unknown options {ps_args:?}: this engine knows -ef, aux and -o with columns"
                )));
            }
        };
        let cgroup = container.cgroup();
        blocking(move || {
            let pids = cgroup
                .and_then(|cgroup| cgroup.procs().ok())
                .unwrap_or_else(|| process::in_namespace_of(first));
            let processes: Vec<Process> = pids.into_iter().filter_map(Process::read).collect();
            let rows = processes.iter().map(|process| match format {
                Format::Full => full(process),
                Format::User => user(process),
            });
            let titles: &[&str] = match format {
                Format::Full => &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
                Format::User => {
                    &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]
                }
            };
            Ok(ContainerTopResponse {
                titles: Some(titles.iter().map(|&title| title.to_owned()).collect()),
                processes: Some(rows.collect()),
            })
        })
        .await
    }

    /// `ps -o pid,comm` and the like.
    async fn columns(&self, first: i32, names: Vec<String>) -> Result<ContainerTopResponse> {
        for name in &names {
            if column(name).is_none() {
                return Err(Error::invalid(format!("ps: unknown user-defined format specifier \"{name}\"")));
            }
        }
        if !names.iter().any(|name| name == "pid") {
            return Err(Error::invalid("Couldn't find PID field in ps output"));
        }
        blocking(move || {
            let columns: Vec<Column> = names.iter().filter_map(|name| column(name)).collect();
            let processes = process::in_namespace_of(first).into_iter().filter_map(Process::read);
            Ok(ContainerTopResponse {
                titles: Some(columns.iter().map(|(title, _)| (*title).to_owned()).collect()),
                processes: Some(
                    processes
                        .map(|process| columns.iter().map(|(_, show)| show(&process)).collect())
                        .collect(),
                ),
            })
        })
        .await
    }
}

/// The columns of `-o pid,comm`, `-eopid -o comm` and the like; `None` when none are named.
fn wanted_columns(ps_args: &str) -> Option<Vec<String>> {
    let mut names = None;
    let mut words = ps_args.split_whitespace();
    while let Some(word) = words.next() {
        let list = match word.strip_prefix("--format") {
            Some(list) => list.trim_start_matches('='),
            None => match word.strip_prefix('-').and_then(|letters| letters.split_once('o')) {
                Some((before, list)) if before.chars().all(char::is_alphabetic) => list,
                _ => continue,
            },
        };
        let mut list = list.to_owned();
        // Blanks may stand between columns as well as commas.
        while list.is_empty() || list.ends_with(',') {
            let Some(more) = words.next() else { break };
            list.push_str(more);
        }
        let wanted = list.split(',').filter(|name| !name.is_empty());
        names.get_or_insert_with(Vec::new).extend(wanted.map(str::to_owned));
    }
    names
}

type Column = (&'static str, fn(&Process) -> String);

fn column(name: &str) -> Option<Column> {
    Some(match name {
        "pid" => ("PID", |process| process.pid.to_string()),
        "ppid" => ("PPID", |process| process.parent.to_string()),
        "uid" => ("UID", |process| process.uid.to_string()),
        "user" | "euser" | "uname" => ("USER", |process| owner(process.uid)),
        "comm" | "ucmd" => ("COMMAND", |process| {
            process
                .command
                .split(' ')
                .next()
                .and_then(|word| word.rsplit('/').next())
                .unwrap_or("")
                .to_owned()
        }),
        "cmd" | "args" | "command" => ("COMMAND", |process| process.command.clone()),
        "stat" | "state" | "s" => ("S", |process| process.state.to_string()),
        "time" => ("TIME", |process| duration(process.cpu_seconds())),
        "etime" => ("ELAPSED", |process| duration(age(process))),
        "stime" | "start" | "start_time" => ("STIME", start_time),
        "pcpu" | "%cpu" => ("%CPU", |process| format!("{:.1}", usage(process))),
        "c" => ("C", |process| usage(process).trunc().to_string()),
        "pmem" | "%mem" => ("%MEM", |process| format!("{:.1}", memory_share(process))),
        "sid" | "sess" | "session" => ("SID", |process| process.session.to_string()),
        "nlwp" | "thcount" => ("NLWP", |process| process.threads.to_string()),
        "tty" | "tt" | "tname" => ("TT", |process| terminal(process.tty)),
        "vsz" => ("VSZ", |process| (process.virtual_bytes / 1024).to_string()),
        "rss" => ("RSS", |process| (process.resident_pages * 4).to_string()),
        _ => return None,
    })
}

fn full(process: &Process) -> Vec<String> {
    vec![
        owner(process.uid),
        process.pid.to_string(),
        process.parent.to_string(),
        usage(process).trunc().to_string(),
        start_time(process),
        terminal(process.tty),
        duration(process.cpu_seconds()),
        process.command.clone(),
    ]
}

fn user(process: &Process) -> Vec<String> {
    let kib = process.resident_pages * 4;
    let share = memory_share(process);
    vec![
        owner(process.uid),
        process.pid.to_string(),
        format!("{:.1}", usage(process)),
        format!("{share:.1}"),
        (process.virtual_bytes / 1024).to_string(),
        kib.to_string(),
        terminal(process.tty),
        process.state.to_string(),
        start_time(process),
        format!("{}:{:02}", process.cpu_seconds() / 60, process.cpu_seconds() % 60),
        process.command.clone(),
    ]
}

/// The resident part of the machine's memory, in percent.
fn memory_share(process: &Process) -> f64 {
    100.0 * (process.resident_pages * 4) as f64 / crate::system::total_memory_kib().max(1) as f64
}

/// The name is the machine's, as with the `ps` that dockerd runs.
fn owner(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| if uid == 0 { "root".to_owned() } else { uid.to_string() })
}

fn age(process: &Process) -> u64 {
    (clock::now_ns() / 1_000_000_000).saturating_sub(process::booted_at() + process.began_after_boot())
}

fn usage(process: &Process) -> f64 {
    match age(process) {
        0 => 0.0,
        age => 100.0 * process.cpu_seconds() as f64 / age as f64,
    }
}

fn start_time(process: &Process) -> String {
    let began = process::booted_at() + process.began_after_boot();
    let text = clock::rfc3339(Some(began * 1_000_000_000));
    // Hours and minutes for a day, then the date.
    if age(process) < 86_400 { text[11..16].to_owned() } else { text[5..10].to_owned() }
}

fn duration(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The terminal of a device number: `pts/0`, `tty1`, `?` (the encoding is that of proc(5), field 7).
fn terminal(number: i64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_however_they_are_written() {
        let columns = |text: &str| wanted_columns(text).map(|names| names.join(" "));
        for text in [
            "-o pid,comm",
            "-eo pid,comm",
            "-eopid,comm",
            "-e -o pid -o comm",
            "-o pid, comm",
            "--format=pid,comm",
        ] {
            assert_eq!(columns(text).as_deref(), Some("pid comm"), "{text}");
        }
        for text in ["", "-ef", "aux", "-e --forest"] {
            assert_eq!(columns(text), None, "{text}");
        }
        assert!(["pid", "user", "%cpu", "%mem", "stime", "args"].iter().all(|name| column(name).is_some()));
    }

    #[test]
    fn terminals_and_times_read_as_in_ps() {
        assert_eq!(terminal(0x8800), "pts/0");
        assert_eq!(terminal(0), "?");
        assert_eq!(duration(3_725), "01:02:05");
    }
}
