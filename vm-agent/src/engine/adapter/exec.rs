//! Execs.

use async_trait::async_trait;
use skiff_docker_api::Result;
use skiff_docker_api::backend::{AttachStreams, Exec, StartExec, TerminalSize};
use skiff_docker_api::models::{ExecConfig, ExecInspectResponse};

use super::Adapter;
use super::convert::{self, OrApiError};

#[async_trait]
impl Exec for Adapter {
    async fn create_exec(&self, container: &str, config: ExecConfig) -> Result<String> {
        self.0.create_exec(container, config).await.or_api()
    }

    async fn start_exec(&self, id: &str, options: StartExec) -> Result<AttachStreams> {
        self.0.start_exec(id, start(options)).await.or_api().map(convert::attach)
    }

    async fn start_exec_detached(&self, id: &str, options: StartExec) -> Result<()> {
        self.0.start_exec_detached(id, start(options)).await.or_api()
    }

    async fn resize_exec(&self, id: &str, size: TerminalSize) -> Result<()> {
        self.0.resize_exec(id, convert::size(size)).await.or_api()
    }

    async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse> {
        self.0.inspect_exec(id).await.or_api()
    }
}

fn start(options: StartExec) -> skiff_engine::StartExec {
    skiff_engine::StartExec { tty: options.tty, console_size: options.console_size.map(convert::size) }
}
