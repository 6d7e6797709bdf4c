//! The host's decoder and state under arbitrary bytes, with an application that does this and that.

use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::frame::{HEADER, Kind, TAG};
use super::handshake::{HELLO, Nonce, scan};
use super::receive::ReadBuffer;
use super::session::take_frame;
use super::state::{Sink, State};
use super::{Config, Role};
use crate::{Args, Reply, StreamHeader};

struct Count(usize);

impl Sink for Count {
    fn frame(&mut self, _kind: Kind, _stream: u32, payload: Bytes) {
        self.0 += HEADER + payload.len() + TAG;
    }

    fn is_full(&self) -> bool {
        self.0 > 4096
    }
}

/// Feeds bytes to a host session; the first byte says what the application does meanwhile.
///
/// # Panics
/// When a bound is broken: that is what it looks for.
pub fn mux_host(data: &[u8]) {
    let Some((&plan, data)) = data.split_first() else { return };
    assert!(scan(data, HELLO).consumed <= data.len());
    let config = Config {
        window: 4096,
        receive_budget: 16 * 1024,
        max_streams: 4,
        backlog: 2,
        answer_deadline: Duration::from_secs(1),
        ..Config::default()
    };
    let nonce = Nonce([0; 16]);
    let mut state = State::new(Role::Host, config);
    let mut now = Instant::now();
    let mut buffer = ReadBuffer::new();
    let mut held = Vec::new();
    let header = StreamHeader::new(Args::Api {}).encode().expect("a header without arguments fits");
    for _ in 0..2 {
        held.extend(state.open(header.clone()));
    }
    let step = usize::from(plan >> 4) * 8 + 1;
    for (round, chunk) in data.chunks(step).enumerate() {
        buffer.bytes.extend_from_slice(chunk);
        let mut wakes = Vec::new();
        loop {
            let taken =
                take_frame(&mut buffer, &mut state, Role::Host, nonce, nonce.guest_tag(), now, &mut wakes);
            state.check_bounds();
            match taken {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if plan & 1 != 0 {
            while let Some((id, _)) = state.next_offer() {
                if id % 4 == 0 || plan & 8 == 0 {
                    state.accept(id, &Reply::ok(None));
                    held.push(id);
                } else {
                    state.release(id, &mut wakes);
                }
            }
        }
        if plan & 2 != 0 {
            for id in &held {
                while let Poll::Ready(Ok(bytes)) = state.poll_read(*id, Waker::noop())
                    && !bytes.is_empty()
                {}
                if let Poll::Ready(Ok(room)) = state.poll_reserve(*id, 100, Waker::noop()) {
                    state.commit(*id, BytesMut::zeroed(room));
                }
            }
        }
        if plan & 4 != 0 {
            state.gather(&mut Count(0), &mut wakes);
        }
        if round % 16 == 15
            && let Some(id) = held.pop()
        {
            let _ = state.finish(id);
            state.release(id, &mut wakes);
            now += Duration::from_millis(400);
            state.expire(now);
        }
        state.check_bounds();
    }
}
