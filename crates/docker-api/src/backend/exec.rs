//! Processes started in a running container.

use async_trait::async_trait;
use bollard_stubs::models::{ExecConfig, ExecInspectResponse};

use super::{AttachStreams, TerminalSize};
use crate::error::Result;

/// How an exec is started (`POST /exec/{id}/start`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartExec {
    /// The client's idea of a terminal; must agree with what the exec was created with.
    pub tty: bool,
    /// The terminal's first size.
    pub console_size: Option<TerminalSize>,
}

/// Execs.
#[async_trait]
pub trait Exec: Send + Sync + 'static {
    /// Prepares a process in a running container; returns the exec's id.
    async fn create_exec(&self, container: &str, config: ExecConfig) -> Result<String>;

    /// Starts with stdio connected.
    async fn start_exec(&self, id: &str, options: StartExec) -> Result<AttachStreams>;

    /// Starts without stdio and returns once it runs.
    async fn start_exec_detached(&self, id: &str, options: StartExec) -> Result<()>;

    /// Sets the terminal's size.
    async fn resize_exec(&self, id: &str, size: TerminalSize) -> Result<()>;

    /// Describes an exec.
    async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse>;
}
