//! The container runtime: an OCI runtime spec in, a process out.
