//! `cargo +nightly fuzz run reply` in `crates/link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skiff_link::fuzzing::reply(data));
