//! Legacy links.

use anyhow::ensure;

use crate::{Subject, scenarios};

scenarios![
    a_link_is_a_name_and_variables,
    a_link_on_a_network_is_a_name_for_one_container_alone,
    links_that_lead_nowhere_are_refused,
];

fn a_link_is_a_name_and_variables(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run("run -d --name db --hostname dbhost --expose 5432 --env LEVEL=high busybox sleep 1000")?
        .ok()?;
    let ip = on.docker.inspect("db", "{{.NetworkSettings.IPAddress}}")?;
    on.docker.run("run -d --name web --link db:the-sql busybox sleep 1000")?.ok()?;
    on.docker.run("exec web cat /etc/hosts")?.ok()?.shows(&format!("{ip}\tthe-sql dbhost db\n"))?;
    on.docker.run("exec web ping -c 1 -W 5 the-sql")?.ok()?;
    let environment = on.docker.run("exec web cat /proc/1/environ")?.ok()?.out().replace('\0', "\n");
    for entry in [
        format!("THE_SQL_PORT=tcp://{ip}:5432"),
        format!("THE_SQL_PORT_5432_TCP_ADDR={ip}"),
        "THE_SQL_PORT_5432_TCP_PROTO=tcp".to_owned(),
        "THE_SQL_NAME=/web/the-sql".to_owned(),
        "THE_SQL_ENV_LEVEL=high".to_owned(),
    ] {
        ensure!(environment.lines().any(|line| line == entry), "{entry} is missing in\n{environment}");
    }
    let links = on.docker.inspect("web", "{{.HostConfig.Links}}")?;
    ensure!(links == "[/db:/web/the-sql]", "{links}");
    on.docker.run("rm --link web/the-sql")?.ok()?;
    let links = on.docker.inspect("web", "{{.HostConfig.Links}}")?;
    ensure!(links == "[]", "{links}");
    Ok(())
}

fn a_link_on_a_network_is_a_name_for_one_container_alone(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("network create linked")?.ok()?;
    on.docker.run("run -d --name db --network linked busybox sleep 1000")?.ok()?;
    on.docker.run("run --rm --network linked --link db:sql busybox ping -c 1 -W 5 sql")?.ok()?;
    on.docker.run("run --rm --network linked busybox ping -c 1 -W 5 sql")?.exits(1)?;
    Ok(())
}

fn links_that_lead_nowhere_are_refused(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .run("run --rm --link nobody:x busybox true")?
        .exits(125)?
        .complains_anywhere("could not get container for nobody: No such container: nobody")?;
    on.docker.run("create --name still busybox true")?.ok()?;
    on.docker
        .run("run --rm --name web --link still:x busybox true")?
        .exits(125)?
        .complains_anywhere("Cannot link to a non running container: /still AS /web/x")?;
    Ok(())
}
