//! Repositories over HTTP, without a git program: a guest has none.
//!
//! The second version of git's protocol, as far as a checkout of one commit needs it:
//!
//! ```text
//!   GET  URL/info/refs?service=git-upload-pack   → capabilities          Git-Protocol: version=2
//!   POST URL/git-upload-pack  command=ls-refs    → names and commits
//!   POST URL/git-upload-pack  command=fetch      → a pack with that commit and all that is in it
//! ```
//!
//! A pack is taken apart in a file; objects are named by what they contain, so a commit that has the wanted name has the wanted
//! files. Everything is bounded: the server is nobody's friend.

mod checkout;
mod object;
mod pack;
mod remote;
mod wire;

pub(crate) use checkout::{Kept, Linked, check_out, modules};
pub(crate) use pack::Pack;
pub(crate) use remote::{Failure, Remote};

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub [u8; 20]);

impl Id {
    /// Reads forty digits.
    pub fn parse(text: &str) -> Option<Id> {
        let bytes = text.as_bytes();
        if bytes.len() != 40 {
            return None;
        }
        let mut id = [0; 20];
        for (byte, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Id(id))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
