//! Nothing is left after a death that `delete --force` does not clean up.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use skiff_runtime::Cgroup;

use super::bundle::{Bundle, wait_until};

/// What of a container is on the machine: its processes and its cgroup.
fn leftovers(bundle: &Bundle, cgroup: &Path) -> Vec<String> {
    let root = bundle.rootfs("").canonicalize().unwrap();
    let mut left: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            mounts.lines().any(|line| line.split(' ').nth(3) == root.to_str())
        })
        .map(|pid| format!("process {pid}"))
        .collect();
    if cgroup.exists() {
        left.push(cgroup.display().to_string());
    }
    left
}

#[test]
fn a_runtime_killed_at_any_instant_leaves_nothing_that_delete_does_not_find() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let name = format!("skiff-test-{}", std::process::id());
    bundle.config["linux"]["cgroupsPath"] = format!("/{name}/box").into();
    let parent = Cgroup::root().unwrap_or_else(|| PathBuf::from("/nonexistent")).join(&name);
    let cgroup = parent.join("box");
    let mut states = Vec::new();
    for step in 0..40u64 {
        let mut command = bundle.command(&["create", "box"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(step * step * 25));
        child.kill().unwrap();
        child.wait().unwrap();
        // Between its death and the look at it nothing of the container may still be coming into being.
        let state = bundle.oci(&["state", "box"]);
        states.push(if state.code == 0 { "known" } else { "unknown" });
        bundle.oci(&["delete", "--force", "box"]).ok();
        wait_until("the end of everything", || leftovers(&bundle, &cgroup).is_empty());
        assert!(!bundle.path().join("state/box").exists());
    }
    assert!(states.contains(&"known"), "every kill came before the first file: {states:?}");
    assert!(!parent.exists(), "the directory above the cgroup is left");
}

#[test]
fn a_container_lives_on_without_its_creator_and_dies_with_delete() {
    let mut bundle = Bundle::new("sleep 1000 & sleep 1001 & exec sleep 1002");
    // The hard case: no process namespace of its own whose end would end all.
    bundle.namespace("pid", None);
    bundle.mounts().retain(|mount| mount["destination"] != "/proc");
    bundle.config["linux"]["maskedPaths"] = serde_json::json!([]);
    bundle.config["linux"]["readonlyPaths"] = serde_json::json!([]);
    bundle.oci(&["create", "box"]).ok();
    bundle.oci(&["start", "box"]).ok();
    let count = || -> usize {
        let pids = bundle.oci(&["ps", "--format", "json", "box"]).ok().out;
        serde_json::from_str::<Vec<i32>>(&pids).unwrap().len()
    };
    if Cgroup::root().is_some() {
        wait_until("all processes", || count() == 3);
    }
    bundle.oci(&["delete", "--force", "box"]).ok();
    wait_until("their end", || leftovers(&bundle, Path::new("/nonexistent")).is_empty());
}
