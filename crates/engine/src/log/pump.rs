//! The threads that move output: a few for all containers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::Log;

/// Threads. More than one, so that a container whose writes the kernel throttles does not hold up all others.
const LANES: usize = 2;
/// How long output that could not be written (a full disk) waits for the next attempt.
const RETRY: Duration = Duration::from_millis(500);

/// What a log's turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The pipes are empty.
    Idle,
    /// There is more.
    More,
    /// There is more, and it can't be written now.
    Blocked,
}

/// Moves the output of all containers.
#[derive(Debug, Clone)]
pub struct Pump {
    lanes: Arc<[Arc<Lane>; LANES]>,
    next: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Lane {
    epoll: OwnedFd,
    logs: Mutex<HashMap<u64, Weak<Log>>>,
    next_token: AtomicU64,
}

/// A descriptor that a lane watches; no longer once this is dropped.
#[derive(Debug)]
pub struct Registration {
    lane: Arc<Lane>,
    token: u64,
    fd: OwnedFd,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Closing alone would not do: the supervisor has the same open file.
        if let Err(error) = epoll::delete(&self.lane.epoll, &self.fd) {
            tracing::warn!(%error, "output descriptor was not watched");
        }
        self.lane.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

impl Pump {
    /// Starts the threads; they live as long as the process.
    pub fn start() -> io::Result<Self> {
        let lane = || -> io::Result<Arc<Lane>> {
            let lane = Arc::new(Lane {
                epoll: epoll::create(CreateFlags::CLOEXEC)?,
                logs: Mutex::default(),
                next_token: AtomicU64::new(0),
            });
            let running = Arc::clone(&lane);
            thread::Builder::new().name("output".to_owned()).spawn(move || running.run())?;
            Ok(lane)
        };
        Ok(Self { lanes: Arc::new([lane()?, lane()?]), next: Arc::default() })
    }

    /// Watches `fd` on behalf of `log`.
    pub(super) fn register(&self, log: &Arc<Log>, fd: BorrowedFd<'_>) -> io::Result<Registration> {
        let lane = Arc::clone(&self.lanes[self.next.fetch_add(1, Ordering::Relaxed) / 2 % LANES]);
        let fd = fd.try_clone_to_owned()?;
        let token = lane.next_token.fetch_add(1, Ordering::Relaxed);
        lane.logs.lock().unwrap_or_else(PoisonError::into_inner).insert(token, Arc::downgrade(log));
        // Edge-triggered: a terminal that nobody has open reports its hang-up without end otherwise.
        let flags = EventFlags::IN | EventFlags::ET;
        if let Err(errno) = epoll::add(&lane.epoll, &fd, EventData::new_u64(token), flags) {
            lane.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
            return Err(errno.into());
        }
        Ok(Registration { lane, token, fd })
    }
}

impl Lane {
    fn run(&self) {
        let mut turns: VecDeque<u64> = VecDeque::new();
        let mut waiting: HashSet<u64> = HashSet::new();
        loop {
            let timeout = if !turns.is_empty() {
                Some(Duration::ZERO)
            } else if !waiting.is_empty() {
                Some(RETRY)
            } else {
                None
            };
            let events = match self.wait(timeout) {
                Ok(events) => events,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "output can't be watched");
                    thread::sleep(RETRY);
                    continue;
                }
            };
            if events.is_empty() && turns.is_empty() {
                turns.extend(waiting.drain());
            }
            for token in events {
                if !turns.contains(&token) {
                    turns.push_back(token);
                }
            }
            let Some(token) = turns.pop_front() else { continue };
            let log =
                self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(&token).and_then(Weak::upgrade);
            match log.map_or(Turn::Idle, |log| log.turn()) {
                Turn::Idle => {
                    waiting.remove(&token);
                }
                Turn::More => turns.push_back(token),
                Turn::Blocked => {
                    waiting.insert(token);
                }
            }
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Vec<u64>, Errno> {
        let mut space = [MaybeUninit::<Event>::uninit(); 64];
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let (events, _) = epoll::wait(&self.epoll, &mut space, timeout.as_ref())?;
        Ok(events.iter().map(|event| event.data.u64()).collect())
    }
}
