//! Reads tar entries one after the other: ustar, GNU and PAX forms, sparse files included.
//!
//! Header fields are decoded by the `tar` crate. The walk from entry to entry is our own, because a hostile
//! stream may announce an extended header of any size, and the crate would read all of it into memory.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::{LayerError, pax, read_error};

const BLOCK: usize = 512;
/// More than any real extended header: a few attributes of at most 64 KiB each.
const EXTENDED_LIMIT: u64 = 1 << 20;
/// What all extended headers before one entry may take together: a stream may bring one after the other.
const EXTENDED_TOTAL: u64 = 4 << 20;
const SPARSE_LIMIT: usize = 1 << 20;
pub(crate) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// One more name of a file.
    HardLink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// One entry, without its data.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path, as the archive has it.
    pub path: Vec<u8>,
    /// What a link leads to.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions and the three bits above them.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Size of the file once stored, holes included.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Offset and length of each piece of data, for a sparse file.
    pub sparse: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// Returns the path for messages.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    fn wrong(&self, reason: impl Into<String>) -> LayerError {
        LayerError::Entry { entry: self.name(), reason: reason.into() }
    }
}

/// What extended headers say about the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: PaxSparse,
}

/// The three historical ways of GNU tar to say "sparse" in PAX records.
#[derive(Default)]
struct PaxSparse {
    major: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    map: Option<Vec<u64>>,
}

/// Walks over the entries of a tar stream.
pub(crate) struct TarReader<R> {
    reader: R,
    /// Data of the current entry that has not been read yet.
    data: u64,
    /// Padding after it.
    padding: u64,
    last: String,
}

impl<R: Read> TarReader<R> {
    pub fn new(reader: R) -> TarReader<R> {
        TarReader { reader, data: 0, padding: 0, last: String::new() }
    }

    /// Gives the underlying reader back, to read what follows the archive.
    pub fn into_inner(self) -> R {
        self.reader
    }

