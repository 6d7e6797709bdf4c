//! Stirring the kernel's random pool.
#![expect(unsafe_code, reason = "ioctls without a rustix wrapper")]

use crate::sys::call;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `RNDADDENTROPY` = `_IOW('R', 0x03, int[2])` (linux/random.h).
const RNDADDENTROPY: u32 = 0x4008_5203;
/// `RNDRESEEDCRNG` = `_IO('R', 0x07)` (linux/random.h).
const RNDRESEEDCRNG: u32 = 0x5207;
/// Bytes of one seed; the kernel's pool holds less.
const LONGEST: usize = 256;

/// `struct rand_pool_info` (linux/random.h) with room for its bytes.
#[repr(C)]
struct PoolInfo {
    entropy_count: i32,
    buf_size: i32,
    buf: [u8; LONGEST],
}

/// Mixes random bytes into the kernel's pool, counts all of their bits, and makes the generator begin anew from the pool:
/// what is drawn afterwards, by whatever way, does not follow from what was drawn before.
///
/// # Errors
/// Fails without the privilege for it, and for more than 256 bytes.
pub fn reseed(seed: &[u8]) -> io::Result<()> {
    let mut info = PoolInfo { entropy_count: 0, buf_size: 0, buf: [0; LONGEST] };
    let room = info.buf.get_mut(..seed.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(seed);
    let length = i32::try_from(seed.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    (info.entropy_count, info.buf_size) = (length * 8, length);
    let pool = File::open("/dev/urandom")?;
    // SAFETY: the kernel reads the two numbers and as many bytes behind them as the second says, all within the structure,
    // which lives across the call.
    unsafe { call!(libc::SYS_ioctl, pool.as_raw_fd(), RNDADDENTROPY, &raw const info) }?;
    // SAFETY: the request takes no argument.
    unsafe { call!(libc::SYS_ioctl, pool.as_raw_fd(), RNDRESEEDCRNG, 0) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_taken_from_root_alone_and_a_long_one_from_nobody() {
        assert_eq!(reseed(&[0; LONGEST + 1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        match reseed(b"any bytes do no harm") {
            Ok(()) => assert!(rustix::process::geteuid().is_root()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
