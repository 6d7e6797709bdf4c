//! A small nftables client: whole tables are written in one transaction, over netlink, without the `nft` program.
//!
//! Only what this crate's own tables need is here: base chains, a few matches and verdicts. A table is always replaced as
//! a whole, so there is no state to compare with and a killed engine's table is simply overwritten by the next one.

mod attributes;
mod rule;
mod transaction;

pub use attributes::Attributes;
pub use rule::{Protocol, Rule};
pub use transaction::{Chain, ChainKind, Family, Hook, Socket, Table};
