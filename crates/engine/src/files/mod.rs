//! Files of a container for others: copies in and out, exports, differences, images made of it; and those of a volume.

mod archive;
mod commit;
mod diff;
mod transfer;
mod view;
mod volume;

pub use archive::{Archive, PathStat, PutArchive};
pub use commit::CommitContainer;
pub use diff::ContainerChange;
pub use transfer::ByteStream;
pub(crate) use transfer::stream;
pub(crate) use view::{image_tree, shared_memory_of};
pub use volume::VolumeFile;
