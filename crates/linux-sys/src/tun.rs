//! Network interfaces whose other end is a descriptor (`/dev/net/tun`).
#![expect(unsafe_code, reason = "an ioctl without a rustix wrapper")]

use crate::sys::call;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const DEVICE: &str = "/dev/net/tun";
/// `TUNSETIFF` = `_IOW('T', 202, int)` (linux/if_tun.h).
const TUNSETIFF: u32 = 0x4004_54ca;
const IFF_TUN: u16 = 0x0001;
/// No header before the packets.
const IFF_NO_PI: u16 = 0x1000;
/// Fail when the interface exists already and belongs to somebody.
const IFF_TUN_EXCL: u16 = 0x8000;
/// `misc(4)`: the device's numbers (Documentation/networking/tuntap.rst).
const NUMBERS: (u32, u32) = (10, 200);

/// `struct ifreq` (linux/if.h) as far as this call uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

/// Makes an interface. Each read gives one IP packet that was sent into it, each write is one that comes out of it;
/// neither waits. The interface goes with the descriptor.
///
/// Where the driver is a module that nobody has loaded, there is no device file: one is made, and opening it has the
/// kernel load the module.
pub fn create(name: &str) -> io::Result<File> {
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    request.flags |= IFF_TUN_EXCL;
    if name.len() >= request.name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface's name is too long"));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let device = open()?;
    // SAFETY: the kernel reads and writes one ifreq at the address, which is that of a live one of its size.
    unsafe { call!(libc::SYS_ioctl, device.as_raw_fd(), TUNSETIFF, &raw mut request) }?;
    Ok(device)
}

fn open() -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    match options.open(DEVICE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = Path::new(DEVICE).parent() {
                std::fs::create_dir_all(directory)?;
            }
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let numbers = rustix::fs::makedev(NUMBERS.0, NUMBERS.1);
            match rustix::fs::mknodat(
                rustix::fs::CWD,
                DEVICE,
                rustix::fs::FileType::CharacterDevice,
                mode,
                numbers,
            ) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            options.open(DEVICE)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_the_kernel_would_cut_is_refused() {
        assert_eq!(create("0123456789abcdef").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
