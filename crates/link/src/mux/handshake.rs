//! The handshake that begins a session, and begins it again, on one byte stream.
//!
//! The byte stream may hold the remains of a dead session in either direction, cut off anywhere. So
//!
//! 1. each side starts with [`FILLER`] zero bytes. If the other side is in the middle of a frame of an older session,
//!    they complete that frame with a wrong tag; if it is between frames, they are a frame of type 0. Either way it
//!    drops its old session at once;
//! 2. the guest sends `HELLO` every 200 ms until answered; the host discards everything that is no `HELLO`;
//! 3. the host answers with `ACK`, which carries the chosen version and the nonce of that `HELLO`; the guest discards
//!    everything that is not the `ACK` to its own nonce. Frames follow.
//!
//! ```text
//!  0            16          18          20             36             40
//! ┌────────────┬───────────┬───────────┬──────────────┬──────────────┐
//! │ HELLO      │ min (LE)  │ max (LE)  │ nonce        │ check (LE)   │
//! ├────────────┼───────────┼───────────┼──────────────┼──────────────┤
//! │ ACK        │ version   │ max (LE)  │ nonce        │ check (LE)   │   version 0: none in common; the host
//! └────────────┴───────────┴───────────┴──────────────┴──────────────┘   speaks MIN_VERSION to max
//! ```
//!
//! The check is FNV-1a over the rest: a greeting that was cut off and filled up with zeros is none.

use std::hash::{BuildHasher, RandomState};

use super::frame::{HEADER, MAX_PAYLOAD, TAG};

/// Versions of the multiplexer, one line each. Add a line, raise [`MAX_VERSION`], and branch on the session's version.
///
/// 1: the first.
pub const MIN_VERSION: u16 = 1;
/// Newest version that this side speaks.
pub const MAX_VERSION: u16 = 1;

/// Zero bytes that complete whatever frame the other side may be in the middle of, and then one more head.
pub(crate) const FILLER: usize = HEADER + MAX_PAYLOAD + TAG + HEADER;

pub(crate) const GREETING: usize = 40;
/// The first byte is no frame type.
pub(crate) const HELLO: &[u8; 16] = b"\xF5SKIFF-LINK-HI\r\n";
pub(crate) const ACK: &[u8; 16] = b"\xF5SKIFF-LINK-OK\r\n";

/// Tells one session from another; it need not be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nonce(pub(crate) [u8; 16]);

impl Nonce {
    /// std's hash keys come from the system's random numbers without waiting for entropy, which a guest has none of
    /// while it boots.
    pub(crate) fn random() -> Nonce {
        let state = RandomState::new();
        let [a, b] = [state.hash_one(1_u8), state.hash_one(2_u8)];
        Nonce((u128::from(a) << 64 | u128::from(b)).to_le_bytes())
    }

    pub(crate) fn host_tag(self) -> [u8; TAG] {
        [self.0[0], self.0[1], self.0[2], self.0[3]]
    }

    pub(crate) fn guest_tag(self) -> [u8; TAG] {
        [self.0[4], self.0[5], self.0[6], self.0[7]]
    }
}

/// A decoded `HELLO` or `ACK`: two versions and a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) versions: (u16, u16),
    pub(crate) nonce: Nonce,
}

impl Greeting {
    pub(crate) fn encode(self, magic: &[u8; 16]) -> [u8; GREETING] {
        let mut bytes = [0; GREETING];
        bytes[..16].copy_from_slice(magic);
        bytes[16..18].copy_from_slice(&self.versions.0.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.versions.1.to_le_bytes());
        bytes[20..36].copy_from_slice(&self.nonce.0);
        let check = check(&bytes[..36]);
        bytes[36..].copy_from_slice(&check);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], magic: &[u8; 16]) -> Option<Greeting> {
        let bytes: &[u8; GREETING] = bytes.get(..GREETING)?.try_into().ok()?;
        if &bytes[..16] != magic || bytes[36..] != check(&bytes[..36]) {
            return None;
        }
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&bytes[20..36]);
        Some(Greeting {
            versions: (
                u16::from_le_bytes([bytes[16], bytes[17]]),
                u16::from_le_bytes([bytes[18], bytes[19]]),
            ),
            nonce: Nonce(nonce),
        })
    }
}

