//! QEMU's command line for a guest: a pure function of what the guest is.
//!
//! The x86-64 machine is q35 without the devices that a kernel would spend boot time on; the guest has no network
//! card, since everything it needs travels over the link.

use std::{ffi::OsString, path::Path};

use serde_json::json;

use crate::{Accelerator, Endpoint};

/// Name of the virtio-serial port that carries the link.
pub const LINK_PORT: &str = "skiff.link";

/// Instruction set of the guest, which is always the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// Gives the architecture this program was built for.
    pub fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// Gives the name of QEMU's program.
    pub fn program(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }
}

/// Whether QEMU confines itself by seccomp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// It does.
    On,
    /// This build or system cannot.
    Off,
}

/// Everything the command line depends on.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// Instruction set.
    pub arch: Arch,
    /// How instructions are executed.
    pub accelerator: Accelerator,
    /// Name shown by `ps` and in QEMU's messages.
    pub name: &'a str,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel file.
    pub kernel: &'a Path,
    /// Initial RAM file system.
    pub initramfs: &'a Path,
    /// Kernel command line of the image.
    pub cmdline: &'a str,
    /// Registry mirrors, as URLs.
    pub registry_mirrors: &'a [String],
    /// Raw data disk.
    pub disk: &'a Path,
    /// Where the monitor listens.
    pub monitor: &'a Endpoint,
    /// Where the console's bytes come out.
    pub console: &'a Endpoint,
    /// Where the link's bytes come out.
    pub link: &'a Endpoint,
    /// Frequency of the host's time-stamp counter, which the translated guest sees too.
    pub tsc_khz: Option<u32>,
    /// Whether QEMU confines itself.
    pub sandbox: Sandbox,
    /// Whether a saved guest is to be read, instead of a boot.
    pub incoming: bool,
}

impl Machine<'_> {
    /// Builds the argument list.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut args = self.lasting_arguments();
        if self.incoming {
            args.extend(["-incoming".into(), "defer".into()]);
        }
        args
    }

    /// The arguments that a saved guest must find again.
    pub fn lasting_arguments(&self) -> Vec<OsString> {
        let mut args = Arguments::default();
        args.pair("-name", format!("{},debug-threads=on", escape(self.name)));
        args.flag("-no-user-config").flag("-nodefaults");
        args.pair("-display", "none").pair("-monitor", "none").pair("-nic", "none");
        args.pair("-M", self.machine()).pair("-accel", self.accelerator.name()).pair("-cpu", self.cpu());
        args.pair("-smp", self.cpus.to_string()).pair("-m", format!("{}M", self.memory_mib));
        // A guest that restarts or panics is a guest that is gone: the daemon decides what comes next.
        args.flag("-no-reboot");
        // Paused until console and link are connected, so that no early byte is lost.
        args.flag("-S");
        if self.sandbox == Sandbox::On {
            args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        }
        args.pair("-kernel", self.kernel).pair("-initrd", self.initramfs);
        args.pair("-append", self.kernel_command_line());

        args.pair("-chardev", server("monitor", self.monitor));
        args.pair("-mon", "chardev=monitor,mode=control");
        args.pair("-chardev", server("console", self.console));
        args.pair("-serial", "chardev:console");
        args.pair("-chardev", server("link", self.link));
        args.pair("-device", "virtio-serial-pci,id=ports,max_ports=2");
        args.pair("-device", format!("virtserialport,bus=ports.0,nr=1,chardev=link,name={LINK_PORT}"));

        let disk = json!({
            "node-name": "data", "driver": "raw", "discard": "unmap", "detect-zeroes": "unmap",
            "file": {"driver": "file", "filename": self.disk.to_string_lossy(), "discard": "unmap"},
        });
        args.pair("-blockdev", disk.to_string());
        args.pair("-device", "virtio-blk-pci,drive=data,serial=skiff-data");
        args.pair("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on");
        args.pair("-object", "rng-builtin,id=rng");
        args.pair("-device", "virtio-rng-pci,rng=rng");
        if self.arch == Arch::X86_64 {
            // A new one for each process: the kernel reseeds its random pool when it finds itself in another.
            args.pair("-device", "vmgenid,guid=auto");
        }
        args.0
    }

    fn machine(&self) -> &'static str {
        match self.arch {
            Arch::X86_64 => "q35,sata=off,smbus=off,hpet=off,vmport=off,i8042=off",
            Arch::Aarch64 => "virt,gic-version=max",
        }
    }

    fn cpu(&self) -> &'static str {
        match (self.accelerator.is_hardware(), self.arch) {
            (true, _) => "host",
            // A kernel that hears of fast string instructions copies with them, and translated they move byte after byte:
            // without the promise it copies in words, which is several times as fast.
            (false, Arch::X86_64) => "max,-erms,-fsrm",
            (false, Arch::Aarch64) => "max",
        }
    }

    /// The image's command line and what the devices and the accelerator ask for.
    fn kernel_command_line(&self) -> String {
        let mut words: Vec<String> = self.cmdline.split_ascii_whitespace().map(str::to_owned).collect();
        let has = |words: &[String], key: &str| words.iter().any(|w| w.split('=').next() == Some(key));
        if !has(&words, "console") {
            words.push(match self.arch {
                Arch::X86_64 => "console=ttyS0".to_owned(),
                Arch::Aarch64 => "console=ttyAMA0".to_owned(),
            });
        }
        if !has(&words, "quiet") {
            words.push("quiet".to_owned());
        }
        // With -no-reboot a panic ends QEMU at once, and the console's tail tells why.
        if !has(&words, "panic") {
            words.push("panic=-1".to_owned());
        }
        // Translated guests see the host's counter; calibrating it against a translated timer is slow and wrong.
        if self.arch == Arch::X86_64 && self.accelerator == Accelerator::Tcg {
            words.extend(self.tsc_khz.map(|khz| format!("tsc_early_khz={khz}")));
            words.push("no_timer_check".to_owned());
            words.push("tsc=reliable".to_owned());
        }
        // Blanks cannot be carried here, and no URL needs one.
        let mirrors = self.registry_mirrors.iter().filter(|url| !url.contains(char::is_whitespace));
        words.extend(mirrors.map(|url| format!("skiff.registry-mirror={url}")));
        words.join(" ")
    }
}

