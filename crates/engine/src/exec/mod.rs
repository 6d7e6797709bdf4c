//! Execs: processes that are started in a running container.
//!
//! An exec's streams go straight to its client and are held by nobody else. The supervisor knows it as
//! `exec:<id>:<container>`, so that a restarted engine still learns its exit code. A probe of a health check is
//! `probe:<id>:<container>` there: a restarted engine ends it and asks anew.

mod probe;
mod start;
mod streams;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard_stubs::models::{ExecConfig, ExecInspectResponse, ProcessConfig};
use skiff_supervisor::ExitStatus;
use tokio::sync::watch;

use crate::container::resize::resize;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names;
use crate::options::TerminalSize;
use crate::state::Status;

/// How long the exit code of an exec can be asked for, as in Docker.
const REMEMBERED: Duration = Duration::from_secs(300);

/// All execs that are known.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    all: Mutex<HashMap<String, Arc<Exec>>>,
}

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    pub id: String,
    pub container: String,
    pub config: ExecConfig,
    /// Who wants it.
    purpose: Purpose,
    /// True once it has ended.
    pub ended: watch::Sender<bool>,
    state: Mutex<State>,
    /// Held while it is launched; true once that has failed. Its end is not looked at before.
    failed: Mutex<bool>,
}

/// Whom an exec is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A client of the API.
    Client,
    /// A health check.
    Probe,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whoever asked for it has gone: it must not run.
    pub unwanted: bool,
    pub started: bool,
    pub running: bool,
    pub pid: i32,
    pub exit_code: Option<i32>,
    pub master: Option<Arc<OwnedFd>>,
}

