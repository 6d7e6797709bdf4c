//! A guest that sends whatever it likes: never outside the share, never a crash, never without bound.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use skiff_fileshare::abi::{Header, IN_HEADER};
use skiff_fileshare::{Access, Server, Shares};
use tokio::io::AsyncWriteExt;

fn server(root: &Path) -> Arc<Server> {
    let shares = Shares::new([(root.to_owned(), Access::ReadWrite)], None);
    let share = shares.locate(root.to_str().unwrap()).unwrap().share;
    shares.mount(&share, skiff_fileshare::Mount::New).unwrap()
}

fn ask(server: &Server, opcode: u32, nodeid: u64, body: &[u8]) -> Option<(i32, Vec<u8>)> {
    let len = (IN_HEADER + body.len()) as u32;
    let header = Header { len, opcode, unique: 9, nodeid, uid: 0, gid: 0, pid: 1 };
    let answer = server.handle(&header, body)?;
    assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize, answer.len());
    assert_eq!(answer[8..16], 9u64.to_le_bytes());
    Some((i32::from_le_bytes(answer[4..8].try_into().unwrap()), answer[16..].to_vec()))
}

/// Opcodes that exist, and some that don't.
fn opcode() -> impl Strategy<Value = u32> {
    prop_oneof![9 => 0u32..56, 1 => any::<u32>()]
}

/// Arguments that look like some: small numbers, names, paths that lead out.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let small = (0u64..6).prop_map(|number| number.to_le_bytes().to_vec());
    let wild = any::<u64>().prop_map(|number| number.to_le_bytes().to_vec());
    const NAMES: [&[u8]; 9] = [
        b"a\0",
        b"dir\0",
        b"out\0",
        b"..\0",
        b"../secret\0",
        b"/etc/passwd\0",
        b"out/secret\0",
        b"\0",
        b"unended",
    ];
    let name = proptest::sample::select(&NAMES[..]).prop_map(<[u8]>::to_vec);
    let part = prop_oneof![4 => small, 1 => wild, 4 => name];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_requests_reach_out_of_the_share(
        requests in proptest::collection::vec((opcode(), prop_oneof![9 => 0u64..8, 1 => any::<u64>()], body()), 1..60),
    ) {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let root = outside.path().join("share");
        std::fs::create_dir_all(root.join("dir")).unwrap();
        std::fs::write(root.join("a"), "text").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("out")).unwrap();
        let server = server(&root);
        for (opcode, nodeid, body) in &requests {
            if let Some((error, data)) = ask(&server, *opcode, *nodeid, body) {
                prop_assert!((-4095..=0).contains(&error));
                prop_assert!(!data.windows(6).any(|bytes| bytes == b"secret"));
            }
        }
        let mut names: Vec<_> =
            std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        prop_assert_eq!(names, ["secret", "share"]);
        prop_assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
    }
}

#[test]
fn numbers_never_given_out_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "text").unwrap();
    let server = server(directory.path());
    let (stale, directory, no_such) = (-116, -21, -38);
    assert_eq!(ask(&server, 3, 77, &[0; 16]).unwrap().0, stale);
    assert_eq!(ask(&server, 1, 77, b"file\0").unwrap().0, stale);
    let read = [1u64.to_le_bytes(), 0u64.to_le_bytes(), 100u64.to_le_bytes(), [0; 8], [0; 8]].concat();
    assert_eq!(ask(&server, 15, 1, &read).unwrap().0, directory);
    let (error, entry) = ask(&server, 1, 1, b"file\0").unwrap();
    let node = u64::from_le_bytes(entry[..8].try_into().unwrap());
    assert_eq!(error, 0);
    assert_eq!(ask(&server, 14, node, &[0; 8]).unwrap().0, no_such, "the kernel opens by itself");
    // A number of something open that was never given out is worth nothing, and takes nothing either.
    assert_eq!(ask(&server, 15, node, &read).unwrap(), (0, b"text".to_vec()));
    let (error, made) =
        ask(&server, 35, 1, &[&[2, 0, 0, 0, 0xa4, 1, 0, 0], &[0; 8][..], b"new\0"].concat()).unwrap();
    assert_eq!(error, 0);
    let handle = [&made[made.len() - 16..][..8], &read[8..]].concat();
    assert_eq!(
        ask(&server, 15, node, &handle).unwrap(),
        (0, b"text".to_vec()),
        "a number belongs to its node"
    );
    // What is forgotten is not known any more, however often it is forgotten.
    for _ in 0..2 {
        assert_eq!(ask(&server, 2, node, &1u64.to_le_bytes()), None);
    }
    assert_eq!(ask(&server, 3, node, &[0; 16]).unwrap().0, stale);
    assert_eq!(ask(&server, 2, 1, &u64::MAX.to_le_bytes()), None);
    assert_eq!(ask(&server, 3, 1, &[0; 16]).unwrap().0, 0, "the root is never forgotten");
}

#[test]
fn a_tree_that_changes_under_a_walk_leads_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let root = outside.path().join("share");
    std::fs::create_dir_all(&root).unwrap();
    let server = server(&root);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let guard = root.join("swap");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::create_dir(&guard);
                let _ = std::fs::write(guard.join("secret"), "inside");
                let _ = std::fs::remove_dir_all(&guard);
                let _ = std::os::unix::fs::symlink(outside.path(), &guard);
                let _ = std::fs::remove_file(&guard);
            }
        });
        for _ in 0..2000 {
            let Some((0, entry)) = ask(&server, 1, 1, b"swap\0") else { continue };
            let node = u64::from_le_bytes(entry[..8].try_into().unwrap());
            let Some((0, entry)) = ask(&server, 1, node, b"secret\0") else { continue };
            let file = u64::from_le_bytes(entry[..8].try_into().unwrap());
            let read = [&[0; 16], &100u64.to_le_bytes()[..], &[0; 16]].concat();
            if let Some((0, text)) = ask(&server, 15, file, &read) {
                assert!(text.is_empty() || text == b"inside", "{text:?}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[tokio::test]
async fn a_stream_of_nonsense_ends_and_takes_nothing_with_it() {
    let directory = tempfile::tempdir().unwrap();
    for length in [0u32, 39, (1 << 20) + 4097, u32::MAX] {
        let (mut guest, host) = tokio::io::duplex(4096);
        let serving = tokio::spawn(skiff_fileshare::serve(server(directory.path()), 0, host));
        let mut frame = [0; IN_HEADER];
        frame[..4].copy_from_slice(&length.to_le_bytes());
        guest.write_all(&frame).await.unwrap();
        let error = serving.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), format!("the guest sent a request of {length} bytes, which is none"));
    }
    let (guest, host) = tokio::io::duplex(4096);
    drop(guest);
    skiff_fileshare::serve(server(directory.path()), 0, host).await.unwrap();
}
