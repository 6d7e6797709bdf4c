use crate::setup::*;
use oci_spec::runtime::{PosixRlimitBuilder, PosixRlimitType};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use skiff_runtime::{Create, Parent, create};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_exit_code_is_the_commands() {
    let container = Box::new();
    assert_eq!(container.sh("exit 0").code, 0);
    assert_eq!(container.sh("exit 42").code, 42);
    assert_eq!(container.run(spec(&["/bin/false"])).code, 1);
}

#[test]
fn a_signal_shows_as_128_plus_its_number() {
    let container = Box::new();
    // Signals from inside do not reach PID 1; a child of it dies as any process does.
    assert_eq!(container.sh("sh -c 'kill -9 $$'; echo $?").text(), "137");
    let running = container.start(&["sleep", "100"]);
    rustix::process::pidfd_send_signal(&running.0.pidfd, rustix::process::Signal::KILL).unwrap();
    assert_eq!(wait(&running.0.pidfd), 137);
}

#[test]
fn output_goes_to_the_pipe_it_was_written_to() {
    let outcome = Box::new().sh("echo out; echo err >&2");
    assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn commands_that_cannot_run_have_dockers_words_and_codes() {
    let container = Box::new();
    std::fs::write(container.root().join("plain"), "text").unwrap();
    std::fs::write(container.root().join("bin/garbage"), "\x7fnonsense").unwrap();
    std::fs::write(container.root().join("bin/orphan"), "#!/no/such/shell\n").unwrap();
    for name in ["bin/garbage", "bin/orphan"] {
        use std::os::unix::fs::PermissionsExt as _;
        let permissions = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(container.root().join(name), permissions).unwrap();
    }
    for (command, text, code) in [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH", 127),
        ("/nosuch", "exec: \"/nosuch\": stat /nosuch: no such file or directory", 127),
        ("/plain", "exec: \"/plain\": permission denied", 126),
        ("/etc", "exec: \"/etc\": is a directory", 126),
        ("garbage", "exec /bin/garbage: exec format error", 126),
        ("orphan", "exec /bin/orphan: no such file or directory", 127),
        ("", "exec: \"\": executable file not found in $PATH", 127),
    ] {
        let (created, _) = container.create(&spec(&[command])).unwrap();
        let error = created.start().unwrap_err();
        assert_eq!((error.docker_text().as_str(), error.exit_code()), (text, code), "{command}");
    }
}

#[test]
fn a_created_container_waits_for_its_start() {
    let container = Box::new();
    let (created, output) = container.create(&spec(&["touch", "/tmp/ran"])).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!container.root().join("tmp/ran").exists());
    let running = created.start().unwrap();
    output.read();
    assert_eq!(wait(&running.pidfd), 0);
    assert!(container.root().join("tmp/ran").exists());
}

#[test]
fn dropping_a_created_container_kills_it() {
    let container = Box::new();
    let (created, output) = container.create(&spec(&["touch", "/tmp/ran"])).unwrap();
    let pid = created.pid;
    drop(created);
    output.read();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!container.root().join("tmp/ran").exists());
}

#[test]
fn no_descriptor_leaks_into_the_container() {
    let container = Box::new();
    // Inheritable on purpose: the runtime must not rely on close-on-exec.
    let file = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    // The fourth is the directory that ls itself reads.
    assert_eq!(container.sh("ls /proc/self/fd").text(), "0\n1\n2\n3");
}

#[test]
fn signals_are_reset() {
    let text = Box::new().run(spec(&["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"])).text();
    let none = "0000000000000000";
    assert_eq!(text, format!("SigBlk:\t{none}\nSigIgn:\t{none}\nSigCgt:\t{none}"));
}

#[test]
fn limits_umask_environment_and_oom_score_are_set() {
    let container = Box::new();
    let mut spec = spec(&["sh", "-c", "ulimit -n; umask; echo $COLOUR; cat /proc/self/oom_score_adj"]);
    let process = process(&mut spec);
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(123u64).hard(456u64);
    process.set_rlimits(Some(vec![limit.build().unwrap()]));
    process.set_oom_score_adj(Some(321));
    process.env_mut().as_mut().unwrap().push("COLOUR=blue".into());
    assert_eq!(container.run(spec).text(), "123\n0022\nblue\n321");
}

#[test]
fn a_missing_working_directory_is_made_and_a_file_in_its_place_is_an_error() {
    let container = Box::new();
    let mut spec = spec(&["pwd"]);
    process(&mut spec).set_cwd("/srv/deep/er".into());
    assert_eq!(container.run(spec.clone()).text(), "/srv/deep/er");
    std::fs::write(container.root().join("file"), "").unwrap();
    process(&mut spec).set_cwd("/file".into());
    let error = container.try_run(&spec).unwrap_err();
    assert_eq!(error.docker_text(), "mkdir /file: not a directory");
}

#[test]
fn user_group_and_supplementary_groups_are_taken() {
    let container = Box::new();
    let mut spec =
        spec(&["sh", "-c", "id -u; id -g; grep Groups /proc/self/status; echo again >/dev/stdout"]);
    let user = process(&mut spec).user_mut();
    user.set_uid(1000).set_gid(1001).set_additional_gids(Some(vec![5, 7]));
    let text = container.run(spec).text();
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["1000", "1001", "Groups:", "5", "7", "again"]);
}

#[test]
fn the_parent_can_be_the_callers_parent() {
    let container = Box::new();
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::helper_that_creates_for_its_parent", "--nocapture"])
        .env("SKIFF_TEST_ROOT", container.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = BufReader::new(helper.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("pid ")?.parse::<i32>().ok())
        .unwrap();
    helper.stdin.take().unwrap().write_all(b"go\n").unwrap();
    helper.wait().unwrap();
    // The helper has gone; its container is this process's child and has run on.
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(7));
}

/// Not a test by itself: the engine's part in the one above.
#[test]
fn helper_that_creates_for_its_parent() {
    let Some(root) = std::env::var_os("SKIFF_TEST_ROOT") else { return };
    let (io, _output) = pipes();
    let spec = spec(&["sh", "-c", "exit 7"]);
    let rootfs = skiff_runtime::RootFs::Dir(root.into());
    let parent = Parent::CallersParent;
    let create_all = Create { id: "test", spec: &spec, rootfs, io, cgroup: None, netns: None, parent };
    let created = create(create_all).unwrap();
    println!("pid {}", created.pid);
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let running = created.start().unwrap();
    let wait = waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED);
    assert_eq!(wait.unwrap_err(), rustix::io::Errno::CHILD);
}

#[test]
fn many_threads_can_create_at_once() {
    let container = Box::new();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let container = &container;
            scope.spawn(move || {
                for turn in 0..5 {
                    let text = format!("{thread}.{turn}");
                    assert_eq!(container.sh(&format!("echo {text}")).text(), text);
                }
            });
        }
    });
}

#[test]
fn a_spec_that_makes_no_sense_is_refused() {
    let container = Box::new();
    let mut no_command = spec(&["x"]);
    process(&mut no_command).set_args(None);
    assert_eq!(container.try_run(&no_command).unwrap_err().to_string(), "no command specified");
    let mut relative = spec(&["true"]);
    process(&mut relative).set_cwd("x".into());
    assert_eq!(container.try_run(&relative).unwrap_err().to_string(), "cwd \"x\" is not absolute");
    let (io, _output) = pipes();
    let missing = skiff_runtime::RootFs::Dir("/no/such/root".into());
    let error = create_with(&spec(&["true"]), missing, io).unwrap_err();
    assert!(error.docker_text().ends_with("no such file or directory"), "{error}");
}
