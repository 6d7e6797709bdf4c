//! The times in a layer's archive, set back: what makes builds of the same sources come out the same.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;
/// The longest extended header that is rewritten; archives have far shorter ones.
const LONGEST: u64 = 1 << 20;

/// Copies an archive; no time in it is later than `epoch`, in seconds since 1970, afterwards.
///
/// # Errors
/// For what is no tar archive; those of reading and writing.
pub(crate) fn clamp_times(mut from: impl Read, mut to: impl Write, epoch: u32) -> io::Result<()> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut block = [0; BLOCK];
    loop {
        from.read_exact(&mut block)?;
        if block.iter().all(|&byte| byte == 0) {
            to.write_all(&block)?;
            io::copy(&mut from, &mut to)?;
            return to.flush();
        }
        let size = number(&block[124..136]).ok_or_else(|| wrong("a header without a size"))?;
        if number_signed(&block[136..148]).is_none_or(|time| time > i64::from(epoch)) {
            put(&mut block[136..148], u64::from(epoch));
        }
        if !matches!(block[156], b'x' | b'g') {
            sum(&mut block);
            to.write_all(&block)?;
            let padded = size.next_multiple_of(BLOCK as u64);
            if io::copy(&mut (&mut from).take(padded), &mut to)? != padded {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        }
        if size > LONGEST {
            return Err(wrong("an extended header that is too long"));
        }
        let mut records = vec![0; usize::try_from(size.next_multiple_of(BLOCK as u64)).unwrap_or(0)];
        from.read_exact(&mut records)?;
        records.truncate(usize::try_from(size).unwrap_or(0));
        let mut records =
            clamp_records(&records, epoch).ok_or_else(|| wrong("a malformed extended header"))?;
        put(&mut block[124..136], records.len() as u64);
        sum(&mut block);
        to.write_all(&block)?;
        records.resize(records.len().next_multiple_of(BLOCK), 0);
        to.write_all(&records)?;
    }
}

/// Reads an octal number, or a binary one.
fn number(field: &[u8]) -> Option<u64> {
    number_signed(field).and_then(|number| u64::try_from(number).ok())
}

fn number_signed(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let value = i64::from_be_bytes(low.try_into().ok()?);
        let negative = field[0] == 0xff;
        let expected = if negative { 0xff } else { 0 };
        let fits =
            high.iter().enumerate().all(|(at, &byte)| byte == if at == 0 { field[0] } else { expected });
        return (fits && (value < 0) == negative).then_some(value);
    }
    let text: Vec<u8> =
        field.iter().copied().skip_while(|c| *c == b' ').take_while(u8::is_ascii_digit).collect();
    if text.is_empty() {
        return Some(0);
    }
    i64::from_str_radix(std::str::from_utf8(&text).ok()?, 8).ok()
}

/// Writes an octal number.
fn put(field: &mut [u8], number: u64) {
    let text = format!("{number:0width$o}\0", width = field.len() - 1);
    field.copy_from_slice(&text.as_bytes()[..field.len()]);
}

/// Writes the header's checksum.
fn sum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Sets the times among the records of an extended header back.
fn clamp_records(mut records: &[u8], epoch: u32) -> Option<Vec<u8>> {
    let mut clamped = Vec::with_capacity(records.len());
    while !records.is_empty() {
        let blank = records.iter().position(|c| *c == b' ')?;
        let length: usize = std::str::from_utf8(&records[..blank]).ok()?.parse().ok()?;
        let record =
            records.get(..length).filter(|record| record.len() > blank + 1 && record.ends_with(b"\n"))?;
        records = &records[length..];
        let (key, value) = {
            let body = &record[blank + 1..length - 1];
            let sign = body.iter().position(|c| *c == b'=')?;
            (&body[..sign], &body[sign + 1..])
        };
        let is_time = matches!(key, b"mtime" | b"atime" | b"ctime");
        let later = is_time && later(value, epoch);
        if !later {
            clamped.extend_from_slice(record);
            continue;
        }
        let body = format!(" {}={epoch}\n", std::str::from_utf8(key).ok()?);
        // The length counts its own digits.
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        clamped.extend_from_slice(length.to_string().as_bytes());
        clamped.extend_from_slice(body.as_bytes());
    }
    Some(clamped)
}

/// Whether a time with a fraction is later than the epoch. One that can't be read is.
fn later(value: &[u8], epoch: u32) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return true };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    match seconds.parse::<i64>() {
        Ok(seconds) if seconds == i64::from(epoch) => fraction.bytes().any(|digit| digit != b'0'),
        Ok(seconds) => seconds > i64::from(epoch),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file's name, its time, and its extended records.
    type Entry<'a> = (&'a str, u64, &'a [(&'a str, &'a str)]);

    fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, mtime, records) in entries {
            if !records.is_empty() {
                let pairs = records.iter().map(|(key, value)| (*key, value.as_bytes()));
                tar.append_pax_extensions(pairs).unwrap();
            }
            let mut header = tar::Header::new_ustar();
            header.set_size(3);
            header.set_mode(0o644);
            header.set_mtime(*mtime);
            tar.append_data(&mut header, name, &b"abc"[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn later_times_become_the_epoch_and_nothing_else_changes() {
        let long = "x".repeat(70);
        let from = archive(&[
            ("old", 5, &[]),
            ("new", 1_700_000_000, &[]),
            ("extended", 1_700_000_000, &[("mtime", "1700000000.123456789"), ("SCHILY.xattr.user.a", &long)]),
            ("early", 7, &[("mtime", "7.5"), ("atime", "1700000000")]),
        ]);
        let mut to = Vec::new();
        clamp_times(from.as_slice(), &mut to, 1000).unwrap();
        let mut archive = tar::Archive::new(to.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let records: Vec<(String, String)> = entry
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .map(|record| record.unwrap())
                .map(|record| (record.key().unwrap().to_owned(), record.value().unwrap().to_owned()))
                .collect();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(text, "abc");
            found.push((
                entry.path().unwrap().display().to_string(),
                entry.header().mtime().unwrap(),
                records,
            ));
        }
        let record = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            found,
            [
                ("old".to_owned(), 5, vec![]),
                ("new".to_owned(), 1000, vec![]),
                (
                    "extended".to_owned(),
                    1000,
                    vec![record("mtime", "1000"), record("SCHILY.xattr.user.a", &long)]
                ),
                ("early".to_owned(), 7, vec![record("mtime", "7.5"), record("atime", "1000")]),
            ]
        );
        let mut again = Vec::new();
        clamp_times(to.as_slice(), &mut again, 1000).unwrap();
        assert_eq!(again, to);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = clamp_times(bytes.as_slice(), io::sink(), 1);
        }
    }
}
