//! A pack: objects one after the other, some only as what differs from another one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::ZlibDecoder;
use sha1::{Digest as _, Sha1};

use super::Id;
use super::object::{self, Kind, damaged};
use crate::error::{Error, Result};

/// How many objects a pack may have.
const MOST_OBJECTS: u32 = 8 << 20;
/// How many bytes all its objects may be.
const MOST_BYTES: u64 = 64 << 30;
/// How many bytes an object may be that has to be in memory: a tree, a commit, anything that is told by differences.
const LARGEST: u64 = 256 << 20;
/// What is remembered of objects that others differ from, in bytes.
const REMEMBERED: usize = 32 << 20;
/// How often all differences are gone through: each time those can be told whose base was told before.
const ROUNDS: usize = 4096;

/// Where an object is, and as what.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Where it begins, and its compressed bytes.
    at: u64,
    data: u64,
    /// Bytes of what is compressed there.
    size: u64,
    base: Base,
    known: Option<(Id, Kind)>,
}

#[derive(Debug, Clone, Copy)]
enum Base {
    None,
    At(u64),
    Named(Id),
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Pack {
    file: BufReader<File>,
    places: Vec<Place>,
    by_id: HashMap<Id, usize>,
    remembered: HashMap<usize, Arc<Vec<u8>>>,
    remembered_bytes: usize,
    /// Where the objects end.
    end: u64,
}

impl Pack {
    /// Takes a pack apart and finds out what its objects are named. Blocks.
    ///
    /// # Errors
    /// Damage, and sizes past all bounds.
    pub fn open(path: &Path) -> Result<Pack> {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        let mut from = Counted { inner: BufReader::with_capacity(128 << 10, file), at: 0 };
        let mut head = [0; 12];
        from.read_exact(&mut head).map_err(|_| damaged("its pack is cut off"))?;
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let count = number(8);
        if &head[..4] != b"PACK" || !matches!(number(4), 2 | 3) || count > MOST_OBJECTS {
            return Err(damaged("its pack is none"));
        }
        let (mut places, mut total) = (Vec::new(), 0u64);
        for _ in 0..count {
            let place = scan(&mut from)?;
            total = total.saturating_add(place.size);
            if total > MOST_BYTES {
                return Err(damaged("its files are too large"));
            }
            places.push(place);
        }
        let end = from.at;
        let by_id = places.iter().enumerate();
        let by_id = by_id.filter_map(|(number, place)| Some((place.known?.0, number))).collect();
        let mut pack =
            Pack { file: from.inner, places, by_id, remembered: HashMap::new(), remembered_bytes: 0, end };
        pack.name_all()?;
        Ok(pack)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// One that is not there, or is too large.
    pub fn read(&mut self, id: Id) -> Result<(Kind, Arc<Vec<u8>>)> {
        let (number, kind) = self.find(id)?;
        Ok((kind, self.content(number)?))
    }

    /// Reads an object of a kind.
    pub fn read_as(&mut self, id: Id, kind: Kind) -> Result<Arc<Vec<u8>>> {
        match self.read(id)? {
            (found, bytes) if found == kind => Ok(bytes),
            _ => Err(damaged(&format!("object {id} is no {}", kind.word()))),
        }
    }

    /// Writes a file's contents.
    pub fn write_blob(&mut self, id: Id, out: &mut impl Write) -> Result<u64> {
        let (number, kind) = self.find(id)?;
        if kind != Kind::Blob {
            return Err(damaged(&format!("object {id} is no file")));
        }
        let failed = |error: io::Error| Error::failed(format!("git: write a file: {error}"));
        let place = self.places[number];
        if matches!(place.base, Base::None) {
            self.file.seek(SeekFrom::Start(place.data)).map_err(failed)?;
            return io::copy(&mut ZlibDecoder::new(&mut self.file).take(place.size), out).map_err(failed);
        }
        let bytes = self.content(number)?;
        out.write_all(&bytes).map_err(failed)?;
        Ok(bytes.len() as u64)
    }

    /// Writes the index that git keeps beside a pack; `pack` is its file.
    pub fn write_index(&mut self, out: impl Write) -> Result<()> {
        let failed = |error: io::Error| Error::failed(format!("git: index a pack: {error}"));
        let mut order: Vec<(Id, usize)> = self.by_id.iter().map(|(id, number)| (*id, *number)).collect();
        order.sort_unstable();
        let mut bytes = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
        for first in 0..=255u8 {
            let until = order.partition_point(|(id, _)| id.0[0] <= first);
            bytes.extend(u32::try_from(until).unwrap_or(u32::MAX).to_be_bytes());
        }
        order.iter().for_each(|(id, _)| bytes.extend(id.0));
        for (_, number) in &order {
            let (from, to) =
                (self.places[*number].at, self.places.get(number + 1).map_or(self.end, |p| p.at));
            self.file.seek(SeekFrom::Start(from)).map_err(failed)?;
            let mut sum = flate2::CrcReader::new((&mut self.file).take(to - from));
            io::copy(&mut sum, &mut io::sink()).map_err(failed)?;
            bytes.extend(sum.crc().sum().to_be_bytes());
        }
        for (_, number) in &order {
            let at = u32::try_from(self.places[*number].at).ok().filter(|at| *at < 1 << 31);
            bytes.extend(
                at.ok_or_else(|| Error::failed("git: the pack is too large to be kept"))?.to_be_bytes(),
            );
        }
        self.file.seek(SeekFrom::Start(self.end)).map_err(failed)?;
        let mut trailer = [0; 20];
        self.file.read_exact(&mut trailer).map_err(failed)?;
        bytes.extend(trailer);
        let sum = Sha1::digest(&bytes);
        bytes.extend(sum);
        let mut out = out;
        out.write_all(&bytes).map_err(failed)
    }

    fn find(&self, id: Id) -> Result<(usize, Kind)> {
        let missing = || damaged(&format!("object {id} is missing"));
        let number = *self.by_id.get(&id).ok_or_else(missing)?;
        Ok((number, self.places[number].known.ok_or_else(missing)?.1))
    }

    /// Finds the base of an object that is told by differences, if that is known by now.
    fn base_of(&self, place: &Place) -> Option<usize> {
        let number = match place.base {
            Base::None => return None,
            Base::At(at) => self.places.binary_search_by_key(&at, |place| place.at).ok()?,
            Base::Named(id) => *self.by_id.get(&id)?,
        };
        self.places[number].known.map(|_| number)
    }

    /// Names what is told by differences.
    fn name_all(&mut self) -> Result<()> {
        let mut left: Vec<usize> =
            (0..self.places.len()).filter(|n| self.places[*n].known.is_none()).collect();
        for _ in 0..ROUNDS {
            let before = left.len();
            let mut later = Vec::new();
            for number in left {
                let Some(base) = self.base_of(&self.places[number]) else {
                    later.push(number);
                    continue;
                };
                let kind = self.places[base].known.map_or(Kind::Blob, |(_, kind)| kind);
                let bytes = self.made_of(number, base)?;
                let mut hash = Sha1::new();
                hash.update(format!("{} {}\0", kind.word(), bytes.len()));
                hash.update(bytes.as_slice());
                let id = Id(hash.finalize().into());
                self.places[number].known = Some((id, kind));
                self.by_id.insert(id, number);
                self.remember(number, bytes);
            }
            left = later;
            if left.is_empty() {
                return Ok(());
            }
            if left.len() == before {
                break;
            }
        }
        Err(damaged("what something differs from is missing"))
    }

    /// The contents of an object that has its name.
    fn content(&mut self, number: usize) -> Result<Arc<Vec<u8>>> {
        let (mut chain, mut at) = (Vec::new(), number);
        let mut bytes = loop {
            if let Some(bytes) = self.remembered.get(&at) {
                break bytes.clone();
            }
            match self.base_of(&self.places[at]) {
                None => break Arc::new(self.inflate(at)?),
                Some(base) => {
                    chain.push(at);
                    at = base;
                }
            }
            if chain.len() > self.places.len() {
                return Err(damaged("objects differ from each other in a circle"));
            }
        };
        for number in chain.into_iter().rev() {
            bytes = Arc::new(object::apply(&bytes, &self.inflate(number)?, LARGEST)?);
        }
        self.remember(number, bytes.clone());
        Ok(bytes)
    }

    fn made_of(&mut self, number: usize, base: usize) -> Result<Arc<Vec<u8>>> {
        let bytes = self.content(base)?;
        Ok(Arc::new(object::apply(&bytes, &self.inflate(number)?, LARGEST)?))
    }

    fn remember(&mut self, number: usize, bytes: Arc<Vec<u8>>) {
        if self.remembered_bytes + bytes.len() > REMEMBERED {
            self.remembered.clear();
            self.remembered_bytes = 0;
        }
        if bytes.len() <= REMEMBERED && !self.remembered.contains_key(&number) {
            self.remembered_bytes += bytes.len();
            self.remembered.insert(number, bytes);
        }
    }

    fn inflate(&mut self, number: usize) -> Result<Vec<u8>> {
        let place = self.places[number];
        if place.size > LARGEST {
            return Err(damaged("an object is too large"));
        }
        let failed = |error: io::Error| damaged(&error.to_string());
        self.file.seek(SeekFrom::Start(place.data)).map_err(failed)?;
        let mut bytes = Vec::new();
        ZlibDecoder::new(&mut self.file).take(place.size).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

/// Goes over an object; names it when it is whole.
fn scan(from: &mut Counted<impl BufRead>) -> Result<Place> {
    let at = from.at;
    let cut = || damaged("its pack is cut off");
    let byte = |from: &mut Counted<_>| -> Result<u8> {
        let mut one = [0];
        from.read_exact(&mut one).map_err(|_| cut())?;
        Ok(one[0])
    };
    let mut next = byte(from)?;
    let kind = next >> 4 & 7;
    let (mut size, mut shift) = (u64::from(next & 15), 4);
    while next & 0x80 != 0 {
        next = byte(from)?;
        if shift > 56 {
            return Err(cut());
        }
        size |= u64::from(next & 0x7f) << shift;
        shift += 7;
    }
    let (whole, base) = match kind {
        1 => (Some(Kind::Commit), Base::None),
        2 => (Some(Kind::Tree), Base::None),
        3 => (Some(Kind::Blob), Base::None),
        4 => (Some(Kind::Tag), Base::None),
        6 => {
            let mut next = byte(from)?;
            let mut back = u64::from(next & 0x7f);
            while next & 0x80 != 0 {
                next = byte(from)?;
                back = back.checked_add(1).and_then(|back| back.checked_mul(128)).ok_or_else(cut)?;
                back |= u64::from(next & 0x7f);
            }
            (None, Base::At(at.checked_sub(back).filter(|base| *base < at).ok_or_else(cut)?))
        }
        7 => {
            let mut id = [0; 20];
            from.read_exact(&mut id).map_err(|_| cut())?;
            (None, Base::Named(Id(id)))
        }
        _ => return Err(damaged("its pack has something of an unknown kind")),
    };
    let data = from.at;
    let mut hash = Sha1::new();
    if let Some(kind) = whole {
        hash.update(format!("{} {size}\0", kind.word()));
    }
    let mut inflated = ZlibDecoder::new(&mut *from);
    let (mut found, mut buffer) = (0u64, vec![0; 64 << 10]);
    loop {
        let got = inflated.read(&mut buffer).map_err(|error| damaged(&error.to_string()))?;
        if got == 0 {
            break;
        }
        found += got as u64;
        if found > size {
            break;
        }
        if whole.is_some() {
            hash.update(&buffer[..got]);
        }
    }
    if found != size {
        return Err(damaged("an object has another size than it says"));
    }
    let known = whole.map(|kind| (Id(hash.finalize().into()), kind));
    Ok(Place { at, data, size, base, known })
}

/// Knows how far it has been read.
struct Counted<R> {
    inner: R,
    at: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
        self.inner.consume(amount);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..96), count in 0u32..4) {
            let file = tempfile::NamedTempFile::new().unwrap();
            let head = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes()].concat();
            std::fs::write(file.path(), [head, bytes].concat()).unwrap();
            let _ = Pack::open(file.path());
        }
    }
}
