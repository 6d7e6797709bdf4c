//! What can go wrong with settings and paths.

use std::path::PathBuf;

/// An error of this crate; every variant names the file, field or variable at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read, made or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb: `read`, `create`, `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The settings file is not valid JSON, or has an unknown field or a value of the wrong type.
    #[error("settings file {}: {}{message}", path.display(), field_prefix(field))]
    Syntax {
        /// The settings file.
        path: PathBuf,
        /// The dotted field, empty where the file as a whole is at fault.
        field: String,
        /// What the parser says, with line and column.
        message: String,
    },
    /// A setting has a value of the right type that makes no sense.
    #[error("{field}: {message}")]
    Value {
        /// The dotted field.
        field: &'static str,
        /// Why the value is refused and what would do.
        message: String,
    },
    /// A settings file holds a value that makes no sense.
    #[error("settings file {}", path.display())]
    Invalid {
        /// The settings file.
        path: PathBuf,
        /// Which value, and why.
        #[source]
        source: Box<Error>,
    },
    /// No state directory can be found because the environment names no home.
    #[error("cannot find a state directory: {variable} is not set (use --state or SKIFF_STATE)")]
    NoHome {
        /// The variable that was looked for last.
        variable: &'static str,
    },
    /// The directory for sockets belongs to somebody else or is no directory.
    #[error("socket directory {} is not a private directory of this user; remove it", path.display())]
    SocketDirectory {
        /// The directory.
        path: PathBuf,
    },
}

fn field_prefix(field: &str) -> String {
    if matches!(field, "" | "." | "?") { String::new() } else { format!("{field}: ") }
}
