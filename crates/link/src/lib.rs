//! The link between host and guest: every capability is a stream.
