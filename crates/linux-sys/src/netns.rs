//! Leaving the network namespace (`unshare(2)`).
#![expect(unsafe_code, reason = "rustix has no safe unshare, not even for a single harmless flag")]

use std::io;

use rustix::thread::UnshareFlags;

/// Moves the calling thread, and no other, into a new network namespace.
///
/// The caller should end the thread when it is done there: other code does not expect a thread that sees another network.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: unshare is unsafe because CLONE_FILES would split the descriptor table between threads, so that an owned
    // descriptor could name another file. CLONE_NEWNET leaves descriptors and memory alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}
