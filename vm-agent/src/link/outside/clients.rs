//! Who is behind an address: one container has several, one of each family on each of its networks.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use skiff_network::outside::neighbours;

/// How long what was found out is believed: an address may go to another container soon after.
const BELIEVED: Duration = Duration::from_secs(5);
/// How many addresses are remembered.
const MOST: usize = 4096;

/// Who flows are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// A container's card in one network, which its addresses there share.
    Card([u8; 6]),
    /// An address that no card is known of, such as this machine's own.
    Address(IpAddr),
}

/// What is known about addresses.
#[derive(Debug, Default)]
pub struct Clients {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    cards: HashMap<IpAddr, [u8; 6]>,
    /// Those that are not among the neighbours, which asking again would not change.
    others: HashSet<IpAddr>,
    since: Option<Instant>,
}

impl Clients {
    /// Tells who sends from an address.
    pub fn of(&self, address: IpAddr) -> Client {
        self.look_up(address, || {
            neighbours().unwrap_or_else(|error| {
                tracing::debug!(%error, "clients are told apart by their addresses");
                HashMap::new()
            })
        })
    }

    fn look_up(&self, address: IpAddr, ask: impl FnOnce() -> HashMap<IpAddr, [u8; 6]>) -> Client {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.since.is_none_or(|since| since.elapsed() > BELIEVED) || known.others.len() > MOST {
            *known = Known::default();
        }
        let found = known.cards.get(&address).copied();
        if found.is_none() && !known.others.contains(&address) {
            known.cards = ask();
            known.since.get_or_insert_with(Instant::now);
            if !known.cards.contains_key(&address) {
                known.others.insert(address);
            }
        }
        found.or_else(|| known.cards.get(&address).copied()).map_or(Client::Address(address), Client::Card)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_card_are_one_client_and_asking_is_rare() {
        let clients = Clients::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (four, six) = (address("172.18.0.2"), address("fd00::2"));
        let (other, own) = (address("172.18.0.3"), address("192.168.65.1"));
        let mut asked = 0;
        let mut of = |ip: IpAddr| {
            clients.look_up(ip, || {
                asked += 1;
                HashMap::from([(four, [2; 6]), (six, [2; 6]), (other, [3; 6])])
            })
        };
        for _ in 0..3 {
            assert_eq!(of(four), Client::Card([2; 6]));
            assert_eq!(of(six), of(four));
            assert_eq!(of(other), Client::Card([3; 6]));
            assert_eq!(of(own), Client::Address(own));
        }
        assert_eq!(asked, 2);
    }

    #[test]
    fn what_senders_make_up_does_not_pile_up() {
        let clients = Clients::default();
        for number in 0..20_000u32 {
            clients.look_up(std::net::Ipv4Addr::from(number).into(), HashMap::new);
        }
        assert!(clients.known.lock().unwrap().others.len() <= MOST + 1);
    }
}
