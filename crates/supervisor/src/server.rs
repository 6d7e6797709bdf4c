//! The event loop: reaps children, serves the engine, keeps services running, stops everything in order.
//!
//! ```text
//! Running ──SIGTERM, SIGINT──► EngineStops ──engine ended, or the grace is over──► Ending ──no child left──► done
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, wait, waitid,
};
use serde::Serialize;
use skiff_linux_sys::SignalFd;

use crate::protocol::{Answer, Error, ExitStatus, Notice, Request, receive, send};
use crate::service::{Running, Service};
use crate::table::Table;

/// How long killed children may take to go before the supervisor leaves without them.
const ENDING: Duration = Duration::from_secs(5);

/// What the supervisor runs.
#[derive(Debug)]
pub struct ServerConfig {
    /// The engine: the one service that gets the sockets.
    pub engine: Service,
    /// Other programs that are kept running, such as the link router.
    pub helpers: Vec<Service>,
    /// How long the engine may take to stop the containers when the supervisor is told to end.
    pub stop_grace: Duration,
    /// What can wait until the engine has said for the first time that it is ready; runs in a thread of its own.
    pub when_ready: Option<fn()>,
}

/// Why the event loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was stopped in order.
    Stopped,
    /// The engine did not stop in time, or children outlived their kill.
    Forced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    EngineStops { until: Instant },
    Ending { until: Instant },
}

/// The supervisor's state. See the module for its life.
#[derive(Debug)]
pub struct Server {
    signals: SignalFd,
    table: Table,
    engine: Running,
    helpers: Vec<Running>,
    connection: Option<Connection>,
    phase: Phase,
    stop_grace: Duration,
    when_ready: Option<fn()>,
    forced: bool,
}

/// The supervisor's ends of the engine's sockets.
#[derive(Debug)]
struct Connection {
    requests: Outbox<Answer>,
    notices: Outbox<Notice>,
}

/// A socket with what still has to be written to it, so that an engine that does not read can't stop the supervisor.
#[derive(Debug)]
struct Outbox<T> {
    socket: OwnedFd,
    queue: VecDeque<(T, Vec<OwnedFd>)>,
}

impl<T: Serialize> Outbox<T> {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, queue: VecDeque::new() }
    }

    fn push(&mut self, message: T, fds: Vec<OwnedFd>) {
        self.queue.push_back((message, fds));
        self.flush();
    }

    fn flush(&mut self) {
        while let Some((message, fds)) = self.queue.front() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match send(self.socket.as_fd(), message, &borrowed, SendFlags::DONTWAIT) {
                Err(Error::Connection { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => return,
                Ok(()) => {}
                // The engine is going; its end is noticed by SIGCHLD.
                Err(error) => tracing::debug!(%error, "message to the engine is lost"),
            }
            self.queue.pop_front();
        }
    }

    fn wants(&self) -> PollFlags {
        if self.queue.is_empty() { PollFlags::empty() } else { PollFlags::OUT }
    }
}

impl Server {
    /// Blocks the signals that the loop handles and prepares the services. Call it before any thread is started.
    ///
    /// # Errors
    /// When signals can't be taken over.
    pub fn new(config: ServerConfig) -> io::Result<Self> {
        // Orphans of containers that share our pid namespace come to us to be reaped.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let signals = SignalFd::new(&[Signal::CHILD, Signal::TERM, Signal::INT].map(Signal::as_raw))?;
        Ok(Self {
            signals,
            table: Table::default(),
            engine: Running::new(config.engine),
            helpers: config.helpers.into_iter().map(Running::new).collect(),
            connection: None,
            phase: Phase::Running,
            stop_grace: config.stop_grace,
            when_ready: config.when_ready,
            forced: false,
        })
    }

    /// Runs until everything has been stopped.
    ///
    /// # Errors
    /// When the kernel refuses what the loop stands on: sockets, poll.
    pub fn run(mut self) -> io::Result<Outcome> {
        loop {
            self.start_due_services()?;
            if self.advance_phase() {
                return Ok(if self.forced { Outcome::Forced } else { Outcome::Stopped });
            }
            self.wait_for_events()?;
            self.read_signals()?;
            self.serve_requests();
            if let Some(connection) = &mut self.connection {
                connection.notices.flush();
            }
            self.reap();
        }
    }

    fn start_due_services(&mut self) -> io::Result<()> {
        if self.phase != Phase::Running {
            return Ok(());
        }
        let now = Instant::now();
        if self.engine.start_at.is_some_and(|at| at <= now) {
            let (requests, engine_requests) = seqpacket()?;
            let (notices, engine_notices) = seqpacket()?;
            self.connection =
                Some(Connection { requests: Outbox::new(requests), notices: Outbox::new(notices) });
            self.engine.start(Some([engine_requests, engine_notices]));
        }
        for helper in self.helpers.iter_mut().filter(|helper| helper.start_at.is_some_and(|at| at <= now)) {
            helper.start(None);
        }
        Ok(())
    }

