//! Networks of users: made, joined, left, apart from each other, removed.

use anyhow::ensure;
use skiff_testkit::{free_port, wait_until};

use crate::{Subject, scenarios};

scenarios![
    containers_that_name_each_other_for_a_network_harm_nobody,
    a_network_has_what_it_was_made_with,
    a_configuration_is_for_networks_and_not_for_containers,
    networks_that_cannot_be_are_refused_in_dockers_words,
    a_container_is_on_several_networks_at_once,
    a_running_container_joins_and_leaves,
    a_stopped_container_joins_and_leaves,
    networks_are_apart_and_closed_ones_closed,
    neighbours_can_be_kept_apart,
    static_addresses_and_hardware_addresses_are_kept,
    a_network_in_use_stays_and_an_unused_one_goes,
    lists_and_prunes_take_filters,
    the_way_out_follows_the_gateway_priority,
    shared_and_missing_networks_have_no_others,
    changes_are_told_as_events,
];

fn containers_that_name_each_other_for_a_network_harm_nobody(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("create --name one --network container:two busybox true")?.ok()?;
    on.docker.run("create --name two --network container:one busybox true")?.ok()?;
    on.docker.run("start one")?.exits(1)?.complains("cannot join network of a non running container")?;
    on.docker.run("inspect -f {{.Name}} one two")?.ok()?.prints("/one\n/two\n")?;
    on.docker.run("cp one:/etc/hosts -")?;
    on.docker.run("rm one two")?.ok()?;
    Ok(())
}

fn a_network_has_what_it_was_made_with(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run(
            "network create --driver bridge --subnet 10.213.0.0/16 --ip-range 10.213.7.0/24 --gateway 10.213.0.9 \
             --aux-address router=10.213.7.0 --label tier=front --internal --attachable --opt \
             com.docker.network.driver.mtu=1400 made",
        )?
        .ok()?;
    let format = "{{.Driver}} {{.Scope}} {{.Internal}} {{.Attachable}} {{.Labels}} {{(index .IPAM.Config 0).Subnet}} \
                  {{(index .IPAM.Config 0).IPRange}} {{(index .IPAM.Config 0).Gateway}} \
                  {{index .IPAM.Config 0 | json}} {{.Options}}";
    let shown = on.docker.args(&["network", "inspect", "--format", format, "made"])?.ok()?.out();
    for part in [
        "bridge local true true map[tier:front] 10.213.0.0/16 10.213.7.0/24 10.213.0.9 ",
        "\"AuxiliaryAddresses\":{\"router\":\"10.213.7.0\"}",
        "map[com.docker.network.driver.mtu:1400]",
    ] {
        ensure!(shown.contains(part), "{part} is missing in {shown}");
    }
    on.docker.run("run -d --name in --network made busybox sleep 1000")?.ok()?;
    let ip = on.docker.inspect("in", "{{.NetworkSettings.Networks.made.IPAddress}}")?;
    ensure!(ip == "10.213.7.1", "the first free address of the range is not {ip}");
    on.docker.run("exec in cat /sys/class/net/eth0/mtu")?.ok()?.prints("1400\n")?;
    let members =
        on.docker.args(&["network", "inspect", "--format", "{{json .Containers}}", "made"])?.ok()?.out();
    ensure!(
        members.contains("\"Name\":\"in\"") && members.contains("\"IPv4Address\":\"10.213.7.1/16\""),
        "{members}"
    );
    Ok(())
}

