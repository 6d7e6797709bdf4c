//! `skiff-agent oci` as its callers use it. Needs root and Debian's static busybox.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod bundle;
mod escapes;
mod leftovers;
mod lifecycle;
mod podman;
mod sections;
