//! The operations and states of runtime.md.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::json;

use super::bundle::{Bundle, wait_until};

#[test]
fn create_start_kill_delete_go_through_the_states_of_the_spec() {
    let bundle = Bundle::new("echo started > /tmp/started; exec sleep 1000");
    let pid_file = bundle.path().join("pid");
    bundle.oci(&["create", "--pid-file", pid_file.to_str().unwrap(), "--bundle", ".", "box"]).ok();
    let state = bundle.state();
    assert_eq!((&state["status"], &state["id"]), (&json!("created"), &json!("box")));
    assert_eq!(state["bundle"], bundle.path().canonicalize().unwrap().to_str().unwrap());
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
    assert_eq!(bundle.read("tmp/started"), "", "the command runs before start");
    bundle.oci(&["create", "box"]).fails("already exists");

    bundle.oci(&["start", "box"]).ok();
    wait_until("the command", || bundle.read("tmp/started") == "started\n");
    assert_eq!(bundle.state()["status"], "running");
    bundle.oci(&["start", "box"]).fails("already running");
    bundle.oci(&["delete", "box"]).fails("not stopped: running");
    let listed = bundle.oci(&["list", "--format", "json"]).ok().out;
    assert!(listed.contains("\"running\""), "{listed}");
    let pids = bundle.oci(&["ps", "--format", "json", "box"]).ok().out;
    assert_eq!(pids.trim(), format!("[{}]", state["pid"]));

    bundle.oci(&["kill", "box", "KILL"]).ok();
    bundle.wait_for("stopped");
    bundle.oci(&["kill", "box", "KILL"]).fails("not running");
    bundle.oci(&["start", "box"]).fails("stopped");
    bundle.oci(&["exec", "box", "true"]).fails("stopped container");
    bundle.oci(&["delete", "box"]).ok();
    bundle.oci(&["state", "box"]).fails("does not exist");
    bundle.oci(&["delete", "box"]).fails("does not exist");
    bundle.oci(&["delete", "--force", "box"]).ok();
}

#[test]
fn run_and_exec_give_output_input_and_exit_codes() {
    let bundle = Bundle::new("echo out; echo err >&2; exit 7");
    let done = bundle.run();
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (7, "out\n", "err\n"));
    bundle.oci(&["state", "box"]).fails("does not exist");

    let bundle = Bundle::new("exec sleep 1000");
    bundle.oci(&["run", "--detach", "box"]).ok();
    let shown = bundle.oci(&[
        "exec",
        "--env",
        "A=1",
        "--cwd",
        "/tmp",
        "--user",
        "5:6",
        "-g",
        "7",
        "box",
        "sh",
        "-c",
        "echo $A $(pwd) $(id -u) $(id -g) $(id -G) $$",
    ]);
    let line = shown.ok().out;
    assert!(line.starts_with("1 /tmp 5 6 6 7 "), "{line}");
    assert_eq!(bundle.oci(&["exec", "box", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(bundle.oci(&["exec", "box", "sh", "-c", "kill -9 $$"]).code, 137);
    let missing = bundle.oci(&["exec", "box", "nosuchprogram"]);
    assert_eq!(missing.code, 255);
    missing.fails("executable file not found in $PATH");
    let process = bundle.path().join("process.json");
    let wanted = json!({"args":["cat","/proc/self/status"],"cwd":"/","noNewPrivileges":true,"user":{"uid":0,"gid":0},
        "capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]},
        "env":["PATH=/bin"]});
    std::fs::write(&process, wanted.to_string()).unwrap();
    let status = bundle.oci(&["exec", "--process", process.to_str().unwrap(), "box"]).ok().out;
    assert!(status.contains("CapBnd:\t0000000000000020") && status.contains("NoNewPrivs:\t1"), "{status}");
    let pid_file = bundle.path().join("exec.pid");
    bundle.oci(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), "box", "sleep", "999"]).ok();
    let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, "sleep\0999\0");
}

