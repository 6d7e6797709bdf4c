use crate::setup::*;
use skiff_runtime::RootFs;
use std::os::unix::fs::symlink;
use std::path::Path;

#[test]
fn devices_and_links_are_there() {
    let script = "ls -l /dev | grep -E ' (null|zero|full|random|urandom|tty)$' | wc -l; readlink /dev/fd; readlink /dev/ptmx; \
        echo x >/dev/null && stat -c %a /dev/null; test -c /dev/pts/ptmx && echo pts";
    assert_eq!(Box::new().sh(script).text(), "6\n/proc/self/fd\npts/ptmx\n666\npts");
}

#[test]
fn dev_shm_and_mqueue_have_dockers_options() {
    let text = Box::new().sh("cat /proc/mounts").text();
    let line = |point: &str| text.lines().find(|l| l.split(' ').nth(1) == Some(point)).unwrap().to_owned();
    assert!(line("/dev/shm").contains("nosuid,nodev,noexec") && line("/dev/shm").contains("size=65536k"));
    assert!(line("/dev/mqueue").starts_with("mqueue /dev/mqueue mqueue rw"));
    assert!(line("/sys").starts_with("sysfs /sys sysfs ro,"));
    assert!(line("/dev").contains("mode=755"));
    assert!(line("/dev/pts").contains("gid=5,mode=620,ptmxmode=666"));
}

