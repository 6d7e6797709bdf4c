//! The program against an engine made of canned answers: exit codes, streams and messages of `run`, `exec`, `attach`
//! and their kin.
#![cfg(unix)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tempfile::TempDir;

/// What one container does.
#[derive(Clone)]
enum Act {
    /// Prints this, then ends with the code.
    Print { stdout: &'static [u8], stderr: &'static [u8], code: i64 },
    /// Copies its input to its output and ends at the end of input.
    Echo,
    /// Waits for a signal and ends with 128 + 15.
    WaitForSignal,
    /// Never ends, whatever the signal.
    Deaf,
    /// Does not start.
    FailStart { status: u16, message: &'static str },
}

#[derive(Default)]
struct State {
    started: bool,
    exit: Option<i64>,
    pulled: bool,
    requests: Vec<String>,
    signals: Vec<String>,
}

struct Engine {
    directory: TempDir,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Engine {
    fn start(act: Act, missing_image: bool) -> Engine {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let state =
            Arc::new((Mutex::new(State { pulled: !missing_image, ..State::default() }), Condvar::new()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, act, state) = (stream.unwrap(), act.clone(), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &act, &state));
            }
        });
        Engine { directory, state }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skiff"));
        command
            .args(words)
            .env("DOCKER_HOST", format!("unix://{}", self.directory.path().join("s").display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        finish(self.command(words).spawn().unwrap())
    }

    fn requests(&self) -> Vec<String> {
        self.state.0.lock().unwrap().requests.clone()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Waits for the program, but not for ever.
fn finish(child: Child) -> Output {
    let id = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(Duration::from_secs(20)) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
            panic!("the program did not end: {:?}", receiver.recv());
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![stream, 0, 0, 0];
    out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
    out
}

fn serve(stream: UnixStream, act: &Act, state: &(Mutex<State>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let target = target.strip_prefix("/v1.51").unwrap_or(&target).to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (lock, changed) = state;
    lock.lock().unwrap().requests.push(format!("{method} {target}"));
    let mut out = stream;
    let mut answer = |status: &str, body: &str| {
        let _ = write!(
            out,
            "HTTP/1.1 {status}\r\nApi-Version: 1.51\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    };
    let end = |code: i64| {
        lock.lock().unwrap().exit = Some(code);
        changed.notify_all();
    };
    match (method.as_str(), path) {
        ("GET", "/_ping") => answer("200 OK", "OK"),
        ("POST", "/containers/create") => {
            if lock.lock().unwrap().pulled {
                answer("201 Created", r#"{"Id":"c1","Warnings":["be careful"]}"#);
            } else {
                answer("404 Not Found", r#"{"message":"No such image: busybox:latest"}"#);
            }
        }
        ("POST", "/images/create") => {
            lock.lock().unwrap().pulled = true;
            answer(
                "200 OK",
                "{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}\r\n{\"status\":\"Status: done\"}\r\n",
            );
        }
        ("POST", "/containers/c1/start") => {
            if let Act::FailStart { status, message } = act {
                end(0);
                answer(&format!("{status} Bad"), &format!("{{\"message\":{message:?}}}"));
            } else {
                lock.lock().unwrap().started = true;
                changed.notify_all();
                answer("204 No Content", "");
            }
        }
        ("POST", "/containers/c1/kill") => {
            lock.lock().unwrap().signals.push(query.to_owned());
            changed.notify_all();
            answer("204 No Content", "");
        }
        ("POST", "/containers/c1/wait") => {
            let _ = write!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let guard = changed.wait_while(lock.lock().unwrap(), |state| state.exit.is_none()).unwrap();
            let body = format!("{{\"StatusCode\":{}}}", guard.exit.unwrap());
            let _ = write!(out, "{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        }
        ("POST", "/containers/c1/attach" | "/exec/e1/start") => {
            let _ = write!(out, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
            if path.starts_with("/containers") {
                let wait =
                    changed.wait_while(lock.lock().unwrap(), |state| !state.started && state.exit.is_none());
                drop(wait.unwrap());
            }
            match act {
                Act::Print { stdout, stderr, code } => {
                    let _ = out.write_all(&frame(1, stdout));
                    let _ = out.write_all(&frame(2, stderr));
                    // The exit is known before the output has been read, as with a real engine.
                    end(*code);
                    std::thread::sleep(Duration::from_millis(50));
                    let _ = out.write_all(&frame(1, b"last words\n"));
                }
                Act::Echo => {
                    let mut bytes = Vec::new();
                    // Returns only when the program has shut its half down.
                    reader.read_to_end(&mut bytes).unwrap();
                    for chunk in bytes.chunks(100_000) {
                        let _ = out.write_all(&frame(1, chunk));
                    }
                    end(0);
                }
                Act::WaitForSignal => {
                    let _ = out.write_all(&frame(1, b"ready\n"));
                    let wait = changed.wait_while(lock.lock().unwrap(), |state| state.signals.is_empty());
                    drop(wait.unwrap());
                    end(143);
                }
                Act::Deaf => {
                    let _ = out.write_all(&frame(1, b"ready\n"));
                    std::thread::sleep(Duration::from_secs(60));
                }
                Act::FailStart { .. } => {}
            }
        }
        ("POST", "/containers/web/exec") => answer("201 Created", r#"{"Id":"e1"}"#),
        ("GET", "/exec/e1/json") => {
            let code = lock.lock().unwrap().exit.unwrap_or(-1);
            answer("200 OK", &format!("{{\"ExitCode\":{code}}}"));
        }
        ("GET", "/containers/web/json") => answer(
            "200 OK",
            r#"{"Id":"c1","Zeta":1,"Alpha":{"b":2,"a":1},"State":{"Running":true},"Config":{"Tty":false,"OpenStdin":true}}"#,
        ),
        ("GET", "/containers/json") => answer("200 OK", "[]"),
        ("DELETE", "/containers/a") => answer("204 No Content", ""),
        _ => answer("404 Not Found", r#"{"message":"No such container: b"}"#),
    }
}

const PRINT: Act = Act::Print { stdout: b"out\n", stderr: b"err\n", code: 7 };

#[test]
fn run_prints_both_outputs_to_the_last_byte_and_ends_with_the_code() {
    let engine = Engine::start(PRINT, false);
    let output = engine.run(&["run", "--rm", "busybox", "true"]);
    assert_eq!(text(&output.stdout), "out\nlast words\n");
    assert_eq!(text(&output.stderr), "WARNING: be careful\nerr\n");
    assert_eq!(output.status.code(), Some(7));
    let requests = engine.requests();
    let place = |prefix: &str| requests.iter().position(|request| request.starts_with(prefix)).unwrap();
    assert!(
        place("POST /containers/c1/wait?condition=removed") < place("POST /containers/c1/start"),
        "{requests:?}"
    );
    assert!(place("POST /containers/c1/attach?") < place("POST /containers/c1/start"), "{requests:?}");
}

#[test]
fn the_end_of_input_reaches_the_container_and_its_answer_comes_back_whole() {
    let engine = Engine::start(Act::Echo, false);
    let mut child = engine.command(&["run", "-i", "busybox", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = finish(child);
    writer.join().unwrap();
    assert!(output.stdout == sent, "{} of {} bytes came back", output.stdout.len(), sent.len());
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_image_is_pulled_and_standard_output_stays_the_container_s() {
    let engine = Engine::start(PRINT, true);
    let output = engine.run(&["run", "busybox"]);
    assert_eq!(text(&output.stdout), "out\nlast words\n");
    assert_eq!(
        text(&output.stderr),
        "Unable to find image 'busybox:latest' locally\nlatest: Pulling from library/busybox\nStatus: done\n\
         WARNING: be careful\nerr\n"
    );
    let never = Engine::start(PRINT, true).run(&["run", "--pull", "never", "busybox"]);
    assert_eq!(never.status.code(), Some(125));
    assert_eq!(
        text(&never.stderr),
        "skiff: Error response from daemon: No such image: busybox:latest\n\nRun 'skiff run --help' for more information\n"
    );
}

#[test]
fn what_keeps_a_programme_from_starting_has_a_shell_s_exit_code() {
    for (message, code) in [
        ("exec: \"foo\": executable file not found in $PATH", 127),
        ("exec: \"/etc\": permission denied", 126),
        ("driver failed: port is already allocated", 125),
    ] {
        let engine = Engine::start(Act::FailStart { status: 400, message }, false);
        let output = engine.run(&["run", "--rm", "busybox", "foo"]);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(
            text(&output.stderr).ends_with(&format!(
                "skiff: Error response from daemon: {message}\n\nRun 'skiff run --help' for more information\n"
            )),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn detached_containers_print_their_id() {
    let engine = Engine::start(PRINT, false);
    let cidfile = engine.path("cid");
    let output = engine.run(&["run", "-d", "--cidfile", cidfile.to_str().unwrap(), "busybox"]);
    assert_eq!((text(&output.stdout), output.status.code()), ("c1\n", Some(0)));
    assert_eq!(std::fs::read_to_string(&cidfile).unwrap(), "c1");
    let again = engine.run(&["run", "-d", "--cidfile", cidfile.to_str().unwrap(), "busybox"]);
    assert_eq!(again.status.code(), Some(125));
    assert!(text(&again.stderr).contains("container ID file found"));
    assert_eq!(std::fs::read_to_string(&cidfile).unwrap(), "c1");
}

#[test]
fn signals_go_to_the_container() {
    let engine = Engine::start(Act::WaitForSignal, false);
    let mut child = engine.command(&["run", "busybox", "sleep", "9"]).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = finish(child);
    assert_eq!(output.status.code(), Some(143));
    assert_eq!(engine.state.0.lock().unwrap().signals, ["signal=TERM"]);
}

#[test]
fn who_asks_three_times_may_leave() {
    let engine = Engine::start(Act::Deaf, false);
    let mut child = engine.command(&["run", "busybox", "sleep", "9"]).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    for asked in 1..=3 {
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let (lock, changed) = &*engine.state;
        let got = changed.wait_timeout_while(lock.lock().unwrap(), Duration::from_secs(10), |state| {
            asked < 3 && state.signals.len() < asked
        });
        drop(got.unwrap());
    }
    let output = finish(child);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).ends_with("got 3 SIGTERM/SIGINTs, forcefully exiting\n"));
}

#[test]
fn exec_and_attach_end_with_the_process_s_code() {
    let output = Engine::start(PRINT, false).run(&["exec", "web", "ls"]);
    assert_eq!((text(&output.stdout), output.status.code()), ("out\nlast words\n", Some(7)));
    let engine = Engine::start(PRINT, false);
    engine.state.0.lock().unwrap().started = true;
    let output = engine.run(&["attach", "--no-stdin", "web"]);
    assert_eq!((text(&output.stdout), output.status.code()), ("out\nlast words\n", Some(7)));
}

#[test]
fn inspect_prints_what_the_engine_said_in_its_order() {
    let engine = Engine::start(PRINT, false);
    let output = engine.run(&["inspect", "--type", "container", "web"]);
    assert!(
        text(&output.stdout).starts_with(
            "[\n    {\n        \"Id\": \"c1\",\n        \"Zeta\": 1,\n        \"Alpha\": {\n            \"b\": 2,\n"
        ),
        "{}",
        text(&output.stdout)
    );
    let output = engine.run(&["inspect", "-f", "{{.State.Running}} {{json .Alpha}}", "web"]);
    assert_eq!(text(&output.stdout), "true {\"b\":2,\"a\":1}\n");
    let output = engine.run(&["inspect", "web", "nothing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Error: No such object: nothing"));
    let output = engine.run(&["inspect", "-f", "{{.Nope", "web"]);
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn every_named_container_is_tried() {
    let output = Engine::start(PRINT, false).run(&["rm", "b", "a"]);
    assert_eq!((text(&output.stdout), output.status.code()), ("a\n", Some(1)));
    assert_eq!(text(&output.stderr), "Error response from daemon: No such container: b\n");
}

#[test]
fn nobody_there_is_docker_s_sentence() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skiff"));
    let output = command.args(["-H", "unix:///nonexistent/s", "ps"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "Cannot connect to the Docker daemon at unix:///nonexistent/s. Is the docker daemon running?\n"
    );
    let output = command.arg("--format=x").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let engine = Engine::start(PRINT, false);
    let mut child = engine.command(&["ps"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(finish(child).status.code(), Some(0));
}
