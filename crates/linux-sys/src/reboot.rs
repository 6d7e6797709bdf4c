//! Ending the machine, for a process that is its PID 1.

use rustix::system::{RebootCommand, reboot};
use std::io;

/// Powers the machine off at once, without telling any process; sync file systems before.
pub fn power_off() -> io::Result<()> {
    Ok(reboot(RebootCommand::PowerOff)?)
}

/// Restarts the machine at once, without telling any process; sync file systems before.
pub fn restart() -> io::Result<()> {
    Ok(reboot(RebootCommand::Restart)?)
}