#[test]
fn what_cannot_run_is_reported_by_create_and_leaves_nothing() {
    let mut bundle = Bundle::new("");
    bundle.config["process"]["args"] = json!(["/nosuchprogram"]);
    let words = "exec: \"/nosuchprogram\": stat /nosuchprogram: no such file or directory";
    bundle.oci(&["create", "box"]).fails(words);
    bundle.oci(&["state", "box"]).fails("does not exist");
    bundle.run().fails(words);
    // What only the kernel finds out is reported by start.
    std::fs::write(bundle.rootfs("bin/odd"), "no program").unwrap();
    std::fs::set_permissions(bundle.rootfs("bin/odd"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    bundle.config["process"]["args"] = json!(["odd"]);
    bundle.oci(&["create", "box"]).ok();
    bundle.oci(&["start", "box"]).fails("exec format error");
    bundle.wait_for("stopped");
    bundle.oci(&["delete", "box"]).ok();
}

#[test]
fn a_terminal_goes_through_the_console_socket() {
    let mut bundle = Bundle::new("tty; stty size; test -c /dev/console && echo console");
    bundle.config["process"]["terminal"] = true.into();
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    bundle.oci(&["create", "box"]).fails("--console-socket");
    let path = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.oci(&["create", "--console-socket", path.to_str().unwrap(), "box"]).ok();
    let (stream, _) = listener.accept().unwrap();
    let mut buffer = [0; 4096];
    let message = skiff_linux_sys::fd_passing::receive(&stream, &mut buffer).unwrap();
    let master: OwnedFd = message.fds.into_iter().next().unwrap();
    bundle.oci(&["start", "box"]).ok();
    let mut said = String::new();
    while let Ok(length) = rustix::io::read(&master, &mut buffer) {
        if length == 0 {
            break;
        }
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert_eq!(said, "/dev/pts/0\r\n33 77\r\nconsole\r\n");
}

#[test]
fn pause_stops_every_process_until_resume() {
    let bundle = Bundle::new("while :; do echo x >> /tmp/beat; sleep 0.01; done");
    bundle.oci(&["run", "-d", "box"]).ok();
    wait_until("a beat", || !bundle.read("tmp/beat").is_empty());
    bundle.oci(&["pause", "box"]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    let before = bundle.read("tmp/beat").len();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(bundle.read("tmp/beat").len(), before);
    bundle.oci(&["exec", "box", "true"]).fails("paused");
    bundle.oci(&["pause", "box"]).fails("not running");
    bundle.oci(&["resume", "box"]).ok();
    wait_until("another beat", || bundle.read("tmp/beat").len() > before);
    bundle.oci(&["pause", "box"]).ok();
    bundle.oci(&["delete", "--force", "box"]).ok();
}

#[test]
fn errors_go_to_the_log_in_its_format() {
    let bundle = Bundle::new("");
    let log = bundle.path().join("log");
    let arguments = ["--log", log.to_str().unwrap(), "--log-format", "json", "state", "nosuch"];
    bundle.oci(&arguments).fails("container does not exist: nosuch");
    let line: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container does not exist: nosuch");
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn descriptors_are_inherited_only_when_they_are_counted() {
    let bundle = Bundle::new("ls /proc/self/fd | wc -l; cat <&3");
    let file = bundle.path().join("given");
    std::fs::write(&file, "given\n").unwrap();
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(bundle.path()).env("FILE", &file);
        command.env("OCI", env!("CARGO_BIN_EXE_skiff-oci"));
        bundle.finish(command)
    };
    drop(bundle.command(&[]));
    let run = "exec $OCI --root state run";
    // 0-2, the inherited one, and the one that ls reads the directory with.
    let done = shell(&format!("{run} --preserve-fds 1 box 3<$FILE 9<$FILE")).ok();
    assert_eq!(done.out, "5\ngiven\n");
    let done = shell(&format!("{run} box 3<$FILE"));
    assert!(done.out.starts_with("4\n") && done.code != 0, "{}{}", done.out, done.err);
    shell(&format!("{run} --preserve-fds 2 box 3<$FILE")).fails("descriptor 4 is not open");
}

#[test]
fn features_are_told() {
    let bundle = Bundle::new("");
    assert!(bundle.oci(&["--version"]).ok().out.starts_with("skiff-oci "));
    let features: serde_json::Value = serde_json::from_str(&bundle.oci(&["features"]).ok().out).unwrap();
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}
