//! The parent of every container: reaps, remembers exit statuses, keeps descriptors.