fn a_configuration_is_for_networks_and_not_for_containers(on: &Subject) -> anyhow::Result<()> {
    let addresses = "--subnet 10.240.0.0/24 --ip-range 10.240.0.128/25 --gateway 10.240.0.9";
    let option = "-o com.docker.network.bridge.enable_icc=false";
    on.docker.run(&format!("network create --config-only {addresses} {option} --label a=b form"))?.ok()?;
    let shown = "{{.Driver}} {{.ConfigOnly}} {{.ConfigFrom.Network}} {{json .IPAM.Config}} {{json .Options}} {{.Labels}}";
    let inspect = |name: &str| on.docker.args(&["network", "inspect", "-f", shown, name]);
    let config =
        "[{\"Subnet\":\"10.240.0.0/24\",\"IPRange\":\"10.240.0.128/25\",\"Gateway\":\"10.240.0.9\"}]";
    let rest = format!("{config} {{\"com.docker.network.bridge.enable_icc\":\"false\"}} map[a:b]\n");
    inspect("form")?.ok()?.prints(&format!("null true  {rest}"))?;
    on.docker.run("network create --config-from form real")?.ok()?;
    inspect("real")?.ok()?.prints(&format!("bridge false form {rest}"))?;
    on.docker.run("run --rm --network real busybox ip -4 addr show eth0")?.ok()?.shows("10.240.0.128/24")?;

    let own =
        "user specified configurations are not supported if the network depends on a configuration network";
    on.docker.run("create --name lost --network form busybox true")?.ok()?;
    on.sleeper("other")?;
    for (command, complaint) in [
        ("start lost", "cannot create endpoint on configuration-only network"),
        ("network connect form other", "cannot create endpoint on configuration-only network"),
        ("network create --config-from form --subnet 10.241.0.0/24 second", own),
        ("network create --config-from form --label x=y second", own),
        ("network create --config-from form -o a=b second", "network driver options are not supported"),
        ("network create --config-from nosuch second", "configuration network \"nosuch\" does not exist"),
        ("network create --config-from bridge second", "configuration network \"bridge\" does not exist"),
        ("network create --config-only --internal second", "configuration network can only contain network"),
        ("network create --config-only --config-from form second", "cannot depend on another configuration"),
        (
            "network create --scope swarm second",
            "cannot create a swarm scoped network when swarm is not active",
        ),
        ("network create --ingress second", "Ingress network can only be global scope network"),
        ("network rm form", "error while removing network: configuration network \"form\" is in use"),
    ] {
        on.docker.run(command)?.exits(1)?.complains_anywhere(complaint)?;
    }
    // Those without containers go, configurations stay.
    on.docker.run("network prune -f")?.ok()?.shows("real\n")?;
    on.docker.run("network rm form")?.ok()?.prints("form\n")?;
    Ok(())
}

