//! From a container in the guest to a server on the host, beside QEMU's own user networks for the same guest.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::boot::{pack, qemu_of, same_machine};
use crate::guest::{PLACE, copy_in, copy_libraries};
use crate::http::Api;
use crate::peer::IMAGE;
use crate::process::{Running, check, guest_image, program};
use crate::sample::Sample;

/// Bytes of one transfer.
const SIZE: u64 = 64 << 20;
const TRANSFERS: usize = 5;
const TRIPS: usize = 300;
const CONNECTIONS: usize = 100;
/// What a network card needs that the guest has no use for.
const MODULES: [&str; 3] = ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"];

/// What one way to the host can do.
#[derive(Default)]
struct Figures {
    download: Sample,
    upload: Sample,
    trip: Sample,
    connection: Sample,
    processor: Duration,
}

/// Prints the figures.
pub fn bench() -> anyhow::Result<()> {
    let port = serve()?;
    let directory = tempfile::tempdir()?;
    let (ours, arguments) = ours(directory.path(), port)?;
    let initramfs = peer_initramfs(directory.path())?;
    let slirp = peer(&arguments, &initramfs, port, &["-netdev", "user,id=net"], None)?;
    let passt = passt(directory.path(), &arguments, &initramfs, port)?;
    println!("network: guest to a server on the host's loopback (ours: from a container)");
    let named = [("skiff", Some(&ours)), ("slirp", Some(&slirp)), ("passt", passt.as_ref())];
    for (name, figures) in named {
        let Some(figures) = figures else { continue };
        let rate = |sample: &Sample| SIZE as f64 / 1048576.0 / sample.median().as_secs_f64();
        let moved = 2.0 * (TRANSFERS as u64 * SIZE) as f64 / 1e9;
        println!(
            "  {name}  download {:7.1} MiB/s  upload {:7.1} MiB/s  round trip {:6.0} µs  connect {:6.0} µs  {:5.1} s of processor per GB",
            rate(&figures.download),
            rate(&figures.upload),
            figures.trip.median().as_secs_f64() * 1e6,
            figures.connection.median().as_secs_f64() * 1e6,
            figures.processor.as_secs_f64() / moved,
        );
    }
    for (name, other, goal) in [("slirp", Some(&slirp), "goal ≥ 3"), ("passt", passt.as_ref(), "goal ≥ 1")]
    {
        match other {
            Some(other) => println!(
                "  to {name}: download × {:.2}, upload × {:.2} ({goal}); round trip × {:.2}, connect × {:.2} (less is better)",
                other.download.ratio(&ours.download),
                other.upload.ratio(&ours.upload),
                ours.trip.ratio(&other.trip),
                ours.connection.ratio(&other.connection),
            ),
            None => println!("  to {name}: it is not installed, or does not run here"),
        }
    }
    Ok(())
}

/// The server: the first byte of a connection says what it is for.
fn serve() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut what = [0];
    stream.read_exact(&mut what)?;
    let mut buffer = vec![0; 256 * 1024];
    match what[0] {
        b'd' => {
            let mut left = SIZE;
            while left > 0 {
                let length = left.min(buffer.len() as u64);
                stream.write_all(&buffer[..length as usize])?;
                left -= length;
            }
        }
        b'u' => {
            let mut left = SIZE;
            while left > 0 {
                left = left.saturating_sub(stream.read(&mut buffer)? as u64);
            }
            stream.write_all(b"!")?;
        }
        _ => loop {
            let length = stream.read(&mut buffer[..64])?;
            if length == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..length])?;
        },
    }
    Ok(())
}

/// The client: a line for each round.
pub fn client(to: &str) -> anyhow::Result<()> {
    let connect = |what: u8| -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        stream.write_all(&[what])?;
        Ok(stream)
    };
    let mut buffer = vec![0; 256 * 1024];
    // The first of each kind warms up.
    for round in 0..=TRANSFERS {
        let started = Instant::now();
        let mut stream = connect(b'd')?;
        let mut left = SIZE;
        while left > 0 {
            let length = stream.read(&mut buffer)?;
            ensure!(length > 0, "the download ended early");
            left -= length as u64;
        }
        tell(round > 0, "download", started);
        let started = Instant::now();
        let mut stream = connect(b'u')?;
        let mut left = SIZE;
        while left > 0 {
            let length = left.min(buffer.len() as u64);
            stream.write_all(&buffer[..length as usize])?;
            left -= length;
        }
        stream.read_exact(&mut buffer[..1])?;
        tell(round > 0, "upload", started);
    }
    let mut stream = connect(b'r')?;
    for round in 0..TRIPS {
        let started = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut buffer[..1])?;
        tell(round > 10, "trip", started);
    }
    for round in 0..CONNECTIONS {
        let started = Instant::now();
        let stream = TcpStream::connect(to)?;
        tell(round > 10, "connection", started);
        drop(stream);
    }
    println!("finished");
    Ok(())
}

fn tell(counts: bool, what: &str, started: Instant) {
    let took = started.elapsed();
    if counts {
        println!("{what} {}", took.as_nanos());
    }
}

impl Figures {
    /// Takes the client's lines in; `true` at the last.
    fn take(&mut self, line: &str) -> anyhow::Result<bool> {
        let line = line.trim();
        let Some((what, figure)) = line.split_once(' ') else { return Ok(line == "finished") };
        let sample = match what {
            "download" => &mut self.download,
            "upload" => &mut self.upload,
            "trip" => &mut self.trip,
            "connection" => &mut self.connection,
            "Error:" | "client:" => bail!("the client says: {line}"),
            _ => return Ok(false),
        };
        if let Ok(nanoseconds) = figure.parse() {
            sample.push(Duration::from_nanos(nanoseconds));
        }
        Ok(false)
    }
}

