//! The same guest with a network card, behind QEMU's slirp and behind passt.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::traffic::{Figures, processor};
use super::world::{self, World};
use super::{Measured, TO_HOST, TO_OUTSIDE, WAYS};
use crate::boot::{pack, same_machine};
use crate::guest::copy_libraries;
use crate::process::{Running, check, guest_image};

/// What a network card needs that the guest has no use for.
const MODULES: [&str; 3] = ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"];

/// Measures those that are here.
pub fn measure(
    directory: &Path,
    arguments: &[String],
    here: u16,
    world: &World,
) -> anyhow::Result<Vec<Measured>> {
    let initramfs = peer_initramfs(directory)?;
    let guest = Peer { arguments, initramfs: &initramfs, here, world };
    let mut all = Vec::new();
    for measured in [guest.slirp(directory), guest.passt(directory)] {
        match measured {
            Ok(measured) => all.push(measured),
            Err(error) => println!("  {error:#}"),
        }
    }
    Ok(all)
}

struct Peer<'a> {
    arguments: &'a [String],
    initramfs: &'a Path,
    here: u16,
    world: &'a World,
}

impl Peer<'_> {
    fn slirp(&self, directory: &Path) -> anyhow::Result<Measured> {
        let place = "bench.address=10.0.2.15/24 bench.gateway=10.0.2.2";
        self.run("slirp", directory, place, "user,id=net").context("slirp")
    }

    fn passt(&self, directory: &Path) -> anyhow::Result<Measured> {
        // passt becomes nobody, who must be able to make the socket.
        let place = directory.join("passt");
        fs::create_dir_all(&place)?;
        check(Command::new("chmod").arg("777").arg(&place))?;
        check(Command::new("chmod").arg("755").arg(directory))?;
        let socket = place.join("socket");
        let spawned = Command::new("passt")
            .args(["--foreground", "--quiet", "--socket"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let _helper = Running(spawned.context("passt is not installed")?);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !socket.exists() {
            ensure!(Instant::now() < deadline, "passt does not start here");
            std::thread::sleep(Duration::from_millis(20));
        }
        // The guest gets an address of the host's own network; the gateway's is the host's loopback.
        let route = Command::new("ip").args(["-4", "route", "show", "default"]).output()?;
        let gateway = String::from_utf8_lossy(&route.stdout).split_whitespace().nth(2).map(str::to_owned);
        let gateway = gateway.context("this host has no default route, which passt needs")?;
        let (net, _) = gateway.rsplit_once('.').context("the gateway is of IPv4")?;
        let place = format!("bench.address={net}.222/24 bench.gateway={gateway}");
        let network = format!("stream,id=net,server=off,addr.type=unix,addr.path={}", socket.display());
        self.run("passt", directory, &place, &network).context("passt")
    }

    /// Boots the guest with a card, where the client is all that runs.
    fn run(&self, name: &str, directory: &Path, place: &str, network: &str) -> anyhow::Result<Measured> {
        let mut command = same_machine(self.arguments, self.initramfs)?;
        let at = self.arguments.iter().position(|word| word == "-append");
        let line = at.and_then(|at| self.arguments.get(at + 1)).map_or("", String::as_str);
        let targets = format!("bench.port={} bench.outside={}", self.here, world::SERVER);
        command.arg("-append").arg(format!("{line} {place} {targets}"));
        command.args(["-netdev", network, "-device", "virtio-net-pci,netdev=net"]);
        let mut child = command.spawn()?;
        let output = child.stdout.take().context("piped")?;
        let child = Running(child);
        // QEMU has the initramfs's path in its command line, and passt that of its socket.
        let marks = [directory.display().to_string(), self.world.mark()];
        let used = || processor(&marks);
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut said = String::new();
        let mut next = || -> anyhow::Result<Figures> {
            let mut figures = Figures::default();
            for line in lines.by_ref() {
                if figures.take(&line, &used)? {
                    return Ok(figures);
                }
                said.push_str(&line);
                said.push('\n');
            }
            anyhow::bail!("the guest did not finish: {said}")
        };
        let mut ways = [const { None }; 4];
        for way in [TO_HOST, TO_OUTSIDE] {
            let figures = next()?;
            eprintln!("  … {name}, {}: {figures}", WAYS[way]);
            ways[way] = Some(figures);
        }
        drop(child);
        Ok(Measured { name: name.to_owned(), ways })
    }
}

/// An initramfs that brings a network card up and runs the client.
fn peer_initramfs(directory: &Path) -> anyhow::Result<PathBuf> {
    let root = directory.join("peer-root");
    for name in ["bin", "dev", "proc", "sys", "modules"] {
        fs::create_dir_all(root.join(name))?;
    }
    let cache = guest_image()?.join("../guest-cache").canonicalize()?;
    let kernel = fs::read_dir(&cache)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.is_dir() && path.join("lib/modules").is_dir())
        .context("the guest's kernel package is not unpacked: run scripts/build")?;
    let version = fs::read_dir(kernel.join("lib/modules"))?.next().context("no modules")??.path();
    for module in MODULES {
        let packed = version.join("kernel").join(module).with_extension("ko.xz");
        let name =
            Path::new(module).file_name().and_then(|name| name.to_str()).context("a module has a name")?;
        let script =
            format!("xz -dc '{}' > '{}'", packed.display(), root.join("modules").join(name).display());
        check(Command::new("sh").args(["-c", &script]))?;
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    fs::copy(busybox.context("no busybox: run scripts/setup bench")?, root.join("bin/busybox"))?;
    let own = std::env::current_exe().context("this program has a path")?;
    fs::copy(&own, root.join("bin/client"))?;
    copy_libraries(&own, &root)?;
    let init = "#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev; $B mount -t proc proc /proc; $B mount -t sysfs sys /sys
exec >/dev/hvc0 2>&1
for m in failover net_failover virtio_net; do $B insmod /modules/$m; done
$B ip link set lo up; $B ip link set eth0 up
for word in $($B cat /proc/cmdline); do case $word in
    bench.address=*) $B ip address add ${word#*=} dev eth0 ;;
    bench.gateway=*) gateway=${word#*=} ;;
    bench.port=*) port=${word#*=} ;;
    bench.outside=*) outside=${word#*=} ;;
esac; done
$B ip route add default via $gateway
$B sleep 1
/bin/client client $gateway:$port || echo client: failed
/bin/client client $outside || echo client: failed
$B poweroff -f
";
    fs::write(root.join("init"), init)?;
    check(Command::new("chmod").arg("755").arg(root.join("init")))?;
    pack(&root, &directory.join("peer.cpio"))
}
