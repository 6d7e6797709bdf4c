//! What the kernel does with our requests. Every test works in a network namespace of its own.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use skiff_network::{
    Bridge, BridgeConfig, Endpoint, Error, Ipam, Neighbours, NetNs, default_pools, host_routes,
    remove_stale_bridges, remove_stale_links,
};

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn config(name: &str, subnet: &str) -> BridgeConfig {
    let subnet = net(subnet);
    BridgeConfig {
        name: name.into(),
        addresses: vec![IpNet::new_assert(subnet.hosts().next().unwrap().into(), subnet.prefix_len())],
        mtu: 1400,
        owner: "skt".into(),
        neighbours: Neighbours::Reachable,
    }
}

/// Runs a test in a fresh namespace, so that the machine's own stays untouched.
fn isolated(test: impl FnOnce() + Send) {
    NetNs::create().expect("the tests need root").enter(test).unwrap();
}

/// The namespace's interfaces with what `ip` says about them.
fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn attach(bridge: &Bridge, ipam: &mut Ipam, host_name: &str) -> (NetNs, Endpoint) {
    let netns = NetNs::create().unwrap();
    let endpoint =
        Endpoint::new(host_name, ipam.allocate().unwrap(), ipam.subnet().prefix_len(), ipam.gateway());
    bridge.attach(&endpoint, netns.as_fd()).unwrap();
    (netns, endpoint)
}

#[test]
fn a_new_namespace_has_nothing_but_a_loopback_that_works() {
    let netns = NetNs::create().unwrap();
    netns
        .enter(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(TcpListener::bind("[::1]:0").is_ok(), "loopback keeps IPv6");
            assert_eq!(
                ip("-o link").lines().filter(|line| !line.contains("lo:") && !line.contains("NOARP")).count(),
                0
            );
        })
        .unwrap();
}

#[test]
fn containers_reach_each_other_and_the_gateway_at_once() {
    isolated(|| {
        let config = config("skt0", "172.30.0.0/16");
        let bridge = Bridge::ensure(&config).unwrap();
        let mut ipam = Ipam::new(config.ipv4().unwrap().0, None, None).unwrap();
        let (server, at) = attach(&bridge, &mut ipam, "skt0a");
        let (client, _) = attach(&bridge, &mut ipam, "skt0b");

        let listener = server.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
        let address = SocketAddr::from((at.ipv4().unwrap(), 80));
        let talk = |from: &NetNs| {
            let started = Instant::now();
            let mut stream =
                from.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(5))).unwrap().unwrap();
            let elapsed = started.elapsed();
            let (mut served, _) = listener.accept().unwrap();
            served.write_all(b"hello").unwrap();
            drop(served);
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
            elapsed
        };
        // A lost first packet would be repeated after a second.
        assert!(talk(&client) < Duration::from_millis(500));
        let from_gateway = NetNs::of_pid(gettid()).unwrap();
        assert!(talk(&from_gateway) < Duration::from_millis(500));
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
    });
}

fn gettid() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

#[test]
fn the_inner_interface_looks_as_docker_makes_it() {
    isolated(|| {
        let bridge = Bridge::ensure(&config("skt0", "172.17.0.0/16")).unwrap();
        let mut ipam = Ipam::new(net("172.17.0.0/16"), None, None).unwrap();
        let (netns, _) = attach(&bridge, &mut ipam, "skt0a");
        netns
            .enter(|| {
                let link = ip("addr show eth0");
                for part in [
                    "mtu 1400",
                    "link/ether 02:42:ac:11:00:02",
                    "inet 172.17.0.2/16 brd 172.17.255.255",
                    ",UP",
                ] {
                    assert!(link.contains(part), "{part} is missing in {link}");
                }
                assert!(!link.contains("inet6"), "{link}");
                assert_eq!(ip("route").lines().next().unwrap().trim(), "default via 172.17.0.1 dev eth0");
            })
            .unwrap();
        let link = ip("link show skt0a");
        assert!(link.contains("master skt0") && link.contains("mtu 1400"), "{link}");
    });
}

