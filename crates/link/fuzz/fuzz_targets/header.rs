//! `cargo +nightly fuzz run header` in `crates/link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skiff_link::fuzzing::header(data));
