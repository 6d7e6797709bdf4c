//! Container networks: bridges, veth pairs, address management.
