//! `skiff-oci` as its callers use it. Needs root and Debian's static busybox.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod bundle;
mod dockerd;
mod escapes;
mod leftovers;
mod lifecycle;
mod podman;
mod rootless;
mod sections;
mod smuggling;
