//! Container names and ids.

use crate::error::{Error, Result};

/// 64 hexadecimal digits at random.
pub fn random_id() -> String {
    let mut bytes = [0; 32];
    loop {
        getrandom::fill(&mut bytes).expect("the kernel's random pool answers after boot");
        let id = hex::encode(bytes);
        // As in Docker: an id whose short form is a number could be read as a number where names are expected.
        if id[..12].parse::<u64>().is_err() {
            return id;
        }
    }
}

/// The first twelve digits of an id.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Checks a name that a client gave, with or without the leading slash, and returns it without.
pub fn validate(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let fine = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bare.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if fine {
        return Ok(bare);
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// An `adjective_surname` at random; from the fourth attempt with a digit, so that a crowded engine finds a free one.
pub fn random(attempt: u32) -> String {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).expect("the kernel's random pool answers after boot");
    let pick = |words: &'static [&'static str], high: u8, low: u8| {
        words[usize::from(u16::from_be_bytes([high, low])) % words.len()]
    };
    let adjective = pick(ADJECTIVES, bytes[0], bytes[1]);
    let surname = pick(SURNAMES, bytes[2], bytes[3]);
    if attempt < 3 {
        return format!("{adjective}_{surname}");
    }
    format!(
        "{adjective}_{surname}{}",
        u16::from_be_bytes([bytes[4], bytes[5]]) % (10 * attempt.min(1000) as u16)
    )
}

const ADJECTIVES: &[&str] = &[
    "able", "agile", "airy", "amber", "ample", "apt", "ardent", "azure", "balmy", "bold", "brave", "breezy",
    "bright", "brisk", "calm", "candid", "cheery", "civil", "clear", "clever", "coastal", "cool", "coral",
    "cosy", "crisp", "daring", "deft", "dewy", "eager", "early", "easy", "even", "exact", "fair", "famous",
    "fast", "fine", "firm", "fluent", "fond", "frank", "free", "fresh", "gentle", "glad", "golden", "grand",
    "green", "happy", "hardy", "hearty", "honest", "humble", "ideal", "jolly", "jovial", "keen", "kind",
    "large", "light", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "modest", "neat",
    "nimble", "noble", "open", "patient", "placid", "plucky", "polite", "proud", "prudent", "quick", "quiet",
    "rapid", "ready", "regal", "rosy", "royal", "sage", "salty", "serene", "sharp", "silent", "silver",
    "simple", "smart", "smooth", "solid", "sound", "spry", "stable", "steady", "stout", "sunny", "sure",
    "swift", "tall", "tidy", "tranquil", "true", "upbeat", "valiant", "vivid", "warm", "windy", "wise",
    "witty", "young", "zesty",
];

const SURNAMES: &[&str] = &[
    "abel",
    "agnesi",
    "aitken",
    "amundsen",
    "anning",
    "archimedes",
    "babbage",
    "baffin",
    "banks",
    "barents",
    "bernoulli",
    "bessel",
    "blackwell",
    "bohr",
    "boole",
    "bougainville",
    "boyle",
    "brahe",
    "cabot",
    "cantor",
    "carson",
    "cartier",
    "cauchy",
    "chandra",
    "cook",
    "cousteau",
    "curie",
    "dampier",
    "darwin",
    "davis",
    "dias",
    "dirac",
    "drake",
    "earhart",
    "einstein",
    "erdos",
    "eriksson",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "flinders",
    "fourier",
    "franklin",
    "frobisher",
    "galileo",
    "galois",
    "gama",
    "gauss",
    "germain",
    "goedel",
    "goodall",
    "grimaldi",
    "halley",
    "hamilton",
    "hawking",
    "hilbert",
    "hopper",
    "hubble",
    "hudson",
    "humboldt",
    "huygens",
    "hypatia",
    "joule",
    "kelvin",
    "kepler",
    "khwarizmi",
    "knuth",
    "lagrange",
    "lamarr",
    "laplace",
    "leibniz",
    "lovelace",
    "magellan",
    "maxwell",
    "meitner",
    "mendel",
    "mercator",
    "milne",
    "nansen",
    "nightingale",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "pauli",
    "peary",
    "planck",
    "polo",
    "ramanujan",
    "raman",
    "ride",
    "ritchie",
    "ross",
    "rubin",
    "scott",
    "shackleton",
    "shannon",
    "slocum",
    "tasman",
    "tesla",
    "tharp",
    "turing",
    "vancouver",
    "vespucci",
    "volta",
    "wallace",
    "wegener",
    "wiles",
    "yalow",
    "zheng",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_dockers_pattern() {
        for fine in ["ab", "/web", "a.b-c_d", "0x", "A9"] {
            assert!(validate(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "/", "a", "-ab", "_ab", ".ab", "a b", "a/b", "ä1", "//web", "web\n"] {
            assert!(validate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            validate("-x").unwrap_err().message,
            "Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    #[test]
    fn random_names_are_valid_at_every_attempt() {
        for attempt in 0..2000 {
            let name = random(attempt);
            assert_eq!(validate(&name).unwrap(), name);
        }
    }

    #[test]
    fn ids_have_64_digits_and_a_short_form() {
        let id = random_id();
        assert_eq!(id.len(), 64);
        assert_eq!(short(&id), &id[..12]);
        assert!(short(&id).parse::<u64>().is_err());
    }

    proptest! {
        #[test]
        fn validation_never_panics_and_returns_a_part_of_its_input(name in "\\PC{0,20}") {
            if let Ok(bare) = validate(&name) {
                prop_assert!(name.ends_with(bare));
            }
        }
    }
}