#[test]
fn ensure_twice_keeps_the_bridge_and_brings_it_into_shape() {
    isolated(|| {
        let mut config = config("skt0", "172.30.0.0/16");
        Bridge::ensure(&config).unwrap();
        let before = ip("-o link show skt0");
        Bridge::ensure(&config).unwrap();
        assert_eq!(before.split(' ').next(), ip("-o link show skt0").split(' ').next(), "same index");
        config.addresses = vec!["172.31.0.9/24".parse().unwrap()];
        config.mtu = 1300;
        Bridge::ensure(&config).unwrap();
        let text = ip("addr show skt0");
        assert!(
            text.contains("inet 172.31.0.9/24") && !text.contains("172.30") && text.contains("mtu 1300"),
            "{text}"
        );
    });
}

#[test]
fn a_subnet_that_is_routed_already_is_refused_and_nothing_stays() {
    isolated(|| {
        let first = Bridge::ensure(&config("skt0", "172.30.0.0/16")).unwrap();
        let error = Bridge::ensure(&config("skt1", "172.30.4.0/24")).err().unwrap();
        assert!(matches!(error, Error::SubnetInUse { .. }));
        assert_eq!(
            error.to_string(),
            "subnet 172.30.4.0/24 overlaps 172.30.0.0/16, which the host uses already"
        );
        assert!(!ip("-o link").contains("skt1"));
        first.delete().unwrap();
        assert!(!ip("-o link").contains("skt0"));
    });
}

#[test]
fn an_interface_of_another_kind_is_left_alone() {
    isolated(|| {
        let bridge = Bridge::ensure(&config("skt0", "172.30.0.0/16")).unwrap();
        let mut ipam = Ipam::new(net("172.30.0.0/16"), None, None).unwrap();
        let _container = attach(&bridge, &mut ipam, "skt0a");
        let error = Bridge::ensure(&config("skt0a", "172.31.0.0/16")).err().unwrap();
        assert_eq!(error.to_string(), "interface skt0a exists and is not a bridge");
    });
}

