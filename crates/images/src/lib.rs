//! Images: registry client, content store, layer applier.
