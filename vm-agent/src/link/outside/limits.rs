//! How many flows there may be: of everybody together, and of each client, however many addresses it has.
//!
//! Each may have a multiple of the places that are still free. One alone gets four fifths of them, two get four ninths each,
//! and so on: the more there are, the less each of them. Some places are kept for those who have few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clients::Client;

/// All flows together; the link carries 16384 streams each way, and others need some of them.
const MOST: usize = 15 * 1024;
/// Those of them that are for everybody.
const SHARED: usize = 14 * 1024;
/// How many times as many flows as there are free places of these one client may have.
const SHARE: usize = 4;
/// Who has less than this may take of the others.
const FEW: usize = 32;
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
    of: HashMap<Client, usize>,
    told: Option<Instant>,
}

/// One flow's place; dropped, it is free again.
#[derive(Debug)]
pub struct Place {
    limits: Arc<Limits>,
    client: Client,
}

impl Limits {
    /// Takes a place for a flow of a container; `None`, with a word in the log, when there is none.
    pub fn take(self: &Arc<Self>, client: Client) -> Option<Place> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, mine) = (table.all, table.of.get(&client).copied().unwrap_or(0));
        let is_fair = mine < SHARE * SHARED.saturating_sub(all);
        let has_few = mine < FEW && all < MOST;
        if !is_fair && !has_few {
            if table.told.is_none_or(|told| told.elapsed() > TELL) {
                table.told = Some(Instant::now());
                tracing::warn!(?client, flows = mine, all, "too many connections out at once: new ones wait");
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
    fn everybody_finds_places_and_places_come_back() {
        let limits = Arc::new(Limits::default());
        let take_all = |last: u8| -> Vec<Place> {
            std::iter::from_fn(|| limits.take(Client::Card([2, 0x42, 0xac, 17, 0, last]))).collect()
        };
        let mut places = vec![take_all(2)];
        assert_eq!(places[0].len(), SHARED * SHARE / (SHARE + 1) + 1);
        // The second gets what is fair of the rest, and more once the first one gives way.
        places.push(take_all(3));
        assert_eq!(places[1].len(), (SHARED - places[0].len()) * SHARE / (SHARE + 1) + 1);
        places[0].truncate(SHARED / 4);
        places.push(take_all(3));
        assert!(places[1].len() + places[2].len() > SHARED / 2);
        for other in 4..36 {
            places.push(take_all(other));
            assert!(places.last().unwrap().len() >= FEW, "{other} finds too few");
        }
        assert!(places.iter().map(Vec::len).sum::<usize>() <= MOST);
        drop(places);
        let table = limits.table.lock().unwrap();
        assert_eq!((table.all, table.of.len()), (0, 0));
    }
}
