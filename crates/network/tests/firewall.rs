//! What the packet filter lets pass. Every test works in a network namespace of its own.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use skiff_network::{
    Bridge, BridgeConfig, Endpoint, Firewall, Inside, Ipam, Neighbours, NetNs, Outside, Zone,
    redirect_resolver,
};

struct Network {
    bridge: Bridge,
    ipam: Ipam,
}

impl Network {
    fn new(name: &str, third: u8) -> Self {
        let subnet: ipnet::Ipv4Net = format!("172.30.{third}.0/24").parse().unwrap();
        let ipam = Ipam::new(subnet, None, None).unwrap();
        let bridge = Bridge::ensure(&BridgeConfig {
            name: name.into(),
            addresses: vec![ipnet::IpNet::new_assert(ipam.gateway().into(), 24)],
            mtu: 1500,
            owner: "skf".into(),
            neighbours: Neighbours::Reachable,
        })
        .unwrap();
        Self { bridge, ipam }
    }

    fn container(&mut self, host_name: &str) -> (NetNs, Ipv4Addr) {
        let netns = NetNs::create().unwrap();
        let ip = self.ipam.allocate().unwrap();
        let endpoint = Endpoint::new(host_name, ip, 24, self.ipam.gateway());
        self.bridge.attach(&endpoint, netns.as_fd()).unwrap();
        (netns, ip)
    }

    fn zone(&self, outside: Outside) -> Zone {
        let config = self.bridge.config();
        Zone {
            bridge: config.name.clone(),
            subnet: config.ipv4().unwrap().0.into(),
            outside,
            inside: Inside::Published,
        }
    }
}

fn isolated(test: impl FnOnce() + Send) {
    NetNs::create().expect("the tests need root").enter(test).unwrap();
}

/// Serves the address of each client to it.
fn serve(netns: &NetNs) {
    let listener = netns.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// The address that the server saw, or nothing when it can't be reached at once.
fn ask(from: &NetNs, server: Ipv4Addr) -> Option<String> {
    ask_within(from, server, Duration::from_millis(300))
}

/// The address that the server saw. A port of a bridge forwards only when the kernel's link watcher has seen it come up, a
/// moment after it was attached; what came before is lost and sent again after a second.
fn reach(from: &NetNs, server: Ipv4Addr) -> String {
    ask_within(from, server, Duration::from_secs(20)).expect("the server can be reached")
}

fn ask_within(from: &NetNs, server: Ipv4Addr, patience: Duration) -> Option<String> {
    let to = SocketAddr::from((server, 80));
    let mut stream = from.enter(|| TcpStream::connect_timeout(&to, patience)).unwrap().ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn networks_are_apart_and_leave_with_the_hosts_address() {
    isolated(|| {
        let (mut one, mut two) = (Network::new("skf1", 1), Network::new("skf2", 2));
        // The outside is a network that the firewall does not know.
        let mut outside = Network::new("skf9", 9);
        let (a, a_ip) = one.container("skf1a");
        let (b, b_ip) = two.container("skf2a");
        let (far, far_ip) = outside.container("skf9a");
        [&a, &b, &far].into_iter().for_each(serve);
        assert_eq!(reach(&a, b_ip), a_ip.to_string(), "nothing is filtered yet");

        let firewall = Firewall::new("skf_test");
        let zones = [one.zone(Outside::Masqueraded), two.zone(Outside::Closed)];
        firewall.apply(&zones).unwrap();
        firewall.apply(&zones).unwrap();
        assert!(firewall.exists().unwrap());
        assert_eq!(ask(&a, b_ip), None, "networks are apart");
        assert_eq!(ask(&b, a_ip), None, "networks are apart");
        assert_eq!(ask(&far, a_ip), None, "nobody gets in");
        assert_eq!(reach(&a, far_ip), "172.30.9.1", "masqueraded");
        assert_eq!(ask(&b, far_ip), None, "a closed network is closed");
        let (inner, inner_ip) = one.container("skf1b");
        serve(&inner);
        assert_eq!(reach(&a, inner_ip), a_ip.to_string(), "neighbours see each other");

        firewall.apply(&[one.zone(Outside::Routed)]).unwrap();
        assert_eq!(reach(&a, far_ip), a_ip.to_string(), "its own address");
        firewall.remove().unwrap();
        firewall.remove().unwrap();
        assert!(!firewall.exists().unwrap());
        assert_eq!(reach(&far, a_ip), far_ip.to_string());
    });
}

#[test]
fn tables_of_two_engines_do_not_disturb_each_other() {
    isolated(|| {
        let (one, two) = (Network::new("skf1", 1), Network::new("skf2", 2));
        let (first, second) = (Firewall::new("skf_one"), Firewall::new("skf_two"));
        first.apply(&[one.zone(Outside::Masqueraded)]).unwrap();
        second.apply(&[two.zone(Outside::Masqueraded)]).unwrap();
        first.remove().unwrap();
        assert!(second.exists().unwrap() && !first.exists().unwrap());
    });
}

#[test]
fn hundreds_of_networks_fit_one_transaction() {
    isolated(|| {
        let zones: Vec<_> = (0..400u16)
            .map(|number| Zone {
                bridge: format!("br-{number:012}"),
                subnet: format!("10.{}.{}.0/24", number / 256, number % 256).parse().unwrap(),
                outside: if number % 2 == 0 { Outside::Masqueraded } else { Outside::Closed },
                inside: Inside::Published,
            })
            .collect();
        let firewall = Firewall::new("skf_many");
        firewall.apply(&zones).unwrap();
        assert!(firewall.exists().unwrap());
    });
}

#[test]
fn port_53_of_the_resolver_leads_to_its_sockets_and_stays_free() {
    isolated(|| {
        let resolver = Ipv4Addr::new(127, 0, 0, 11);
        let udp = UdpSocket::bind((resolver, 0)).unwrap();
        let tcp = TcpListener::bind((resolver, 0)).unwrap();
        let ports = (udp.local_addr().unwrap().port(), tcp.local_addr().unwrap().port());
        redirect_resolver(resolver, ports.0, ports.1).unwrap();
        redirect_resolver(resolver, ports.0, ports.1).unwrap();

        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.connect((resolver, 53)).unwrap();
        client.send(b"question").unwrap();
        let mut buffer = [0; 16];
        let (length, from) = udp.recv_from(&mut buffer).unwrap();
        udp.send_to(&buffer[..length], from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 8, "the answer comes from port 53");

        let _stream = TcpStream::connect((resolver, 53)).unwrap();
        let (served, _) = tcp.accept().unwrap();
        drop(served);
        // A name server in the container can still take the port on all addresses.
        UdpSocket::bind("0.0.0.0:53").unwrap();
        TcpListener::bind("0.0.0.0:53").unwrap();
    });
}
