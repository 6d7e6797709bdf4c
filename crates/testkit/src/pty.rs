//! Programs on a terminal, with reads that wait for text.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::process::{Capture, Program, code};
use crate::wait_until;

/// A program whose standard streams and controlling terminal are a pseudo terminal. It is killed when dropped.
pub struct PtySession {
    command: String,
    child: Child,
    master: File,
    output: Capture,
    /// Up to here the output was matched by [`expect`](Self::expect).
    seen: usize,
}

impl PtySession {
    /// Starts `program` on a new terminal.
    pub fn start(program: &Program, columns: u16, rows: u16) -> anyhow::Result<Self> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("open a pseudo terminal")?;
        rustix::pty::grantpt(&master).context("grantpt")?;
        rustix::pty::unlockpt(&master).context("unlockpt")?;
        let name = rustix::pty::ptsname(&master, Vec::new()).context("ptsname")?;
        let path = std::ffi::OsStr::from_bytes(name.to_bytes());
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOCTTY.bits().cast_signed())
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        rustix::termios::tcsetwinsize(&slave, size(columns, rows)).context("set the terminal's size")?;

        // setsid(1) makes the terminal the controlling one, for which there is no safe call between fork and exec here.
        // It keeps its process id because the child does not lead its process group.
        let inner = program.command();
        let mut outer = Command::new("setsid");
        outer.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        let child = outer
            .env("TERM", "xterm")
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave))
            .spawn()
            .with_context(|| format!("start {}", program.command_line()))?;
        // The command holds the slave's last descriptors of this process: without this the terminal never ends.
        drop(outer);
        let master = File::from(master);
        let output = Capture::of(master.try_clone()?);
        Ok(Self { command: program.command_line(), child, master, output, seen: 0 })
    }

    /// Types these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.master.write_all(bytes.as_ref()).with_context(|| format!("type to {}", self.command))
    }

    /// Waits for `text` in the output after the last match, and returns what came before it.
    pub fn expect(&mut self, text: &str, patience: Duration) -> anyhow::Result<String> {
        let needle = text.as_bytes();
        let seen = self.seen;
        let find = |bytes: &[u8]| bytes[seen..].windows(needle.len()).position(|window| window == needle);
        if !self.output.wait_for(patience, |bytes| find(bytes).is_some()) {
            bail!("waited {:.1} s in vain for {text:?}\n{}", patience.as_secs_f64(), self.transcript());
        }
        let bytes = self.output.bytes();
        let at = find(&bytes).context("the output only grows")?;
        let before = String::from_utf8_lossy(&bytes[seen..seen + at]).into_owned();
        drop(bytes);
        self.seen = seen + at + needle.len();
        Ok(before)
    }

    /// Changes the terminal's size, as a window manager would.
    pub fn resize(&self, columns: u16, rows: u16) -> anyhow::Result<()> {
        rustix::termios::tcsetwinsize(&self.master, size(columns, rows)).context("set the terminal's size")
    }

    /// Waits for the end and returns the exit code (128 + n for signal n).
    pub fn wait(&mut self, patience: Duration) -> anyhow::Result<i32> {
        let ended = wait_until("the end", patience, || self.child.try_wait().ok().flatten());
        match ended {
            Ok(status) => {
                self.output.wait_for_end(Duration::from_secs(2));
                Ok(code(status))
            }
            Err(error) => bail!("{error}\n{}", self.transcript()),
        }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Everything the terminal showed, for error messages.
    pub fn transcript(&self) -> String {
        let bytes = self.output.bytes();
        let mut text =
            format!("  command: {} (on a terminal)\n  screen ({} bytes):\n", self.command, bytes.len());
        for line in String::from_utf8_lossy(&bytes).lines() {
            text.push_str(&format!("    | {}\n", line.escape_debug()));
        }
        text
    }
}

impl Drop for PtySession {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_shell_has_a_terminal_of_the_given_size_and_its_exit_code_is_told() {
        let mut shell =
            PtySession::start(&Program::new("sh").args(["-i"]).env("PS1", "p> "), 100, 40).unwrap();
        shell.expect("p> ", SOON).unwrap();
        shell.send("stty size; tty\r").unwrap();
        shell.expect("40 100", SOON).unwrap();
        shell.expect("/dev/pts/", SOON).unwrap();
        shell.resize(66, 22).unwrap();
        shell.send("stty size\r").unwrap();
        shell.expect("22 66", SOON).unwrap();
        shell.send("exit 7\r").unwrap();
        assert_eq!(shell.wait(SOON).unwrap(), 7);
    }

    #[test]
    fn control_c_interrupts_the_foreground_program() {
        let mut shell =
            PtySession::start(&Program::new("sh").args(["-c", "echo ready; exec sleep 30"]), 80, 24).unwrap();
        shell.expect("ready", SOON).unwrap();
        shell.send([3]).unwrap();
        assert_eq!(shell.wait(SOON).unwrap(), 130);
    }

    #[test]
    fn text_that_never_comes_is_an_error_with_the_screen() {
        let mut shell = PtySession::start(&Program::new("sh").args(["-c", "echo here"]), 80, 24).unwrap();
        let error = shell.expect("there", SOON).unwrap_err().to_string();
        assert!(error.contains("there") && error.contains("| here"), "{error}");
    }
}
