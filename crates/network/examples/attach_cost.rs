//! Prints what the pieces of an attachment cost, as medians in microseconds. Needs root; touches only own namespaces.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use skiff_network::{Bridge, Endpoint, NetNs, default_pools};

const ROUNDS: u16 = 100;

fn main() {
    NetNs::create().expect("needs root").enter(measure).expect("the measurement failed");
}

fn measure() {
    let bridge = Bridge::create_on_free_subnet("skm0", "skm", 1500, None, &default_pools()).unwrap();
    let (subnet, gateway) = bridge.config().ipv4().unwrap();
    let (mut create, mut attach, mut enter, mut detach) = (vec![], vec![], vec![], vec![]);
    let mut kept = Vec::new();
    for round in 0..ROUNDS {
        let started = Instant::now();
        let netns = NetNs::create().unwrap();
        create.push(started.elapsed());

        let [a, b, ..] = subnet.network().octets();
        let [c, d] = (round + 10).to_be_bytes();
        let name = format!("vskm{round}");
        let endpoint = Endpoint::new(&name, Ipv4Addr::new(a, b, c, d), subnet.prefix_len(), gateway);
        let started = Instant::now();
        bridge.attach(&endpoint, netns.as_fd()).unwrap();
        attach.push(started.elapsed());

        let started = Instant::now();
        netns.enter(|| ()).unwrap();
        enter.push(started.elapsed());

        if round % 2 == 0 {
            let started = Instant::now();
            bridge.detach(&name).unwrap();
            detach.push(started.elapsed());
        } else {
            kept.push(netns);
        }
    }
    let started = Instant::now();
    let count = kept.len();
    drop(kept);
    let dropped = started.elapsed() / u32::try_from(count).unwrap();
    report("NetNs::create", &mut create);
    report("Bridge::attach", &mut attach);
    report("NetNs::enter (thread + setns)", &mut enter);
    report("Bridge::detach", &mut detach);
    println!("{:<32}{:>8} µs", "drop(NetNs), mean", dropped.as_micros());
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_micros();
    println!("{what:<32}{:>8} µs   p10 {} p90 {}", at(50), at(10), at(90));
}
