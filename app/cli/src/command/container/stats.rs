//! `stats`: what containers use, again and again.

use std::time::Duration;

use clap::Args;

use crate::api::{Client, Query};
use crate::command::{Context, name_in_path};
use crate::error::Error;
use crate::format::list::{Layout, Row};
use crate::format::units;
use crate::format::value::Value;
use crate::terminal::{self, print};

/// Display a live stream of container(s) resource usage statistics
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff stats [OPTIONS] [CONTAINER...]")]
pub struct Stats {
    /// Show all containers (default shows just running)
    #[arg(short = 'a', long)]
    all: bool,
    #[doc = include_str!("../format.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Containers
    #[arg(value_name = "CONTAINER", hide = true)]
    containers: Vec<String>,
}

const COLUMNS: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

const TITLES: &[(&str, &str)] = &[
    ("BlockIO", "BLOCK I/O"),
    ("CPUPerc", "CPU %"),
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("Name", "NAME"),
    ("NetIO", "NET I/O"),
    ("PIDs", "PIDS"),
];

/// Carries `stats` out.
pub async fn run(context: &Context, args: &Stats) -> Result<(), Error> {
    let layout = Layout::new(args.format.as_deref(), COLUMNS)?;
    let client = context.client().await?;
    loop {
        let names = match args.containers.is_empty() {
            false => args.containers.clone(),
            true => match client.get("/containers/json", &Query::new().flag("all", args.all)).await? {
                Value::List(list) => list.iter().map(|container| container.text("Id").to_owned()).collect(),
                _ => Vec::new(),
            },
        };
        let samples = futures_util::future::join_all(names.iter().map(|name| sample(&client, name))).await;
        let mut rows = Vec::new();
        for (name, sample) in names.iter().zip(samples) {
            match sample {
                Ok(value) => rows.push(row(name, &value, !args.no_trunc)),
                // One that went away between the list and the question is no error, one that was named is.
                Err(error) if error.is_not_found() && args.containers.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        let text = layout.render(TITLES, &rows)?;
        if args.no_stream {
            print(&text);
            return Ok(());
        }
        if terminal::stdout_is_terminal() {
            print(&format!("\x1b[H\x1b[2J{text}"));
        } else {
            print(&text);
        }
        if names.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Asks for one sample; the engine takes two, a second apart, to tell the share of the processor.
async fn sample(client: &Client, name: &str) -> Result<Value, Error> {
    client.get(&format!("/containers/{}/stats", name_in_path(name)), &Query::new().with("stream", 0)).await
}

fn row(name: &str, sample: &Value, truncate: bool) -> Row {
    let id = sample.text("id");
    let id = if id.is_empty() { name } else { id };
    let memory = sample.get("memory_stats").unwrap_or(&Value::Null);
    // The page cache that can be dropped is not what the container needs.
    let cache = memory.get("stats").map_or(0, |stats| stats.int("inactive_file"));
    let used = memory.int("usage") - cache.min(memory.int("usage"));
    let limit = memory.int("limit");
    let (mut received, mut sent) = (0, 0);
    for (_, network) in sample.entries("networks") {
        received += network.int("rx_bytes");
        sent += network.int("tx_bytes");
    }
    let (mut read, mut written) = (0, 0);
    for entry in sample.get("blkio_stats").unwrap_or(&Value::Null).list("io_service_bytes_recursive") {
        match entry.text("op").to_ascii_lowercase().as_str() {
            "read" => read += entry.int("value"),
            "write" => written += entry.int("value"),
            _ => {}
        }
    }
    let percent = if limit > 0 { used as f64 / limit as f64 * 100.0 } else { 0.0 };
    let pids = sample.get("pids_stats").map_or(0, |pids| pids.int("current"));
    Row {
        fields: vec![
            ("BlockIO", Value::from(format!("{} / {}", units::size(read), units::size(written)))),
            ("CPUPerc", Value::from(format!("{:.2}%", processor(sample)))),
            ("Container", Value::from(name)),
            ("ID", Value::from(if truncate { units::short_id(id) } else { id.to_owned() })),
            ("MemPerc", Value::from(format!("{percent:.2}%"))),
            (
                "MemUsage",
                Value::from(format!("{} / {}", units::binary_size(used), units::binary_size(limit))),
            ),
            ("Name", Value::from(sample.text("name").trim_start_matches('/'))),
            ("NetIO", Value::from(format!("{} / {}", units::size(received), units::size(sent)))),
            ("PIDs", Value::from(pids.to_string())),
        ],
        labels: Vec::new(),
    }
}

/// Returns the share of one processor, in percent, between the sample and the one before.
fn processor(sample: &Value) -> f64 {
    let total =
        |part: &str| sample.at(&[part, "cpu_usage", "total_usage"]).and_then(Value::as_f64).unwrap_or(0.0);
    let system = |part: &str| sample.at(&[part, "system_cpu_usage"]).and_then(Value::as_f64).unwrap_or(0.0);
    let used = total("cpu_stats") - total("precpu_stats");
    let passed = system("cpu_stats") - system("precpu_stats");
    let online = sample.at(&["cpu_stats", "online_cpus"]).and_then(Value::as_f64).unwrap_or(1.0);
    if used > 0.0 && passed > 0.0 { used / passed * online * 100.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_becomes_a_row() {
        let sample = Value::parse(
            br#"{"id":"0123456789abcdef","name":"/web",
            "cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,"online_cpus":2},
            "precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},
            "memory_stats":{"usage":3145728,"limit":1073741824,"stats":{"inactive_file":1048576}},
            "networks":{"eth0":{"rx_bytes":1000,"tx_bytes":0}},"pids_stats":{"current":3}}"#,
        )
        .unwrap();
        let layout = Layout::new(
            Some("{{.ID}} {{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.NetIO}} {{.PIDs}}"),
            COLUMNS,
        );
        let text = layout.unwrap().render(TITLES, &[row("x", &sample, true)]).unwrap();
        assert_eq!(text, "0123456789ab web 40.00% 2MiB / 1GiB 0.20% 1kB / 0B 3\n");
    }
}
