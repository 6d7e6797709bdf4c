//! Reading a secret without showing it.

use std::io::{self, BufRead};

use super::{RawMode, print_line};

/// Reads a line from the terminal without an echo; Control-C and an early end of input are errors.
pub fn read_secret() -> io::Result<String> {
    let raw = RawMode::enter()?;
    let line = read_line(io::stdin().lock());
    drop(raw);
    print_line("");
    line
}

/// Reads up to a return; backspace takes a character back.
fn read_line(input: impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    for byte in input.bytes() {
        match byte? {
            b'\r' | b'\n' => {
                return String::from_utf8(line)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
            }
            0x03 => return Err(io::Error::from(io::ErrorKind::Interrupted)),
            0x04 if line.is_empty() => break,
            0x08 | 0x7f => {
                // A character may have several bytes: those after the first begin with the bits 10.
                while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            byte => line.push(byte),
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_corrections() {
        assert_eq!(read_line("ab\u{7f}\u{e9}\u{7f}c\rrest".as_bytes()).unwrap(), "ac");
        assert_eq!(read_line("a\u{3}".as_bytes()).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(read_line("abc".as_bytes()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
