//! Real projects, brought up by docker compose.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use skiff_testkit::{Finished, Program, free_port, http, wait_until};
use tempfile::TempDir;

use crate::{Subject, scenarios};

scenarios![
    a_project_of_two_networks_comes_up_and_goes,
    three_networks_stay_apart_while_services_grow_shrink_and_restart,
];

/// Two networks: the outer service reaches the inner one only through the one between them.
const PROJECT: &str = r#"
services:
  db:
    image: busybox
    init: true
    stop_grace_period: 1s
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
    init: true
    stop_grace_period: 1s
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
    init: true
    stop_grace_period: 1s
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

/// Each tier knows the next one only. The inner ones have several replicas and start when what they stand on is healthy.
const TIERS: &str = r#"
services:
  proxy:
    image: busybox
    init: true
    stop_grace_period: 1s
    command: sleep 1000
    networks: [front]
  web:
    image: busybox
    init: true
    stop_grace_period: 1s
    command: sh -c "mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www"
    depends_on:
      api: {condition: service_started}
    networks:
      front: {aliases: [www, shop.example]}
      mid:
  api:
    image: busybox
    init: true
    stop_grace_period: 1s
    command: sh -c "cat /data/ready && mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www"
    depends_on:
      db: {condition: service_healthy}
    deploy: {replicas: 3}
    networks:
      mid: {aliases: [backend]}
      back:
    volumes: ["data:/data:ro"]
  db:
    image: busybox
    init: true
    stop_grace_period: 1s
    command: sh -c "sleep 1; echo ready > /data/ready; exec sleep 1000"
    networks: [back]
    volumes: ["data:/data"]
    healthcheck:
      test: ["CMD", "test", "-f", "/data/ready"]
      interval: 500ms
      retries: 60
networks:
  front:
  mid:
  back:
volumes:
  data:
"#;

/// The compose program on a project of this text.
struct Project<'a> {
    on: &'a Subject,
    program: PathBuf,
    directory: TempDir,
}

impl<'a> Project<'a> {
    /// Nothing where docker compose was not fetched.
    fn new(on: &'a Subject, text: &str) -> anyhow::Result<Option<Self>> {
        let Some(program) = on.tool("docker-compose") else {
            eprintln!(
                "       skipped: docker compose is not in target/tools (scripts/fetch-clients puts it there)"
            );
            return Ok(None);
        };
        let directory = tempfile::tempdir().context("make the project's directory")?;
        std::fs::write(directory.path().join("compose.yaml"), text)?;
        Ok(Some(Self { on, program, directory }))
    }

    fn compose(&self, words: &str) -> anyhow::Result<Finished> {
        let file = self.directory.path().join("compose.yaml");
        Program::new(&self.program)
            .env("DOCKER_HOST", self.on.docker.host())
            .args(["--project-name", "shop", "--file"])
            .args([file.as_os_str()])
            .args(words.split_whitespace())
            .timeout(self.on.patience(60))
            .run()
    }

    fn exec(&self, container: &str, words: &str) -> anyhow::Result<Finished> {
        self.on.docker.run(&format!("exec shop-{container} {words}"))
    }

    /// The addresses of a name, as a container sees it.
    fn lookup(&self, from: &str, name: &str) -> anyhow::Result<usize> {
        let text = self.exec(from, &format!("nslookup {name} 127.0.0.11"))?.out();
        // The first address is the server's own.
        Ok(text.lines().filter(|line| line.starts_with("Address: ")).count())
    }

    /// The hosts that answer at the addresses which a name has first: each of them in turn. (C libraries sort them again.)
    fn answering(&self, from: &str, name: &str) -> anyhow::Result<BTreeSet<String>> {
        let script = format!(
            "for i in $(seq 24); do nslookup {name} 127.0.0.11 | grep '^Address: ' | head -n 1; done | sort -u | \
             while read -r _ ip; do wget -q -O - http://$ip/ || exit 1; done"
        );
        let answers = self.on.docker.args(&["exec", &format!("shop-{from}"), "sh", "-c", &script])?.ok()?;
        Ok(answers.out().lines().map(str::to_owned).collect())
    }
}