/// A character device that listens; it survives a client that goes away.
fn server(id: &str, endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => {
            format!("socket,id={id},path={},server=on,wait=off", escape(&path.to_string_lossy()))
        }
        Endpoint::Tcp(address) => {
            format!("socket,id={id},host={},port={},server=on,wait=off", address.ip(), address.port())
        }
    }
}

/// QEMU's option lists end a value at a comma unless it is doubled.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(name: &str) -> Endpoint {
        Endpoint::Unix(format!("/run/{name}").into())
    }

    fn with<R>(change: impl FnOnce(&mut Machine<'_>), read: impl FnOnce(Vec<String>) -> R) -> R {
        let (monitor, console, link) = (unix("q,mp"), unix("con"), unix("link"));
        let mirrors = ["http://127.0.0.1:5000".to_owned(), "http://bad one".to_owned()];
        let mut machine = Machine {
            arch: Arch::X86_64,
            accelerator: Accelerator::Tcg,
            name: "skiff",
            cpus: 1,
            memory_mib: 512,
            kernel: Path::new("/g/vmlinux"),
            initramfs: Path::new("/g/initramfs"),
            cmdline: "rdinit=/init",
            registry_mirrors: &mirrors,
            disk: Path::new("/s/data, disk.ext4"),
            monitor: &monitor,
            console: &console,
            link: &link,
            tsc_khz: Some(2_596_150),
            sandbox: Sandbox::On,
            incoming: false,
        };
        change(&mut machine);
        read(machine.arguments().into_iter().map(|a| a.into_string().unwrap()).collect())
    }

    fn value<'a>(args: &'a [String], name: &str) -> &'a str {
        &args[args.iter().position(|a| a == name).unwrap_or_else(|| panic!("{name} in {args:?}")) + 1]
    }

    #[test]
    fn translated_guest_gets_the_measured_machine() {
        with(
            |_| {},
            |args| {
                assert_eq!(value(&args, "-M"), "q35,sata=off,smbus=off,hpet=off,vmport=off,i8042=off");
                assert_eq!(value(&args, "-accel"), "tcg");
                assert_eq!(value(&args, "-cpu"), "max,-erms,-fsrm");
                assert_eq!(value(&args, "-nic"), "none");
                assert_eq!(
                    value(&args, "-append"),
                    "rdinit=/init console=ttyS0 quiet panic=-1 tsc_early_khz=2596150 no_timer_check tsc=reliable \
                     skiff.registry-mirror=http://127.0.0.1:5000"
                );
                for flag in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
                    assert!(args.iter().any(|a| a == flag), "{flag}");
                }
            },
        );
    }

    #[test]
    fn a_guest_that_is_restored_has_the_arguments_that_it_was_saved_with() {
        let saved = with(|_| {}, |args| args);
        with(
            |machine| machine.incoming = true,
            |args| {
                let (lasting, rest) = args.split_at(args.len() - 2);
                assert_eq!((lasting, rest), (&saved[..], &["-incoming".to_owned(), "defer".to_owned()][..]));
            },
        );
    }

    #[test]
    fn hardware_guest_keeps_its_own_clock_and_cpu() {
        with(
            |m| m.accelerator = Accelerator::Kvm,
            |args| {
                assert_eq!(value(&args, "-cpu"), "host");
                assert!(!value(&args, "-append").contains("tsc"));
            },
        );
    }

    #[test]
    fn arm_guest_runs_on_the_virt_machine() {
        with(
            |m| {
                m.arch = Arch::Aarch64;
                m.accelerator = Accelerator::Hvf;
                m.sandbox = Sandbox::Off;
            },
            |args| {
                assert!(value(&args, "-M").starts_with("virt"));
                assert_eq!(value(&args, "-accel"), "hvf");
                assert!(value(&args, "-append").contains("console=ttyAMA0"));
                assert!(!args.iter().any(|a| a == "-sandbox"));
            },
        );
    }

    #[test]
    fn commas_in_paths_stay_part_of_the_path() {
        with(
            |_| {},
            |args| {
                assert_eq!(value(&args, "-chardev"), "socket,id=monitor,path=/run/q,,mp,server=on,wait=off");
                let disk: serde_json::Value = serde_json::from_str(value(&args, "-blockdev")).unwrap();
                assert_eq!(disk["file"]["filename"], "/s/data, disk.ext4");
                assert_eq!(disk["discard"], "unmap");
            },
        );
    }

    #[test]
    fn image_and_mirrors_have_their_say_on_the_command_line() {
        with(
            |m| {
                m.cmdline = " console=hvc0  panic=5 ";
                m.accelerator = Accelerator::Kvm;
            },
            |args| {
                assert_eq!(
                    value(&args, "-append"),
                    "console=hvc0 panic=5 quiet skiff.registry-mirror=http://127.0.0.1:5000"
                );
            },
        );
    }

    #[test]
    fn loopback_endpoints_serve_hosts_without_unix_sockets() {
        let link = Endpoint::Tcp("127.0.0.1:4000".parse().unwrap());
        assert_eq!(server("link", &link), "socket,id=link,host=127.0.0.1,port=4000,server=on,wait=off");
    }
}
