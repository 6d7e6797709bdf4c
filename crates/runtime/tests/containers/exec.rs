use crate::setup::*;
use oci_spec::runtime::{Capability, Process};
use skiff_runtime::{Created, Error, Exec, Parent, exec};
use std::os::fd::AsFd as _;

fn run(container: &Guard, change: impl FnOnce(&mut Process), args: &[&str]) -> Result<Outcome, Error> {
    let (created, output) = create(container, change, args)?;
    let running = created.start()?;
    let (out, err) = output.read();
    Ok(Outcome { code: wait(&running.pidfd), out, err })
}

fn create(
    container: &Guard,
    change: impl FnOnce(&mut Process),
    args: &[&str],
) -> Result<(Created, Output), Error> {
    let spec = spec(args);
    let mut process = spec.process().clone().unwrap();
    change(&mut process);
    let (io, output) = pipes();
    let created = exec(Exec {
        target_pidfd: container.0.pidfd.as_fd(),
        target_pid: container.0.pid,
        process: &process,
        linux: spec.linux().as_ref(),
        io,
        cgroup: None,
        parent: Parent::Caller,
    })?;
    Ok((created, output))
}

#[test]
fn every_namespace_is_joined() {
    let container = Box::new();
    let first = container.start(&["sleep", "100"]);
    let kinds = ["mnt", "uts", "pid", "ipc", "cgroup", "net"];
    let script = kinds.map(|kind| format!("readlink /proc/self/ns/{kind}")).join(";");
    let text = run(&first, |_| {}, &["sh", "-c", &script]).unwrap().text();
    for (inside, kind) in text.lines().zip(kinds) {
        let wanted = std::fs::read_link(format!("/proc/{}/ns/{kind}", first.0.pid)).unwrap();
        assert_eq!(inside, wanted.display().to_string());
    }
    assert_eq!(text.lines().count(), kinds.len());
}

#[test]
fn the_process_sees_the_containers_files_and_processes() {
    let container = Box::new();
    std::fs::write(container.root().join("marker"), "here").unwrap();
    let first = container.start(&["sleep", "100"]);
    let outcome =
        run(&first, |_| {}, &["sh", "-c", "cat /marker; echo; cat /proc/1/comm; ls /proc/self/fd"]).unwrap();
    assert_eq!(outcome.text(), "here\nsleep\n0\n1\n2\n3");
}

#[test]
fn confinement_is_the_containers() {
    let container = Box::new();
    let first = container.start(&["sleep", "100"]);
    let text = run(&first, |_| {}, &["grep", "-E", "^(CapEff|CapBnd|Seccomp:)", "/proc/self/status"])
        .unwrap()
        .text();
    assert_eq!(text, "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2");
    let all = |process: &mut Process| {
        process
            .set_capabilities(Some(skiff_runtime::default_capabilities(skiff_runtime::all_capabilities())));
    };
    let text = run(&first, all, &["grep", "CapEff", "/proc/self/status"]).unwrap().text();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(own.lines().any(|line| line == text), "{text}");
    assert!(skiff_runtime::all_capabilities().contains(&Capability::SysAdmin));
}

#[test]
fn user_and_working_directory_are_the_execs_own() {
    let container = Box::new();
    let first = container.start(&["sleep", "100"]);
    let change = |process: &mut Process| {
        process.set_cwd("/tmp".into()).user_mut().set_uid(12).set_gid(13);
    };
    assert_eq!(run(&first, change, &["sh", "-c", "id -u; id -g; pwd"]).unwrap().text(), "12\n13\n/tmp");
    let nowhere = |process: &mut Process| {
        process.set_cwd("/nodir".into());
    };
    let error = run(&first, nowhere, &["true"]).unwrap_err();
    let text = "chdir to cwd (\"/nodir\") set in config.json failed: no such file or directory";
    assert_eq!((error.docker_text().as_str(), error.exit_code()), (text, 127));
}

#[test]
fn commands_that_cannot_run_have_dockers_words() {
    let container = Box::new();
    let first = container.start(&["sleep", "100"]);
    let error = run(&first, |_| {}, &["nosuch"]).unwrap_err();
    assert_eq!(error.to_string(), "exec: \"nosuch\": executable file not found in $PATH");
}

#[test]
fn a_container_that_has_ended_cannot_be_entered() {
    let container = Box::new();
    let (created, _output) = container.create(&spec(&["true"])).unwrap();
    let first = Guard(created.start().unwrap());
    wait(&first.0.pidfd);
    assert!(matches!(run(&first, |_| {}, &["true"]), Err(Error::Clone { .. } | Error::Setup { .. })));
}

#[test]
fn the_caller_stays_in_its_own_namespaces() {
    let container = Box::new();
    let first = container.start(&["sleep", "100"]);
    let before = std::fs::read_link("/proc/thread-self/ns/pid_for_children").unwrap();
    run(&first, |_| {}, &["true"]).unwrap();
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/pid_for_children").unwrap(), before);
}

#[test]
fn a_process_that_waits_cannot_be_inspected_from_inside() {
    let container = Box::new();
    let first = container.start(&["sleep", "100"]);
    let (waiting, _output) = create(&first, |_| {}, &["true"]).unwrap();
    // The container's root looks at every process it sees: those that wait must not show what they have open.
    let script = "for p in /proc/[0-9]*; do test $p = /proc/1 || test $p = /proc/$$ || ls $p/fd $p/root/ >/dev/null; done";
    let outcome = run(&first, |_| {}, &["sh", "-c", script]).unwrap();
    assert!(outcome.err.contains("Permission denied"), "{outcome:?}");
    drop(waiting);
}
