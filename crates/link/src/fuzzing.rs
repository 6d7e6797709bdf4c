//! Entry points for fuzzing, and the test that runs them without a fuzzer.
//!
//! Each takes any bytes and must return: no panic, no growth beyond the bounds in [`crate::mux`].

use crate::{Reply, StreamHeader};

/// Decodes a header; what decodes must encode and decode to the same.
pub fn header(data: &[u8]) {
    if let Ok(header) = StreamHeader::decode(data) {
        // Only arguments near the limit may fail: JSON can be written in more than one length.
        if let Ok(bytes) = header.encode() {
            assert_eq!(StreamHeader::decode(&bytes).expect("what was encoded decodes"), header);
        }
    }
}

/// Decodes a reply; what decodes must encode and decode to the same.
pub fn reply(data: &[u8]) {
    if let Ok(reply) = Reply::decode(data)
        && reply.message.len() <= 2048
        && let Ok(bytes) = reply.encode()
    {
        assert_eq!(Reply::decode(&bytes).expect("what was encoded decodes").code, reply.code);
    }
}

pub use crate::mux::fuzzing::mux_host;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn corpus(target: &str, run: fn(&[u8])) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 3, "{} has too few files", directory.display());
    }

    #[test]
    fn the_corpus_of_every_target_passes() {
        corpus("header", header);
        corpus("reply", reply);
        corpus("mux_host", mux_host);
    }

    /// Bytes that look like the real thing more often than random ones do.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let frame = (0..10_u8, 0..8_u32, prop::collection::vec(any::<u8>(), 0..40), any::<bool>()).prop_map(
            |(kind, stream, payload, whole)| {
                let length = match kind {
                    4 | 5 => 0,
                    6 => 4,
                    7 | 8 => 8,
                    _ => payload.len(),
                };
                let mut payload = payload;
                payload.resize(length, 0);
                if matches!(kind, 1 | 2) && whole {
                    payload = vec![1, kind - 1, 0, 0];
                }
                let mut bytes = vec![kind, 0, 0, 0];
                bytes.extend(stream.to_le_bytes());
                bytes.extend((payload.len() as u32).to_le_bytes());
                bytes.extend(payload);
                bytes.extend([0; 4]);
                bytes
            },
        );
        prop::collection::vec(frame, 0..60).prop_map(|frames| frames.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_bytes_decode_or_are_refused(data in prop::collection::vec(any::<u8>(), 0..300)) {
            header(&data);
            reply(&data);
            mux_host(&data);
        }

        #[test]
        fn any_body_decodes_or_is_refused(code in 0..12_u8, body in "\\PC{0,60}") {
            let mut data = vec![1, code];
            data.extend((body.len() as u16).to_le_bytes());
            data.extend(body.as_bytes());
            header(&data);
            reply(&data);
        }

        #[test]
        fn any_frames_stay_within_bounds(plan in any::<u8>(), data in frames()) {
            let mut bytes = vec![plan];
            bytes.extend(data);
            mux_host(&bytes);
        }
    }
}
