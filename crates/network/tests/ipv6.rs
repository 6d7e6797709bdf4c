//! IPv6: bridges, interfaces, routes and the packet filter. Every test works in a network namespace of its own.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use skiff_network::{
    Bridge, BridgeConfig, Endpoint, Firewall, Forward, Forwards, Inside, Neighbours, NetNs, Outside,
    Protocol, Zone,
};

fn isolated(test: impl FnOnce() + Send) {
    NetNs::create().expect("the tests need root").enter(test).unwrap();
}

fn bridge(name: &str, number: u8) -> Bridge {
    let config = BridgeConfig {
        name: name.into(),
        addresses: vec![
            format!("172.30.{number}.1/24").parse().unwrap(),
            format!("fd00:{number}::1/64").parse().unwrap(),
        ],
        mtu: 1500,
        owner: "sk6".into(),
        neighbours: Neighbours::Reachable,
    };
    Bridge::ensure(&config).unwrap();
    // The second time everything is there already.
    Bridge::ensure(&config).unwrap()
}

fn container(bridge: &Bridge, number: u8, last: u8) -> NetNs {
    let netns = NetNs::create().unwrap();
    let ip = |text: String| text.parse::<IpAddr>().unwrap();
    let endpoint = Endpoint {
        host_name: format!("sk6{number}{last}"),
        container_ifname: "eth0".into(),
        addresses: vec![
            format!("172.30.{number}.{last}/24").parse().unwrap(),
            format!("fd00:{number}::{last}/64").parse().unwrap(),
        ],
        mac: [2, 0x42, 0, 0, number, last],
        gateways: vec![ip(format!("172.30.{number}.1")), ip(format!("fd00:{number}::1"))],
        device_routes: Vec::new(),
        settings: vec![("ipv4/conf/eth0/log_martians".into(), "1".into())],
    };
    bridge.attach(&endpoint, netns.as_fd()).unwrap();
    netns
}

/// Serves the address of each client to it.
fn serve(netns: &NetNs) {
    let listener = netns.enter(|| TcpListener::bind("[::]:80")).unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().ip().to_canonical().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// The address that the server saw, or nothing when it can't be reached.
fn ask(from: &NetNs, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    // Longer than TCP's first repetition: what is lost while neighbours look for each other comes again after a second.
    let mut stream =
        from.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(1500))).unwrap().ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn here() -> NetNs {
    NetNs::of_pid(rustix::thread::gettid().as_raw_nonzero().get()).unwrap()
}

fn zone(name: &str, number: u8, outside: Outside) -> [Zone; 2] {
    [format!("172.30.{number}.0/24"), format!("fd00:{number}::/64")].map(|subnet| Zone {
        bridge: name.into(),
        subnet: subnet.parse().unwrap(),
        outside,
        inside: Inside::Published,
    })
}

#[test]
fn addresses_work_at_once_and_networks_are_apart_in_both_families() {
    isolated(|| {
        let (one, two) = (bridge("sk61", 1), bridge("sk62", 2));
        let (a, b) = (container(&one, 1, 2), container(&one, 1, 3));
        let c = container(&two, 2, 2);
        [&a, &c].into_iter().for_each(serve);
        assert_eq!(ask(&b, "[fd00:1::2]:80").as_deref(), Some("fd00:1::3"));
        assert_eq!(ask(&here(), "[fd00:1::2]:80").as_deref(), Some("fd00:1::1"));
        assert_eq!(ask(&b, "[fd00:2::2]:80").as_deref(), Some("fd00:1::3"), "nothing is filtered yet");
        let setting =
            a.enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/log_martians")).unwrap();
        assert_eq!(setting.unwrap().trim(), "1");

        let firewall = Firewall::new("sk6_test");
        let zones = [zone("sk61", 1, Outside::Masqueraded), zone("sk62", 2, Outside::Closed)].concat();
        firewall.apply(&zones).unwrap();
        assert_eq!(ask(&b, "[fd00:2::2]:80"), None, "networks are apart");
        assert_eq!(ask(&b, "172.30.2.2:80"), None, "networks are apart");
        assert_eq!(ask(&b, "[fd00:1::2]:80").as_deref(), Some("fd00:1::3"), "neighbours are not");
        firewall.apply(&zone("sk61", 1, Outside::Masqueraded)).unwrap();
        assert_eq!(ask(&b, "[fd00:2::2]:80").as_deref(), Some("fd00:2::1"), "masqueraded");
        let open = zone("sk62", 2, Outside::Routed).map(|zone| {
            let address = SocketAddr::new(zone.subnet.hosts().nth(1).unwrap(), 80);
            let ip = if address.is_ipv6() { "[fd00:2::2]:80".parse().unwrap() } else { address };
            Zone { inside: Inside::Ports(vec![(Protocol::Tcp, ip)]), ..zone }
        });
        firewall.apply(&open).unwrap();
        assert!(
            ask(&b, "[fd00:2::2]:80").is_some() && ask(&b, "172.30.2.2:80").is_some(),
            "opened ports are open"
        );
        firewall.remove().unwrap();
    });
}

#[test]
fn forwards_keep_the_clients_address_and_go_with_their_owner() {
    isolated(|| {
        let (one, outside) = (bridge("sk61", 1), bridge("sk69", 9));
        let (server, neighbour) = (container(&one, 1, 2), container(&one, 1, 3));
        let far = container(&outside, 9, 2);
        serve(&server);
        let firewall = Firewall::new("sk6_test");
        firewall.apply(&zone("sk61", 1, Outside::Masqueraded)).unwrap();
        assert_eq!(ask(&far, "172.30.1.2:80"), None, "nobody gets in");

        let mut forwards = Forwards::open("sk6_ports").unwrap();
        let forward = |host: &str, target: &str| Forward {
            protocol: Protocol::Tcp,
            host: host.parse().unwrap(),
            target: target.parse().unwrap(),
            bridge: "sk61".into(),
        };
        let all = [forward("0.0.0.0:8080", "172.30.1.2:80"), forward("[fd00:9::1]:8080", "[fd00:1::2]:80")];
        forwards.apply(&all).unwrap();
        forwards.apply(&all).unwrap();
        assert_eq!(ask(&far, "172.30.9.1:8080").as_deref(), Some("172.30.9.2"), "the client's own address");
        assert_eq!(ask(&far, "[fd00:9::1]:8080").as_deref(), Some("fd00:9::2"), "the client's own address");
        assert_eq!(ask(&here(), "172.30.9.1:8080").as_deref(), Some("172.30.9.1"), "the host's own");
        assert_eq!(ask(&here(), "127.0.0.1:8080"), None, "loopback is for listeners");
        assert_eq!(ask(&neighbour, "172.30.1.1:8080"), None, "the own network is for listeners");
        assert_eq!(ask(&far, "[fd00:1::1]:8080"), None, "another address");

        forwards.apply(&all[..1]).unwrap();
        assert_eq!(ask(&far, "[fd00:9::1]:8080"), None);
        assert!(ask(&far, "172.30.9.1:8080").is_some());
        forwards.apply(&[]).unwrap();
        assert_eq!(ask(&far, "172.30.9.1:8080"), None);
        forwards.apply(&all).unwrap();
        drop(forwards);
        // Nothing is left that a second owner of the same name could trip over.
        let mut second = Forwards::open("sk6_ports").unwrap();
        second.apply(&all).unwrap();
        assert!(ask(&far, "172.30.9.1:8080").is_some());
        drop(second);
        assert_eq!(ask(&far, "172.30.9.1:8080"), None);
        firewall.remove().unwrap();
    });
}