impl Exec {
    fn new(id: String, container: String, config: ExecConfig, purpose: Purpose) -> Arc<Self> {
        Arc::new(Self {
            id,
            container,
            config,
            purpose,
            ended: watch::channel(false).0,
            state: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, bool> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The supervisor's name for it.
    pub fn key(&self) -> String {
        let kind = match self.purpose {
            Purpose::Client => "exec",
            Purpose::Probe => "probe",
        };
        format!("{kind}:{}:{}", self.id, self.container)
    }

    fn command(&self) -> String {
        // As dockerd: the blank after the program is there without arguments too.
        let (program, arguments) = self.config.cmd.as_deref().and_then(<[_]>::split_first).unzip();
        format!("{} {}", program.map_or("", String::as_str), arguments.unwrap_or_default().join(" "))
    }
}

/// Whether the supervisor's entry of this name is an exec's.
pub(crate) fn is_exec(key: &str) -> bool {
    key.starts_with("exec:") || key.starts_with("probe:")
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, wanted: &str) -> Result<Arc<Exec>> {
        let all = self.lock();
        if let Some(exec) = all.get(wanted) {
            return Ok(Arc::clone(exec));
        }
        let mut found = all.iter().filter(|(id, _)| !wanted.is_empty() && id.starts_with(wanted));
        match (found.next(), found.next()) {
            (Some((_, only)), None) => Ok(Arc::clone(only)),
            _ => Err(Error::not_found(format!("No such exec instance: {wanted}"))),
        }
    }

    /// The ids of a container's execs that have not ended.
    pub fn of(&self, container: &str) -> Vec<String> {
        let all = self.lock();
        all.values()
            .filter(|exec| exec.purpose == Purpose::Client)
            .filter(|exec| exec.container == container && !*exec.ended.borrow())
            .map(|exec| exec.id.clone())
            .collect()
    }

    /// Forgets a container's execs that were never started. The others are forgotten a while after their end: their
    /// clients still ask for the exit code.
    pub fn container_ended(&self, container: &str) {
        self.lock().retain(|_, exec| exec.container != container || exec.state().started);
    }

    fn insert(&self, exec: Arc<Exec>) {
        self.lock().insert(exec.id.clone(), exec);
    }

    fn remove(&self, id: &str) {
        self.lock().remove(id);
    }
}

impl Engine {
    /// Prepares a process in a running container; returns the exec's id.
    ///
    /// # Errors
    /// When the container does not run, or no command is given.
    pub async fn create_exec(&self, container: &str, config: ExecConfig) -> Result<String> {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let name = container;
        let container = self.container(name)?;
        self.check_exec(&container.record(), name)?;
        let exec = Exec::new(names::random_id(), container.id.clone(), config, Purpose::Client);
        self.announce_exec(&container.record(), &exec);
        let id = exec.id.clone();
        self.0.execs.insert(exec);
        Ok(id)
    }

    fn announce_exec(&self, record: &crate::state::Record, exec: &Exec) {
        let action = format!("exec_create: {}", exec.command());
        self.container_event(record, &action, &[("execID", &exec.id)]);
    }

    fn check_exec(&self, record: &crate::state::Record, name: &str) -> Result<()> {
        match record.state.status {
            Status::Running => Ok(()),
            Status::Paused => {
                Err(Error::conflict(format!("Container {name} is paused, unpause the container before exec")))
            }
            Status::Restarting => Err(Error::conflict(format!(
                "Container {name} is restarting, wait until the container is running"
            ))),
            _ => Err(Error::conflict(format!("container {} is not running", record.id))),
        }
    }

    /// Describes an exec.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse> {
        let exec = self.0.execs.get(id)?;
        let state = exec.state();
        let config = &exec.config;
        let mut words = config.cmd.iter().flatten().cloned();
        Ok(ExecInspectResponse {
            // What has ended goes by itself.
            can_remove: Some(false),
            detach_keys: Some(config.detach_keys.clone().unwrap_or_default()),
            id: Some(exec.id.clone()),
            running: Some(state.running),
            exit_code: state.exit_code.map(Into::into),
            process_config: Some(ProcessConfig {
                privileged: Some(config.privileged.unwrap_or(false)),
                user: config.user.clone().filter(|user| !user.is_empty()),
                tty: Some(config.tty.unwrap_or(false)),
                entrypoint: words.next(),
                arguments: Some(words.collect()),
            }),
            open_stdin: Some(config.attach_stdin.unwrap_or(false)),
            open_stderr: Some(config.attach_stderr.unwrap_or(false)),
            open_stdout: Some(config.attach_stdout.unwrap_or(false)),
            container_id: Some(exec.container.clone()),
            pid: Some(state.pid.into()),
        })
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn resize_exec(&self, id: &str, size: TerminalSize) -> Result<()> {
        let exec = self.0.execs.get(id)?;
        let (running, master) = {
            let state = exec.state();
            (state.running, state.master.clone())
        };
        if !running {
            return Err(Error::conflict(format!("exec {id} is not running")));
        }
        match master {
            Some(master) => resize(&*master, size),
            None => Ok(()),
        }
    }

    /// The supervisor's report that an exec has ended.
    pub(crate) fn exec_exited(&self, key: &str, status: &ExitStatus) {
        let id = key.split(':').nth(1).unwrap_or("");
        if let Ok(exec) = self.0.execs.get(id) {
            // Of a failed launch the launch knows more than the supervisor.
            if !*exec.failed() {
                self.end_exec(&exec, status.code);
            }
        }
        self.forget(key);
    }

    fn end_exec(&self, exec: &Arc<Exec>, code: i32) {
        {
            let mut state = exec.state();
            if state.exit_code.is_some() {
                return;
            }
            state.running = false;
            state.exit_code = Some(code);
            state.master = None;
        }
        if let Some(container) = self.0.registry.by_id(&exec.container) {
            self.container_event(
                &container.record(),
                "exec_die",
                &[("execID", &exec.id), ("exitCode", &code.to_string())],
            );
        }
        exec.ended.send_replace(true);
        if exec.purpose == Purpose::Probe {
            return self.0.execs.remove(&exec.id);
        }
        let (engine, id) = (self.clone(), exec.id.clone());
        self.0.runtime.spawn(async move {
            tokio::time::sleep(REMEMBERED).await;
            engine.0.execs.remove(&id);
        });
    }

    /// Takes over an exec that a former engine has started. Its client is gone with that engine. Nobody waits for a
    /// probe any more: it is ended, and forgotten when the supervisor reports that.
    pub(crate) fn recover_exec(&self, key: &str, pid: i32) {
        if key.starts_with("probe:") {
            return probe::kill_session(pid);
        }
        let mut parts = key.split(':').skip(1);
        let (Some(id), Some(container)) = (parts.next(), parts.next()) else { return };
        let exec = Exec::new(id.to_owned(), container.to_owned(), ExecConfig::default(), Purpose::Client);
        {
            let mut state = exec.state();
            (state.started, state.running, state.pid) = (true, true, pid);
        }
        self.0.execs.insert(exec);
    }
}
