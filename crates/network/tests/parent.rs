//! Interfaces of the host that containers share. Every test works in a network namespace of its own.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use skiff_network::{
    Endpoint, Error, Ipvlan, IpvlanFlag, Macvlan, NetNs, Parent, ParentConfig, Sharing, remove_stale_bridges,
};

fn isolated(test: impl FnOnce() + Send) {
    NetNs::create().expect("the tests need root").enter(test).unwrap();
}

fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn config(name: &str, dummy: bool, sharing: Sharing) -> ParentConfig {
    ParentConfig { name: name.into(), dummy, sharing, owner: "skp".into() }
}

fn container(parent: &Parent, last: u8, device_routes: Vec<bool>) -> NetNs {
    let netns = NetNs::create().unwrap();
    let mut endpoint = Endpoint::new("", [10, 77, 0, last].into(), 24, [10, 77, 0, 1].into());
    if !device_routes.is_empty() {
        endpoint.gateways.clear();
        endpoint.device_routes = device_routes;
    }
    parent.attach(&endpoint, netns.as_fd()).unwrap();
    netns
}

fn reaches(from: &NetNs, to: &str) -> bool {
    let to = to.parse().unwrap();
    from.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok()).unwrap()
}

/// Whether this kernel has interfaces of a kind; what it lacks can't be tested on it.
fn kernel_has(kind: &str) -> bool {
    let mut has = false;
    isolated(|| {
        ip("link add skx0 type veth peer name skx1");
        let options = if kind == "vlan" { " id 2" } else { "" };
        ip(&format!("link add link skx0 name skx2 type {kind}{options}"));
        has = ip("-o link").contains("skx2@");
    });
    if !has {
        eprintln!("skipped: this kernel has no {kind}");
    }
    has
}

#[test]
fn macvlan_and_ipvlan_interfaces_reach_their_neighbours_as_their_mode_says() {
    for (sharing, expected) in [
        (Sharing::Macvlan(Macvlan::Bridge), true),
        (Sharing::Macvlan(Macvlan::Private), false),
        (Sharing::Ipvlan(Ipvlan::L2, IpvlanFlag::Bridge), true),
        (Sharing::Ipvlan(Ipvlan::L3, IpvlanFlag::Bridge), true),
        (Sharing::Ipvlan(Ipvlan::L3s, IpvlanFlag::Bridge), true),
    ] {
        if matches!(sharing, Sharing::Ipvlan(..)) && !kernel_has("ipvlan") {
            continue;
        }
        isolated(|| {
            let parent = Parent::ensure(&config("skp0", true, sharing)).unwrap();
            let ways = if matches!(sharing, Sharing::Ipvlan(Ipvlan::L3 | Ipvlan::L3s, _)) {
                vec![false]
            } else {
                vec![]
            };
            let (a, b) = (container(&parent, 2, ways.clone()), container(&parent, 3, ways.clone()));
            let _listener = a.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
            assert_eq!(reaches(&b, "10.77.0.2:80"), expected, "{sharing:?}");
            let route = a.enter(|| ip("route")).unwrap();
            let wanted = if ways.is_empty() { "default via 10.77.0.1 dev eth0" } else { "default dev eth0" };
            assert!(route.contains(wanted), "{route}");
            b.delete_interface("eth0").unwrap();
            b.delete_interface("eth0").unwrap();
            assert!(!b.enter(|| ip("-o link")).unwrap().contains("eth0"));
            parent.delete().unwrap();
            assert!(!ip("-o link").contains("skp0"));
        });
    }
}

#[test]
fn a_vlan_of_a_parent_is_made_and_one_that_was_there_stays() {
    let has_vlan = kernel_has("vlan");
    isolated(|| {
        let sharing = Sharing::Macvlan(Macvlan::Bridge);
        let error = Parent::ensure(&config("skp0", false, sharing)).err().unwrap();
        assert!(matches!(error, Error::NoParent { .. }));
        assert_eq!(error.to_string(), "-o parent interface was not found on the host: skp0");
        assert!(Parent::ensure(&config("skp0.10", false, sharing)).is_err(), "no base");
        ip("link add skp0 type veth peer name skp1");
        ip("link set skp0 up");
        let shared = Parent::ensure(&config("skp0", false, sharing)).unwrap();
        shared.delete().unwrap();
        assert!(ip("-o link").contains("skp0@"), "the host's own stays");
        for bad in ["skp0.0", "skp0.4095", "skp0.x"] {
            assert!(Parent::ensure(&config(bad, false, sharing)).is_err(), "{bad}");
        }
        if !has_vlan {
            return;
        }
        let vlan = Parent::ensure(&config("skp0.10", false, sharing)).unwrap();
        let link = ip("-d link show skp0.10");
        assert!(link.contains("vlan protocol 802.1Q id 10") && link.contains("alias skp"), "{link}");
        let again = Parent::ensure(&config("skp0.10", false, sharing)).unwrap();
        drop(vlan);
        again.delete().unwrap();
        assert!(!ip("-o link").contains("skp0.10"));
        Parent::ensure(&config("skp0.11", false, sharing)).unwrap();
        let removed = remove_stale_bridges("skp", &HashSet::new()).unwrap();
        assert_eq!(removed, ["skp0.11"]);
    });
}
