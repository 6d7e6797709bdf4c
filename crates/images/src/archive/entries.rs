//! The entries of an archive, one by one, for those who make something else of them than files.

use std::io::{self, BufRead};

use crate::layer::{Decoder, Entry, LayerError, TarReader};

const BUFFER: usize = 128 << 10;

/// Reads an archive, compressed or not. `entry` is told of each entry and `data` of its bytes, holes included, the last
/// time with none.
///
/// # Errors
/// [`LayerError`]; what the callbacks fail with.
pub fn read_entries<E: From<LayerError>, S>(
    source: impl BufRead,
    state: &mut S,
    mut entry: impl FnMut(&mut S, Entry) -> Result<(), E>,
    mut data: impl FnMut(&mut S, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut tar = TarReader::new(Decoder::new(source)?);
    let mut buffer = vec![0; BUFFER];
    let zeros = vec![0; BUFFER];
    while let Some(next) = tar.next()? {
        let whole = [(0, next.size)];
        let pieces = next.sparse.clone();
        let size = next.size;
        let is_file = next.kind == crate::layer::Kind::File;
        entry(state, next)?;
        if !is_file {
            continue;
        }
        let mut at = 0;
        for &(offset, length) in pieces.as_deref().unwrap_or(&whole) {
            hole(&zeros, offset.saturating_sub(at), &mut |bytes| data(state, bytes))?;
            let mut left = length;
            while left > 0 {
                let want = left.min(BUFFER as u64) as usize;
                let got = tar.read_data(&mut buffer[..want])?;
                if got == 0 {
                    return Err(LayerError::Truncated.into());
                }
                data(state, &buffer[..got])?;
                left -= got as u64;
            }
            at = offset + length;
        }
        hole(&zeros, size.saturating_sub(at), &mut |bytes| data(state, bytes))?;
        data(state, &[])?;
    }
    // What follows the end is read, so that the sender is not cut off.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(crate::layer::read_error)?;
    Ok(())
}

fn hole<E>(zeros: &[u8], mut length: u64, data: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    while length > 0 {
        let piece = length.min(zeros.len() as u64) as usize;
        data(&zeros[..piece])?;
        length -= piece as u64;
    }
    Ok(())
}