    /// Moves through the phases of the end. Returns true when the loop is over.
    fn advance_phase(&mut self) -> bool {
        let now = Instant::now();
        match self.phase {
            Phase::Running => false,
            Phase::EngineStops { until } => {
                let engine_gone = self.engine.child.is_none();
                if !engine_gone && now < until {
                    return false;
                }
                self.forced |= !engine_gone;
                self.kill_the_rest();
                self.phase = Phase::Ending { until: now + ENDING };
                self.advance_phase()
            }
            Phase::Ending { until } => {
                let none_left = self.engine.child.is_none()
                    && self.helpers.iter().all(|helper| helper.child.is_none())
                    && self.table.running().next().is_none();
                self.forced |= !none_left && now >= until;
                none_left || now >= until
            }
        }
    }

    fn wait_for_events(&self) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(connection) = &self.connection {
            let requests = &connection.requests;
            fds.push(PollFd::new(&requests.socket, PollFlags::IN | requests.wants()));
            fds.push(PollFd::new(&connection.notices.socket, connection.notices.wants()));
        }
        let timeout = self.next_deadline().map(|at| {
            let wait = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => {
                self.helpers.iter().chain([&self.engine]).filter_map(|service| service.start_at).min()
            }
            Phase::EngineStops { until } | Phase::Ending { until } => Some(until),
        }
    }

    fn read_signals(&mut self) -> io::Result<()> {
        while let Some(received) = self.signals.read()? {
            if received.signal == Signal::CHILD.as_raw() {
                continue; // `reap` looks at every child after each wake-up
            }
            if self.phase == Phase::Running {
                tracing::info!(signal = received.signal, "stopping");
                self.phase = Phase::EngineStops { until: Instant::now() + self.stop_grace };
                if let Some(connection) = &mut self.connection {
                    connection.notices.push(Notice::Stop, Vec::new());
                }
            } else {
                // A second signal means: now.
                self.phase = Phase::EngineStops { until: Instant::now() };
            }
        }
        Ok(())
    }

    fn serve_requests(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        connection.requests.flush();
        loop {
            match receive::<Request>(connection.requests.socket.as_fd(), RecvFlags::DONTWAIT) {
                Ok((request, fds)) => self.answer(request, fds, &mut connection),
                Err(Error::Connection { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => break,
                // All that the dead engine had sent is served; its end itself is noticed by SIGCHLD.
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "request of the engine");
                    connection.requests.push(Answer::Failed { message: error.to_string() }, Vec::new());
                    break;
                }
            }
        }
        self.connection = Some(connection);
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>, connection: &mut Connection) {
        let mut reply_fds = Vec::new();
        let answer = match request {
            Request::Adopt { key, pid, fd_names } => {
                match self.table.adopt(key.clone(), pid, is_there(pid), fd_names, fds) {
                    Ok(exit) => {
                        if let Some(status) = exit {
                            connection.notices.push(Notice::Exit { key, status }, Vec::new());
                        }
                        Answer::Done
                    }
                    Err(message) => Answer::Failed { message },
                }
            }
            Request::List => {
                for entry in self.table.entries() {
                    connection.requests.push(Answer::Entry(entry.clone()), Vec::new());
                }
                Answer::Done
            }
            Request::Fetch { key } => match self.table.get(&key) {
                Some((entry, kept)) => {
                    match kept.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>() {
                        Ok(clones) => {
                            reply_fds = clones;
                            Answer::Entry(entry.clone())
                        }
                        Err(error) => Answer::Failed { message: error.to_string() },
                    }
                }
                None => Answer::Failed { message: format!("no entry {key}") },
            },
            Request::Forget { key } => {
                self.table.forget(&key);
                Answer::Done
            }
            Request::Ready => {
                tracing::info!("engine is ready");
                if let Some(work) = self.when_ready.take() {
                    std::thread::spawn(work);
                }
                Answer::Done
            }
        };
        connection.requests.push(answer, reply_fds);
    }

    fn reap(&mut self) {
        loop {
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
                Ok(None) | Err(rustix::io::Errno::CHILD) => return,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return tracing::error!(error = %errno, "wait for children"),
            };
            let Some(exit) = exit_status(status) else { continue };
            if self.engine.pid() == Some(pid) {
                tracing::warn!(service = self.engine.service.name, pid, code = exit.code, "service ended");
                // What it had sent before it died still counts: an adoption must not be lost with it.
                self.serve_requests();
                self.connection = None;
                self.engine.ended();
            } else if let Some(helper) = self.helpers.iter_mut().find(|helper| helper.pid() == Some(pid)) {
                tracing::warn!(service = helper.service.name, pid, code = exit.code, "service ended");
                helper.ended();
            } else if let Some(key) = self.table.exited(pid, exit.clone()) {
                tracing::debug!(key, pid, code = exit.code, "child ended");
                if let Some(connection) = &mut self.connection {
                    connection.notices.push(Notice::Exit { key, status: exit }, Vec::new());
                }
            }
        }
    }

    fn kill_the_rest(&self) {
        let services = self.helpers.iter().chain([&self.engine]).filter_map(Running::pid);
        for pid in services.chain(self.table.running()) {
            if let Some(pid) = Pid::from_raw(pid) {
                // It may have ended in this moment.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Whether a child of that pid runs, or has ended and waits to be reaped.
fn is_there(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Pid::from_raw(pid).is_some_and(|pid| waitid(WaitId::Pid(pid), options).is_ok())
}

fn seqpacket() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    let at = SystemTime::now();
    if let Some(code) = status.exit_status() {
        return Some(ExitStatus { code, signal: None, at });
    }
    status.terminating_signal().map(|signal| ExitStatus { code: 128 + signal, signal: Some(signal), at })
}
