//! Starting an exec.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use skiff_runtime::user::Root;
use skiff_runtime::{Io, Parent, Stdio};

use super::{Exec, streams};
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::log::{Chunk, Stream};
use crate::options::{AttachStreams, StartExec, TerminalSize};
use crate::spec;

/// The engine's ends of an exec's streams.
#[derive(Debug, Default)]
pub(super) struct Ours {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub master: Option<OwnedFd>,
}

/// Whether a client wants the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Attached,
    None,
}

impl Engine {
    /// Starts an exec with its streams connected.
    ///
    /// # Errors
    /// When the container does not run any more. Why the command can't be executed is told on the stream, also that it
    /// was started before: clients are past the upgrade by then, and some start twice (Compose's `watch`).
    pub async fn start_exec(&self, id: &str, options: StartExec) -> Result<AttachStreams> {
        let exec = self.0.execs.get(id)?;
        let tty = exec.config.tty == Some(true);
        let container = self.container(&exec.container)?;
        self.check_exec(&container.record(), &container.id)?;
        let ours = match self.run_exec(&exec, options.console_size, Client::Attached).await {
            Ok(ours) => ours,
            Err(error) => {
                let bytes = format!("{}\r\n", error.message).into();
                let output = futures_util::stream::iter([Ok(Chunk { stream: Stream::Stdout, bytes })]);
                return Ok(AttachStreams {
                    output: Box::pin(output),
                    input: None,
                    tty,
                    detach_keys: None,
                    on_detach: None,
                });
            }
        };
        let (output, input) = streams::connect(&exec, ours, &self.0.runtime)
            .map_err(|error| Error::internal("connect the exec's streams", &error))?;
        let (engine, detached) = (self.clone(), Arc::clone(&exec));
        Ok(AttachStreams {
            output,
            input,
            tty,
            detach_keys: exec.config.detach_keys.clone().filter(|keys| !keys.is_empty()),
            on_detach: Some(Box::new(move || {
                if let Some(container) = engine.0.registry.by_id(&detached.container) {
                    engine.container_event(&container.record(), "exec_detach", &[("execID", &detached.id)]);
                }
            })),
        })
    }

    /// Starts an exec without streams and returns once it runs.
    ///
    /// # Errors
    /// When it was started before, the container does not run any more, or the command can't be executed.
    pub async fn start_exec_detached(&self, id: &str, options: StartExec) -> Result<()> {
        let exec = self.0.execs.get(id)?;
        let ours = self.run_exec(&exec, options.console_size, Client::None).await?;
        // A terminal that nobody reads would stop its writers.
        streams::discard(&exec, ours, &self.0.runtime)
            .map_err(|error| Error::internal("connect the exec's terminal", &error))
    }

    pub(super) async fn run_exec(
        &self,
        exec: &Arc<Exec>,
        size: Option<TerminalSize>,
        client: Client,
    ) -> Result<Ours> {
        let container = self.container(&exec.container)?;
        self.check_exec(&container.record(), &container.id)?;
        {
            let mut state = exec.state();
            if state.exit_code.is_some() {
                return Err(Error::conflict(format!("exec command {} has already run", exec.id)));
            }
            if std::mem::replace(&mut state.started, true) {
                return Err(Error::conflict(format!("exec command {} is already running", exec.id)));
            }
        }
        self.settle_sources(&container.record()).await;
        let (engine, ours) = (self.clone(), Arc::clone(exec));
        let launched = blocking(move || {
            let mut failed = ours.failed();
            let launched = engine.launch_exec(&ours, size, client);
            *failed = launched.is_err();
            launched
        })
        .await;
        if let Err(error) = &launched {
            let code = if error.message.contains("executable file not found")
                || error.message.contains("no such file or directory")
            {
                127
            } else {
                126
            };
            self.end_exec(exec, code);
        }
        launched
    }

