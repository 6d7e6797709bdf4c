//! Random streams at once over a narrow byte stream: every byte arrives in order, every end is seen, nothing hangs.

#![cfg(unix)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use skiff_link::mux::{Config, Role, connect};
use skiff_link::{Args, BoxStream, Link, StreamHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What one side of a stream does.
#[derive(Debug, Clone)]
struct Half {
    writes: Vec<usize>,
    end: End,
    read_size: usize,
    slow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// Half-close, then read to the end.
    Finish,
    /// Drop the stream after the writes.
    Reset,
}

#[derive(Debug, Clone)]
struct Plan {
    by_host: bool,
    opener: Half,
    accepter: Half,
}

fn half() -> impl Strategy<Value = Half> {
    let size = prop_oneof![4 => 1..200_usize, 2 => 4_000..5_000_usize, 1 => 60_000..150_000_usize];
    (
        prop::collection::vec(size, 0..6),
        prop_oneof![3 => Just(End::Finish), 1 => Just(End::Reset)],
        1..40_000_usize,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(writes, end, read_size, slow)| Half { writes, end, read_size, slow })
}

fn plan() -> impl Strategy<Value = Plan> {
    (any::<bool>(), half(), half()).prop_map(|(by_host, opener, accepter)| Plan { by_host, opener, accepter })
}

fn pattern(stream: usize, accepter: bool, at: usize) -> u8 {
    (at * 31 + stream * 7 + usize::from(accepter) * 13) as u8
}

/// Plays one side and checks what the other sends.
async fn play(stream: BoxStream, index: usize, accepter: bool, mine: Half, theirs: Half) {
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async {
        let mut at = 0;
        for size in &mine.writes {
            let bytes: Vec<u8> = (at..at + size).map(|at| pattern(index, accepter, at)).collect();
            at += size;
            if write.write_all(&bytes).await.is_err() {
                // Only a reset of the other side may stop this one.
                assert_eq!(theirs.end, End::Reset);
                return;
            }
        }
        if mine.end == End::Finish && write.shutdown().await.is_err() {
            assert_eq!(theirs.end, End::Reset);
        }
    };
    let total: usize = theirs.writes.iter().sum();
    let mut received = 0;
    let reading = async {
        let mut buffer = vec![0; mine.read_size];
        let mut pauses = if mine.slow { 20 } else { 0 };
        loop {
            if pauses > 0 {
                pauses -= 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            match read.read(&mut buffer).await {
                Ok(0) => {
                    assert_eq!((received, theirs.end), (total, End::Finish));
                    return;
                }
                Ok(count) => {
                    for byte in &buffer[..count] {
                        assert_eq!(*byte, pattern(index, !accepter, received));
                        received += 1;
                    }
                }
                Err(_) => {
                    // A reset, after all that was written.
                    assert_eq!(theirs.end, End::Reset);
                    assert!(received == total || mine.end == End::Reset, "{received} of {total}");
                    return;
                }
            }
        }
    };
    match mine.end {
        End::Finish => drop(tokio::join!(writing, reading)),
        // Reads meanwhile: two sides that only write would wait for each other.
        End::Reset => tokio::select! {
            () = writing => {}
            () = async { reading.await; std::future::pending().await } => {}
        },
    }
}

async fn open_all(link: Link, plans: Arc<Vec<Plan>>, by_host: bool) {
    let mut tasks = tokio::task::JoinSet::new();
    for (index, plan) in plans.iter().cloned().enumerate().filter(|(_, plan)| plan.by_host == by_host) {
        let link = link.clone();
        tasks.spawn(async move {
            let header = StreamHeader::new(Args::Resolve { name: index.to_string() });
            let stream = link.open(&header).await.unwrap();
            play(stream, index, false, plan.opener, plan.accepter).await;
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

async fn accept_all(link: Link, plans: Arc<Vec<Plan>>, by_host: bool) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in plans.iter().filter(|plan| plan.by_host == by_host) {
        let incoming = link.accept().await.unwrap();
        let Args::Resolve { name } = &incoming.header.args else { panic!("{:?}", incoming.header) };
        let index: usize = name.parse().unwrap();
        let plan = plans[index].clone();
        tasks.spawn(async move {
            let stream = incoming.accept(None).await.unwrap();
            play(stream, index, true, plan.accepter, plan.opener).await;
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

async fn run(plans: Vec<Plan>, window: u32, narrow: usize) {
    let config = Config { window, receive_budget: 4 * window as usize, ..common::small() };
    let (a, b) = tokio::io::duplex(narrow);
    let (host, guest) = tokio::join!(connect(a, Role::Host, config.clone()), connect(b, Role::Guest, config));
    let (host, guest) = (host.unwrap(), guest.unwrap());
    let plans = Arc::new(plans);
    let playing = async {
        tokio::join!(
            open_all(host.clone(), plans.clone(), true),
            open_all(guest.clone(), plans.clone(), false),
            accept_all(guest.clone(), plans.clone(), true),
            accept_all(host.clone(), plans.clone(), false),
        )
    };
    tokio::time::timeout(Duration::from_secs(20), playing).await.expect("deadlock");
    // Nothing broke the session on the way.
    let closed = guest.closed();
    assert!(tokio::time::timeout(Duration::from_millis(1), closed).await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn streams_do_not_disturb_one_another(
        plans in prop::collection::vec(plan(), 1..24),
        window in prop_oneof![Just(1024_u32), Just(20_000), Just(1 << 20)],
        narrow in prop_oneof![Just(37_usize), Just(5_000), Just(300_000)],
        threads in 1..3_usize,
    ) {
        let mut builder = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.enable_all().worker_threads(threads).build().unwrap().block_on(run(plans, window, narrow));
    }
}
