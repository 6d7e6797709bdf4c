//! Frames: what goes over the byte stream between two handshakes.
//!
//! ```text
//!  0      1       2          4              8              12             12+length
//! ┌──────┬───────┬──────────┬──────────────┬──────────────┬──────────────┬─────────┐
//! │ type │ flags │ reserved │ stream (LE)  │ length (LE)  │ payload      │ tag     │
//! └──────┴───────┴──────────┴──────────────┴──────────────┴──────────────┴─────────┘
//! ```
//!
//! | type | payload | who sends it, what answers |
//! |---|---|---|
//! | 1 `OPEN` | header frame | whoever wants a stream; `REPLY` or `RESET` |
//! | 2 `REPLY` | reply frame | the side that was asked; after a yes both may send `DATA` |
//! | 3 `DATA` | 1 byte to 64 KiB | either, within the credit it was given |
//! | 4 `FIN` | none | either, once: no more `DATA` from this side |
//! | 5 `RESET` | none | either, once: this side has forgotten the stream |
//! | 6 `CREDIT` | u32 LE | the receiver of `DATA`: that many bytes more may come |
//! | 7 `PING` | 8 bytes | either; `PONG` |
//! | 8 `PONG` | the same 8 bytes | answers `PING` |
//!
//! Flags and reserved are zero. The tag is four bytes of the session's nonce, different in each direction. It comes
//! last because a frame that was cut off by a dying process is then never taken for a whole one: whatever follows
//! on the byte stream, its tag is wrong and nothing of it is delivered.

use crate::Violation;

pub(crate) const HEADER: usize = 12;
pub(crate) const TAG: usize = 4;
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;

/// A frame's type; the number is its code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Open = 1,
    Reply = 2,
    Data = 3,
    Fin = 4,
    Reset = 5,
    Credit = 6,
    Ping = 7,
    Pong = 8,
}

impl Kind {
    fn from_code(code: u8) -> Option<Kind> {
        Some(match code {
            1 => Kind::Open,
            2 => Kind::Reply,
            3 => Kind::Data,
            4 => Kind::Fin,
            5 => Kind::Reset,
            6 => Kind::Credit,
            7 => Kind::Ping,
            8 => Kind::Pong,
            _ => return None,
        })
    }

    fn allows(self, length: usize) -> bool {
        match self {
            Kind::Open | Kind::Reply => (4..=4 + crate::MAX_BODY).contains(&length),
            Kind::Data => (1..=MAX_PAYLOAD).contains(&length),
            Kind::Fin | Kind::Reset => length == 0,
            Kind::Credit => length == 4,
            Kind::Ping | Kind::Pong => length == 8,
        }
    }
}

/// A frame without its payload and tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) stream: u32,
    pub(crate) length: usize,
}

impl Head {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.stream.to_le_bytes());
        bytes[8..12].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes
    }

    /// Checks everything that can be known without the stream's state; the length is within bounds afterwards.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Head, Violation> {
        let [code, flags, r0, r1, s0, s1, s2, s3, l0, l1, l2, l3] = *bytes;
        let kind = Kind::from_code(code).ok_or(Violation::Type(code))?;
        if (flags, r0, r1) != (0, 0, 0) {
            return Err(Violation::Reserved);
        }
        let stream = u32::from_le_bytes([s0, s1, s2, s3]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if !kind.allows(length as usize) {
            return Err(Violation::Length { kind: code, length });
        }
        if matches!(kind, Kind::Ping | Kind::Pong) != (stream == 0) {
            return Err(Violation::StreamId(stream));
        }
        Ok(Head { kind, stream, length: length as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_these_bytes() {
        let golden: [(Kind, u32, usize, [u8; HEADER]); 8] = [
            (Kind::Open, 1, 20, [1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0]),
            (Kind::Reply, 2, 4, [2, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0]),
            (Kind::Data, 0x0102_0304, 65536, [3, 0, 0, 0, 4, 3, 2, 1, 0, 0, 1, 0]),
            (Kind::Fin, 5, 0, [4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]),
            (Kind::Reset, 6, 0, [5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]),
            (Kind::Credit, 7, 4, [6, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0]),
            (Kind::Ping, 0, 8, [7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]),
            (Kind::Pong, 0, 8, [8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]),
        ];
        for (kind, stream, length, bytes) in golden {
            let head = Head { kind, stream, length };
            assert_eq!(head.encode(), bytes);
            assert_eq!(Head::decode(&bytes), Ok(head));
        }
    }

    #[test]
    fn heads_out_of_bounds_are_refused() {
        let head = |kind, stream: u32, length: u32| {
            let mut bytes = [0; HEADER];
            bytes[0] = kind;
            bytes[4..8].copy_from_slice(&stream.to_le_bytes());
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            Head::decode(&bytes)
        };
        assert_eq!(head(0, 0, 0), Err(Violation::Type(0)));
        assert_eq!(head(9, 1, 0), Err(Violation::Type(9)));
        assert_eq!(head(1, 1, 3), Err(Violation::Length { kind: 1, length: 3 }));
        assert_eq!(head(1, 1, 16389), Err(Violation::Length { kind: 1, length: 16389 }));
        assert_eq!(head(3, 1, 0), Err(Violation::Length { kind: 3, length: 0 }));
        assert_eq!(head(3, 1, 65537), Err(Violation::Length { kind: 3, length: 65537 }));
        assert_eq!(head(3, 1, u32::MAX), Err(Violation::Length { kind: 3, length: u32::MAX }));
        assert_eq!(head(4, 1, 1), Err(Violation::Length { kind: 4, length: 1 }));
        assert_eq!(head(6, 1, 5), Err(Violation::Length { kind: 6, length: 5 }));
        assert_eq!(head(7, 1, 8), Err(Violation::StreamId(1)));
        assert_eq!(head(3, 0, 1), Err(Violation::StreamId(0)));
        let mut flagged = Head { kind: Kind::Fin, stream: 1, length: 0 }.encode();
        flagged[1] = 1;
        assert_eq!(Head::decode(&flagged), Err(Violation::Reserved));
    }
}
