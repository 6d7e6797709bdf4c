//! Where errors go: to standard error for people, to the log for the caller's program.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::SystemTime;

use super::Global;

/// How the log's lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// As a person reads them
    Text,
    /// As an object each
    Json,
}

/// Reports the error that ends a command.
pub fn error(global: &Global, text: &str) {
    eprintln!("{}: {text}", super::NAME);
    write(global, "error", text);
}

/// Reports something odd that does not keep the command from its end.
pub fn warning(global: &Global, text: &str) {
    if global.log.is_none() {
        eprintln!("{}: warning: {text}", super::NAME);
    }
    write(global, "warning", text);
}

fn write(global: &Global, level: &str, text: &str) {
    let Some(path) = &global.log else { return };
    let time = super::state::rfc3339(SystemTime::now());
    let line = match global.log_format {
        Format::Json => serde_json::json!({ "level": level, "msg": text, "time": time }).to_string(),
        Format::Text => format!("time={time:?} level={level} msg={text:?}"),
    };
    // Standard error has the text already; a log that can't be written is no reason for another error.
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}
