//! Networks with IPv6, with it alone, and the options of endpoints.

use std::net::Ipv6Addr;

use anyhow::{Context, ensure};
use skiff_testkit::{free_port, http, wait_until};

use crate::{Subject, scenarios};

scenarios![
    a_network_has_both_families,
    a_network_can_have_ipv6_alone,
    ipv6_networks_that_cannot_be_are_refused_in_dockers_words,
    endpoints_have_options_of_their_own,
    replicas_take_turns_in_both_families,
    ports_lead_to_ipv6_addresses,
    shared_interfaces_belong_to_hosts,
];

fn a_network_has_both_families(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run(
            "network create --ipv6 --subnet 10.223.0.0/24 --subnet fd00:223::/64 --gateway fd00:223::99 \
             --ip-range fd00:223::1:0/112 --aux-address router=fd00:223::1:0 both",
        )?
        .ok()?;
    let format = "{{.EnableIPv6}} {{json .IPAM.Config}}";
    let shown = on.docker.args(&["network", "inspect", "--format", format, "both"])?.ok()?.out();
    for part in [
        "true ",
        "\"Subnet\":\"10.223.0.0/24\"",
        "\"Subnet\":\"fd00:223::/64\"",
        "\"IPRange\":\"fd00:223::1:0/112\"",
        "\"Gateway\":\"fd00:223::99\"",
        "\"AuxiliaryAddresses\":{\"router\":\"fd00:223::1:0\"}",
    ] {
        ensure!(shown.contains(part), "{part} is missing in {shown}");
    }
    on.docker.run("run -d --name aa --hostname aa --network both busybox sleep 1000")?.ok()?;
    on.docker.run("run -d --name bb --network both --ip6 fd00:223::b busybox sleep 1000")?.ok()?;
    let settings = "{{with .NetworkSettings.Networks.both}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}}{{end}}";
    let shown = on.docker.inspect("aa", settings)?;
    ensure!(shown == "fd00:223::1:1/64 fd00:223::99", "aa has {shown}");
    on.docker
        .args(&["network", "inspect", "--format", "{{json .Containers}}", "both"])?
        .ok()?
        .shows("\"IPv6Address\":\"fd00:223::b/64\"")?;
    on.docker.run("exec aa ping -6 -c 1 -W 5 fd00:223::b")?.ok()?;
    on.docker.run("exec aa ping -6 -c 1 -W 5 fd00:223::99")?.ok()?;
    on.docker.run("exec aa ping -6 -c 1 -W 5 bb")?.ok()?.shows("fd00:223::b")?;
    on.docker.run("exec aa nslookup bb")?.ok()?.shows("fd00:223::b")?;
    on.docker.run("exec aa nslookup fd00:223::b")?.ok()?.shows("bb.both")?;
    on.docker.run("exec aa cat /etc/hosts")?.ok()?.shows("fd00:223::1:1\taa")?;
    on.docker.run("exec aa ip -6 route")?.ok()?.shows("default via fd00:223::99 dev eth0")?;
    // A running container joins and leaves.
    on.docker.run("run -d --name cc busybox sleep 1000")?.ok()?;
    on.docker.run("network connect --ip6 fd00:223::c both cc")?.ok()?;
    on.docker.run("exec aa ping -6 -c 1 -W 5 cc")?.ok()?;
    on.docker.run("exec cc ip -6 route")?.ok()?.shows("default via fd00:223::99 dev eth1")?;
    on.docker.run("network disconnect both cc")?.ok()?;
    let left = on.docker.run("exec cc ip -6 addr show")?.ok()?.out();
    ensure!(!left.contains("fd00:223"), "{left}");
    on.docker
        .run("run --rm --network both --ip6 fd00:223::b busybox true")?
        .exits(125)?
        .complains("Address already in use")?;
    // Networks are apart in this family too.
    on.docker.run("network create --ipv6 other")?.ok()?;
    on.docker.run("run -d --name dd --network other busybox sleep 1000")?.ok()?;
    let subnet = on.docker.inspect("dd", "{{.NetworkSettings.Networks.other.GlobalIPv6Address}}")?;
    let ip: Ipv6Addr = subnet.parse().with_context(|| format!("address {subnet:?}"))?;
    ensure!(ip.is_unique_local(), "{ip} is not a local address");
    ensure!(on.docker.run(&format!("exec aa ping -6 -c 1 -W 1 {ip}"))?.code != 0, "aa reaches {ip}");
    // A restart of the container gives it an address again.
    on.docker.run("restart -t 0 aa")?.ok()?;
    on.docker.run("exec aa ping -6 -c 1 -W 5 bb")?.ok()?;
    Ok(())
}

