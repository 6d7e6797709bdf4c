use crate::setup::*;
use oci_spec::runtime::Spec;
use skiff_runtime::{Exec, Io, Parent, exec};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

const SIZE: Option<(u16, u16)> = Some((97, 31));

/// Reads until the other side is closed, which a terminal reports as an error.
fn read_all(master: OwnedFd) -> String {
    let mut master = std::fs::File::from(master);
    let (mut text, mut buffer) = (Vec::new(), [0u8; 4096]);
    while let Ok(len @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

fn run(container: &Box, spec: &Spec) -> String {
    let created = create_with(spec, container.rootfs(), Io::Terminal { size: SIZE }).unwrap();
    let mut running = created.start().unwrap();
    let text = read_all(running.terminal.take().unwrap());
    assert_eq!(wait(&running.pidfd), 0, "{text}");
    text
}

#[test]
fn the_terminal_is_the_containers_own_with_the_size_given() {
    let container = Box::new();
    let script = "tty; stty size; test -c /dev/console && echo console; ls -1 /dev/pts";
    assert_eq!(run(&container, &spec(&["sh", "-c", script])), "/dev/pts/0\n31 97\nconsole\n0\nptmx\n");
}

#[test]
fn the_terminal_controls_the_session() {
    let container = Box::new();
    // Field 7 of stat is the controlling terminal, field 6 the session.
    let script =
        "echo typed >/dev/tty; read -r _ _ _ _ _ session tty _ </proc/self/stat; echo $session $((tty != 0))";
    assert_eq!(run(&container, &spec(&["sh", "-c", script])), "typed\n1 1\n");
}

#[test]
fn control_c_interrupts() {
    let container = Box::new();
    let script = "trap 'echo interrupted; exit 0' INT; echo ready; while :; do sleep 1; done";
    let created =
        create_with(&spec(&["sh", "-c", script]), container.rootfs(), Io::Terminal { size: None }).unwrap();
    let running = Guard(created.start().unwrap());
    let mut master = std::fs::File::from(running.0.terminal.as_ref().unwrap().try_clone().unwrap());
    let mut buffer = [0u8; 64];
    let len = master.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"ready\r\n");
    master.write_all(b"\x03").unwrap();
    assert_eq!(wait(&running.0.pidfd), 0);
    assert!(read_all(master.into()).contains("interrupted"));
}

#[test]
fn a_user_owns_its_terminal() {
    let container = Box::new();
    let mut spec = spec(&["sh", "-c", "stat -c '%u %a' $(tty); echo again >/dev/stdout"]);
    process(&mut spec).user_mut().set_uid(1000).set_gid(1000);
    assert_eq!(run(&container, &spec), "1000 620\nagain\n");
}

#[test]
fn exec_has_a_terminal_of_the_same_container() {
    let container = Box::new();
    let first = container.start(&["sleep", "100"]);
    let spec = spec(&["sh", "-c", "tty; stty size"]);
    let created = exec(Exec {
        target_pidfd: first.0.pidfd.as_fd(),
        target_pid: first.0.pid,
        process: spec.process().as_ref().unwrap(),
        linux: spec.linux().as_ref(),
        io: Io::Terminal { size: SIZE },
        cgroup: None,
        parent: Parent::Caller,
    })
    .unwrap();
    let mut running = created.start().unwrap();
    assert_eq!(read_all(running.terminal.take().unwrap()), "/dev/pts/0\n31 97\n");
    assert_eq!(wait(&running.pidfd), 0);
}
