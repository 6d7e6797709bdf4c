//! The life of one guest: boot on demand, deadlines, idle stop, recovery.
