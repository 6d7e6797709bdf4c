//! What outlives the engine: records and the database that holds them.

pub mod database;
pub mod record;

pub use database::{Database, Op, Table};
pub use record::{Endpoint, Families, Mount, MountKind, NetworkRecord, Record, State, Status, VolumeRecord};