#[test]
fn binds_are_read_write_or_read_only() {
    let container = Box::new();
    let host = container.path().join("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("file"), "hello").unwrap();
    let script = "cat /data/new/file /one; echo x >/data/new/made; echo x >/ro/made; echo x >>/one";
    let mut spec = spec(&["sh", "-c", script]);
    add_mount(&mut spec, "/data/new", "bind", &host, &["rbind", "rprivate"]);
    add_mount(&mut spec, "/ro", "bind", &host, &["rbind", "ro", "rprivate"]);
    add_mount(&mut spec, "/one", "bind", &host.join("file"), &["bind", "ro"]);
    let outcome = container.run(spec);
    assert_eq!(outcome.out, "hellohello");
    assert_eq!(outcome.err.matches("Read-only file system").count(), 2, "{outcome:?}");
    assert!(host.join("made").exists());
    assert!(container.root().join("one").is_file() && container.root().join("data/new").is_dir());
}

#[test]
fn a_missing_bind_source_is_named() {
    let container = Box::new();
    let mut spec = spec(&["true"]);
    add_mount(&mut spec, "/data", "bind", Path::new("/no/such/source"), &["rbind"]);
    let text = container.try_run(&spec).unwrap_err().docker_text();
    assert_eq!(text, "bind source path cannot be used: /no/such/source: no such file or directory");
}

#[test]
fn a_directory_cannot_be_bound_over_a_file() {
    let container = Box::new();
    std::fs::write(container.root().join("file"), "").unwrap();
    let mut spec = spec(&["true"]);
    add_mount(&mut spec, "/file", "bind", container.path(), &["rbind"]);
    let text = container.try_run(&spec).unwrap_err().docker_text();
    assert!(
        text.starts_with("error mounting ") && text.ends_with("to rootfs at \"/file\": not a directory"),
        "{text}"
    );
}

#[test]
fn tmpfs_mounts_take_their_options() {
    let container = Box::new();
    let mut spec = spec(&["sh", "-c", "grep ' /cache ' /proc/mounts; stat -c %a /cache"]);
    add_mount(
        &mut spec,
        "/cache",
        "tmpfs",
        Path::new("tmpfs"),
        &["nosuid", "noexec", "size=1m", "mode=1750"],
    );
    let text = container.run(spec).text();
    assert!(
        text.contains("tmpfs rw,nosuid,noexec,relatime,size=1024k,mode=1750") && text.ends_with("\n1750"),
        "{text}"
    );
}

#[test]
fn a_read_only_root_leaves_its_mounts_writable() {
    let container = Box::new();
    let mut spec = spec(&["sh", "-c", "echo x >/file; echo x >/dev/shm/file && echo shm"]);
    spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
    let outcome = container.run(spec);
    assert!(outcome.err.contains("Read-only file system"));
    assert_eq!(outcome.out, "shm\n");
}

#[test]
fn links_in_destinations_cannot_lead_out() {
    let container = Box::new();
    let (host, outside) = (container.path().join("host"), container.path().join("outside"));
    std::fs::create_dir_all(&host).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(host.join("file"), "inside").unwrap();
    let root = container.root();
    // Up, absolute, dangling, through a directory link, and a chain.
    symlink("../../../../../../../../../../../../outside", root.join("up")).unwrap();
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("/made/by/link", root.join("dangling")).unwrap();
    symlink("dangling", root.join("chain")).unwrap();
    for destination in ["/up", "/absolute/deep", "/dangling", "/chain/more", "/../../../climb"] {
        let mut spec = spec(&["cat", &format!("{destination}/file")]);
        add_mount(&mut spec, destination, "bind", &host, &["rbind"]);
        assert_eq!(container.run(spec).text(), "inside", "{destination}");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(root.join("made/by/link/more").is_dir());
    assert!(root.join("climb").is_dir());
    assert!(!Path::new("/made").exists() && !Path::new("/climb").exists());
}

#[test]
fn link_loops_end_in_an_error() {
    let container = Box::new();
    symlink("two", container.root().join("one")).unwrap();
    symlink("one", container.root().join("two")).unwrap();
    let mut spec = spec(&["true"]);
    add_mount(&mut spec, "/one/x", "bind", container.path(), &["rbind"]);
    let text = container.try_run(&spec).unwrap_err().docker_text();
    assert!(text.ends_with("too many levels of symbolic links"), "{text}");
}

#[test]
fn proc_is_not_mounted_behind_a_link() {
    let container = Box::new();
    std::fs::remove_dir(container.root().join("proc")).unwrap();
    symlink("tmp", container.root().join("proc")).unwrap();
    assert!(container.try_run(&spec(&["true"])).is_err());
}

#[test]
fn a_working_directory_outside_of_the_root_is_refused() {
    let container = Box::new();
    for number in 3..12 {
        let mut spec = spec(&["ls", "."]);
        process(&mut spec).set_cwd(format!("/proc/self/fd/{number}").into());
        assert!(container.try_run(&spec).is_err());
    }
}

fn overlay(container: &Box, layers: usize) -> RootFs {
    let (upper, work) = (container.path().join("upper"), container.path().join("work"));
    std::fs::create_dir_all(&upper).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    let mut lower = Vec::new();
    for layer in (0..layers).rev() {
        let path = container.path().join(format!("layer-{}-{layer}", "x".repeat(60)));
        std::fs::create_dir_all(path.join("etc")).unwrap();
        std::fs::write(path.join("etc/layer"), layer.to_string()).unwrap();
        std::fs::write(path.join(format!("etc/of-{layer}")), "").unwrap();
        lower.push(path);
    }
    lower.push(container.root());
    RootFs::Overlay { lower, upper, work }
}

#[test]
fn overlay_layers_are_joined_and_changes_go_to_the_upper_one() {
    let container = Box::new();
    let rootfs = overlay(&container, 3);
    let script = "cat /etc/layer; ls /etc; rm /etc/of-0; echo new >/etc/layer; mkdir /made";
    let outcome = try_run(&spec(&["sh", "-c", script]), rootfs.clone()).unwrap();
    assert_eq!(outcome.text(), "2layer\nof-0\nof-1\nof-2");
    let upper = container.path().join("upper");
    assert_eq!(std::fs::read_to_string(upper.join("etc/layer")).unwrap(), "new\n");
    let whiteout = rustix::fs::lstat(upper.join("etc/of-0")).unwrap();
    assert_eq!(rustix::fs::FileType::from_raw_mode(whiteout.st_mode), rustix::fs::FileType::CharacterDevice);
    assert_eq!(whiteout.st_rdev, 0);
    // A second container on the same layers sees what the first has done.
    let again = try_run(&spec(&["sh", "-c", "ls /etc; test -d /made"]), rootfs).unwrap();
    assert_eq!(again.text(), "layer\nof-1\nof-2");
}

#[test]
fn an_overlay_can_have_more_layers_than_a_page_of_paths() {
    let container = Box::new();
    let rootfs = overlay(&container, 100);
    assert_eq!(try_run(&spec(&["sh", "-c", "ls /etc | wc -l"]), rootfs).unwrap().text(), "101");
}

#[test]
fn layer_paths_may_have_any_characters() {
    let container = Box::new();
    let odd = container.path().join("a,b:c\\d");
    std::fs::create_dir_all(odd.join("upper")).unwrap();
    std::fs::create_dir_all(odd.join("work")).unwrap();
    std::fs::create_dir_all(odd.join("lower")).unwrap();
    std::fs::write(odd.join("lower/file"), "odd").unwrap();
    let rootfs = RootFs::Overlay {
        lower: vec![odd.join("lower"), container.root()],
        upper: odd.join("upper"),
        work: odd.join("work"),
    };
    assert_eq!(try_run(&spec(&["cat", "/file"]), rootfs).unwrap().text(), "odd");
}

#[test]
fn extra_devices_are_made_with_owner_and_mode() {
    use oci_spec::runtime::{LinuxDeviceBuilder, LinuxDeviceType};
    let container = Box::new();
    let mut spec = spec(&["stat", "-c", "%t:%T %a %u:%g", "/dev/deep/fuse"]);
    let device = LinuxDeviceBuilder::default()
        .path("/dev/deep/fuse")
        .typ(LinuxDeviceType::C)
        .major(10)
        .minor(229)
        .file_mode(0o640u32)
        .uid(7u32)
        .gid(8u32)
        .build()
        .unwrap();
    linux(&mut spec).set_devices(Some(vec![device]));
    assert_eq!(container.run(spec).text(), "a:e5 640 7:8");
}
