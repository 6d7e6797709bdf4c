//! `skiff-agent supervise`: PID 1 of the guest.
//!
//! ```text
//! first byte on the console → file systems → modules → data disk, grown → engine and link router → … → power off
//! ```
//!
//! With `skiff.hold` the disk comes later ([`crate::held`]).
//!
//! Nothing here parses anything from outside. What fails says so on the console, whose tail the host shows to the user.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use skiff_linux_sys::reboot;
use skiff_supervisor::{Server, ServerConfig, Service};

use crate::data_disk::{self, Detached};
use crate::held::Held;
use crate::layout::{EngineOptions, GUEST_DATA, GUEST_HELD, Layout};
use crate::modules;

/// Makes the guest stand before its data disk.
const HOLD: &str = "skiff.hold";
/// How long the engine may take to stop all containers at shutdown. Docker's default stop timeout is 10 s.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// How often space that was freed goes back to the host.
const TRIM_INTERVAL: Duration = Duration::from_secs(300);

/// Runs the guest until it is told to stop, then powers it off. Never returns to a kernel that would panic.
pub fn run() -> anyhow::Result<()> {
    // The host waits for this first byte: it tells a kernel that runs from one that hangs.
    println!("skiff-agent {}", env!("CARGO_PKG_VERSION"));
    match boot_and_serve() {
        Ok(()) => println!("skiff-agent: stopped"),
        Err(error) => println!("skiff-agent: {error:#}"),
    }
    data_disk::put_to_rest();
    reboot::power_off().context("power off")
}

fn boot_and_serve() -> anyhow::Result<()> {
    let started = Instant::now();
    mount_kernel_filesystems()?;
    raise_file_limit();
    make_root_pivotable().context("prepare the root file system")?;
    crate::logging::init();
    modules::load_for_boot()?;
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let hold = line.split_whitespace().any(|word| word == HOLD);
    let detached = if hold { Some(Detached::take()?) } else { None };
    if detached.is_none() {
        data_disk::open()?;
    }
    settle_kernel()?;
    tracing::info!(elapsed_ms = millis(started), "guest is set up");

    let layout = Layout::guest();
    layout.create()?;
    if let Some(disk) = &detached {
        Held::at(GUEST_HELD.as_ref()).begin(disk).context("stand before the data disk")?;
    }
    let server = Server::new(ServerConfig {
        engine: layout.engine_service(&engine_options(&line)),
        helpers: vec![Service {
            name: "link",
            program: crate::layout::own_program(),
            args: vec![
                "link".into(),
                "--transport".into(),
                "virtio:skiff.link".into(),
                "--root".into(),
                GUEST_DATA.into(),
            ],
        }],
        stop_grace: STOP_GRACE,
        when_ready: Some(afterwards),
    })
    .context("prepare the supervisor")?;
    server.run().context("supervise")?;
    Ok(())
}

/// What the host put on the kernel's command line for the engine: `skiff.registry-mirror=URL` and
/// `skiff.address-pool=POOL`, any number, and `skiff.publish-ip=ADDRESS`.
fn engine_options(line: &str) -> EngineOptions {
    let values = |key: &'static str| line.split_whitespace().filter_map(move |word| word.strip_prefix(key));
    EngineOptions {
        mirrors: values("skiff.registry-mirror=").map(str::to_owned).collect(),
        address_pools: values("skiff.address-pool=").map(str::to_owned).collect(),
        publish_ip: values("skiff.publish-ip=").find_map(|ip| ip.parse().ok()),
    }
}

/// As many open files as dockerd gets from its unit. The kernel's 4,096 are those of 450 running containers; whatever starts from
/// here inherits the limit.
const FILES: u64 = 1 << 20;

fn raise_file_limit() {
    let wanted = rustix::process::Rlimit { current: Some(FILES), maximum: Some(FILES) };
    if let Err(errno) = rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted) {
        println!("skiff-agent: limit of open files stays: {errno}");
    }
}

fn mount_kernel_filesystems() -> anyhow::Result<()> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let table = [
        ("proc", "/proc", "proc", safe, ""),
        ("sysfs", "/sys", "sysfs", safe, ""),
        ("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0755"),
        ("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=0755"),
        ("tmpfs", "/tmp", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=1777"),
        (
            "devpts",
            "/dev/pts",
            "devpts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            "gid=5,mode=0620,ptmxmode=0666",
        ),
        ("tmpfs", "/dev/shm", "tmpfs", safe, "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", "cgroup2", safe, "nsdelegate,memory_recursiveprot"),
    ];
    for (source, target, kind, flags, data) in table {
        fs::create_dir_all(target).with_context(|| format!("create {target}"))?;
        let data = std::ffi::CString::new(data).expect("the table holds no NUL");
        match mount(source, target, kind, flags, data.as_c_str()) {
            Ok(()) => {}
            // A kernel may mount devtmpfs itself (CONFIG_DEVTMPFS_MOUNT).
            Err(rustix::io::Errno::BUSY) => {}
            Err(errno) => return Err(errno).with_context(|| format!("mount {target}")),
        }
    }
    Ok(())
}

/// Puts a mount of its own under `/`: pivot_root(2) refuses to leave the initial ramfs, so containers could not be
/// given a root of their own. A bind mount of the same files costs no copy.
fn make_root_pivotable() -> io::Result<()> {
    fs::create_dir_all("/newroot")?;
    mount_bind("/", "/newroot")?;
    for name in ["proc", "sys", "dev", "run", "tmp"] {
        mount_move(format!("/{name}").as_str(), format!("/newroot/{name}").as_str())?;
    }
    std::env::set_current_dir("/newroot")?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// What containers expect of the machine below them.
fn settle_kernel() -> anyhow::Result<()> {
    rustix::system::sethostname(b"skiff").context("set the host name")?;
    skiff_network::bring_loopback_up().context("bring the loopback up")?;
    skiff_network::outside::Way::prepare().context("prepare the way out")?;
    // Containers inherit it; the router answers there.
    fs::create_dir_all("/etc").context("create /etc")?;
    let server = format!("nameserver {}\n", skiff_network::outside::NAME_SERVER);
    fs::write("/etc/resolv.conf", server).context("write /etc/resolv.conf")?;
    let values = [
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
        ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024"),
        ("/proc/sys/fs/inotify/max_user_watches", "1048576"),
        ("/proc/sys/fs/inotify/max_user_instances", "8192"),
        ("/proc/sys/vm/max_map_count", "1048576"),
        ("/proc/sys/kernel/panic", "-1"),
        // Containers can have all there is: limits are theirs to set.
        ("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +cpuset +io +memory +pids"),
    ];
    for (path, value) in values {
        if let Err(error) = fs::write(path, value) {
            tracing::warn!(path, %error, "kernel setting is not available");
        }
    }
    Ok(())
}

/// What can wait until the guest is of use; never returns.
fn afterwards() {
    modules::load_when_ready();
    loop {
        std::thread::sleep(TRIM_INTERVAL);
        data_disk::trim();
    }
}

fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
}

/// Tells whether this process is the guest's init.
pub fn is_init() -> bool {
    rustix::process::getpid().is_init() && std::env::args_os().next().is_some_and(|name| name == "/init")
}