/// A container in a guest of ours; QEMU's arguments come along.
fn ours(directory: &Path, port: u16) -> anyhow::Result<(Figures, Vec<String>)> {
    let (state, socket) = (directory.join("state"), directory.join("docker.sock"));
    let mut daemon = Command::new(program("skiff")?);
    daemon.args(["daemon", "--backend", "qemu", "--state"]).arg(&state).arg("--socket").arg(&socket);
    daemon.env("SKIFF_GUEST_IMAGE", guest_image()?);
    let daemon = Running(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let mut api = Api::wait(&socket, Duration::from_secs(120))?;
    let arguments = qemu_of(&state)?;
    let own = std::env::current_exe().context("this program has a path")?;
    copy_in(directory, &state, std::slice::from_ref(&own), &[])?;
    let name = own.file_name().and_then(|name| name.to_str()).context("this program has a name")?;
    let client = format!("{PLACE}/{name}");
    // The container sees the guest's files, among which this program and its libraries are.
    let body = serde_json::json!({
        "Image": IMAGE,
        "Cmd": ["chroot", "/guest", client, "client", format!("192.168.65.254:{port}")],
        "HostConfig": {"Binds": ["/:/guest"]},
    });
    let created = api.call("POST", "/containers/create", Some(body.to_string().as_bytes()))?;
    let id = created["Id"].as_str().context("the container has an id")?.to_owned();
    let before = processor(directory);
    api.call("POST", &format!("/containers/{id}/start"), None)?;
    api.call("POST", &format!("/containers/{id}/wait"), None)?;
    let used = processor(directory).saturating_sub(before);
    let told = Command::new(program("skiff")?)
        .arg("--state")
        .arg(&state)
        .args(["logs", &id])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .stdin(Stdio::null())
        .output()?;
    let mut figures = Figures { processor: used, ..Figures::default() };
    let text = String::from_utf8_lossy(&told.stdout);
    let mut finished = false;
    for line in text.lines() {
        finished |= figures.take(line)?;
    }
    ensure!(finished, "the container did not finish: {text}{}", String::from_utf8_lossy(&told.stderr));
    drop(daemon);
    Ok((figures, arguments))
}

/// The processor time of all processes that have the directory, or one of its sockets, in their command lines.
fn processor(directory: &Path) -> Duration {
    let mark = directory.display().to_string();
    let own = std::process::id();
    let of = |pid: u32| -> Option<u64> {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if pid == own || !String::from_utf8_lossy(&line).contains(&mark) {
            return None;
        }
        Some(ticks(pid))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Duration::from_millis(pids.filter_map(of).sum::<u64>() * 10)
}

fn ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split_whitespace().collect();
    [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum()
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
esac; done
$B ip route add default via $gateway
$B sleep 1
/bin/client client $gateway:$port || echo client: failed
$B poweroff -f
";
    fs::write(root.join("init"), init)?;
    check(Command::new("chmod").arg("755").arg(root.join("init")))?;
    pack(&root, &directory.join("peer.cpio"))
}

/// The same guest with a network card of QEMU's; `helper` is a process whose processor time counts too.
fn peer(
    arguments: &[String],
    initramfs: &Path,
    port: u16,
    network: &[&str],
    helper: Option<u32>,
) -> anyhow::Result<Figures> {
    let mut command = same_machine(arguments, initramfs)?;
    let place = if helper.is_some() {
        // passt gives the guest the host's own addresses; the gateway's is the host's loopback.
        let route = Command::new("ip").args(["-4", "route", "show", "default"]).output()?;
        let gateway = String::from_utf8_lossy(&route.stdout).split_whitespace().nth(2).map(str::to_owned);
        let gateway = gateway.context("this host has no default route, which passt needs")?;
        let (net, _) = gateway.rsplit_once('.').context("the gateway is of IPv4")?;
        format!("bench.address={net}.222/24 bench.gateway={gateway}")
    } else {
        "bench.address=10.0.2.15/24 bench.gateway=10.0.2.2".to_owned()
    };
    let line = arguments.iter().position(|word| word == "-append").and_then(|at| arguments.get(at + 1));
    command.arg("-append").arg(format!("{} {place} bench.port={port}", line.map_or("", String::as_str)));
    command.args(network).args(["-device", "virtio-net-pci,netdev=net"]);
    let before = helper.map_or(0, ticks);
    let mut child = command.spawn()?;
    let output = child.stdout.take().context("piped")?;
    let (mut figures, mut finished) = (Figures::default(), false);
    let mut said = String::new();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        if figures.take(&line)? {
            finished = true;
            break;
        }
    }
    let used = ticks(child.id()) + helper.map_or(0, ticks) - before;
    child.kill()?;
    child.wait()?;
    ensure!(finished, "the guest with {network:?} did not finish: {said}");
    figures.processor = Duration::from_millis(used * 10);
    Ok(figures)
}

/// The same with passt, where it is installed and runs.
fn passt(
    directory: &Path,
    arguments: &[String],
    initramfs: &Path,
    port: u16,
) -> anyhow::Result<Option<Figures>> {
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
    let Ok(helper) = spawned else { return Ok(None) };
    let helper = Running(helper);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !socket.exists() {
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let network = format!("stream,id=net,server=off,addr.type=unix,addr.path={}", socket.display());
    let figures = peer(arguments, initramfs, port, &["-netdev", &network], Some(helper.0.id()));
    match figures {
        Ok(figures) => Ok(Some(figures)),
        Err(error) => {
            println!("  passt: {error:#}");
            Ok(None)
        }
    }
}
