//! The whole daemon on real sockets, with a guest that is a task.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    sync::{Mutex, atomic::Ordering},
    time::Duration,
};

use skiff_link::{Args, BoxStream, Link, OpenError, Protocol, ReplyCode, StreamHeader};
use skiff_machine::vm::ExitReason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinHandle,
};

use self::fake::Fake;
use super::*;
use crate::control::{Client, ClientError, LogRequest, LogSource, MachineState};

#[path = "../../../machine/tests/fake/mod.rs"]
#[allow(unreachable_pub, reason = "shared with the tests of another crate")]
mod fake;
mod publish;

/// A daemon in this process; its files go with the test.
struct Daemon {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    end: Arc<Notify>,
    task: JoinHandle<Result<(), Error>>,
}

impl Daemon {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Self {
        let (fake, end) = (Fake::new(), Arc::new(Notify::new()));
        // Their ports are the whole machine's.
        std::fs::write(dir.path().join("settings.json"), r#"{"names": {"enabled": false}}"#).unwrap();
        let task = Self::task(dir.path(), &fake, &end);
        let daemon = Self { dir, fake, end, task };
        for _ in 0..400 {
            if crate::listen::connect(&daemon.paths().control_socket()).await.is_ok() {
                return daemon;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the daemon does not listen: {:?}", daemon.task.await);
    }

    fn task(dir: &Path, fake: &Arc<Fake>, end: &Arc<Notify>) -> JoinHandle<Result<(), Error>> {
        let mut options = Options::new(Paths::discover_with(Some(dir), |_| None).unwrap());
        options.docker_config = Some(dir.join("docker"));
        let (selected, end) = (fake.selected(), Arc::clone(end));
        tokio::spawn(async move { run_until(&options, |_| Ok(selected), end.notified()).await })
    }

    fn paths(&self) -> Paths {
        Paths::discover_with(Some(self.dir.path()), |_| None).unwrap()
    }

    async fn control(&self) -> Client {
        Client::connect(&self.paths().control_socket()).await.unwrap()
    }

    async fn docker(&self) -> UnixStream {
        UnixStream::connect(self.paths().docker_socket()).await.unwrap()
    }

    /// Starts the guest and gives its end of the link.
    async fn guest(&self) -> Link {
        self.control().await.start(false, |_| {}).await.unwrap();
        self.fake.link.lock().unwrap().clone().unwrap()
    }

    async fn stop(self) {
        self.end.notify_one();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }
}

async fn exchange(mut stream: UnixStream, text: &[u8]) -> String {
    stream.write_all(text).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn docker_bytes_pass_unchanged_and_start_the_guest() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.fake.starts(), 0);
    let bytes = "GET /_ping HTTP/1.1\r\n\r\n\u{1}\u{0} anything at all";
    assert_eq!(exchange(daemon.docker().await, bytes.as_bytes()).await, bytes);
    assert_eq!(daemon.fake.starts(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn failed_boot_is_answered_in_a_form_that_docker_clients_read() {
    let daemon = Daemon::start().await;
    daemon.fake.fails.store(true, Ordering::SeqCst);
    let answer = exchange(daemon.docker().await, b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("the guest did not start: waited 4 s in vain"), "{message}");
    // The next one is as good as new.
    assert_eq!(exchange(daemon.docker().await, b"x").await, "x");
    daemon.stop().await;
}

#[tokio::test]
async fn status_tells_everything_and_wakes_nothing() {
    let daemon = Daemon::start().await;
    let status = daemon.control().await.status().await.unwrap();
    assert_eq!(status.machine.state, MachineState::Stopped);
    assert_eq!(status.daemon.docker_socket, daemon.paths().docker_socket());
    assert_eq!(daemon.fake.starts(), 0);
    let steps = Mutex::new(Vec::new());
    daemon.control().await.start(false, |progress| steps.lock().unwrap().push(progress.step)).await.unwrap();
    assert_eq!(*steps.lock().unwrap(), ["preparing", "booting", "ready"]);
    daemon.fake.containers.store(2, Ordering::SeqCst);
    let machine = daemon.control().await.status().await.unwrap().machine;
    assert_eq!((machine.state, machine.accelerator.as_deref()), (MachineState::Running, Some("tcg")));
    assert_eq!(machine.guest.unwrap().containers_running, 2);
    let version = daemon.control().await.version().await.unwrap();
    assert_eq!(version.pid, std::process::id());
    daemon.control().await.restart(false, |_| {}).await.unwrap();
    assert_eq!((daemon.fake.starts(), daemon.fake.stops()), (2, 1));
    daemon.control().await.stop(|_| {}).await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn control_failures_carry_hint_and_last_words() {
    let daemon = Daemon::start().await;
    daemon.fake.fails.store(true, Ordering::SeqCst);
    let error = daemon.control().await.start(false, |_| {}).await.unwrap_err();
    let ClientError::Failed(failure) = error else { panic!("{error:?}") };
    assert!(failure.hint.unwrap().contains("machine logs"));
    assert!(failure.detail.unwrap().contains("last words"));
    let machine = daemon.control().await.status().await.unwrap().machine;
    assert_eq!(machine.state, MachineState::Failed);
    assert!(machine.reason.unwrap().contains("in vain"));

    let mut raw = UnixStream::connect(daemon.paths().control_socket()).await.unwrap();
    raw.write_all(b"{\"op\":\"fly\"}\n").await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with(r#"{"event":"error","message":"the request makes no sense"#), "{answer}");
    daemon.stop().await;
}

#[tokio::test]
async fn dead_guest_shows_in_the_status_and_the_next_connection_gets_a_new_one() {
    let daemon = Daemon::start().await;
    daemon.control().await.start(false, |_| {}).await.unwrap();
    daemon.fake.kill(ExitReason::Died);
    let machine = loop {
        let machine = daemon.control().await.status().await.unwrap().machine;
        if machine.state == MachineState::Failed {
            break machine;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(machine.reason.unwrap(), "the guest's process died (exit code 0)");
    assert_eq!(exchange(daemon.docker().await, b"x").await, "x");
    daemon.stop().await;
}

#[tokio::test]
async fn shell_becomes_a_raw_stream() {
    let daemon = Daemon::start().await;
    let mut shell = daemon.control().await.shell(|_| {}).await.unwrap();
    shell.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    let mut answer = [0; 14];
    shell.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"SSH-2.0-test\r\n");
    drop(shell);
    let ops = daemon.fake.ops();
    let authorized =
        daemon.fake.requests.lock().unwrap()[ops.iter().position(|op| op == "authorize").unwrap()].clone();
    assert!(authorized["key"].as_str().unwrap().starts_with("ssh-ed25519 "));
    daemon.stop().await;
}

#[tokio::test]
async fn a_look_at_the_engine_wakes_nobody_and_keeps_nobody_awake() {
    let daemon = Daemon::start().await;
    assert!(daemon.control().await.engine().await.unwrap().is_none());
    assert_eq!(daemon.fake.starts(), 0);
    daemon.control().await.start(false, |_| {}).await.unwrap();
    let mut engine = daemon.control().await.engine().await.unwrap().unwrap();
    engine.write_all(b"GET /events").await.unwrap();
    let mut answer = [0; 11];
    engine.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"GET /events");
    let machine = daemon.control().await.status().await.unwrap().machine;
    assert_eq!((machine.state, machine.connections), (MachineState::Running, 0), "it counts for nothing");
    drop(engine);
    daemon.stop().await;
}

#[tokio::test]
async fn logs_are_read_over_the_control_socket() {
    let daemon = Daemon::start().await;
    std::fs::write(daemon.paths().console_log(), "one\ntwo\n").unwrap();
    let mut lines = Vec::new();
    let what = LogRequest { source: LogSource::Console, tail: Some(1), follow: false };
    daemon.control().await.logs(what, |line| lines.push(line)).await.unwrap();
    assert_eq!(lines, ["two"]);
    daemon.stop().await;
}

#[tokio::test]
async fn end_leaves_neither_sockets_nor_guest_and_shutdown_ends() {
    let daemon = Daemon::start().await;
    let paths = daemon.paths();
    for socket in [paths.docker_socket(), paths.control_socket()] {
        assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
    }
    daemon.control().await.start(false, |_| {}).await.unwrap();
    daemon.control().await.shutdown(|_| {}).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), daemon.task).await.unwrap().unwrap().unwrap();
    assert_eq!(daemon.fake.stops(), 1);
    assert!(!paths.docker_socket().exists() && !paths.control_socket().exists());
    assert!(daemon.dir.path().join("docker/contexts/meta").exists());
}

#[tokio::test]
async fn second_daemon_names_the_first_and_harms_nothing() {
    let daemon = Daemon::start().await;
    let end = Arc::new(Notify::new());
    let error = Daemon::task(daemon.dir.path(), &Fake::new(), &end).await.unwrap().unwrap_err();
    let pid = std::process::id();
    assert!(
        error.to_string().starts_with(&format!("another skiff daemon (pid {pid}) already runs")),
        "{error}"
    );
    assert!(error.hint().is_some());
    assert_eq!(exchange(daemon.docker().await, b"x").await, "x");
    daemon.stop().await;
}

#[tokio::test]
async fn killed_daemons_remains_are_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::discover_with(Some(dir.path()), |_| None).unwrap();
    paths.prepare().unwrap();
    std::fs::write(paths.lock(), "1\n").unwrap();
    for socket in [paths.docker_socket(), paths.control_socket()] {
        drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
    }
    let daemon = Daemon::start_in(dir).await;
    assert_eq!(exchange(daemon.docker().await, b"x").await, "x");
    daemon.stop().await;
}

fn egress(host: &str, port: u16) -> StreamHeader {
    StreamHeader { args: Args::Egress { host: host.to_owned(), port, protocol: Protocol::Tcp } }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

fn refused<T>(result: Result<T, OpenError>) -> (ReplyCode, String) {
    match result {
        Err(OpenError::Refused { code, message, .. }) => (code, message),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn egress_dials_from_the_host_and_tells_why_it_cannot() {
    let daemon = Daemon::start().await;
    let guest = daemon.guest().await;
    let server = TcpListener::bind(loopback(0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "host.docker.internal"] {
        let mut stream = guest.open(&egress(host, port)).await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        stream.write_all(b"out").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        accepted.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "out");
    }
    drop(server);
    let (code, message) = refused(guest.open(&egress("127.0.0.1", port)).await);
    assert_eq!(
        (code, message),
        (ReplyCode::Refused, format!("dial tcp 127.0.0.1:{port}: connection refused"))
    );
    let (code, _) = refused(guest.open(&egress("no host", 80)).await);
    assert_eq!(code, ReplyCode::NotFound);

    let name = "localhost".to_owned();
    let (_, reply) = guest.open_with_data(&StreamHeader { args: Args::Resolve { name } }).await.unwrap();
    let addresses = reply.data.unwrap()["addresses"].clone();
    assert!(addresses.as_array().unwrap().iter().any(|a| a == "127.0.0.1" || a == "::1"), "{addresses}");

    let (code, message) = refused(guest.open(&StreamHeader { args: Args::Api {} }).await);
    assert_eq!((code, message.as_str()), (ReplyCode::Unsupported, "the host does not serve api"));
    drop(guest);
    daemon.stop().await;
}
