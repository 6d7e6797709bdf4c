//! From bytes as they came to lines as `docker logs` shows them.

use bytes::{Bytes, BytesMut};

use super::{Chunk, Stream};
use crate::clock;

/// A longer line is passed on in parts, as Docker's copier does.
const LONGEST: usize = 16 << 10;

/// Joins the bytes of each stream to whole lines, so that lines of two streams don't cut each other in half.
#[derive(Debug)]
pub struct Lines {
    timestamps: bool,
    prefix: Option<Bytes>,
    partial: [BytesMut; 2],
    /// When the first byte of a partial line came, and whether a part of it went out already.
    begun: [u64; 2],
    continued: [bool; 2],
}

impl Lines {
    pub fn new(timestamps: bool, prefix: Option<Bytes>) -> Self {
        Self { timestamps, prefix, partial: Default::default(), begun: [0; 2], continued: [false; 2] }
    }

    /// Whether lines begin with anything that the container has not written.
    fn decorates(&self) -> bool {
        self.timestamps || self.prefix.is_some()
    }

    /// Drops what is held of lines whose rest will not come, and ends those of which a part went out.
    pub fn forget(&mut self, out: &mut Vec<Chunk>) {
        for stream in Stream::BOTH {
            self.partial[stream.number()].clear();
            if std::mem::take(&mut self.continued[stream.number()]) {
                out.push(Chunk { stream, bytes: Bytes::from_static(b"\n") });
            }
        }
    }

    /// Takes bytes that came at `at`; what is complete goes to `out`.
    pub fn push(&mut self, stream: Stream, at: u64, bytes: Bytes, out: &mut Vec<Chunk>) {
        let number = stream.number();
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            self.hold(stream, at, &bytes, out);
            return;
        };
        let (complete, rest) = (bytes.slice(..=end), bytes.slice(end + 1..));
        if self.decorates() {
            let mut stamped = BytesMut::with_capacity(complete.len() + 64);
            for line in complete.split_inclusive(|byte| *byte == b'\n') {
                self.finish_partial(number, at, &mut stamped);
                stamped.extend_from_slice(line);
                self.continued[number] = false;
            }
            out.push(Chunk { stream, bytes: stamped.freeze() });
        } else {
            if !self.partial[number].is_empty() {
                out.push(Chunk { stream, bytes: self.partial[number].split().freeze() });
            }
            self.continued[number] = false;
            out.push(Chunk { stream, bytes: complete });
        }
        if !rest.is_empty() {
            self.hold(stream, at, &rest, out);
        }
    }

    /// Puts the stamp, if one is due, and what is held of the line.
    fn finish_partial(&mut self, number: usize, at: u64, out: &mut BytesMut) {
        let held = self.partial[number].split();
        if !self.continued[number] {
            if self.timestamps {
                let begun = if held.is_empty() { at } else { self.begun[number] };
                out.extend_from_slice(clock::rfc3339_fixed(begun).as_bytes());
                out.extend_from_slice(b" ");
            }
            if let Some(prefix) = &self.prefix {
                out.extend_from_slice(prefix);
            }
        }
        out.extend_from_slice(&held);
    }

    fn hold(&mut self, stream: Stream, at: u64, bytes: &[u8], out: &mut Vec<Chunk>) {
        let number = stream.number();
        if self.partial[number].is_empty() {
            self.begun[number] = at;
        }
        self.partial[number].extend_from_slice(bytes);
        if self.partial[number].len() >= LONGEST {
            self.flush(stream, out);
            self.continued[number] = true;
        }
    }

    fn flush(&mut self, stream: Stream, out: &mut Vec<Chunk>) {
        let number = stream.number();
        if self.partial[number].is_empty() {
            return;
        }
        let mut text = BytesMut::new();
        if self.decorates() {
            let begun = self.begun[number];
            self.finish_partial(number, begun, &mut text);
        } else {
            text = self.partial[number].split();
        }
        out.push(Chunk { stream, bytes: text.freeze() });
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<Chunk>) {
        for stream in Stream::BOTH {
            self.flush(stream, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(chunks: &[Chunk], stream: Stream) -> Vec<u8> {
        chunks.iter().filter(|chunk| chunk.stream == stream).flat_map(|chunk| chunk.bytes.to_vec()).collect()
    }

    #[test]
    fn each_line_has_the_time_of_its_first_byte() {
        let mut lines = Lines::new(true, None);
        let mut out = Vec::new();
        lines.push(Stream::Stdout, 0, Bytes::from_static(b"one\ntw"), &mut out);
        lines.push(Stream::Stderr, 500, Bytes::from_static(b"err\n"), &mut out);
        lines.push(Stream::Stdout, 1_000_000_000, Bytes::from_static(b"o\nthree"), &mut out);
        lines.finish(&mut out);
        assert_eq!(
            String::from_utf8(text(&out, Stream::Stdout)).unwrap(),
            "1970-01-01T00:00:00.000000000Z one\n1970-01-01T00:00:00.000000000Z two\n\
             1970-01-01T00:00:01.000000000Z three"
        );
        assert_eq!(text(&out, Stream::Stderr), b"1970-01-01T00:00:00.000000500Z err\n");
    }

    #[test]
    fn long_line_is_stamped_once() {
        let mut lines = Lines::new(true, None);
        let mut out = Vec::new();
        for _ in 0..3 {
            lines.push(Stream::Stdout, 0, Bytes::from(vec![b'x'; LONGEST]), &mut out);
        }
        lines.push(Stream::Stdout, 0, Bytes::from_static(b"\nnext\n"), &mut out);
        let text = String::from_utf8(text(&out, Stream::Stdout)).unwrap();
        assert_eq!(text.matches("1970-").count(), 2);
        assert_eq!(text.lines().count(), 2);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_doubled_or_reordered(
            parts in proptest::collection::vec((any::<bool>(), "[ab\n]{0,12}"), 0..20),
        ) {
            let mut lines = Lines::new(false, None);
            let mut out = Vec::new();
            let mut expected = [Vec::new(), Vec::new()];
            for (stderr, part) in &parts {
                let stream = Stream::BOTH[usize::from(*stderr)];
                expected[stream.number()].extend_from_slice(part.as_bytes());
                lines.push(stream, 0, Bytes::from(part.clone()), &mut out);
                let sent: Vec<_> = out.iter().collect();
                // Until the end only whole lines go out.
                for stream in Stream::BOTH {
                    let bytes: Vec<u8> = sent.iter().filter(|c| c.stream == stream).flat_map(|c| c.bytes.to_vec()).collect();
                    prop_assert!(bytes.last().is_none_or(|last| *last == b'\n'));
                }
            }
            lines.finish(&mut out);
            for stream in Stream::BOTH {
                prop_assert_eq!(&text(&out, stream), &expected[stream.number()]);
            }
        }
    }
}
