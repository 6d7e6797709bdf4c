//! Messages that carry descriptors over unix sockets (`SCM_RIGHTS`).

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most descriptors that one message carries.
pub const MAX_FDS: usize = 32;

/// What [`receive`] got.
#[derive(Debug)]
pub struct Message {
    /// Bytes written to the buffer; 0 when the other end is closed.
    pub len: usize,
    /// Descriptors that came with the bytes, all close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Creates a connected pair of `SOCK_SEQPACKET` sockets: messages keep their boundaries.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message of bytes and up to [`MAX_FDS`] descriptors; never raises SIGPIPE.
///
/// Returns how many bytes went out, which on a stream socket can be fewer than given. At least one byte must go along.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in one message"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Receives one message.
///
/// # Errors
/// `InvalidData` when the sender's message was longer than the buffer or carried more than [`MAX_FDS`] descriptors.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Message> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(&socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message longer than the receiver's buffer"));
    }
    Ok(Message { len: received.bytes, fds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (a, b) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(send(&a, b"key", &[writer.as_fd()]).unwrap(), 3);
        drop(writer);
        let mut buffer = [0; 16];
        let message = receive(&b, &mut buffer).unwrap();
        assert_eq!((&buffer[..message.len], message.fds.len()), (&b"key"[..], 1));
        rustix::io::write(&message.fds[0], b"x").unwrap();
        drop(message);
        let mut got = [0; 4];
        assert_eq!(rustix::io::read(&reader, &mut got).unwrap(), 1);
        assert_eq!(rustix::io::read(&reader, &mut got).unwrap(), 0);
    }

    #[test]
    fn a_closed_peer_reads_as_zero_bytes() {
        let (a, b) = pair().unwrap();
        drop(a);
        assert_eq!(receive(&b, &mut [0; 4]).unwrap().len, 0);
        assert_eq!(send(&b, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_an_error() {
        let (a, b) = pair().unwrap();
        send(&a, b"0123456789", &[]).unwrap();
        assert_eq!(receive(&b, &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_most_descriptors_arrive_in_order_and_one_more_is_refused() {
        use rustix::fs::fstat;
        let (a, b) = pair().unwrap();
        let pipes: Vec<_> = (0..=MAX_FDS).map(|_| rustix::pipe::pipe().unwrap().0).collect();
        let borrowed: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
        assert_eq!(send(&a, b"x", &borrowed).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        send(&a, b"x", &borrowed[..MAX_FDS]).unwrap();
        let message = receive(&b, &mut [0; 4]).unwrap();
        let inodes = |fds: &[OwnedFd]| fds.iter().map(|fd| fstat(fd).unwrap().st_ino).collect::<Vec<_>>();
        assert_eq!(inodes(&message.fds), inodes(&pipes[..MAX_FDS]));
    }

    #[test]
    fn descriptors_that_arrive_are_not_inherited() {
        use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
        let (a, b) = pair().unwrap();
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        fcntl_setfd(&reader, FdFlags::empty()).unwrap();
        send(&a, b"x", &[reader.as_fd()]).unwrap();
        let message = receive(&b, &mut [0; 4]).unwrap();
        assert!(fcntl_getfd(&message.fds[0]).unwrap().contains(FdFlags::CLOEXEC));
    }
}
