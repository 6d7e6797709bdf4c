//! What the kernel itself takes: clone3, execve and wait, without and with the namespaces of a container.

use std::ffi::CString;
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use skiff_linux_sys::child::{Parent, Program, Spawn, Step};
use skiff_linux_sys::namespace::Namespaces;

use super::Bench;
use crate::sample::Sample;

/// Prints it.
pub fn measure(bench: &Bench) -> anyhow::Result<()> {
    let path = bench.bundle.join("rootfs/bin/busybox");
    let path = CString::new(path.to_str().context("the bundle's path is no text")?)?;
    let mut program = Program::new();
    program.push(
        Step::Execute {
            candidates: vec![path],
            arguments: vec![CString::new("true")?],
            environment: Vec::new(),
        },
        "exec",
    );
    let all = Namespaces::CGROUP
        | Namespaces::IPC
        | Namespaces::MOUNT
        | Namespaces::NETWORK
        | Namespaces::PID
        | Namespaces::UTS;
    for (what, new) in [("clone3 + execve + wait", Namespaces::NONE), ("… with six namespaces", all)] {
        let mut sample = Sample::default();
        for _ in 0..bench.rounds {
            let started = Instant::now();
            let spawn =
                Spawn { program: &program, new, pid_namespace: None, cgroup: None, parent: Parent::Caller };
            let child = spawn.spawn()?;
            let end = waitid(WaitId::PidFd(child.pidfd()), WaitIdOptions::EXITED)?;
            sample.push(started.elapsed());
            ensure!(end.and_then(|end| end.exit_status()) == Some(0), "the floor's child ended with {end:?}");
        }
        println!("  {what:<26} {sample}");
    }
    Ok(())
}
