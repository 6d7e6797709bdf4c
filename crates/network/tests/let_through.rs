//! What dockerd and ufw forbid by default is let through for our bridges. In a network namespace of its own.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use skiff_network::{
    Bridge, BridgeConfig, Endpoint, Family, Firewall, Forward, Forwards, Inside, LetThrough, Neighbours,
    NetNs, Outside, Protocol, Zone, forget_flows, remove_stale_chains,
};

fn isolated(test: impl FnOnce() + Send) {
    NetNs::create().expect("the tests need root").enter(test).unwrap();
}

fn config(name: &str, third: u8) -> BridgeConfig {
    BridgeConfig {
        name: name.into(),
        addresses: vec![ipnet::IpNet::new_assert(Ipv4Addr::new(172, 31, third, 1).into(), 24)],
        mtu: 1500,
        owner: "skf".into(),
        neighbours: Neighbours::Reachable,
    }
}

fn zone(bridge: &str, third: u8) -> Zone {
    Zone {
        bridge: bridge.into(),
        subnet: ipnet::IpNet::new_assert(Ipv4Addr::new(172, 31, third, 0).into(), 24),
        outside: Outside::Masqueraded,
        inside: Inside::Published,
    }
}

/// Containers on a bridge, the first at .2.
fn containers<const N: usize>(bridge: &Bridge, third: u8) -> [NetNs; N] {
    let ip = |last| Ipv4Addr::new(172, 31, third, last);
    std::array::from_fn(|number| {
        let netns = NetNs::create().unwrap();
        let last = u8::try_from(number).unwrap() + 2;
        let endpoint = Endpoint::new(format!("skv{third}x{last}"), ip(last), 24, ip(1));
        bridge.attach(&endpoint, netns.as_fd()).unwrap();
        netns
    })
}

/// A bridge and containers on it.
fn network<const N: usize>(name: &str, third: u8) -> (Bridge, [NetNs; N]) {
    let bridge = Bridge::ensure(&config(name, third)).unwrap();
    let inside = containers(&bridge, third);
    (bridge, inside)
}

fn iptables(program: &str, arguments: &str) -> bool {
    Command::new(program).args(arguments.split_whitespace()).status().is_ok_and(|status| status.success())
}

#[test]
fn a_firewall_that_drops_by_default_lets_our_bridges_through() {
    for program in ["iptables-nft", "iptables-legacy"] {
        isolated(|| {
            let (_left, [a]) = network("skfl", 1);
            let (_right, [b]) = network("skfr", 2);
            let at: SocketAddr = "172.31.2.2:80".parse().unwrap();
            let _server = b.enter(|| TcpListener::bind(at)).unwrap().unwrap();
            let reached = |patience| a.enter(|| TcpStream::connect_timeout(&at, patience).is_ok()).unwrap();
            let through = LetThrough::new("skf_test");
            through.apply(&["skfl".to_owned()]).unwrap();
            assert!(reached(Duration::from_secs(10)), "nobody forbids it");
            if !iptables(program, "-P FORWARD DROP") {
                return eprintln!("skipped: this kernel has no {program}");
            }
            assert!(!reached(Duration::from_millis(300)), "{program} forbids it");
            for _ in 0..2 {
                through.apply(&["skfl".to_owned(), "skfr".to_owned()]).unwrap();
                assert!(reached(Duration::from_secs(10)), "{program}");
            }
            assert!(iptables(program, "-D FORWARD -j SKIFF-skf_test"), "there is a jump");
            assert!(!iptables(program, "-D FORWARD -j SKIFF-skf_test"), "there is no other one");
            through.apply(&[]).unwrap();
            assert!(!reached(Duration::from_millis(300)), "bridges that are gone are forgotten");
            through.remove();
            through.remove();
            assert!(!iptables(program, "-S SKIFF-skf_test"), "the chain is gone");
        });
    }
}

