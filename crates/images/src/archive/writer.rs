//! Writes tar entries: ustar headers, with PAX records for what does not fit into them.

use std::io::{self, Write};

use tar::EntryType;

use crate::layer::XATTR_PREFIX;

const BLOCK: usize = 512;
/// The largest number that seven and eleven octal digits hold.
const SEVEN_DIGITS: u64 = 0o7_777_777;
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The path; a directory's ends with a slash.
    pub path: Vec<u8>,
    pub kind: EntryType,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Permissions and the three bits above them.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes that follow.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header {
    /// A regular file of root's that everybody may read.
    pub fn file(path: &str, size: u64, mtime: i64) -> Self {
        Self {
            path: path.as_bytes().to_vec(),
            kind: EntryType::Regular,
            link: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime,
            size,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// A directory of root's.
    pub fn directory(path: &str, mtime: i64) -> Self {
        Self { kind: EntryType::Directory, mode: 0o755, ..Self::file(path, 0, mtime) }
    }
}

/// Writes a tar stream.
pub(crate) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes a header; exactly `size` bytes and [`Writer::pad`] must follow.
    pub fn header(&mut self, header: &Header) -> io::Result<()> {
        let records = records(header);
        if !records.is_empty() {
            let mut block = plain(&Header { size: records.len() as u64, ..Header::file("pax", 0, 0) });
            block.set_entry_type(EntryType::XHeader);
            block.set_cksum();
            self.out.write_all(block.as_bytes())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(plain(header).as_bytes())
    }

    /// Writes bytes of the present entry.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Fills the last block of an entry of `size` bytes.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = size.next_multiple_of(BLOCK as u64) - size;
        self.out.write_all(&[0; BLOCK][..rest as usize])
    }

    /// Writes a whole small file.
    pub fn file(&mut self, path: &str, bytes: &[u8], mtime: i64) -> io::Result<()> {
        let size = bytes.len() as u64;
        self.header(&Header::file(path, size, mtime))?;
        self.data(bytes)?;
        self.pad(size)
    }

    /// Writes the end of the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The ustar block; what does not fit is cut or zero here and said by PAX records.
fn plain(header: &Header) -> tar::Header {
    let mut block = tar::Header::new_ustar();
    let copy = |field: &mut [u8], bytes: &[u8]| {
        let length = bytes.len().min(field.len());
        field[..length].copy_from_slice(&bytes[..length]);
    };
    copy(&mut block.as_old_mut().name, &header.path);
    copy(&mut block.as_old_mut().linkname, &header.link);
    let fits = |value: u64, largest: u64| if value <= largest { value } else { 0 };
    block.set_mode(header.mode & 0o7777);
    block.set_uid(fits(header.uid.into(), SEVEN_DIGITS));
    block.set_gid(fits(header.gid.into(), SEVEN_DIGITS));
    block.set_mtime(fits(u64::try_from(header.mtime).unwrap_or(0), ELEVEN_DIGITS));
    block.set_size(fits(header.size, ELEVEN_DIGITS));
    block.set_entry_type(header.kind);
    if matches!(header.kind, EntryType::Char | EntryType::Block)
        && let Some(ustar) = block.as_ustar_mut()
    {
        let fits = |value: u32| fits(value.into(), SEVEN_DIGITS) as u32;
        ustar.set_device_major(fits(header.device.0));
        ustar.set_device_minor(fits(header.device.1));
    }
    block.set_cksum();
    block
}

fn records(header: &Header) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        records.extend_from_slice(length.to_string().as_bytes());
        records.push(b' ');
        records.extend_from_slice(key);
        records.push(b'=');
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    if header.path.len() > 100 || !header.path.is_ascii() {
        add(b"path", &header.path);
    }
    if header.link.len() > 100 || !header.link.is_ascii() {
        add(b"linkpath", &header.link);
    }
    for (key, id) in [(&b"uid"[..], header.uid), (b"gid", header.gid)] {
        if u64::from(id) > SEVEN_DIGITS {
            add(key, id.to_string().as_bytes());
        }
    }
    if header.size > ELEVEN_DIGITS {
        add(b"size", header.size.to_string().as_bytes());
    }
    if u64::try_from(header.mtime).map_or(true, |mtime| mtime > ELEVEN_DIGITS) {
        add(b"mtime", header.mtime.to_string().as_bytes());
    }
    for (key, value) in &header.xattrs {
        add(&[XATTR_PREFIX, key].concat(), value);
    }
    records
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::{Kind, TarReader};

    fn read_back(header: &Header, data: &[u8]) -> (crate::layer::Entry, Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        writer.header(header).unwrap();
        writer.data(data).unwrap();
        writer.pad(data.len() as u64).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = TarReader::new(bytes.as_slice());
        let entry = reader.next().unwrap().unwrap();
        let (mut read, mut buffer) = (Vec::new(), [0; 64]);
        loop {
            match reader.read_data(&mut buffer).unwrap() {
                0 => break,
                n => read.extend_from_slice(&buffer[..n]),
            }
        }
        assert!(reader.next().unwrap().is_none());
        (entry, read)
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(
            path in proptest::collection::vec(1u8..=255, 1..400),
            uid in 0u32..u32::MAX, gid in 0u32..u32::MAX,
            mtime in -10_000_000_000i64..100_000_000_000,
            mode in 0u32..0o10000,
            data in proptest::collection::vec(any::<u8>(), 0..1500),
            value in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assume!(path.last() != Some(&b'/'));
            let header = Header {
                path: path.clone(), uid, gid, mtime, mode, size: data.len() as u64,
                xattrs: vec![(b"user.x".to_vec(), value.clone())],
                ..Header::file("", 0, 0)
            };
            let (entry, read) = read_back(&header, &data);
            prop_assert_eq!(entry.path, path);
            prop_assert_eq!((entry.uid, entry.gid, entry.mode, entry.mtime.0), (uid, gid, mode, mtime));
            prop_assert_eq!(entry.xattrs, vec![(b"user.x".to_vec(), value)]);
            prop_assert_eq!(read, data);
        }

        #[test]
        fn links_are_read_back(link in proptest::collection::vec(1u8..=255, 1..300)) {
            let header = Header { kind: EntryType::Symlink, link: link.clone(), ..Header::file("l", 0, 0) };
            let (entry, _) = read_back(&header, b"");
            prop_assert_eq!((entry.kind, entry.link), (Kind::Symlink, link));
        }
    }

    #[test]
    fn a_device_keeps_its_numbers() {
        let header = Header { kind: EntryType::Char, device: (5, 1), ..Header::file("console", 0, 0) };
        assert_eq!(read_back(&header, b"").0.device, (5, 1));
    }
}
