//! Ordinary users with subordinate ids (subuid(5)), and root of a user namespace, which is what rootless podman is.
//!
//! The user exists in a mount namespace of the test's own alone: the machine's files stay as they are.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::bundle::{Bundle, Done};

const USER: u32 = 54_321;
const FIRST: u32 = 500_000;

/// A home of the user's, with the program in it.
struct User {
    home: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(path.join("run")).unwrap();
        fs::set_permissions(path.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        chown(path.join("run"), Some(USER), Some(USER)).unwrap();
        chown(path, Some(USER), Some(USER)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_skiff-oci"), path.join("skiff-oci")).unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let own = format!("rootless:x:{USER}:{USER}::{}:/bin/sh\n", path.display());
        fs::write(path.join("passwd"), passwd + &own).unwrap();
        fs::write(path.join("subids"), format!("rootless:{FIRST}:65536\n")).unwrap();
        Self { home }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// Runs a script as the user.
    fn runs(&self, bundle: &Bundle, script: &str) -> Done {
        // A distribution without the files has nothing to mount over.
        let enter = format!(
            "set -e; cd {0}; mount --make-rshared /; mount --bind passwd /etc/passwd
             for file in /etc/subuid /etc/subgid; do test -e $file && mount --bind subids $file; done
             export HOME={0} XDG_RUNTIME_DIR={0}/run USER=rootless
             exec setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all sh -ec '{script}'",
            self.path().display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &enter]);
        bundle.finish(command)
    }
}

#[test]
fn an_ordinary_user_has_the_ids_that_are_subordinate_to_it() {
    let user = User::new();
    let mut bundle = Bundle::new("id -u; chown 33:34 /tmp; exec sleep 1000");
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": FIRST, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    // A limit that cannot be set is said, not swallowed.
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 100}});
    bundle.mounts().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    drop(bundle.command(&[]));
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(bundle.path(), Some(USER), Some(USER)).unwrap();
    for entry in ["", "dev", "etc", "proc", "sys", "tmp"] {
        chown(bundle.rootfs(entry), Some(USER), Some(USER)).unwrap();
    }
    let bundle_path = bundle.path().display();
    let done = user
        .runs(
            &bundle,
            &format!(
                "./skiff-oci run -d --bundle {bundle_path} box
                 until test \"$(stat -c %u {bundle_path}/rootfs/tmp)\" = {}; do sleep 0.05; done
                 ./skiff-oci exec --user 33:34 box id -u; ./skiff-oci exec --user 33:34 -g 40 box id -G
                 ./skiff-oci list -q; ./skiff-oci kill box KILL; ./skiff-oci delete -f box; ls run/skiff-oci",
                FIRST + 32
            ),
        )
        .ok();
    assert_eq!(done.out, "0\n33\n34 40\nbox\n", "{}", done.err);
    assert!(done.err.contains("limits are not set"), "{}", done.err);
    // An id that is nobody's to give is refused by the helper, in its words.
    let refused = user.runs(
        &bundle,
        &format!(
            "sed -i s/{FIRST}/{}/g {bundle_path}/config.json; ./skiff-oci run --bundle {bundle_path} other",
            FIRST - 1000
        ),
    );
    refused.fails("newgidmap");
}

#[test]
fn rootless_podman_runs_and_execs() {
    let user = User::new();
    let bundle = Bundle::new("");
    let path = user.path();
    fs::write(path.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    fs::write(
        path.join("containers.conf"),
        "[containers]\ndefault_ulimits=[\"nofile=512:512\",\"nproc=4096:4096\"]\n",
    )
    .unwrap();
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(bundle.rootfs("")).args(["--owner=0", "--group=0", "-cf"]).arg(path.join("image.tar"));
    assert!(pack.arg(".").status().unwrap().success());
    let done = user
        .runs(
            &bundle,
            "export CONTAINERS_CONF=$HOME/containers.conf
             p() { podman --root $HOME/store --runroot $HOME/run/containers --tmpdir $HOME/run/libpod \
                 --storage-driver vfs --cgroup-manager cgroupfs --events-backend none \
                 --runtime $HOME/skiff-oci \"$@\"; }
             p import image.tar localhost/box >/dev/null
             p run --rm --network none localhost/box sh -c \"id -u; cut -c-30 /proc/self/uid_map | wc -l; exit 7\" || echo $?
             p run -d --name one --network none localhost/box sleep 1000 >/dev/null
             p exec one id -u; p exec --user 33 one id -u
             p rm -f -t 0 one >/dev/null; ls run/skiff-oci | wc -l
             podman --root $HOME/store --runroot $HOME/run/containers unshare rm -rf $HOME/store",
        )
        .ok();
    assert_eq!(done.out, "0\n2\n7\n0\n33\n0\n", "{}", done.err);
}
