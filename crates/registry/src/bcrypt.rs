//! bcrypt, as `htpasswd -B` writes it: `$2y$COST$SALT-AND-HASH`.

use base64::Engine as _;
use base64::alphabet::Alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use blowfish::Blowfish;

/// The most work that a password file may ask for with each request; `htpasswd` knows no more than 17.
const MAX_COST: u32 = 17;
const SALT: usize = 16;
const HASH: usize = 23;

/// A password's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    cost: u32,
    salt: [u8; SALT],
    hash: Vec<u8>,
}

fn encoding() -> Option<GeneralPurpose> {
    let alphabet = Alphabet::new("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").ok()?;
    // The last letter of a salt has bits that mean nothing.
    let config = GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true);
    Some(GeneralPurpose::new(&alphabet, config))
}

impl Hash {
    /// Reads one; nothing when it is another kind of hash.
    pub fn parse(text: &str) -> Option<Hash> {
        let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
        let (cost, rest) = rest.split_once('$')?;
        let cost = cost.parse().ok().filter(|cost| (4..=MAX_COST).contains(cost))?;
        let (salt, hash) = rest.split_at_checked(22)?;
        let encoding = encoding()?;
        let salt = encoding.decode(salt).ok()?.try_into().ok()?;
        let hash = encoding.decode(hash).ok().filter(|hash| hash.len() == HASH)?;
        Some(Hash { cost, salt, hash })
    }

    /// Says whether a password is the one. Takes the time that its cost says.
    pub fn verify(&self, password: &[u8]) -> bool {
        let computed = compute(self.cost, &self.salt, password);
        // All of it is compared, so that the time does not tell how much was right.
        computed.iter().zip(&self.hash).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

fn compute(cost: u32, salt: &[u8; SALT], password: &[u8]) -> [u8; 24] {
    // The end of the text counts; what is beyond the 72nd byte does not.
    let mut key: Vec<u8> = password.iter().copied().take(71).collect();
    if password.len() >= 72 {
        key.push(password[71]);
    } else {
        key.push(0);
    }
    let mut state = Blowfish::bc_init_state();
    state.salted_expand_key(salt, &key);
    for _ in 0..1u64 << cost {
        state.bc_expand_key(&key);
        state.bc_expand_key(salt);
    }
    let mut words = [0x4f72_7068, 0x6561_6e42, 0x6568_6f6c, 0x6465_7253, 0x6372_7944, 0x6f75_6274];
    for pair in words.chunks_exact_mut(2) {
        let mut both = [pair[0], pair[1]];
        for _ in 0..64 {
            both = state.bc_encrypt(both);
        }
        pair.copy_from_slice(&both);
    }
    let mut out = [0; 24];
    for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes_are_verified() {
        let long = "x".repeat(80);
        // As crypt(3) has them.
        for (password, hash) in [
            ("", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
            ("a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
            ("abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
            ("correct horse", "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"),
            (&long, "$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i"),
        ] {
            let parsed = Hash::parse(hash).unwrap_or_else(|| panic!("{hash}"));
            assert!(parsed.verify(password.as_bytes()), "{password}");
            assert!(!parsed.verify(b"other"));
        }
    }

    #[test]
    fn other_hashes_are_none() {
        for text in [
            "",
            "plain",
            "$apr1$x$y",
            "$2y$99$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.",
            "$2y$05$short",
            "$2y$05$é",
        ] {
            assert_eq!(Hash::parse(text), None, "{text}");
        }
    }
}