    /// Reads the next entry's header; what is left of the last entry's data is skipped.
    pub fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut extended = Extended::default();
        let mut taken = 0;
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = self.unsigned(&header.as_old().size)?;
            let kind = header.entry_type();
            if matches!(
                kind,
                EntryType::XHeader
                    | EntryType::XGlobalHeader
                    | EntryType::GNULongName
                    | EntryType::GNULongLink
            ) {
                taken = size.saturating_add(BLOCK as u64).saturating_add(taken);
                if taken > EXTENDED_TOTAL {
                    return Err(self.bad_header(&"extended headers are too large"));
                }
            }
            match kind {
                EntryType::XHeader => {
                    self.expect(size)?;
                    let bytes = self.small(size)?;
                    self.read_pax(&bytes, &mut extended)?;
                }
                // Docker ignores global headers as well; git archives carry one.
                EntryType::XGlobalHeader => {
                    self.expect(size)?;
                    self.small(size)?;
                }
                EntryType::GNULongName => {
                    self.expect(size)?;
                    extended.path = Some(until_zero(self.small(size)?));
                }
                EntryType::GNULongLink => {
                    self.expect(size)?;
                    extended.link = Some(until_zero(self.small(size)?));
                }
                _ => return self.entry(&header, size, extended).map(Some),
            }
        }
    }

    /// Reads data of the current entry; 0 means that it is over.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, LayerError> {
        let want = usize::try_from(self.data).map_or(buf.len(), |left| left.min(buf.len()));
        if want == 0 {
            return Ok(0);
        }
        let n = retry(|| self.reader.read(&mut buf[..want])).map_err(read_error)?;
        if n == 0 {
            return Err(LayerError::Truncated);
        }
        self.data -= n as u64;
        Ok(n)
    }

    fn entry(&mut self, header: &Header, size: u64, extended: Extended) -> Result<Entry, LayerError> {
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Char => Kind::Char,
            EntryType::Block => Kind::Block,
            EntryType::Fifo => Kind::Fifo,
            other => {
                return Err(LayerError::Entry {
                    entry: String::from_utf8_lossy(&path).into_owned(),
                    reason: format!("unhandled tar header type {}", other.as_byte()),
                });
            }
        };
        // The oldest tars mark a directory by a slash at the end of its name.
        let kind = if kind == Kind::File && path.last() == Some(&b'/') { Kind::Directory } else { kind };
        let mut entry = Entry {
            path: extended.sparse.name.clone().unwrap_or(path),
            link: extended
                .link
                .or_else(|| header.link_name_bytes().map(|l| l.into_owned()))
                .unwrap_or_default(),
            kind,
            mode: (self.unsigned(&header.as_old().mode)? & 0o7777) as u32,
            uid: 0,
            gid: 0,
            mtime: extended.mtime.unwrap_or((self.number(&header.as_old().mtime)?, 0)),
            size: extended.size.unwrap_or(size),
            device: (0, 0),
            xattrs: extended.xattrs,
            sparse: None,
        };
        let id = |given: Option<u64>, own: u64, what: &str| {
            let id = given.unwrap_or(own);
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| entry.wrong(format!("{what} {id} is out of range")))
        };
        let (uid, gid) = (self.unsigned(&header.as_old().uid)?, self.unsigned(&header.as_old().gid)?);
        let (uid, gid) = (id(extended.uid, uid, "uid")?, id(extended.gid, gid, "gid")?);
        (entry.uid, entry.gid) = (uid, gid);
        if matches!(kind, Kind::Char | Kind::Block) {
            let number = |n: io::Result<Option<u32>>| n.ok().flatten().unwrap_or(0);
            entry.device = (number(header.device_major()), number(header.device_minor()));
        }
        if kind != Kind::File {
            // Only files have data, whatever the header says (as in Go's archive/tar).
            entry.size = 0;
        }
        self.expect(entry.size)?;
        self.last = entry.name();
        if kind == Kind::File {
            self.read_sparse_map(header, extended.sparse, &mut entry)?;
        }
        Ok(entry)
    }

    /// Finds out whether a file is sparse, and where its pieces go.
    fn read_sparse_map(
        &mut self,
        header: &Header,
        pax: PaxSparse,
        entry: &mut Entry,
    ) -> Result<(), LayerError> {
        let (map, real_size) = if header.entry_type() == EntryType::GNUSparse {
            self.gnu_sparse(header, entry)?
        } else if pax.major == Some(1) {
            (self.sparse_map_in_data(entry)?, pax.real_size.ok_or_else(|| entry.wrong("no sparse size"))?)
        } else if let Some(map) = pax.map {
            (map, pax.real_size.ok_or_else(|| entry.wrong("no sparse size"))?)
        } else {
            return Ok(());
        };
        let mut pieces = Vec::with_capacity(map.len() / 2);
        let (mut end, mut stored) = (0u64, 0u64);
        for pair in map.chunks(2) {
            let [offset, length] = pair else { return Err(entry.wrong("sparse map is incomplete")) };
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= real_size);
            end = next.ok_or_else(|| entry.wrong("sparse map is not in order"))?;
            stored += length;
            pieces.push((*offset, *length));
        }
        if stored != self.data || i64::try_from(real_size).is_err() {
            return Err(entry.wrong("sparse map does not match the data"));
        }
        entry.size = real_size;
        entry.sparse = Some(pieces);
        Ok(())
    }

    fn gnu_sparse(&mut self, header: &Header, entry: &Entry) -> Result<(Vec<u64>, u64), LayerError> {
        let wrong = |_| entry.wrong("invalid sparse header");
        let gnu = header.as_gnu().ok_or_else(|| entry.wrong("sparse without GNU header"))?;
        let mut map = Vec::new();
        let mut add = |pieces: &[tar::GnuSparseHeader]| -> Result<(), LayerError> {
            for piece in pieces.iter().filter(|p| !p.is_empty()) {
                map.push(piece.offset().map_err(wrong)?);
                map.push(piece.length().map_err(wrong)?);
            }
            if map.len() > SPARSE_LIMIT { Err(entry.wrong("too many holes")) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.exactly(block.as_mut_bytes())?;
            add(block.sparse())?;
            more = block.is_extended();
        }
        Ok((map, gnu.real_size().map_err(wrong)?))
    }

    /// Reads the map that PAX sparse format 1.0 puts before the data, in whole blocks.
    fn sparse_map_in_data(&mut self, entry: &Entry) -> Result<Vec<u64>, LayerError> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut digits = Vec::new();
        loop {
            let mut block = [0; BLOCK];
            if self.data < BLOCK as u64 {
                return Err(entry.wrong("sparse map is incomplete"));
            }
            self.exactly(&mut block)?;
            self.data -= BLOCK as u64;
            for byte in block {
                if byte == b'\n' {
                    let number =
                        pax::number(&digits).ok_or_else(|| entry.wrong("sparse map is not numbers"))?;
                    numbers.push(number);
                    digits.clear();
                    let count = numbers[0];
                    if count > SPARSE_LIMIT as u64 {
                        return Err(entry.wrong("too many holes"));
                    }
                    if numbers.len() as u64 == 1 + 2 * count {
                        numbers.remove(0);
                        return Ok(numbers);
                    }
                } else if digits.len() < 20 {
                    digits.push(byte);
                } else {
                    return Err(entry.wrong("sparse map is not numbers"));
                }
            }
        }
    }

    fn read_pax(&self, bytes: &[u8], extended: &mut Extended) -> Result<(), LayerError> {
        let wrong = |what: &str| LayerError::Header {
            after: self.last.clone(),
            reason: format!("invalid PAX {what}"),
        };
        let records = pax::records(bytes).ok_or_else(|| wrong("record"))?;
        for (key, value) in records {
            let number = || pax::number(value).ok_or_else(|| wrong("number"));
            match key {
                b"path" => extended.path = Some(value.to_vec()),
                b"linkpath" => extended.link = Some(value.to_vec()),
                b"size" => extended.size = Some(number()?),
                b"uid" => extended.uid = Some(number()?),
                b"gid" => extended.gid = Some(number()?),
                b"mtime" => extended.mtime = Some(pax::time(value).ok_or_else(|| wrong("time"))?),
                b"GNU.sparse.major" => extended.sparse.major = Some(number()?),
                b"GNU.sparse.name" => extended.sparse.name = Some(value.to_vec()),
                b"GNU.sparse.realsize" | b"GNU.sparse.size" => extended.sparse.real_size = Some(number()?),
                b"GNU.sparse.map" => {
                    let numbers = value.split(|b| *b == b',').map(pax::number).collect::<Option<Vec<_>>>();
                    extended.sparse.map = Some(numbers.ok_or_else(|| wrong("sparse map"))?);
                }
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    extended.sparse.map.get_or_insert_default().push(number()?);
                }
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                        extended.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads a header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            // The end is two zero blocks; some writers leave the second one out.
            let mut second = [0; BLOCK];
            if self.block(&mut second)? && second.iter().any(|b| *b != 0) {
                return Err(self.bad_header(&"a single zero block"));
            }
            return Ok(None);
        }
        let stated = header.cksum().map_err(|e| self.bad_header(&e))?;
        let bytes = header.as_bytes();
        let blank = |i: usize, b: u8| if (148..156).contains(&i) { b' ' } else { b };
        let sum: u32 = bytes.iter().enumerate().map(|(i, b)| u32::from(blank(i, *b))).sum();
        let signed: i64 = bytes.iter().enumerate().map(|(i, b)| i64::from(blank(i, *b) as i8)).sum();
        if sum != stated && signed != i64::from(stated) {
            return Err(self.bad_header(&"wrong checksum"));
        }
        Ok(Some(header))
    }

    /// Notes that `size` bytes of data and their padding follow.
    fn expect(&mut self, size: u64) -> Result<(), LayerError> {
        if i64::try_from(size).is_err() {
            return Err(self.bad_header(&"impossible size"));
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn small(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > EXTENDED_LIMIT {
            return Err(self.bad_header(&"extended header is too large"));
        }
        let mut bytes = vec![0; size as usize];
        self.exactly(&mut bytes)?;
        self.data = 0;
        Ok(bytes)
    }

    fn skip_data(&mut self) -> Result<(), LayerError> {
        let (data, rest) = (self.data, self.data + self.padding);
        let skipped =
            io::copy(&mut Read::take(&mut self.reader, rest), &mut io::sink()).map_err(read_error)?;
        (self.data, self.padding) = (0, 0);
        // Without its padding the last file is whole: the docker command ends its contexts there, `build -f ELSEWHERE`.
        if skipped >= data { Ok(()) } else { Err(LayerError::Truncated) }
    }

    /// Fills a block; `false` when the stream ended before its first byte.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, LayerError> {
        let first = retry(|| self.reader.read(&mut block[..])).map_err(read_error)?;
        if first == 0 {
            return Ok(false);
        }
        self.exactly(&mut block[first..])?;
        Ok(true)
    }

    fn exactly(&mut self, buf: &mut [u8]) -> Result<(), LayerError> {
        self.reader.read_exact(buf).map_err(read_error)
    }

    fn unsigned(&self, field: &[u8]) -> Result<u64, LayerError> {
        u64::try_from(self.number(field)?).map_err(|_| self.bad_header(&"negative number"))
    }

    fn number(&self, field: &[u8]) -> Result<i64, LayerError> {
        number(field).ok_or_else(|| self.bad_header(&"invalid number"))
    }

    fn bad_header(&self, reason: &dyn std::fmt::Display) -> LayerError {
        LayerError::Header { after: self.last.clone(), reason: reason.to_string() }
    }
}

