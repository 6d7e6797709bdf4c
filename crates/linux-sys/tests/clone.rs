//! Between clone and execve a child allocates nothing and takes no lock.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "an allocator is made of unsafe functions")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use skiff_linux_sys::child::{Groups, Kind, Links, Parent, PresentRoot, Program, Spawn, Step, Target, Tree};
use skiff_linux_sys::mount::Scope;
use skiff_linux_sys::namespace::Namespaces;

/// The process that may allocate. A clone has a copy of this and another id.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// The system's allocator, which ends any process but the test's.
struct Watched;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn check() {
    let owner = OWNER.load(Ordering::Relaxed);
    if owner != 0 && std::process::id() != owner {
        // No panic: that would allocate.
        std::process::abort();
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// A child that goes through steps of every kind that needs no more than root: namespaces, mounts, files, a hook.
fn program(root: &std::path::Path) -> Program {
    let mut program = Program::new();
    let target = |path: &str, kind| Target { path: text(path), kind, links: Links::Inside };
    let stdin = program.keep(std::fs::File::open("/dev/null").unwrap().into()).unwrap();
    let own = text("/proc/self/oom_score_adj");
    program.push(Step::WriteOwn { path: own, data: b"10".to_vec() }, "oom score");
    program.push(Step::HostName(text("child")), "host name");
    program.push(Step::Propagation(libc::MS_PRIVATE), "propagation");
    let path = text(root.to_str().unwrap());
    let mount = Tree::Host { path, scope: Scope::Tree };
    program.push(Step::AttachRoot { mount, present: PresentRoot::Fixed }, "root");
    program.push(Step::MakeDirectory(target("a/b/../link/c", Kind::Directory)), "directories");
    let null = Tree::Host { path: text("/dev/null"), scope: Scope::Single };
    let step = Step::Mount {
        source: skiff_linux_sys::child::Source::Detached(null),
        target: target("a/null", Kind::File),
        changes: Vec::new(),
    };
    program.push(step, "mount");
    program.push(Step::Mask(text("a/b")), "mask");
    let hook = Step::Hook {
        path: text("/bin/true"),
        arguments: vec![text("true")],
        environment: Vec::new(),
        stdin,
        timeout: Some(60_000),
    };
    program.push(hook, "hook");
    program.push(Step::Session, "session");
    program.push(Step::CloseAll { keep: Vec::new() }, "closing");
    program.push(Step::User { uid: 0, gid: 0, groups: Groups::Set(vec![1]) }, "user");
    program.push(Step::Ready, "ready");
    let candidates = vec![text("/nonexistent/true"), text("/bin/true"), text("/usr/bin/true")];
    program.push(
        Step::Execute { candidates, arguments: vec![text("true")], environment: vec![text("A=1")] },
        "exec",
    );
    program
}

#[test]
fn a_clone_of_a_process_whose_threads_hammer_the_allocator_comes_through() {
    OWNER.store(std::process::id(), Ordering::Relaxed);
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/else/where", root.path().join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for size in 1..=4usize {
            let stop = &stop;
            // Vectors of growing size take the allocator's locks; environment and time have locks of their own.
            scope.spawn(move || {
                let mut kept: Vec<Vec<u8>> = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    kept.push(vec![0; size * 1000 + kept.len() % 977]);
                    let _ = std::env::var_os("PATH");
                    if kept.len() > 200 {
                        kept.clear();
                    }
                }
            });
        }
        for round in 0..150 {
            let program = program(root.path());
            let spawn = Spawn {
                program: &program,
                new: Namespaces::MOUNT | Namespaces::UTS,
                pid_namespace: None,
                cgroup: None,
                parent: Parent::Caller,
            };
            let mut child = spawn.spawn().unwrap();
            let step = |failure| {
                stop.store(true, Ordering::Relaxed);
                panic!("round {round}: {failure:?}")
            };
            child.ready().unwrap_or_else(step);
            child.start().unwrap_or_else(step);
            let id = rustix::process::WaitId::PidFd(child.pidfd());
            let status =
                rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap().unwrap();
            if status.exit_status() != Some(0) {
                stop.store(true, Ordering::Relaxed);
                panic!("round {round}: {status:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
