//! How many flows there may be: of everybody together, and of each container.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// All flows together; the link carries 16384 streams each way, and others need some of them.
const MOST: usize = 15 * 1024;
/// Flows of one container: it leaves something to others.
const MOST_OF_ONE: usize = 12 * 1024;
/// How often a full table is told.
const TELL: Duration = Duration::from_secs(10);

/// The flows of the moment.
#[derive(Debug, Default)]
pub struct Limits {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    all: usize,
    of: HashMap<IpAddr, usize>,
    told: Option<Instant>,
}

/// One flow's place; dropped, it is free again.
#[derive(Debug)]
pub struct Place {
    limits: Arc<Limits>,
    client: IpAddr,
}

impl Limits {
    /// Takes a place for a flow of a container; `None`, with a word in the log, when there is none.
    pub fn take(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, mine) = (table.all, table.of.get(&client).copied().unwrap_or(0));
        if all >= MOST || mine >= MOST_OF_ONE {
            if table.told.is_none_or(|told| told.elapsed() > TELL) {
                table.told = Some(Instant::now());
                tracing::warn!(%client, flows = mine, all, "too many connections out at once: new ones wait");
            }
            return None;
        }
        table.all += 1;
        table.of.insert(client, mine + 1);
        Some(Place { limits: Arc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.limits.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.all -= 1;
        if let Some(count) = table.of.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                table.of.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_container_leaves_room_for_others_and_places_come_back() {
        let limits = Arc::new(Limits::default());
        let ip = |last: u8| IpAddr::from([172, 17, 0, last]);
        let mut places: Vec<_> = std::iter::from_fn(|| limits.take(ip(2))).collect();
        assert_eq!(places.len(), MOST_OF_ONE);
        places.extend(std::iter::from_fn(|| limits.take(ip(3))));
        assert_eq!(places.len(), MOST);
        assert!(limits.take(ip(4)).is_none());
        places.truncate(MOST - 1);
        assert!(limits.take(ip(4)).is_some());
        drop(places);
        let table = limits.table.lock().unwrap();
        assert_eq!((table.all, table.of.len()), (0, 0));
    }
}