fn check(bytes: &[u8]) -> [u8; 4] {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step).to_le_bytes()
}

/// What [`scan`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The first greeting.
    pub(crate) found: Option<Greeting>,
    /// How many bytes may be discarded.
    pub(crate) consumed: usize,
}

/// Looks for the first greeting with this magic; keeps what may be the beginning of one.
pub(crate) fn scan(bytes: &[u8], magic: &[u8; 16]) -> Scan {
    let mut start = 0;
    while let Some(offset) = bytes[start..].iter().position(|byte| *byte == magic[0]) {
        start += offset;
        let rest = &bytes[start..];
        let seen = rest.len().min(magic.len());
        if rest[..seen] != magic[..seen] {
            start += 1;
        } else if let Some(greeting) = Greeting::decode(rest, magic) {
            return Scan { found: Some(greeting), consumed: start + GREETING };
        } else if rest.len() < GREETING {
            return Scan { found: None, consumed: start };
        } else {
            start += 1;
        }
    }
    Scan { found: None, consumed: bytes.len() }
}

/// Chooses the newest version that both speak.
pub(crate) fn choose(theirs: (u16, u16)) -> Option<u16> {
    let newest = theirs.1.min(MAX_VERSION);
    (newest >= theirs.0.max(MIN_VERSION)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = Nonce([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);

    #[test]
    fn greetings_have_these_bytes() {
        let hello = Greeting { versions: (1, 3), nonce: NONCE };
        let mut golden = b"\xF5SKIFF-LINK-HI\r\n\x01\x00\x03\x00".to_vec();
        golden.extend(NONCE.0);
        golden.extend(check(&golden));
        assert_eq!(hello.encode(HELLO).as_slice(), golden);
        assert_eq!(Greeting::decode(&golden, HELLO), Some(hello));
        assert_eq!(Greeting::decode(&golden, ACK), None);
        assert_eq!(&hello.encode(ACK)[..16], b"\xF5SKIFF-LINK-OK\r\n");
        assert_eq!((NONCE.host_tag(), NONCE.guest_tag()), ([1, 2, 3, 4], [5, 6, 7, 8]));
    }

    #[test]
    fn a_greeting_is_found_in_garbage_however_it_is_cut() {
        let hello = Greeting { versions: (1, 1), nonce: NONCE };
        let mut bytes = b"garbage \xF5SKIFF-LI \xF5\xF5".to_vec();
        let garbage = bytes.len();
        bytes.extend(hello.encode(HELLO));
        bytes.extend(b"rest");
        for cut in 0..bytes.len() {
            let scanned = scan(&bytes[..cut], HELLO);
            if cut < garbage + GREETING {
                assert_eq!(scanned.found, None, "{cut}");
                assert!(scanned.consumed <= garbage, "{cut}");
                assert!(cut - scanned.consumed < GREETING, "{cut}");
            } else {
                assert_eq!(scanned, Scan { found: Some(hello), consumed: garbage + GREETING }, "{cut}");
            }
        }
    }

    #[test]
    fn the_check_is_fnv() {
        assert_eq!(check(b""), 0x811c_9dc5_u32.to_le_bytes());
        assert_eq!(check(b"foobar"), 0xbf9c_f968_u32.to_le_bytes());
    }

    #[test]
    fn a_greeting_cut_off_and_filled_up_is_none() {
        let hello = Greeting { versions: (1, 1), nonce: NONCE }.encode(HELLO);
        for cut in 0..GREETING {
            let mut bytes = hello[..cut].to_vec();
            bytes.resize(FILLER, 0);
            assert_eq!(scan(&bytes, HELLO), Scan { found: None, consumed: FILLER }, "{cut}");
        }
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(choose((1, 1)), Some(1));
        assert_eq!(choose((1, 9)), Some(MAX_VERSION));
        assert_eq!(choose((2, 9)), None);
        assert_eq!(choose((0, 0)), None);
        assert_eq!(choose((9, 1)), None);
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(Nonce::random(), Nonce::random());
    }
}
