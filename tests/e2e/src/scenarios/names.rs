//! Names: containers on user-defined networks find each other, and the world.

use std::collections::HashSet;

use anyhow::ensure;

use crate::{Subject, scenarios};

scenarios![
    containers_find_each_other_by_every_name,
    replicas_share_an_alias_in_turn,
    names_belong_to_their_network,
    addresses_have_names,
    names_follow_a_rename_and_a_restart,
    questions_over_tcp_are_answered,
    a_name_server_in_a_container_has_its_port,
    resolver_settings_are_kept,
    extra_hosts_are_in_etc_hosts,
];

fn network(on: &Subject, name: &str, subnet: &str) -> anyhow::Result<()> {
    on.docker.run(&format!("network create --subnet {subnet} {name}"))?.ok().map(drop)
}

/// The addresses that a name has for a container.
fn lookup(on: &Subject, from: &str, name: &str) -> anyhow::Result<HashSet<String>> {
    let text = on.docker.run(&format!("exec {from} nslookup {name} 127.0.0.11"))?.out();
    // The first address is the server's own.
    Ok(text.lines().filter_map(|line| line.strip_prefix("Address: ")).map(str::to_owned).collect())
}

fn containers_find_each_other_by_every_name(on: &Subject) -> anyhow::Result<()> {
    network(on, "front", "10.224.0.0/24")?;
    on.docker
        .run("run -d --name web --network front --network-alias www --hostname machine busybox sleep 1000")?
        .ok()?;
    on.docker.run("run -d --name asker --network front busybox sleep 1000")?.ok()?;
    let id = on.docker.inspect("web", "{{.Id}}")?;
    for name in ["web", "www", "machine", "WEB", "web.front", "www.front", &id[..12]] {
        let found = lookup(on, "asker", name)?;
        ensure!(found == HashSet::from(["10.224.0.2".to_owned()]), "{name} is {found:?}");
    }
    on.docker.run("exec asker ping -c 1 -W 5 www")?.ok()?.shows("10.224.0.2")?;
    let names = on.docker.inspect("web", "{{.NetworkSettings.Networks.front.DNSNames}}")?;
    ensure!(names == format!("[web www {} machine]", &id[..12]), "{names}");
    Ok(())
}

fn replicas_share_an_alias_in_turn(on: &Subject) -> anyhow::Result<()> {
    network(on, "front", "10.225.0.0/24")?;
    for number in 1..=3 {
        on.docker
            .run(&format!(
                "run -d --name web{number} --network front --network-alias web busybox sleep 1000"
            ))?
            .ok()?;
    }
    on.docker.run("run -d --name asker --network front busybox sleep 1000")?.ok()?;
    let all = lookup(on, "asker", "web")?;
    ensure!(all.len() == 3, "{all:?}");
    let mut first = HashSet::new();
    for _ in 0..6 {
        let text = on.docker.run("exec asker ping -c 1 -W 5 web")?.ok()?.out();
        first.insert(text.lines().next().unwrap_or_default().to_owned());
    }
    ensure!(first.len() > 1, "always the same one: {first:?}");
    Ok(())
}

fn names_belong_to_their_network(on: &Subject) -> anyhow::Result<()> {
    network(on, "one", "10.226.1.0/24")?;
    network(on, "two", "10.226.2.0/24")?;
    on.docker.run("run -d --name aa --network one busybox sleep 1000")?.ok()?;
    on.docker.run("run -d --name bb --network two busybox sleep 1000")?.ok()?;
    on.docker.run("run -d --name both --network one --network two busybox sleep 1000")?.ok()?;
    ensure!(lookup(on, "aa", "bb")?.is_empty(), "aa knows bb");
    ensure!(lookup(on, "aa", "both")? == HashSet::from(["10.226.1.3".to_owned()]), "aa sees the wrong side");
    ensure!(lookup(on, "bb", "both")? == HashSet::from(["10.226.2.3".to_owned()]), "bb sees the wrong side");
    ensure!(lookup(on, "both", "aa")?.len() == 1 && lookup(on, "both", "bb")?.len() == 1, "both knows both");
    // On the default network there are no names.
    on.sleeper("plain")?;
    on.docker.run("run --rm busybox ping -c 1 -W 1 plain")?.exits(1)?;
    Ok(())
}

