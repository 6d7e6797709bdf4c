//! Database servers in containers, used from this host through published ports and from containers by their names.

use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_testkit::{Finished, Program, wait_until};

use super::debian::{DEBIAN, INSTALLED};
use super::{debian, patience, skipped};
use crate::{Chance, Subject, scenarios};

scenarios![
    postgresql_is_used_from_the_host_and_by_name,
    a_project_with_postgresql_under_load_sleeps_and_wakes_and_loses_no_row,
    redis_is_used_from_the_host_and_by_name,
];

/// Starts the cluster that Debian's package made, for everybody.
const POSTGRES: &str = "cd /var/lib/postgresql/*/main; version=$(cat PG_VERSION); \
     echo host all all all trust >>/etc/postgresql/$version/main/pg_hba.conf; \
     exec setpriv --reuid=postgres --regid=postgres --init-groups /usr/lib/postgresql/$version/bin/postgres -D $PWD \
     -c config_file=/etc/postgresql/$version/main/postgresql.conf -c listen_addresses=* -c unix_socket_directories=/tmp -c jit=off";

/// The port of this host that leads to a port of a container.
fn published(on: &Subject, container: &str, port: u16) -> anyhow::Result<String> {
    let shown = on.docker.run(&format!("port {container} {port}"))?.ok()?.out();
    Ok(shown.trim().rsplit(':').next().context("no port")?.to_owned())
}

/// Runs a program of the image in a container of the network.
fn inside(on: &Subject, image: &str, script: &str) -> anyhow::Result<Finished> {
    let run = on.docker.command("run --rm --network data").args([image, "bash", "-c", script]);
    run.timeout(patience(on)).run()
}

fn postgresql_is_used_from_the_host_and_by_name(on: &Subject) -> anyhow::Result<()> {
    if let Err(reason) = debian::load(on)? {
        skipped(&reason);
        return Ok(());
    }
    on.docker.run("network create data")?.ok()?;
    let serve =
        on.docker.command("run -d --name db --network data -p 127.0.0.1::5432 -v data:/var/lib/postgresql");
    serve.args([DEBIAN, "bash", "-c", POSTGRES]).run()?.ok()?;
    let port = published(on, "db", 5432)?;
    let psql = |statement: &str| {
        let address = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-At",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
        ];
        Program::new("psql").args(address).timeout(patience(on)).run()
    };
    wait_until("PostgreSQL", on.patience(60), || psql("select 1").ok().filter(|answer| answer.code == 0))
        .with_context(|| {
            on.docker.run("logs db").map_or_else(|error| error.to_string(), |logs| logs.to_string())
        })?;
    // Many rows in both directions, and what only a session's own connection can do.
    psql("create table t as select n, md5(n::text) as sum from generate_series(1, 20000) n")?.ok()?;
    let all = psql("copy (select * from t order by n) to stdout")?.ok()?.out();
    ensure!(
        all.lines().count() == 20_000 && all.ends_with("20000\td9798cdf31c02d86b8b81cc119d94836\n"),
        "rows are lost"
    );
    psql("begin; insert into t values (0, 'rolled back'); rollback; select count(*) from t")?
        .ok()?
        .shows("20000")?;
    // From another container, by name, by many clients at once.
    let script = "set -e; export PGHOST=db PGUSER=postgres; bin=$(ls -d /usr/lib/postgresql/*/bin); \
                  $bin/psql -Atc 'select count(*) from t'; $bin/pgbench -q -i 2>&1; \
                  $bin/pgbench -c 4 -t 20 2>&1; $bin/psql -Atc 'select count(*) from pgbench_history'";
    let bench = inside(on, DEBIAN, script)?.ok()?;
    ensure!(bench.out().starts_with("20000\n") && bench.out().ends_with("\n80\n"), "{bench}");
    // The server's end is seen by its client at once.
    let mut waiting = Program::new("psql")
        .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", "select pg_sleep(600)"])
        .start()?;
    wait_until("the long query", patience(on), || {
        let asked = psql("select count(*) from pg_stat_activity where query like 'select pg_sleep%'").ok()?;
        (asked.out() == "1\n").then_some(())
    })?;
    ensure!(waiting.is_running(), "the query has ended");
    on.docker.run("kill db")?.ok()?;
    waiting.finish(on.patience(10))?.exits(2)?.complains("connection to server was lost")?;
    Ok(())
}

/// Writes over one connection for ever, each statement a transaction of its own, and tells its number once it is committed.
const WRITER: &str = r#"psql=$(ls -d /usr/lib/postgresql/*/bin)/psql
$psql -qc 'create table log (n int primary key, text text, sum text)'
n=0
while n=$((n + 1)); do
    echo "insert into log select $n, t, md5(t) from (select repeat(md5('$n'), $n % 97) as t) as row returning n;"
done | $psql -Atq"#;

/// A database and its writer.
fn project() -> String {
    // Compose would take them for its own variables.
    let shell = |script: &str| ["bash".to_owned(), "-c".to_owned(), script.replace('$', "$$")];
    let ready = "$(ls -d /usr/lib/postgresql/*/bin)/pg_isready -h 127.0.0.1".replace('$', "$$");
    serde_json::json!({
        "name": "bank",
        "services": {
            "db": {
                "image": DEBIAN, "ports": ["127.0.0.1::5432"], "volumes": ["data:/var/lib/postgresql"],
                "command": shell(POSTGRES),
                "healthcheck": {"test": ["CMD-SHELL", ready], "interval": "2s", "timeout": "30s", "retries": 30},
            },
            "writer": {
                "image": DEBIAN, "depends_on": {"db": {"condition": "service_healthy"}},
                "environment": {"PGHOST": "db", "PGUSER": "postgres"}, "command": shell(WRITER),
            },
        },
        "volumes": {"data": {}},
    })
    .to_string()
}

