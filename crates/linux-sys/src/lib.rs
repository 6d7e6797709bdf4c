//! Safe wrappers over the Linux system calls that rustix does not cover.
