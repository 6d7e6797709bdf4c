//! The engine under test, as a child of its supervisor.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::roles;

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Subject {
    pub directory: TempDir,
    supervisor: Child,
}

impl Subject {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("skiff-engine-test-").tempdir().unwrap();
        std::fs::write(directory.path().join("busybox.tar"), crate::image::busybox()).unwrap();
        let subject = Self { supervisor: spawn(&directory), directory };
        let path = subject.directory.path().join("busybox.tar");
        subject.ask(json!({ "op": "import", "path": path }));
        subject
    }

    fn connect(&self) -> UnixStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(self.directory.path().join("socket")) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "the engine does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks and waits for the answer; `None` when the engine dies meanwhile.
    pub fn try_ask(&self, request: Value) -> Option<Result<Value, String>> {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        if line.is_empty() {
            return None;
        }
        let answer: Value = serde_json::from_str(&line).unwrap();
        Some(match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].clone()),
        })
    }

    pub fn ask(&self, request: Value) -> Value {
        self.try_ask(request.clone())
            .expect("the engine lives")
            .unwrap_or_else(|error| panic!("{request}: {error}"))
    }

    pub fn refused(&self, request: Value) -> String {
        self.try_ask(request).expect("the engine lives").expect_err("it is refused")
    }

    /// Creates a container of busybox.
    pub fn create(&self, body: Value) -> String {
        let mut all = json!({ "Image": "busybox", "HostConfig": { "NetworkMode": "none" } });
        for (key, value) in body.as_object().unwrap() {
            all[key] = value.clone();
        }
        self.ask(json!({ "op": "create", "body": all })).as_str().unwrap().to_owned()
    }

    pub fn state(&self, id: &str) -> Value {
        self.ask(json!({ "op": "inspect", "id": id }))["State"].clone()
    }

    fn engine_pid(&self) -> Option<Pid> {
        let children = format!("/proc/{0}/task/{0}/children", self.supervisor.id());
        let text = std::fs::read_to_string(children).ok()?;
        let ours = std::env::current_exe().unwrap();
        let is_engine =
            |pid: &&str| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == ours);
        text.split_whitespace().find(is_engine).and_then(|pid| Pid::from_raw(pid.parse().ok()?))
    }

    /// Kills the engine; the supervisor starts another.
    pub fn kill_engine(&self) {
        let deadline = Instant::now() + PATIENCE;
        let pid = loop {
            match self.engine_pid() {
                Some(pid) => break pid,
                None => assert!(Instant::now() < deadline, "no engine"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        kill_process(pid, Signal::KILL).unwrap();
        // Until it is reaped: its socket may answer a little longer than its memory lives.
        while std::path::Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills everything at once, as a power cut would, and starts again.
    pub fn kill_machine(&mut self) {
        let mut processes = descendants(self.supervisor.id());
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
        processes.retain(|pid| kill_process(*pid, Signal::KILL).is_ok());
        let gone = |pid: &Pid| !std::path::Path::new(&format!("/proc/{}/exe", pid.as_raw_nonzero())).exists();
        let deadline = Instant::now() + PATIENCE;
        while !processes.iter().all(gone) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.supervisor = spawn(&self.directory);
    }
}

fn spawn(directory: &TempDir) -> Child {
    let _ = std::fs::remove_file(directory.path().join("socket"));
    Command::new(std::env::current_exe().unwrap())
        .env(roles::ROLE, "supervisor")
        .env(roles::DIRECTORY, directory.path())
        .spawn()
        .unwrap()
}

fn descendants(pid: u32) -> Vec<Pid> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    let own = children.iter().filter_map(|pid| Pid::from_raw(*pid as i32));
    own.chain(children.iter().flat_map(|pid| descendants(*pid))).collect()
}

impl Drop for Subject {
    fn drop(&mut self) {
        let all = descendants(self.supervisor.id());
        if let Some(pid) = Pid::from_raw(self.supervisor.id() as i32) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.supervisor.wait();
        for pid in all {
            let _ = kill_process(pid, Signal::KILL);
        }
        let bridge = bridge(&self.directory);
        let _ = Command::new("ip").args(["link", "delete", &bridge]).output();
        let _ = skiff_network::Firewall::new(format!("skiff_{bridge}")).remove();
    }
}

/// The name that the engine gives its bridge.
fn bridge(directory: &TempDir) -> String {
    let text = directory.path().to_string_lossy();
    let sum = text.bytes().fold(5381u32, |sum, byte| sum.wrapping_mul(33) ^ u32::from(byte));
    format!("skt{sum:08x}")
}