#[test]
fn engines_side_by_side_get_different_subnets() {
    isolated(|| {
        let mine = NetNs::of_pid(gettid()).unwrap();
        let subnets: HashSet<_> = thread::scope(|scope| {
            let create = |number: u8| {
                let mine = &mine;
                scope.spawn(move || {
                    let name = format!("skt{number}");
                    mine.enter(|| {
                        let bridge =
                            Bridge::create_on_free_subnet(&name, "skt", 1500, None, &default_pools())
                                .unwrap();
                        IpNet::V4(bridge.config().ipv4().unwrap().0)
                    })
                    .unwrap()
                })
            };
            let threads: Vec<_> = (0..6).map(create).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(subnets.len(), 6);
        assert_eq!(host_routes().unwrap().into_iter().collect::<HashSet<_>>(), subnets);
        let again =
            Bridge::create_on_free_subnet("skt3", "skt", 1500, Some(net("172.40.0.0/16")), &default_pools())
                .unwrap();
        assert_eq!(again.config().ipv4().unwrap().0, net("172.40.0.0/16"));
    });
}

#[test]
fn attach_that_fails_leaves_no_interface() {
    isolated(|| {
        let bridge = Bridge::ensure(&config("skt0", "172.30.0.0/16")).unwrap();
        let netns = NetNs::create().unwrap();
        let elsewhere = Ipv4Addr::new(10, 0, 0, 1);
        let endpoint = Endpoint::new("skt0a", Ipv4Addr::new(172, 30, 0, 2), 16, elsewhere);
        let error = bridge.attach(&endpoint, netns.as_fd()).unwrap_err();
        assert_eq!(error.to_string(), "cannot add default route through 10.0.0.1");
        assert!(!ip("-o link").contains("skt0a"));
    });
}

#[test]
fn dropping_the_namespace_removes_the_pair_and_stale_links_go_by_prefix() {
    isolated(|| {
        let bridge = Bridge::ensure(&config("skt0", "172.30.0.0/16")).unwrap();
        let mut ipam = Ipam::new(net("172.30.0.0/16"), None, None).unwrap();
        let (first, _) = attach(&bridge, &mut ipam, "vskta");
        let (_second, _) = attach(&bridge, &mut ipam, "vsktb");
        let (_third, _) = attach(&bridge, &mut ipam, "vsktc");
        drop(first);
        let deadline = Instant::now() + Duration::from_secs(5);
        while ip("-o link").contains("vskta") {
            assert!(Instant::now() < deadline, "the pair outlives its namespace");
            thread::sleep(Duration::from_millis(5));
        }
        let keep = HashSet::from(["vsktc".to_owned()]);
        assert_eq!(remove_stale_links("vskt", &keep).unwrap(), ["vsktb"]);
        assert!(ip("-o link").contains("vsktc"));
        bridge.detach("vsktc").unwrap();
        bridge.detach("vsktc").unwrap();
        assert!(!ip("-o link").contains("vskt"));
    });
}

#[test]
fn containers_can_be_attached_from_many_threads() {
    isolated(|| {
        let bridge = Bridge::ensure(&config("skt0", "172.30.0.0/16")).unwrap();
        thread::scope(|scope| {
            for number in 0..8u8 {
                let bridge = &bridge;
                scope.spawn(move || {
                    let netns = NetNs::create().unwrap();
                    let ip = Ipv4Addr::new(172, 30, 1, number);
                    let endpoint =
                        Endpoint::new(format!("skt0x{number}"), ip, 16, Ipv4Addr::new(172, 30, 0, 1));
                    bridge.attach(&endpoint, netns.as_fd()).unwrap();
                    netns.enter(|| assert!(TcpListener::bind((ip, 80)).is_ok())).unwrap();
                });
            }
        });
    });
}

#[test]
fn bridges_of_an_owner_are_found_again_and_others_left_alone() {
    isolated(|| {
        let ours = |name: &str, subnet: &str, owner: &str| {
            Bridge::ensure(&BridgeConfig { owner: owner.into(), ..config(name, subnet) }).unwrap()
        };
        let _kept = ours("br-a", "172.30.0.0/24", "one");
        let _lost = ours("br-b", "172.30.1.0/24", "one");
        let _other = ours("br-c", "172.30.2.0/24", "two");
        let keep = HashSet::from(["br-a".to_owned()]);
        assert_eq!(remove_stale_bridges("one", &keep).unwrap(), ["br-b"]);
        let left = ip("-o link");
        assert!(left.contains("br-a") && left.contains("br-c") && !left.contains("br-b"), "{left}");
    });
}

#[test]
fn isolated_neighbours_reach_the_gateway_and_not_each_other() {
    isolated(|| {
        let config = BridgeConfig { neighbours: Neighbours::Isolated, ..config("skt0", "172.30.0.0/16") };
        let bridge = Bridge::ensure(&config).unwrap();
        let mut ipam = Ipam::new(config.ipv4().unwrap().0, None, None).unwrap();
        let (server, at) = attach(&bridge, &mut ipam, "skt0a");
        let (client, _) = attach(&bridge, &mut ipam, "skt0b");
        let _listener = server.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
        let reaches = |from: &NetNs| {
            let to = SocketAddr::from((at.ipv4().unwrap(), 80));
            from.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok()).unwrap()
        };
        assert!(!reaches(&client));
        assert!(reaches(&NetNs::of_pid(gettid()).unwrap()));
    });
}

#[test]
fn the_default_route_moves_and_goes() {
    isolated(|| {
        let bridge = Bridge::ensure(&config("skt0", "172.30.0.0/16")).unwrap();
        let mut ipam = Ipam::new(net("172.30.0.0/16"), None, None).unwrap();
        let (netns, _) = attach(&bridge, &mut ipam, "skt0a");
        netns.set_default_route(Some(("eth0", Ipv4Addr::new(172, 30, 0, 77)))).unwrap();
        let routes = netns.enter(|| ip("route")).unwrap();
        assert_eq!(routes.matches("default").count(), 1, "{routes}");
        assert!(routes.contains("default via 172.30.0.77 dev eth0"), "{routes}");
        netns.set_default_route(None).unwrap();
        netns.set_default_route(None).unwrap();
        assert!(!netns.enter(|| ip("route")).unwrap().contains("default"));
    });
}