fn a_project_with_postgresql_under_load_sleeps_and_wakes_and_loses_no_row(
    on: &Subject,
) -> anyhow::Result<()> {
    let Some(daemon) = on.daemon_under_test().filter(|_| on.is_guest()) else { return Ok(()) };
    let Some(compose) = on.tool("docker-compose") else {
        skipped("docker compose is not in target/tools (scripts/fetch-clients puts it there)");
        return Ok(());
    };
    if let Err(reason) = debian::load(on)? {
        skipped(&reason);
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("compose.yaml");
    std::fs::write(&file, project())?;
    let compose = |words: &[&str]| {
        let program =
            Program::new(&compose).env("DOCKER_HOST", on.docker.host()).args(["-f"]).args([file.as_os_str()]);
        program.args(words.iter().copied()).timeout(patience(on)).run()?.ok()
    };
    compose(&["up", "--detach"])?;
    let machine =
        |command: &str| daemon.skiff(&format!("machine {command}"))?.timeout(patience(on)).run()?.ok();
    let acknowledged = || -> anyhow::Result<u64> {
        let said = on.docker.command("logs --tail 1 bank-writer-1").timeout(patience(on)).run()?.ok()?.out();
        Ok(said.trim().parse().unwrap_or(0))
    };
    let goes_on = || -> anyhow::Result<u64> {
        let before = acknowledged()?;
        wait_until("the writer to go on", patience(on), || acknowledged().ok().filter(|now| *now > before))
    };
    goes_on()?;
    let port = published(on, "bank-db-1", 5432)?;
    let started = on.docker.inspect("bank-writer-1", "{{.State.StartedAt}}")?;
    let psql = |statement: &str| {
        let address = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-At", "-c", statement];
        Program::new("psql").args(address).timeout(patience(on)).run()?.ok()
    };
    psql("create table visits (n int primary key)")?;
    let mut chance = Chance::announced();
    let rounds = std::env::var("SKIFF_SLEEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for round in 1..=rounds {
        std::thread::sleep(chance.below(Duration::from_millis(1500)));
        machine("suspend")?;
        ensure!(daemon.qemu_pids().is_empty(), "a process of the guest is left");
        // A client of the host's comes, wakes it, and waits.
        psql(&format!("insert into visits values ({round})"))?;
        let known = goes_on()?;
        let rows = psql("select max(n) from log")?.out().trim().parse::<u64>()?;
        ensure!(rows >= known, "{known} rows were acknowledged, {rows} are there");
    }
    ensure!(
        on.docker.inspect("bank-writer-1", "{{.State.StartedAt}}")? == started,
        "the writer was started anew"
    );
    ensure!(on.docker.inspect("bank-db-1", "{{.State.Health.Status}}")? == "healthy");
    on.docker.run("kill bank-writer-1")?.ok()?;
    let known = acknowledged()?;
    let rows = psql("select count(*) = max(n), max(n), bool_and(sum = md5(text) and text = repeat(md5(n::text), n % 97)) from log")?.out();
    let fields: Vec<&str> = rows.trim().split('|').collect();
    ensure!(fields.len() == 3 && fields[0] == "t" && fields[2] == "t", "rows are missing or wrong: {rows}");
    ensure!(fields[1].parse::<u64>()? >= known, "{known} rows were acknowledged: {rows}");
    let visits = psql("select count(*) from visits")?.out();
    ensure!(visits.trim() == rounds.to_string(), "{visits} of {rounds} visits are there");
    compose(&["down", "--volumes", "--timeout", "1"])?;
    Ok(())
}

fn redis_is_used_from_the_host_and_by_name(on: &Subject) -> anyhow::Result<()> {
    if on.docker.args(&["image", "inspect", INSTALLED])?.code != 0 {
        skipped("apt has installed no redis-server");
        return Ok(());
    }
    on.docker.run("network create data")?.ok()?;
    let serve = format!(
        "run -d --name cache --network data --network-alias redis -p 127.0.0.1::6379 {INSTALLED} redis-server --bind 0.0.0.0 \
         --protected-mode no --save"
    );
    on.docker.command(&serve).args([""]).run()?.ok()?;
    let port = published(on, "cache", 6379)?;
    let ask =
        |words: &[&str]| Program::new("redis-cli").args(["-p", &port]).args(words.iter().copied()).run();
    wait_until("Redis", patience(on), || ask(&["ping"]).ok().filter(|answer| answer.out() == "PONG\n"))?;
    // What one side publishes, the other hears, over a connection that waits.
    let listen = format!("run --rm --init --network data {INSTALLED} redis-cli -h redis subscribe news");
    let listener = on.docker.start(&listen)?;
    wait_until("the subscriber", patience(on), || {
        (ask(&["publish", "news", "hello"]).ok()?.out() == "1\n").then_some(())
    })?;
    listener.wait_for("news\nhello\n", patience(on))?;
    let big = "x".repeat(1 << 20);
    Program::new("redis-cli")
        .args(["-p", &port, "-x", "set", "big"])
        .stdin(big.clone())
        .run()?
        .ok()?
        .prints("OK\n")?;
    inside(
        on,
        INSTALLED,
        "redis-cli -h cache get big | head -c 1048576 | tr -d x | wc -c; redis-cli -h redis strlen big",
    )?
    .ok()?
    .prints("0\n1048576\n")?;
    let bench =
        Program::new("redis-benchmark").args(["-p", &port, "-q", "-n", "2000", "-c", "50", "-t", "set,get"]);
    bench.timeout(patience(on)).run()?.ok()?.shows("GET: ")?;
    Ok(())
}