#[test]
fn chains_of_killed_engines_go_and_those_that_somebody_needs_stay() {
    for program in ["iptables-nft", "iptables-legacy"] {
        isolated(|| {
            if !iptables(program, "-P FORWARD DROP") {
                return eprintln!("skipped: this kernel has no {program}");
            }
            let (_left, [_a]) = network("skfl", 1);
            let (_right, []) = network("skfr", 2);
            let apply = |owner: &str, bridge: &str| {
                let through = LetThrough::new(owner);
                through.apply(&[bridge.to_owned()]).unwrap();
                through
            };
            // Its containers run on; it has none; its bridge is gone; and one that lives.
            drop(apply("skf_one", "skfl"));
            drop(apply("skf_two", "skfr"));
            drop(apply("skf_three", "skfx"));
            let living = apply("skf_four", "skfr");
            assert_eq!(remove_stale_chains().unwrap(), ["SKIFF-skf_three", "SKIFF-skf_two"]);
            assert_eq!(remove_stale_chains().unwrap(), [""; 0]);
            for (owner, stays) in [("one", true), ("two", false), ("three", false), ("four", true)] {
                assert_eq!(iptables(program, &format!("-S SKIFF-skf_{owner}")), stays, "{program} {owner}");
            }
            living.remove();
            assert!(iptables(program, "-D FORWARD -j SKIFF-skf_one"), "the jump stayed");
            assert!(!iptables(program, "-D FORWARD -j SKIFF-skf_two"), "the jump went");
        });
    }
}

#[test]
fn what_stays_on_a_bridge_passes_where_the_packet_filter_sees_it() {
    const SEES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    isolated(|| {
        // As dockerd wants it for networks without communication between containers.
        if std::fs::write(SEES, "1").is_err() || !iptables("iptables-nft", "-P FORWARD DROP") {
            return eprintln!("skipped: this kernel's packet filter does not see bridges");
        }
        let (_bridge, [a, b]) = network("skfs", 4);
        let at: SocketAddr = "172.31.4.3:80".parse().unwrap();
        let _server = b.enter(|| TcpListener::bind(at)).unwrap().unwrap();
        let reached = |patience| a.enter(|| TcpStream::connect_timeout(&at, patience).is_ok()).unwrap();
        assert!(!reached(Duration::from_millis(300)), "it is forbidden");
        Firewall::new("skf_test").apply(&[zone("skfs", 4)]).unwrap();
        LetThrough::new("skf_test").apply(&["skfs".to_owned()]).unwrap();
        assert!(reached(Duration::from_secs(10)));
        assert_eq!(std::fs::read_to_string(SEES).unwrap().trim(), "1", "the machine's setting stays");
        // Neighbours that may not talk are kept apart all the same.
        let apart =
            Bridge::ensure(&BridgeConfig { neighbours: Neighbours::Isolated, ..config("skfi", 5) }).unwrap();
        let [c, d] = containers(&apart, 5);
        let at: SocketAddr = "172.31.5.3:80".parse().unwrap();
        let _server = d.enter(|| TcpListener::bind(at)).unwrap().unwrap();
        Firewall::new("skf_test").apply(&[zone("skfs", 4), zone("skfi", 5)]).unwrap();
        LetThrough::new("skf_test").apply(&["skfs".to_owned(), "skfi".to_owned()]).unwrap();
        let reached = |patience| c.enter(|| TcpStream::connect_timeout(&at, patience).is_ok()).unwrap();
        assert!(!reached(Duration::from_millis(300)), "they are apart");
    });
}

#[test]
fn datagrams_of_one_client_follow_a_port_to_another_container() {
    isolated(|| {
        let (_bridge, [a, b]) = network("skfd", 3);
        let servers = [&a, &b].map(|netns| {
            let socket = netns.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        });
        let mut forwards = Forwards::open("skf_test_ports").unwrap();
        let lead = |last: u8| Forward {
            protocol: Protocol::Udp,
            host: "0.0.0.0:5300".parse().unwrap(),
            target: SocketAddr::from(([172, 31, 3, last], 53)),
            bridge: "skfd".into(),
        };
        forwards.apply(&[lead(2)]).unwrap();
        let client = UdpSocket::bind("172.31.3.1:4000").unwrap();
        client.connect("172.31.3.1:5300").unwrap();
        let mut buffer = [0; 8];
        client.send(b"one").unwrap();
        assert_eq!(servers[0].recv(&mut buffer).unwrap(), 3);
        forwards.apply(&[lead(3)]).unwrap();
        client.send(b"four").unwrap();
        assert_eq!(servers[0].recv(&mut buffer).unwrap(), 4, "the kernel remembers");
        let count = forget_flows(Family::Ipv4, |flow| flow.leads_to(lead(2).target)).unwrap();
        assert_eq!(count, 1);
        client.send(b"seven77").unwrap();
        assert_eq!(servers[1].recv(&mut buffer).unwrap(), 7);
        assert_eq!(forget_flows(Family::Ipv6, |_| true).unwrap_or(0), 0);
    });
}
