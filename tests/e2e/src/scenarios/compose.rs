//! Real projects, brought up by docker compose.

use anyhow::{Context, ensure};
use skiff_testkit::{Program, free_port, http};

use crate::{Subject, scenarios};

scenarios![a_project_of_two_networks_comes_up_and_goes];

/// Two networks: the outer service reaches the inner one only through the one between them.
const PROJECT: &str = r#"
services:
  db:
    image: busybox
    command: sh -c "sleep 1; touch /ready; exec sleep 1000"
    networks:
      back:
        aliases: [database, primary]
    healthcheck:
      test: ["CMD", "test", "-f", "/ready"]
      interval: 1s
      retries: 30
  api:
    image: busybox
    command: sh -c "ping -c 1 -W 5 primary && mkdir -p /www && echo served by api > /www/index.html && exec httpd -f -p 80 -h /www"
    depends_on:
      db:
        condition: service_healthy
    networks:
      front:
      back:
        ipv4_address: 10.233.0.40
    ports: ["127.0.0.1:PORT:80"]
  web:
    image: busybox
    command: sleep 1000
    depends_on: [api]
    deploy:
      replicas: 2
    networks: [front]
networks:
  front:
  back:
    internal: true
    ipam:
      config:
        - subnet: 10.233.0.0/24
"#;

fn a_project_of_two_networks_comes_up_and_goes(on: &Subject) -> anyhow::Result<()> {
    let Some(program) = on.tool("docker-compose") else {
        eprintln!(
            "       skipped: docker compose is not in target/tools (scripts/fetch-clients puts it there)"
        );
        return Ok(());
    };
    let dir = tempfile::tempdir().context("make the project's directory")?;
    let file = dir.path().join("compose.yaml");
    let port = free_port()?;
    std::fs::write(&file, PROJECT.replace("PORT", &port.to_string()))?;
    let compose = |words: &str| {
        Program::new(&program)
            .env("DOCKER_HOST", on.docker.host())
            .args(["--project-name", "shop", "--file"])
            .args([file.as_os_str()])
            .args(words.split_whitespace())
            .timeout(on.patience(60))
            .run()
    };
    compose("up --detach")?.ok()?;
    let names = on.docker.run("ps --format {{.Names}}")?.ok()?.out();
    for name in ["shop-db-1", "shop-api-1", "shop-web-1", "shop-web-2"] {
        ensure!(names.lines().any(|line| line == name), "{name} does not run:\n{names}");
    }
    let exec = |container: &str, words: &str| on.docker.run(&format!("exec {container} {words}"));
    exec("shop-web-1", "wget -q -O - http://api/")?.ok()?.prints("served by api\n")?;
    ensure!(http::get(([127, 0, 0, 1], port).into(), "/")?.text() == "served by api\n", "another page");
    exec("shop-api-1", "ping -c 1 -W 5 web")?.ok()?;
    exec("shop-db-1", "ping -c 1 -W 5 10.233.0.40")?.ok()?;
    // The outer services know nothing of the inner network, and the inner ones nothing of the world.
    ensure!(exec("shop-web-1", "nslookup database")?.code != 0, "web knows the database");
    ensure!(exec("shop-web-1", "ping -c 1 -W 1 10.233.0.40")?.code != 0, "web reaches the inner network");
    exec("shop-db-1", "ip route")?.ok()?.prints("10.233.0.0/24 dev eth0 scope link  src 10.233.0.2 \n")?;
    // Nothing changes: nothing is made anew.
    let before = on.docker.run("ps -q --no-trunc")?.ok()?.out();
    compose("up --detach")?.ok()?;
    ensure!(on.docker.run("ps -q --no-trunc")?.ok()?.out() == before, "containers were made anew");
    compose("up --detach --force-recreate")?.ok()?;
    exec("shop-web-2", "wget -q -O - http://api/")?.ok()?.prints("served by api\n")?;
    compose("down --timeout 1")?.ok()?;
    on.docker.run("ps -aq")?.ok()?.prints("")?;
    on.docker.run("network ls -q --filter type=custom")?.ok()?.prints("")?;
    Ok(())
}
