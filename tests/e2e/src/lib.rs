//! End-to-end scenarios, the same for every backend.
