//! Lines with their length before them.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::error::{Error, Result};

/// The longest line that there is.
const LONGEST: usize = 65520;

/// One line, or what stands between lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The end of a message.
    Flush,
    /// The end of a section.
    Delimiter,
    /// Bytes.
    Data(Vec<u8>),
}

impl Line {
    /// The text of a line, without its end; empty for anything else.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Line::Data(data) => String::from_utf8_lossy(data.strip_suffix(b"\n").unwrap_or(data)),
            _ => "".into(),
        }
    }
}

/// Writes a message: its lines, a delimiter where there is `None`, and the end.
pub(super) fn message(lines: &[Option<String>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        match line {
            Some(line) => bytes.extend(format!("{:04x}{line}\n", line.len() + 5).bytes()),
            None => bytes.extend(b"0001"),
        }
    }
    bytes.extend(b"0000");
    bytes
}

/// Reads the next line; `None` at the end of the answer.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Line>> {
    let broken = |error: std::io::Error| Error::unavailable(format!("git: the answer breaks off: {error}"));
    let mut head = [0; 4];
    let first = from.read(&mut head).await.map_err(broken)?;
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[first..]).await.map_err(broken)?;
    let length = std::str::from_utf8(&head).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
    let nonsense = || Error::unavailable("git: the answer is not in git's protocol");
    match length.ok_or_else(nonsense)? {
        0 => Ok(Some(Line::Flush)),
        1 => Ok(Some(Line::Delimiter)),
        // The end of all answers, which only connections without HTTP have.
        2 => Ok(Some(Line::Flush)),
        length @ 4..=LONGEST => {
            let mut data = vec![0; length - 4];
            from.read_exact(&mut data).await.map_err(broken)?;
            Ok(Some(Line::Data(data)))
        }
        _ => Err(nonsense()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_nonsense_is_refused() {
        let written = message(&[Some("command=ls-refs".to_owned()), None, Some("peel".to_owned())]);
        assert_eq!(written, b"0014command=ls-refs\n00010009peel\n0000");
        let mut from = written.as_slice();
        assert_eq!(read(&mut from).await.unwrap().unwrap().text(), "command=ls-refs");
        assert_eq!(read(&mut from).await.unwrap(), Some(Line::Delimiter));
        assert_eq!(read(&mut from).await.unwrap().unwrap().text(), "peel");
        assert_eq!(read(&mut from).await.unwrap(), Some(Line::Flush));
        assert_eq!(read(&mut from).await.unwrap(), None);
        for wrong in [&b"00"[..], b"0003", b"ffff", b"<htm", b"0009ab", b"\xff\xff\xff\xff"] {
            assert!(read(&mut &wrong[..]).await.is_err(), "{wrong:?}");
        }
    }
}