fn a_network_can_have_ipv6_alone(on: &Subject) -> anyhow::Result<()> {
    let body = r#"{"Name":"six","EnableIPv4":false,"EnableIPv6":true}"#;
    let answer = on.call("POST", "/networks/create", body)?;
    ensure!(answer.status == 201, "{}", answer.text());
    on.docker.run("run -d --name aa --network six busybox sleep 1000")?.ok()?;
    let four = on.docker.inspect("aa", "{{.NetworkSettings.Networks.six.IPAddress}}")?;
    ensure!(four.is_empty(), "it has {four}");
    on.docker.run("run --rm --network six busybox ping -6 -c 1 -W 5 aa")?.ok()?;
    let flags = "{{.EnableIPv4}} {{.EnableIPv6}} {{len .IPAM.Config}}";
    on.docker.args(&["network", "inspect", "--format", flags, "six"])?.ok()?.prints("false true 1\n")?;
    Ok(())
}

fn ipv6_networks_that_cannot_be_are_refused_in_dockers_words(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --ipv6 --subnet fd00:224::/64 first")?.ok()?;
    for (command, complaint) in [
        (
            "network create --ipv6 --subnet fd00:224::/80 second",
            "Pool overlaps with other one on this address space",
        ),
        ("network create --ipv6 --subnet fd00:225::1/64 second", "it should be fd00:225::/64"),
        (
            "network create --ipv6 --subnet fd00:225::/64 --subnet fd00:226::/64 second",
            "bridge driver doesn't support multiple subnets",
        ),
        (
            "network create --opt com.docker.network.bridge.gateway_mode_ipv6=bent second",
            "unknown gateway mode bent",
        ),
    ] {
        on.docker.run(command)?.exits(1)?.complains_anywhere(complaint)?;
    }
    let body = r#"{"Name":"second","EnableIPv4":false,"EnableIPv6":false}"#;
    let answer = on.call("POST", "/networks/create", body)?;
    ensure!(answer.status == 400, "{} {}", answer.status, answer.text());
    on.docker.run("network ls -q --filter name=second")?.ok()?.prints("")?;
    on.docker.run("create --name box busybox sleep 1")?.ok()?;
    on.docker
        .run("network connect --ip6 fd00:99::1 first box")?
        .exits(1)?
        .complains_anywhere("no configured subnet or ip-range contain the IP address fd00:99::1")?;
    on.docker.run("network connect --ip6 nonsense first box")?.exits(1)?;
    Ok(())
}

fn endpoints_have_options_of_their_own(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --subnet 10.227.0.0/24 one")?.ok()?;
    on.docker.run("network create --subnet 10.228.0.0/24 two")?.ok()?;
    on.docker
        .run(
            "run -d --name box \
             --network name=one,ip=10.227.0.77,alias=web,mac-address=02:42:0a:e3:00:77,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1 \
             --network name=two,gw-priority=5 busybox sleep 1000",
        )?
        .ok()?;
    on.docker.run("exec box ip -o -4 addr show eth0")?.ok()?.shows("10.227.0.77/24")?;
    on.docker.run("exec box cat /sys/class/net/eth0/address")?.ok()?.prints("02:42:0a:e3:00:77\n")?;
    on.docker.run("exec box cat /proc/sys/net/ipv4/conf/eth0/log_martians")?.ok()?.prints("1\n")?;
    on.docker.run("exec box ip route")?.ok()?.shows("default via 10.228.0.1 dev eth1")?;
    on.docker.run("run --rm --network one busybox nslookup web")?.ok()?.shows("10.227.0.77")?;
    on.docker
        .run("run --rm --network name=one,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.eth0.x=1 busybox true")?
        .exits(125)?
        .complains("sysctl must use 'IFNAME' as a placeholder for the interface name")?;
    Ok(())
}

