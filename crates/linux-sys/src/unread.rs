//! What the other end of a socket has not taken yet.
#![expect(unsafe_code, reason = "an ioctl without a rustix wrapper")]

use crate::sys::call;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SIOCOUTQ` (linux/sockios.h).
const SIOCOUTQ: u32 = 0x5411;

/// Returns how much of what was written to a stream socket is still on its way: for a unix socket what the peer has not
/// read, in the kernel's accounting (more than the bytes), for TCP the bytes that its system has not acknowledged.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: i32 = 0;
    // SAFETY: the kernel writes one int to the address, which is that of a live one.
    unsafe { call!(libc::SYS_ioctl, socket.as_raw_fd(), SIOCOUTQ, &raw mut bytes) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn nothing_is_unread_once_the_peer_has_read_it_all() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread(ours.as_fd()).unwrap(), 0);
        ours.write_all(b"head").unwrap();
        assert!(unread(ours.as_fd()).unwrap() > 0);
        theirs.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(unread(ours.as_fd()).unwrap(), 0);
    }
}