    fn launch_exec(&self, exec: &Arc<Exec>, size: Option<TerminalSize>, client: Client) -> Result<Ours> {
        let container = self.container(&exec.container)?;
        let record = container.record();
        let (target_pid, target) = container.process()?;
        let root = Root::new(&self.rootfs(&record)?);
        let (process, linux) = spec::exec_process(&record, &root, &exec.config)?;
        let (io, mut ours) = make_streams(exec, size, client)?;
        let cgroup = container.cgroup();
        let mut created = skiff_runtime::exec(skiff_runtime::Exec {
            target_pidfd: target.as_fd(),
            target_pid,
            process: &process,
            linux: linux.as_ref(),
            io,
            cgroup: cgroup.as_deref(),
            parent: Parent::CallersParent,
        })
        .map_err(|error| exec_error(&error, &record.id))?;
        ours.master = created.terminal.take();
        let supervisor = &self.0.config.supervisor;
        let key = exec.key();
        supervisor
            .adopt(&key, created.pid, &[])
            .map_err(|error| Error::internal("hand the exec to the supervisor", &error))?;
        {
            // Before it runs: its exit may be reported at any moment afterwards.
            let mut state = exec.state();
            if state.unwanted {
                drop(state);
                self.forget(&key);
                return Err(Error::conflict(format!("exec {} is not wanted any more", exec.id)));
            }
            (state.running, state.pid) = (true, created.pid);
            let master = ours.master.as_ref().map(OwnedFd::try_clone).transpose();
            state.master =
                master.map_err(|error| Error::internal("keep the terminal", &error))?.map(Arc::new);
        }
        if let Err(error) = created.start() {
            self.forget(&key);
            return Err(exec_error(&error, &record.id));
        }
        self.container_event(&record, &format!("exec_start: {}", exec.command()), &[("execID", &exec.id)]);
        Ok(ours)
    }
}

fn make_streams(exec: &Exec, size: Option<TerminalSize>, client: Client) -> Result<(Io, Ours)> {
    let failed = |errno: Errno| Error::internal("make pipes", &std::io::Error::from(errno));
    let config = &exec.config;
    if config.tty == Some(true) {
        let from_config = match config.console_size.as_deref() {
            Some([height, width]) => Some((*width as u16, *height as u16)),
            _ => None,
        };
        let size = size.map(|size| (size.width, size.height)).or(from_config);
        return Ok((Io::Terminal { size: size.filter(|size| *size != (0, 0)) }, Ours::default()));
    }
    let wanted = |attach: Option<bool>| client == Client::Attached && attach == Some(true);
    let null = || {
        rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
    };
    let pipe = |wanted: bool| -> Result<Option<(OwnedFd, OwnedFd)>> {
        wanted.then(|| pipe_with(PipeFlags::CLOEXEC).map_err(failed)).transpose()
    };
    let mut ours = Ours::default();
    let stdin = match pipe(wanted(config.attach_stdin))? {
        Some((read, write)) => {
            ours.stdin = Some(write);
            read
        }
        None => null()?,
    };
    let output = |attach, end: &mut Option<OwnedFd>| match pipe(wanted(attach))? {
        Some((read, write)) => {
            *end = Some(read);
            Ok(write)
        }
        None => null(),
    };
    let stdout = output(config.attach_stdout, &mut ours.stdout)?;
    let stderr = output(config.attach_stderr, &mut ours.stderr)?;
    Ok((Io::Pipes(Stdio { stdin, stdout, stderr }), ours))
}

/// The runtime's error in the words that dockerd puts around it.
fn exec_error(error: &skiff_runtime::Error, container: &str) -> Error {
    if let skiff_runtime::Error::Clone { source } = error
        && source.raw_os_error() == Some(Errno::SRCH.raw_os_error())
    {
        return Error::conflict(format!("container {container} is not running"));
    }
    let code = match error.exit_code() {
        126 | 127 => Code::InvalidArgument,
        _ => Code::Internal,
    };
    Error::new(
        code,
        format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
            error.docker_text()
        ),
    )
}
