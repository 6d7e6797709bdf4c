//! Recognises a stream's compression by its first bytes and undoes it.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::{LayerError, read_error};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

type Replayed<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads the uncompressed bytes.
pub(crate) enum Decoder<R: BufRead> {
    Plain(Replayed<R>),
    Gzip(Box<MultiGzDecoder<Replayed<R>>>),
    Zstd(Box<zstd::Decoder<'static, Replayed<R>>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes and chooses the decoder.
    pub fn new(mut source: R) -> Result<Decoder<R>, LayerError> {
        let mut head = Vec::with_capacity(6);
        Read::take(&mut source, 6).read_to_end(&mut head).map_err(read_error)?;
        let compression = recognise(&head)?;
        let replayed = Cursor::new(head).chain(source);
        Ok(match compression {
            Compression::None => Decoder::Plain(replayed),
            // Several members one after the other are one stream (pigz, eStargz).
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(replayed))),
            Compression::Zstd => Decoder::Zstd(Box::new(
                zstd::Decoder::with_buffer(replayed).map_err(|cause| LayerError::Decompress { cause })?,
            )),
        })
    }

    /// Says what the stream turned out to be.
    pub fn compression(&self) -> Compression {
        match self {
            Decoder::Plain(_) => Compression::None,
            Decoder::Gzip(_) => Compression::Gzip,
            Decoder::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: Read> Decoder<BufReader<R>> {
    /// Chooses the decoder for an unbuffered source.
    pub fn buffered(source: R) -> Result<Self, LayerError> {
        Decoder::new(BufReader::with_capacity(128 << 10, source))
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(reader) => reader.read(buf),
            Decoder::Gzip(reader) => reader.read(buf),
            Decoder::Zstd(reader) => reader.read(buf),
        }
    }
}

fn recognise(head: &[u8]) -> Result<Compression, LayerError> {
    match head {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [b'B', b'Z', b'h', ..] => Err(LayerError::Compression { name: "bzip2" }),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(LayerError::Compression { name: "xz" }),
        _ => Ok(Compression::None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        Decoder::new(bytes).map_err(|e| e.to_string())?.read_to_end(&mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_compression_is_recognised_and_undone() {
        assert_eq!(decode(b"plain").unwrap(), b"plain");
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        assert_eq!(decode(&zstd::encode_all(&b"three"[..], 1).unwrap()).unwrap(), b"three");
        assert!(decode(b"BZh9").unwrap_err().contains("bzip2"));
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let whole = gzip(&[7; 1000]);
        assert!(decode(&whole[..whole.len() - 3]).is_err());
        let whole = zstd::encode_all(&[7; 1000][..], 1).unwrap();
        assert!(decode(&whole[..whole.len() - 3]).is_err());
    }
}
