//! Loading kernel modules (`finit_module(2)`).

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

/// How the module's file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// An ELF object as it is.
    None,
    /// Compressed with the algorithm that the kernel was built to unpack (`MODULE_INIT_COMPRESSED_FILE`).
    Kernel,
}

/// Loads the module in `file` with the given parameters; one that is loaded already counts as success.
pub fn load(file: BorrowedFd<'_>, parameters: &CStr, compression: Compression) -> io::Result<()> {
    let flags = match compression {
        Compression::None => 0,
        Compression::Kernel => 4,
    };
    match rustix::system::finit_module(file, parameters, flags) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}
