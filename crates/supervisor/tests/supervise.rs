//! A real supervisor process with a real engine-like child: this test binary plays both roles, told by a variable.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use skiff_supervisor::{Client, Outcome, Server, ServerConfig, Service};

const ROLE: &str = "SUPERVISOR_TEST_ROLE";
const DIRECTORY: &str = "SUPERVISOR_TEST_DIRECTORY";

/// Without a harness: the supervisor needs the main thread, because signals of the process go to any thread that does
/// not block them. The arguments are those that cargo-nextest uses to list and to run (`--list`, `--exact NAME`).
fn main() {
    const NAME: &str = "a_killed_engine_finds_its_children_their_output_and_their_exit_codes_again";
    let arguments: Vec<String> = std::env::args().collect();
    let directory = || PathBuf::from(std::env::var_os(DIRECTORY).expect("set beside the role"));
    match std::env::var(ROLE).as_deref() {
        Ok("supervisor") => supervise(&directory()),
        Ok("engine") => engine(&directory()),
        Ok(other) => panic!("no role {other}"),
        Err(_) if arguments.iter().any(|argument| argument == "--ignored") => {}
        Err(_) if arguments.iter().any(|argument| argument == "--list") => println!("{NAME}: test"),
        Err(_) => a_killed_engine_finds_its_children_their_output_and_their_exit_codes_again(),
    }
}

fn play(role: &str) -> Vec<std::ffi::OsString> {
    // The role travels in the environment, which services inherit; `env` sets it for the child alone.
    vec![format!("{ROLE}={role}").into(), std::env::current_exe().unwrap().into()]
}

fn supervise(directory: &Path) -> ! {
    let engine = Service { name: "engine", program: "/usr/bin/env".into(), args: play("engine") };
    let config =
        ServerConfig { engine, helpers: Vec::new(), stop_grace: Duration::from_secs(5), when_ready: None };
    let outcome = Server::new(config).unwrap().run().unwrap();
    fs::write(directory.join("outcome"), format!("{outcome:?}")).unwrap();
    std::process::exit(i32::from(outcome != Outcome::Stopped))
}

/// On its first life it starts a child that belongs to the supervisor and hands over the read end of its output; on
/// every life it writes down what the supervisor remembers.
fn engine(directory: &Path) -> ! {
    let client = Client::from_env().unwrap();
    let exits = directory.join("exits");
    let on_exit = move |key: String, status: skiff_supervisor::ExitStatus| {
        let mut file = File::options().create(true).append(true).open(&exits).unwrap();
        writeln!(file, "{key} {}", status.code).unwrap();
    };
    client.watch(on_exit, || std::process::exit(0), || std::process::exit(9));
    if client.list().unwrap().is_empty() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        // A grandchild whose parent ends becomes the supervisor's child, as a CLONE_PARENT child is from the start.
        let script = format!(
            "sh -c 'echo $$ >{0}/pid.new; mv {0}/pid.new {0}/pid; sleep 0.3; echo out; while [ ! -e {0}/go ]; do sleep 0.02; done; echo more; exit 7' &",
            directory.display()
        );
        Command::new("sh").args(["-c", &script]).stdout(write).status().unwrap();
        let pid = until(|| fs::read_to_string(directory.join("pid")).ok()?.trim().parse().ok());
        client.adopt("one", pid, &[("stdout", read.as_fd())]).unwrap();
    }
    client.ready().unwrap();
    let life = format!(
        "{} {:?}",
        std::process::id(),
        client.list().unwrap().iter().map(|entry| (&entry.key, entry.exit.is_some())).collect::<Vec<_>>()
    );
    fs::write(directory.join("life.new"), life).unwrap();
    fs::rename(directory.join("life.new"), directory.join("life")).unwrap();
    until(|| directory.join("read").exists().then_some(()));
    let (name, fd) = client.fetch("one").unwrap().pop().unwrap();
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    fs::write(directory.join("output"), format!("{name}: {text}")).unwrap();
    client.forget("one").unwrap();
    loop {
        std::thread::park();
    }
}

fn until<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills the supervisor and with it what it started, however the test ends.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_killed_engine_finds_its_children_their_output_and_their_exit_codes_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut command = Command::new("/usr/bin/env");
    command.args(play("supervisor")).env(DIRECTORY, directory.path());
    let mut supervisor = Guard(command.spawn().unwrap());

    let life = until(|| fs::read_to_string(path("life")).ok());
    let (pid, entries) = life.split_once(' ').unwrap();
    assert_eq!(entries, r#"[("one", false)]"#);
    fs::remove_file(path("life")).unwrap();
    let engine = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(engine, rustix::process::Signal::KILL).unwrap();

    // The child lives on without an engine; the next engine knows it.
    let life = until(|| fs::read_to_string(path("life")).ok());
    assert!(!life.starts_with(pid), "a new process: {life}");
    assert!(life.ends_with(r#"[("one", false)]"#), "{life}");
    fs::write(path("go"), "").unwrap();
    let exits = until(|| fs::read_to_string(path("exits")).ok().filter(|text| text.ends_with('\n')));
    assert_eq!(exits, "one 7\n");
    fs::write(path("read"), "").unwrap();
    assert_eq!(
        until(|| fs::read_to_string(path("output")).ok().filter(|text| !text.is_empty())),
        "stdout: out\nmore\n"
    );

    let pid = rustix::process::Pid::from_child(&supervisor.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(supervisor.0.wait().unwrap().success());
    assert_eq!(fs::read_to_string(path("outcome")).unwrap(), "Stopped");
}
