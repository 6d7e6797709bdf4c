//! The child's terminal: opened in the container's own `devpts`, so that its name is right there.
#![expect(unsafe_code, reason = "runs in a clone: raw system calls over prepared memory")]

use super::paths::{Opened, open_in_root};
use super::{Links, WindowSize};
use crate::sys::{Result, call};

pub(super) struct Pair {
    pub master: Opened,
    pub slave: Opened,
}

pub(super) fn open(root: i32, size: Option<WindowSize>) -> Result<Pair> {
    let master = open_in_root(root, c"dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY, Links::Refuse)?;
    let unlocked = 0i32;
    // SAFETY: the kernel reads one int.
    unsafe { call!(libc::SYS_ioctl, master.0, libc::TIOCSPTLCK, &raw const unlocked) }?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no memory is passed.
    let slave = Opened(unsafe { call!(libc::SYS_ioctl, master.0, libc::TIOCGPTPEER, flags) }? as i32);
    if let Some(size) = size {
        let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel reads one winsize.
        unsafe { call!(libc::SYS_ioctl, slave.0, libc::TIOCSWINSZ, &raw const size) }?;
    }
    Ok(Pair { master, slave })
}

/// Makes `fd` the standard stream `stream`; the copy stays open across execve.
pub(super) fn duplicate(fd: i32, stream: i32) -> Result<()> {
    // SAFETY: the standard streams of the child belong to the interpreter.
    unsafe { call!(libc::SYS_dup3, fd, stream, 0) }?;
    Ok(())
}

/// Becomes a session leader whose controlling terminal and streams are `slave`.
pub(super) fn lead_session(slave: Option<i32>) -> Result<()> {
    // SAFETY: no memory is passed.
    unsafe { call!(libc::SYS_setsid) }?;
    if let Some(slave) = slave {
        for stream in 0..3 {
            duplicate(slave, stream)?;
        }
        // SAFETY: no memory is passed.
        unsafe { call!(libc::SYS_ioctl, 0, libc::TIOCSCTTY, 0) }?;
    }
    Ok(())
}
