//! `cargo +nightly fuzz run mux_host` in `crates/link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skiff_link::fuzzing::mux_host(data));
