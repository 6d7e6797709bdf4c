//! Where a container's standard streams go.

use std::os::fd::OwnedFd;

/// The child's ends of its standard streams.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// Streams or a terminal.
#[derive(Debug)]
pub enum Io {
    /// Three descriptors.
    Pipes(Stdio),
    /// A terminal of the container, whose master comes back in [`Created::terminal`](crate::Created::terminal).
    Terminal {
        /// Its first size: columns, rows.
        size: Option<(u16, u16)>,
    },
}