fn replicas_take_turns_in_both_families(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --ipv6 --subnet 10.229.0.0/24 --subnet fd00:229::/64 front")?.ok()?;
    for name in ["one", "two", "three"] {
        on.docker
            .run(&format!("run -d --name {name} --network front --network-alias web busybox sleep 1000"))?
            .ok()?;
    }
    let script = "for i in 1 2 3 4 5 6; do nslookup web | tail -n +3; echo; done";
    let seen = on.docker.sh("run --rm --network front busybox", script)?.ok()?.out();
    for prefix in ["10.229.0.", "fd00:229::"] {
        let first =
            |answer: &str| answer.split_whitespace().find(|word| word.starts_with(prefix)).map(str::to_owned);
        let mut firsts: Vec<String> = seen.split("\n\n").filter_map(first).collect();
        ensure!(firsts.len() >= 3, "{prefix} is not told: {seen}");
        firsts.sort();
        firsts.dedup();
        ensure!(firsts.len() > 1, "one replica of {prefix} is always the first: {seen}");
    }
    Ok(())
}

fn ports_lead_to_ipv6_addresses(on: &Subject) -> anyhow::Result<()> {
    let port = free_port()?;
    on.docker.run("network create --ipv6 --subnet 10.230.0.0/24 --subnet fd00:230::/64 front")?.ok()?;
    on.docker
        .sh(
            &format!("run -d --name web --network front -p {port}:80 busybox"),
            "mkdir /www; echo hello > /www/index.html; exec httpd -f -p [::]:80 -h /www",
        )?
        .ok()?;
    for at in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let at = at.parse()?;
        let answer = wait_until("the web server", on.patience(10), || {
            http::get(at, "/index.html").ok().filter(|answer| answer.status == 200)
        })?;
        ensure!(answer.text() == "hello\n", "{at} says {:?}", answer.text());
    }
    Ok(())
}

/// Only a native engine has interfaces of a host to share; there they are tested in namespaces of their own.
fn shared_interfaces_belong_to_hosts(on: &Subject) -> anyhow::Result<()> {
    for (command, complaint) in [
        (
            "network create -d macvlan -o macvlan_mode=wide shared",
            "requested macvlan mode 'wide' is not valid",
        ),
        ("network create -d ipvlan -o ipvlan_mode=l4 shared", "requested ipvlan mode 'l4' is not valid"),
        (
            "network create -d macvlan -o parent=lo shared",
            "loopback interface is not a valid macvlan parent link",
        ),
    ] {
        on.docker.run(command)?.exits(1)?.complains_anywhere(complaint)?;
    }
    let made = on.docker.run("network create -d macvlan --subnet 10.231.0.0/24 shared")?;
    if on.is_guest() {
        made.exits(1)?.complains_anywhere("macvlan networks share an interface of the host")?;
        return Ok(());
    }
    made.ok()?;
    on.docker.run("run -d --name aa --network shared --ip 10.231.0.7 busybox sleep 1000")?.ok()?;
    on.docker.run("run --rm --network shared busybox ping -c 1 -W 5 aa")?.ok()?;
    on.docker.run("exec aa ip route")?.ok()?.shows("default via 10.231.0.1 dev eth0")?;
    on.docker
        .run("network create -d macvlan -o parent=nosuch0 second")?
        .exits(1)?
        .complains_anywhere("-o parent interface was not found on the host: nosuch0")?;
    on.docker.run("network disconnect shared aa")?.ok()?;
    on.docker.run("exec aa ls /sys/class/net")?.ok()?.prints("lo\n")?;
    on.docker.run("network connect --ip 10.231.0.8 shared aa")?.ok()?;
    on.docker.run("exec aa ip -o -4 addr show")?.ok()?.shows("10.231.0.8/24")?;
    Ok(())
}
