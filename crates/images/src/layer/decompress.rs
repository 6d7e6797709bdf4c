//! Recognises a stream's compression by its first bytes and undoes it.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::{LayerError, read_error};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// What an xz stream may take in KiB: `xz -9` asks for 65 MiB.
const XZ_MEMORY: u32 = 256 << 10;

type Replayed<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads the uncompressed bytes.
pub(crate) enum Decoder<R: BufRead> {
    Plain(Replayed<R>),
    Gzip(Box<MultiGzDecoder<Replayed<R>>>),
    Zstd(Box<zstd::Decoder<'static, Replayed<R>>>),
    Bzip2(Box<MultiBzDecoder<Replayed<R>>>),
    Xz(Box<XzReader<Replayed<R>>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes and chooses the decoder.
    pub fn new(mut source: R) -> Result<Decoder<R>, LayerError> {
        let mut head = Vec::with_capacity(6);
        Read::take(&mut source, 6).read_to_end(&mut head).map_err(read_error)?;
        let compression = recognise(&head);
        let replayed = Cursor::new(head).chain(source);
        Ok(match compression {
            Compression::None => Decoder::Plain(replayed),
            // Several members one after the other are one stream (pigz, eStargz).
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(replayed))),
            Compression::Zstd => Decoder::Zstd(Box::new(
                zstd::Decoder::with_buffer(replayed).map_err(|cause| LayerError::Decompress { cause })?,
            )),
            Compression::Bzip2 => Decoder::Bzip2(Box::new(MultiBzDecoder::new(replayed))),
            // No archive that xz itself makes needs more memory for its dictionary.
            Compression::Xz => Decoder::Xz(Box::new(XzReader::new_mem_limit(replayed, true, XZ_MEMORY))),
        })
    }

    /// Says what the stream turned out to be.
    pub fn compression(&self) -> Compression {
        match self {
            Decoder::Plain(_) => Compression::None,
            Decoder::Gzip(_) => Compression::Gzip,
            Decoder::Zstd(_) => Compression::Zstd,
            Decoder::Bzip2(_) => Compression::Bzip2,
            Decoder::Xz(_) => Compression::Xz,
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
            Decoder::Bzip2(reader) => reader.read(buf),
            Decoder::Xz(reader) => reader.read(buf),
        }
    }
}

fn recognise(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Compression::Xz,
        _ => Compression::None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// `echo five | xz`
    const XZ: &[u8] =
        b"\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\
        \x01\x00\x04\x66\x69\x76\x65\x0a\x00\x00\x00\x00\x6b\x1a\x30\x9a\x92\xf8\xce\xdd\x00\x01\x1d\x05\
        \xb8\x2d\x80\xaf\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a";

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
        let mut packed = bzip2::read::BzEncoder::new(&b"four"[..], bzip2::Compression::fast());
        let mut bytes = Vec::new();
        packed.read_to_end(&mut bytes).unwrap();
        assert_eq!(decode(&bytes).unwrap(), b"four");
        assert_eq!(decode(XZ).unwrap(), b"five\n");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let whole = gzip(&[7; 1000]);
        assert!(decode(&whole[..whole.len() - 3]).is_err());
        assert!(decode(&XZ[..XZ.len() - 3]).is_err());
        assert!(decode(b"BZh9").is_err());
        let whole = zstd::encode_all(&[7; 1000][..], 1).unwrap();
        assert!(decode(&whole[..whole.len() - 3]).is_err());
    }
}