fn three_networks_stay_apart_while_services_grow_shrink_and_restart(on: &Subject) -> anyhow::Result<()> {
    let Some(project) = Project::new(on, TIERS)? else { return Ok(()) };
    project.compose("up --detach")?.ok()?;
    // The inner ones would have ended, had the database not been healthy before.
    let started =
        |name: &str| on.docker.inspect(&format!("shop-{name}"), "{{.State.Running}} {{.State.StartedAt}}");
    let (db, api) = (started("db-1")?, started("api-1")?);
    ensure!(db.starts_with("true") && api.starts_with("true") && db < api, "db {db}, api {api}");

    let settled = |name: &str, count: usize| {
        wait_until(&format!("{count} that answer as {name}"), on.patience(20), || {
            (project.answering("web-1", name).ok()?.len() == count).then_some(())
        })
    };
    for name in ["api", "backend", "api.shop_mid"] {
        ensure!(project.lookup("web-1", name)? == 3, "{name} is not all three replicas");
    }
    settled("api", 3)?;
    for name in ["web", "www", "shop.example", "shop-web-1"] {
        let page = project.exec("proxy-1", &format!("wget -q -O - http://{name}/"))?;
        page.ok().with_context(|| format!("{name} does not lead to the web service"))?;
    }
    // Who is on no common network knows neither names nor addresses of the other.
    for (from, to) in
        [("proxy-1", "api"), ("proxy-1", "backend"), ("proxy-1", "db"), ("web-1", "db"), ("db-1", "web")]
    {
        ensure!(project.lookup(from, to)? == 0, "{from} knows {to}");
    }
    let address = |name: &str, network: &str| {
        on.docker.inspect(
            &format!("shop-{name}"),
            &format!("{{{{.NetworkSettings.Networks.shop_{network}.IPAddress}}}}"),
        )
    };
    let (api, db) = (address("api-1", "mid")?, address("db-1", "back")?);
    for (from, to) in [("proxy-1", &api), ("proxy-1", &db), ("web-1", &db)] {
        ensure!(project.exec(from, &format!("ping -c 1 -W 1 {to}"))?.code != 0, "{from} reaches {to}");
        ensure!(project.exec(from, &format!("nc -w 1 {to} 80"))?.code != 0, "{from} connects to {to}");
    }
    project.exec("api-1", &format!("ping -c 1 -W 5 {db}"))?.ok()?;

    project.compose("up --detach --scale api=5 --no-recreate")?.ok()?;
    ensure!(project.lookup("web-1", "api")? == 5, "a new replica has not the name");
    settled("backend", 5)?;
    project.compose("up --detach --scale api=1")?.ok()?;
    ensure!(project.lookup("web-1", "api")? == 1, "a replica that has gone has the name");
    project.compose("restart --timeout 1 api web")?.ok()?;
    settled("api", 1)?;
    wait_until("the web service to come back", on.patience(20), || {
        (project.exec("proxy-1", "wget -q -O - http://www/").ok()?.code == 0).then_some(())
    })?;
    // A killed replica's name goes with it, and comes back.
    project.compose("kill api")?.ok()?;
    ensure!(project.lookup("web-1", "api")? == 0, "a killed container has a name");
    project.compose("start api")?.ok()?;
    settled("api", 1)?;
    project.compose("down --volumes --timeout 1")?.ok()?;
    on.docker.run("ps -aq")?.ok()?.prints("")?;
    on.docker.run("network ls -q --filter type=custom")?.ok()?.prints("")?;
    on.docker.run("volume ls -q --filter label=com.docker.compose.project=shop")?.ok()?.prints("")?;
    Ok(())
}

fn a_project_of_two_networks_comes_up_and_goes(on: &Subject) -> anyhow::Result<()> {
    let port = free_port()?;
    let Some(project) = Project::new(on, &PROJECT.replace("PORT", &port.to_string()))? else { return Ok(()) };
    let compose = |words: &str| project.compose(words);
    compose("up --detach")?.ok()?;
    let names = on.docker.run("ps --format {{.Names}}")?.ok()?.out();
    for name in ["shop-db-1", "shop-api-1", "shop-web-1", "shop-web-2"] {
        ensure!(names.lines().any(|line| line == name), "{name} does not run:\n{names}");
    }
    let exec = |container: &str, words: &str| on.docker.run(&format!("exec {container} {words}"));
    // What is started is not there yet.
    let served = |by: &str| {
        wait_until("the page", on.patience(20), || {
            exec(by, "wget -q -O - http://api/").ok().filter(|page| page.out() == "served by api\n")
        })
    };
    served("shop-web-1")?;
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
    served("shop-web-2")?;
    compose("down --timeout 1")?.ok()?;
    on.docker.run("ps -aq")?.ok()?.prints("")?;
    on.docker.run("network ls -q --filter type=custom")?.ok()?.prints("")?;
    Ok(())
}
