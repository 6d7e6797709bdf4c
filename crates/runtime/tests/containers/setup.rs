//! A root file system and the running of commands in it.

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use skiff_runtime::{Create, Created, Error, Io, Parent, RootFs, Running, Stdio, create, default_spec};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A directory with a busybox and the directories of a usual image, removed when dropped.
pub struct Box {
    dir: tempfile::TempDir,
}

impl Box {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "root"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "ls", "cat", "echo", "id", "hostname", "true", "false", "sleep", "stty", "mount", "grep",
            "readlink", "touch", "env", "pwd", "ps", "mkdir", "rm", "stat", "tty", "kill", "unshare", "test",
            "umount", "wc",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn rootfs(&self) -> RootFs {
        RootFs::Dir(self.root())
    }

    /// Runs `sh -c script` with Docker's defaults.
    pub fn sh(&self, script: &str) -> Outcome {
        self.run(spec(&["sh", "-c", script]))
    }

    pub fn run(&self, spec: Spec) -> Outcome {
        self.try_run(&spec).unwrap()
    }

    pub fn try_run(&self, spec: &Spec) -> Result<Outcome, Error> {
        try_run(spec, self.rootfs())
    }

    /// Starts a command and leaves it running.
    pub fn start(&self, args: &[&str]) -> Guard {
        Guard(self.create(&spec(args)).unwrap().0.start().unwrap())
    }

    pub fn create(&self, spec: &Spec) -> Result<(Created, Output), Error> {
        let (io, output) = pipes();
        Ok((create_with(spec, self.rootfs(), io)?, output))
    }
}

pub fn create_with(spec: &Spec, rootfs: RootFs, io: Io) -> Result<Created, Error> {
    create(Create { id: "test", spec, rootfs, io, cgroup: None, netns: None, parent: Parent::Caller })
}

pub fn try_run(spec: &Spec, rootfs: RootFs) -> Result<Outcome, Error> {
    let (io, output) = pipes();
    let running = create_with(spec, rootfs, io)?.start()?;
    let (out, err) = output.read();
    Ok(Outcome { code: wait(&running.pidfd), out, err })
}

/// Kills a running container and reaps it, also on panic.
pub struct Guard(pub Running);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.0.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// The reading ends of a container's output.
pub struct Output {
    out: OwnedFd,
    err: OwnedFd,
}

impl Output {
    pub fn read(self) -> (String, String) {
        let text = |fd: OwnedFd| {
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
            text
        };
        (text(self.out), text(self.err))
    }
}

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// The output of a command that must have succeeded.
    pub fn text(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end().to_owned()
    }
}

pub fn pipes() -> (Io, Output) {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin = File::open("/dev/null").unwrap().into();
    let ((out, stdout), (err, stderr)) = (pipe(), pipe());
    (Io::Pipes(Stdio { stdin, stdout, stderr }), Output { out, err })
}

/// Waits for a process; 128 + n stands for signal n.
pub fn wait(pidfd: impl AsFd) -> i32 {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        other => panic!("neither ended nor killed: {other:?}"),
    }
}

/// Docker's defaults with a command.
pub fn spec(args: &[&str]) -> Spec {
    let mut spec = default_spec();
    let process = spec.process_mut().as_mut().unwrap();
    process.set_args(Some(args.iter().map(|&a| a.to_owned()).collect()));
    spec
}

pub fn process(spec: &mut Spec) -> &mut oci_spec::runtime::Process {
    spec.process_mut().as_mut().unwrap()
}

pub fn linux(spec: &mut Spec) -> &mut oci_spec::runtime::Linux {
    spec.linux_mut().as_mut().unwrap()
}

/// Lets the container share a namespace with the test.
pub fn share(spec: &mut Spec, kind: LinuxNamespaceType) {
    linux(spec).namespaces_mut().as_mut().unwrap().retain(|namespace| namespace.typ() != kind);
}

pub fn add_mount(spec: &mut Spec, destination: &str, kind: &str, source: &Path, options: &[&str]) {
    let options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
    let mount = oci_spec::runtime::MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
        .unwrap();
    spec.mounts_mut().as_mut().unwrap().push(mount);
}
