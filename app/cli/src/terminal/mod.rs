//! The user's terminal: raw mode, size, signals, input.

pub mod attach;
pub mod input;
mod secret;
pub mod signals;

use std::io::{self, IsTerminal, Write};

pub use secret::read_secret;

/// Keeps the terminal in raw mode while it lives.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Switches the terminal to raw mode; a failure leaves it as it was.
    pub fn enter() -> io::Result<RawMode> {
        crossterm::terminal::enable_raw_mode()?;
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about it when the terminal is gone.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

/// Ends the program at once with 1, the terminal as it was.
pub fn leave(why: &str) -> ! {
    let _ = crossterm::terminal::disable_raw_mode();
    warn(format_args!("\n{why}"));
    std::process::exit(1)
}

/// Returns columns and rows of the terminal, if there is one.
pub fn size() -> Option<(u16, u16)> {
    // Without a terminal the library would run programs to find one.
    if !(stdout_is_terminal() || stderr_is_terminal() || stdin_is_terminal()) {
        return None;
    }
    crossterm::terminal::size().ok().filter(|&(columns, rows)| columns > 0 && rows > 0)
}

/// Tells whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Tells whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Tells whether standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Prints to standard output. A reader that went away (`| head`) ends the program quietly.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        std::process::exit(if error.kind() == io::ErrorKind::BrokenPipe { 0 } else { 1 });
    }
}

/// Prints a line to standard output, as [`print`] does.
pub fn print_line(text: impl std::fmt::Display) {
    print(&format!("{text}\n"));
}

/// Prints a line to standard error; an unwritable one is ignored.
pub fn warn(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