/// Reads a numeric field: octal digits, or GNU's big-endian two's complement when the first bit is set.
///
/// An empty field is zero, as in Go's archive/tar; the `tar` crate refuses it.
fn number(field: &[u8]) -> Option<i64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        // The second bit is the sign.
        let start = if first & 0x40 != 0 { -1i128 } else { 0 } << 6 | i128::from(first & 0x3f);
        let value = rest.iter().try_fold(start, |n, b| n.checked_mul(256).map(|n| n | i128::from(*b)))?;
        return i64::try_from(value).ok();
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(digits.len());
    if end == 0 {
        return Some(0);
    }
    i64::from_str_radix(std::str::from_utf8(&digits[..end]).ok()?, 8).ok()
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(bytes: &[u8]) -> Result<Vec<Entry>, LayerError> {
        let mut reader = TarReader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut buf = [0; 100];
            while reader.read_data(&mut buf)? > 0 {}
            entries.push(entry);
        }
        Ok(entries)
    }

    #[test]
    fn long_names_and_pax_records_are_applied() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = "d/".repeat(90) + "file";
        let mut header = Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o640);
        builder.append_data(&mut header, &long, &b"abc"[..]).unwrap();
        builder
            .append_pax_extensions([
                ("SCHILY.xattr.user.x", &b"1\n2"[..]),
                ("mtime", b"5.25"),
                ("uid", b"70000"),
            ])
            .unwrap();
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_entry_type(EntryType::Directory);
        builder.append_data(&mut header, "dir", &b""[..]).unwrap();
        let entries = walk(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(entries[0].path, long.as_bytes());
        assert_eq!(entries[0].size, 3);
        assert_eq!(entries[1].xattrs, [(b"user.x".to_vec(), b"1\n2".to_vec())]);
        assert_eq!((entries[1].mtime, entries[1].uid), ((5, 250_000_000), 70_000));
    }

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(&[0; 8]), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xbf; 12]), None);
        assert_eq!(number(b"x"), None);
    }

    #[test]
    fn a_huge_extended_header_is_refused_before_it_is_read() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(1 << 33);
        header.set_cksum();
        let error = walk(header.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }

    #[test]
    fn damage_is_named() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(2000);
        builder.append_data(&mut header, "first", &[1; 2000][..]).unwrap();
        let whole = builder.into_inner().unwrap();
        assert!(matches!(walk(&whole[..1500]), Err(LayerError::Truncated)));
        assert!(matches!(walk(&whole[..100]), Err(LayerError::Truncated)));
        let mut bad = whole.clone();
        bad[0] ^= 1;
        assert!(walk(&bad).unwrap_err().to_string().contains("wrong checksum"));
        assert_eq!(walk(&whole[..2560]).unwrap().len(), 1, "a missing end marker is forgiven");
        assert_eq!(walk(&whole[..2512]).unwrap().len(), 1, "so is missing padding before it");
        assert!(matches!(walk(&whole[..2511]), Err(LayerError::Truncated)));
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(
            mutations in proptest::collection::vec((0usize..512, any::<u8>()), 0..12),
            kind in any::<u8>(), size in any::<u64>(), body in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::new(kind));
            header.set_size(size % 3000);
            for (at, byte) in mutations {
                header.as_mut_bytes()[at] = byte;
            }
            header.set_cksum();
            let _ = walk(&[&header.as_bytes()[..], &body].concat());
        }
    }
}
