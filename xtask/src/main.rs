//! Checks and generators of this repository: `cargo xtask <command>`.
#![forbid(unsafe_code)]

mod deps;
mod sources;
mod table;
mod types;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

commands:
  deps    check the import table, unsafe code, forgotten files and file sizes
  types   write the interface's types from the Rust ones; --check only compares";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let outcome = match command.as_deref() {
        Some("deps") => deps::run(),
        Some("types") => types::run(std::env::args().nth(2).as_deref() == Some("--check")),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                eprintln!("error: {finding}");
            }
            eprintln!("{} found", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