fn addresses_have_names(on: &Subject) -> anyhow::Result<()> {
    network(on, "front", "10.227.0.0/24")?;
    on.docker.run("run -d --name web --network front busybox sleep 1000")?.ok()?;
    on.docker
        .run("run --rm --network front busybox nslookup 10.227.0.2 127.0.0.11")?
        .ok()?
        .shows("name = web.front")?;
    Ok(())
}

fn names_follow_a_rename_and_a_restart(on: &Subject) -> anyhow::Result<()> {
    network(on, "front", "10.228.0.0/24")?;
    on.docker.run("run -d --name asker --network front busybox sleep 1000")?.ok()?;
    on.docker.run("run -d --name old --network front busybox sleep 1000")?.ok()?;
    on.docker.run("rename old new")?.ok()?;
    ensure!(lookup(on, "asker", "new")?.len() == 1, "the new name is not known");
    ensure!(lookup(on, "asker", "old")?.is_empty(), "the old name is known");
    on.docker.run("stop -t 0 new")?.ok()?;
    ensure!(lookup(on, "asker", "new")?.is_empty(), "a stopped container has an address");
    on.docker.run("start new")?.ok()?;
    ensure!(lookup(on, "asker", "new")?.len() == 1, "a started container has no address");
    Ok(())
}

fn questions_over_tcp_are_answered(on: &Subject) -> anyhow::Result<()> {
    network(on, "front", "10.229.0.0/24")?;
    on.docker.run("run -d --name web --network front busybox sleep 1000")?.ok()?;
    // Two bytes of length, then the question for the address of "web".
    let question = r"\000\025\022\064\001\000\000\001\000\000\000\000\000\000\003web\000\000\001\000\001";
    let script = format!("(printf '{question}'; sleep 1) | nc 127.0.0.11 53 | tail -c 4 | od -An -tu1");
    on.docker.sh("run --rm --network front busybox", &script)?.ok()?.shows("10 229   0   2")?;
    Ok(())
}

fn a_name_server_in_a_container_has_its_port(on: &Subject) -> anyhow::Result<()> {
    network(on, "front", "10.230.0.0/24")?;
    on.docker.run("run -d --name server --network front busybox nc -l -p 53 -e echo mine")?.ok()?;
    let script = "for i in 1 2 3 4 5 6 7 8 9; do nc server 53 && exit; sleep 0.2; done";
    on.docker.sh("run --rm --network front busybox", script)?.ok()?.prints("mine\n")?;
    Ok(())
}

fn resolver_settings_are_kept(on: &Subject) -> anyhow::Result<()> {
    network(on, "front", "10.231.0.0/24")?;
    let options = "--dns 192.0.2.53 --dns-search example.org --dns-option timeout:1";
    on.docker
        .run(&format!("run --rm {options} busybox cat /etc/resolv.conf"))?
        .ok()?
        .shows("\nnameserver 192.0.2.53\nsearch example.org\noptions timeout:1\n\n")?;
    on.docker
        .run(&format!("run --rm --network front {options} busybox cat /etc/resolv.conf"))?
        .ok()?
        .shows("\nnameserver 127.0.0.11\nsearch example.org\noptions timeout:1 ndots:0\n\n")?
        .shows("# ExtServers: [192.0.2.53]\n")?;
    Ok(())
}

fn extra_hosts_are_in_etc_hosts(on: &Subject) -> anyhow::Result<()> {
    network(on, "front", "10.232.0.0/24")?;
    on.docker
        .run("run --rm --network front --add-host db:10.9.9.9 --add-host up:host-gateway busybox cat /etc/hosts")?
        .ok()?
        .shows("10.9.9.9\tdb\n")?
        .shows("\tup\n")?;
    Ok(())
}