fn networks_that_cannot_be_are_refused_in_dockers_words(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --subnet 10.214.0.0/24 first")?.ok()?;
    for (command, complaint) in [
        ("network create first", "network with name first already exists"),
        ("network create bridge", "operation is not permitted on predefined bridge network"),
        (
            "network create --subnet 10.214.0.0/16 second",
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        ("network create --subnet 10.215.0.1/24 second", "it should be 10.215.0.0/24"),
        ("network create --driver weave second", "plugin \"weave\" not found"),
        ("network create --driver overlay second", "This node is not a swarm manager."),
        ("network create --driver host second", "only one instance of \"host\" network is allowed"),
        ("network rm bridge", "bridge is a pre-defined network and cannot be removed"),
        ("network rm nosuch", "network nosuch not found"),
        ("network inspect nosuch", "network nosuch not found"),
        ("network connect nosuch nobody", "No such container: nobody"),
        ("network disconnect -f first nobody", "endpoint nobody not found"),
        ("network connect first nobody", "No such container: nobody"),
    ] {
        on.docker.run(command)?.exits(1)?.complains_anywhere(complaint)?;
    }
    on.docker.run("network ls -q --filter name=second")?.ok()?.prints("")?;
    Ok(())
}

fn a_container_is_on_several_networks_at_once(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --subnet 10.216.1.0/24 alpha")?.ok()?;
    on.docker.run("network create --subnet 10.216.2.0/24 beta")?.ok()?;
    on.docker.run("create --name both --network beta --network alpha busybox sleep 1000")?.ok()?;
    on.docker.run("start both")?.ok()?;
    on.docker.run("exec both ip -o -4 addr show eth0")?.ok()?.shows("10.216.2.2/24")?;
    on.docker.run("exec both ip -o -4 addr show eth1")?.ok()?.shows("10.216.1.2/24")?;
    // Equal priorities: the first name is the way out.
    on.docker.run("exec both ip route")?.ok()?.shows("default via 10.216.1.1 dev eth1")?;
    // The docker command tells them in no order.
    let listed = on.docker.run("ps --filter network=alpha --format {{.Names}}:{{.Networks}}")?.ok()?.out();
    ensure!(["both:alpha,beta\n", "both:beta,alpha\n"].contains(&listed.as_str()), "{listed:?}");
    on.docker.run("restart -t 0 both")?.ok()?;
    on.docker.run("exec both ip -o -4 addr show eth1")?.ok()?.shows("10.216.1.")?;
    Ok(())
}

fn a_running_container_joins_and_leaves(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --subnet 10.217.0.0/24 later")?.ok()?;
    let port = free_port()?;
    on.docker
        .run(&format!("run -d --name box --hostname box -p 127.0.0.1:{port}:80 busybox sleep 1000"))?
        .ok()?;
    on.docker.run("network connect --ip 10.217.0.77 --alias other later box")?.ok()?;
    on.docker.run("exec box ip -o -4 addr show eth1")?.ok()?.shows("10.217.0.77/24")?;
    on.docker.run("exec box cat /etc/hosts")?.ok()?.shows("10.217.0.77\tbox")?;
    on.docker.run("exec box cat /etc/resolv.conf")?.ok()?.shows("nameserver 127.0.0.11")?;
    on.docker.run("exec box nslookup other")?.ok()?.shows("10.217.0.77")?;
    on.docker
        .run("network connect later box")?
        .exits(1)?
        .complains_anywhere("endpoint with name box already exists in network later")?;
    on.docker.run("network disconnect bridge box")?.ok()?;
    on.docker.run("exec box ip route")?.ok()?.shows("default via 10.217.0.1 dev eth1")?;
    // Its ports lead to its other network now.
    on.docker.run("port box")?.ok()?.prints(&format!("80/tcp -> 127.0.0.1:{port}\n"))?;
    on.docker.run("network disconnect later box")?.ok()?;
    on.docker.run("port box")?.ok()?.prints("")?;
    on.docker.run("exec box ls /sys/class/net")?.ok()?.prints("lo\n")?;
    on.docker
        .run("network disconnect later box")?
        .exits(1)?
        .complains_anywhere("is not connected to network later")?;
    // The numbers of interfaces that are gone are not given again while it runs.
    on.docker.run("network connect later box")?.ok()?;
    on.docker.run("exec box ls /sys/class/net")?.ok()?.prints("eth2\nlo\n")?;
    on.docker.run("network disconnect later box")?.ok()?;
    let networks = on.docker.inspect("box", "{{len .NetworkSettings.Networks}}")?;
    ensure!(networks == "0", "{networks} networks are left");
    Ok(())
}

fn a_stopped_container_joins_and_leaves(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --subnet 10.218.0.0/24 later")?.ok()?;
    on.docker.run("create --name box busybox sleep 1000")?.ok()?;
    on.docker.run("network connect --ip 10.218.0.9 later box")?.ok()?;
    on.docker.run("network disconnect bridge box")?.ok()?;
    on.docker.run("start box")?.ok()?;
    on.docker.run("exec box ip -o -4 addr show eth0")?.ok()?.shows("10.218.0.9/24")?;
    on.docker.run("exec box ls /sys/class/net")?.ok()?.prints("eth0\nlo\n")?;
    Ok(())
}

fn networks_are_apart_and_closed_ones_closed(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --subnet 10.219.1.0/24 one")?.ok()?;
    on.docker.run("network create --subnet 10.219.2.0/24 two")?.ok()?;
    on.docker.run("network create --subnet 10.219.3.0/24 --internal closed")?.ok()?;
    on.docker.run("run -d --name aa --network one busybox sleep 1000")?.ok()?;
    on.docker.run("run -d --name bb --network two busybox sleep 1000")?.ok()?;
    on.docker.run("run -d --name cc --network closed busybox sleep 1000")?.ok()?;
    on.docker.run("run -d --name dd busybox sleep 1000")?.ok()?;
    let default = on.docker.inspect("dd", "{{.NetworkSettings.Networks.bridge.IPAddress}}")?;
    let unreached = |from: &str, to: &str| -> anyhow::Result<()> {
        let outcome = on.docker.run(&format!("exec {from} ping -c 1 -W 1 {to}"))?;
        ensure!(outcome.code != 0, "{from} reaches {to}");
        Ok(())
    };
    for (from, to) in [
        ("aa", "10.219.2.2"),
        ("bb", "10.219.1.2"),
        ("cc", "10.219.1.2"),
        ("aa", "10.219.3.2"),
        ("dd", "10.219.1.2"),
    ] {
        unreached(from, to)?;
    }
    unreached("aa", &default)?;
    on.docker
        .run("exec cc ip route")?
        .ok()?
        .prints("10.219.3.0/24 dev eth0 scope link  src 10.219.3.2 \n")?;
    on.docker.run("run --rm --network closed busybox ping -c 1 -W 5 cc")?.ok()?;
    Ok(())
}

fn neighbours_can_be_kept_apart(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run("network create --subnet 10.220.0.0/24 --opt com.docker.network.bridge.enable_icc=false apart")?
        .ok()?;
    on.docker.run("run -d --name aa --network apart busybox sleep 1000")?.ok()?;
    on.docker.run("run --rm --network apart busybox ping -c 1 -W 1 10.220.0.2")?.exits(1)?;
    on.docker.run("run --rm --network apart busybox ping -c 1 -W 5 10.220.0.1")?.ok()?;
    Ok(())
}

fn static_addresses_and_hardware_addresses_are_kept(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --subnet 10.221.0.0/24 fixed")?.ok()?;
    on.docker.run("network create chosen")?.ok()?;
    let run = "run -d --name box --network fixed --ip 10.221.0.50 --mac-address 02:42:0a:dd:00:99 busybox sleep 1000";
    for _ in 0..3 {
        on.docker.run(run)?.ok()?;
        on.docker
            .run("exec box ip addr show eth0")?
            .ok()?
            .shows("10.221.0.50/24")?
            .shows("02:42:0a:dd:00:99")?;
        on.docker.run("rm -f box")?.ok()?;
    }
    on.docker.run(run)?.ok()?;
    on.docker
        .run("run --rm --network fixed --ip 10.221.0.50 busybox true")?
        .exits(125)?
        .complains_anywhere("Address already in use")?;
    on.docker
        .run("run --rm --network fixed --ip 10.222.0.50 busybox true")?
        .exits(125)?
        .complains_anywhere("no configured subnet or ip-range contain the IP address 10.222.0.50")?;
    on.docker
        .run("run --rm --network chosen --ip 10.221.0.60 busybox true")?
        .exits(125)?
        .complains_anywhere(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        )?;
    on.docker
        .run("run --rm --ip 10.221.0.60 busybox true")?
        .exits(125)?
        .complains_anywhere("user specified IP address is supported on user defined networks only")?;
    Ok(())
}

fn a_network_in_use_stays_and_an_unused_one_goes(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create mine")?.ok()?;
    on.docker.run("run -d --name box --network mine busybox sleep 1000")?.ok()?;
    on.docker.run("network rm mine")?.exits(1)?.complains_anywhere(
        "error while removing network: network mine has active endpoints (name:\"box\" id:\"",
    )?;
    on.docker.run("kill box")?.ok()?;
    on.docker.run("wait box")?.ok()?;
    on.docker.run("network rm mine")?.ok()?.prints("mine\n")?;
    on.docker.run("start box")?.exits(1)?.complains_anywhere("not found")?;
    // Another network of that name is another network.
    on.docker.run("network create mine")?.ok()?;
    on.docker.run("start box")?.exits(1)?.complains_anywhere("not found")?;
    Ok(())
}

fn lists_and_prunes_take_filters(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --label keep=yes red")?.ok()?;
    on.docker.run("network create blue")?.ok()?;
    on.docker.run("run -d --name box --network blue busybox sleep 1000")?.ok()?;
    let list = |filter: &str, expected: &str| -> anyhow::Result<()> {
        on.docker
            .run(&format!("network ls --format {{{{.Name}}}} {filter}"))?
            .ok()?
            .prints(expected)
            .map(drop)
    };
    list("", "blue\nbridge\nhost\nnone\nred\n")?;
    list("--filter type=custom", "blue\nred\n")?;
    list("--filter type=builtin", "bridge\nhost\nnone\n")?;
    list("--filter driver=null", "none\n")?;
    list("--filter label=keep=yes", "red\n")?;
    list("--filter dangling=true", "red\n")?;
    list("--filter name=lu", "blue\n")?;
    list("--filter scope=swarm", "")?;
    on.docker.run("network prune -f --filter label!=keep")?.ok()?.prints("")?;
    on.docker.run("network prune -f")?.ok()?.shows("Deleted Networks:\nred\n")?;
    list("--filter type=custom", "blue\n")?;
    Ok(())
}

fn the_way_out_follows_the_gateway_priority(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create --subnet 10.223.1.0/24 alpha")?.ok()?;
    on.docker.run("network create --subnet 10.223.2.0/24 beta")?.ok()?;
    on.docker.run("run -d --name box --network alpha busybox sleep 1000")?.ok()?;
    on.docker.run("exec box ip route")?.ok()?.shows("default via 10.223.1.1")?;
    on.docker.run("network connect --gw-priority 1 beta box")?.ok()?;
    on.docker.run("exec box ip route")?.ok()?.shows("default via 10.223.2.1")?;
    on.docker.run("network disconnect beta box")?.ok()?;
    on.docker.run("exec box ip route")?.ok()?.shows("default via 10.223.1.1")?;
    Ok(())
}

fn shared_and_missing_networks_have_no_others(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create mine")?.ok()?;
    on.docker.run("run -d --name none --network none busybox sleep 1000")?.ok()?;
    on.docker.run("run -d --name host --network host --expose 80 busybox sleep 1000")?.ok()?;
    let ports = on.docker.inspect("host", "{{json .NetworkSettings.Ports}}")?;
    ensure!(ports == "{}", "without a network of its own it shows {ports}");
    on.sleeper("box")?;
    on.docker.run("run -d --name shared --network container:box busybox sleep 1000")?.ok()?;
    for (network, container, complaint) in [
        (
            "mine",
            "none",
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            "mine",
            "host",
            "container sharing network namespace with another container or host cannot be connected to any other",
        ),
        (
            "mine",
            "shared",
            "container sharing network namespace with another container or host cannot be connected to any other",
        ),
        (
            "host",
            "box",
            "cannot connect container to host network - container must be created in host network mode",
        ),
    ] {
        on.docker
            .run(&format!("network connect {network} {container}"))?
            .exits(1)?
            .complains_anywhere(complaint)?;
    }
    // Who shares a network finds the same names in it.
    on.docker.run("network connect --alias here mine box")?.ok()?;
    for what in ["ip -o addr", "cat /etc/hosts", "cat /etc/resolv.conf", "nslookup -type=a here", "hostname"]
    {
        let own = on.docker.run(&format!("exec box {what}"))?.ok()?.out();
        on.docker.run(&format!("exec shared {what}"))?.ok()?.prints(&own)?;
    }
    Ok(())
}

fn changes_are_told_as_events(on: &Subject) -> anyhow::Result<()> {
    let since = on.now()?;
    on.docker.run("network create told")?.ok()?;
    on.docker.run("run --rm --network told --name box busybox true")?.ok()?;
    on.docker.run("network rm told")?.ok()?;
    let expected = ["create", "connect", "disconnect", "destroy"];
    wait_until("the events", on.patience(5), || {
        let until = on.now().ok()?;
        let command = format!(
            "events --since {since} --until {until} --filter type=network --format {{{{.Action}}}}:{{{{.Actor.Attributes.name}}}}:{{{{.Actor.Attributes.type}}}}"
        );
        let seen = on.docker.run(&command).ok()?.ok().ok()?.out();
        let seen: Vec<_> =
            seen.lines().filter_map(|line| line.strip_suffix(":told:bridge")).map(str::to_owned).collect();
        (seen == expected).then_some(())
    })
}
