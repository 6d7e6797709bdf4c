//! The engine is killed again and again while clients create, start, exec, write logs and remove.
//!
//! What was answered must hold, whatever was killed meanwhile: containers live on under their pid, output and exit
//! codes are complete, what is removed is gone and its name free. `SKIFF_SOAK=900` makes it fifteen minutes.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use skiff_e2e::Chance;
use skiff_testkit::http::{self, Response};
use skiff_testkit::leftovers::{all_pids, parent};
use skiff_testkit::{Image, NativeEngine, wait_until};

/// The short form, for the usual test run.
const SHORT: Duration = Duration::from_secs(20);
/// How long an engine may take to answer after a kill.
const PATIENCE: Duration = Duration::from_secs(30);

/// An engine that lived so long did not die at once.
const CALM: Duration = Duration::from_millis(5100);

/// What the clients share.
struct Load {
    socket: PathBuf,
    /// Raised before and after each kill: odd while one is going on.
    kills: AtomicU64,
    stop: AtomicBool,
    calls: AtomicU64,
    unanswered: AtomicU64,
    rounds: AtomicU64,
    lines: AtomicU64,
    execs: AtomicU64,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// One call; `None` when the engine died over it.
    fn call(&self, method: &str, path: &str, body: &Value) -> Option<Response> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.calls.fetch_add(1, Ordering::Relaxed);
        let answer = http::unix_request(method, &self.socket, path, &body).ok();
        if answer.is_none() {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(10));
        }
        answer
    }

    /// A call that may be made twice, until it is answered.
    fn settle(&self, method: &str, path: &str) -> anyhow::Result<Response> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(answer) = self.call(method, path, &Value::Null) {
                return Ok(answer);
            }
        }
        bail!("{method} {path} was not answered within {PATIENCE:?}")
    }

    fn inspect(&self, name: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.settle("GET", &format!("/containers/{name}/json"))?;
        match answer.status {
            200 => Ok(Some(serde_json::from_slice(&answer.body)?)),
            404 => Ok(None),
            status => bail!("inspect {name}: {status} {}", answer.text()),
        }
    }

    /// Makes a container under a name that is free; returns once its creation is known to have happened.
    fn create(&self, name: &str, body: &Value) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            ensure!(Instant::now() < until, "{name} can't be created");
            match self.call("POST", &format!("/containers/create?name={name}"), body) {
                Some(answer) if answer.status == 201 => {
                    ensure!(self.inspect(name)?.is_some(), "{name} was created and is not there");
                    return Ok(());
                }
                Some(answer) => bail!("create {name}: {} {}", answer.status, answer.text()),
                // It may have been made or not: both are fine, half of it is not.
                None if self.inspect(name)?.is_some() => return Ok(()),
                None => {}
            }
        }
    }

    /// Starts a container once.
    fn start(&self, name: &str) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(answer) = self.call("POST", &format!("/containers/{name}/start"), &Value::Null) {
                // 404 is a container that has started before, ended, and removed itself.
                let fine = [204, 304, 404].contains(&answer.status);
                ensure!(fine, "start {name}: {} {}", answer.status, answer.text());
                return Ok(());
            }
            // A start that was not answered may have happened, and the run may be over: that is not to be repeated.
            match self.inspect(name)? {
                Some(container) if container["State"]["Status"] == "created" => {}
                _ => return Ok(()),
            }
        }
        bail!("{name} can't be started")
    }

    fn remove(&self, name: &str) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.settle("DELETE", &format!("/containers/{name}?force=1&v=1"))?;
            match answer.status {
                204 | 404 => break,
                409 if Instant::now() < until => thread::sleep(Duration::from_millis(20)),
                status => bail!("remove {name}: {status} {}", answer.text()),
            }
        }
        ensure!(self.inspect(name)?.is_none(), "{name} was removed and is there");
        self.rounds.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn shell(script: &str) -> Value {
    json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}})
}

/// The payload of the multiplexed format.
fn payload(bytes: &[u8]) -> String {
    let (mut rest, mut text) = (bytes, Vec::new());
    while let Some((head, tail)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let length = length.min(tail.len());
        text.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Counts in a container, and finds each number and the exit code.
fn count(load: &Load, name: &str) -> anyhow::Result<()> {
    for round in 0_u64.. {
        if !load.goes_on() {
            break;
        }
        let (last, code) = (2000 + round % 7 * 1000, round % 200);
        let script = format!("i=0; while [ $i -lt {last} ]; do i=$((i+1)); echo $i; done; exit {code}");
        load.create(name, &shell(&script))?;
        load.start(name)?;
        let state = wait_until(&format!("the end of {name}"), PATIENCE, || {
            let state = load.inspect(name).ok()??["State"].clone();
            (state["Status"] == "exited").then_some(state)
        })?;
        ensure!(state["ExitCode"] == code, "{name}: exit code {} instead of {code}", state["ExitCode"]);
        // A log is sent until its end or not at all: the transfer says which.
        let log = load.settle("GET", &format!("/containers/{name}/logs?stdout=1"))?;
        let text = payload(&log.body);
        let mut expected = 1;
        for line in text.lines() {
            ensure!(line == expected.to_string(), "{name}: {line:?} instead of {expected}");
            expected += 1;
        }
        ensure!(expected == last + 1, "{name}: the log ends before {expected} of {last}");
        load.lines.fetch_add(last, Ordering::Relaxed);
        load.remove(name)?;
    }
    Ok(())
}

/// Execs in a container that outlives every engine.
fn exec(load: &Load, name: &str) -> anyhow::Result<()> {
    load.create(name, &shell("while :; do sleep 1000; done"))?;
    load.start(name)?;
    let pid = |load: &Load| -> anyhow::Result<Value> {
        let state = load.inspect(name)?.context("the container of the execs is gone")?["State"].clone();
        ensure!(state["Status"] == "running", "{name} is {state}");
        Ok(state["Pid"].clone())
    };
    let first = pid(load)?;
    for round in 0_u64.. {
        if !load.goes_on() {
            break;
        }
        let (before, code) = (load.kills.load(Ordering::SeqCst), round % 100);
        let command =
            json!({"AttachStdout": true, "Cmd": ["sh", "-c", format!("echo round {round}; exit {code}")]});
        let Some(created) = load.call("POST", &format!("/containers/{name}/exec"), &command) else {
            continue;
        };
        ensure!(created.status == 201, "exec: {} {}", created.status, created.text());
        let id =
            serde_json::from_slice::<Value>(&created.body)?["Id"].as_str().unwrap_or_default().to_owned();
        let started = load.call("POST", &format!("/exec/{id}/start"), &json!({}));
        let inspected = load.call("GET", &format!("/exec/{id}/json"), &Value::Null);
        let undisturbed = before % 2 == 0 && load.kills.load(Ordering::SeqCst) == before;
        if let (true, Some(started), Some(inspected)) = (undisturbed, started, inspected) {
            let text = payload(&started.body);
            let (status, body) = (started.status, started.text());
            ensure!(
                text == format!("round {round}\n"),
                "exec {round} wrote {text:?}: {status} {body:?}, then {}",
                inspected.text()
            );
            let state: Value = serde_json::from_slice(&inspected.body)?;
            ensure!(state["ExitCode"] == code && state["Running"] == false, "exec {round}: {state}");
            load.execs.fetch_add(1, Ordering::Relaxed);
        }
        if round % 20 == 0 {
            let now = pid(load)?;
            ensure!(now == first, "{name} is another process: {now} instead of {first}");
        }
    }
    // Nothing of the execs is left in the container, and it is the same one as in the beginning.
    ensure!(pid(load)? == first, "{name} is another process");
    wait_until("the end of the last exec", PATIENCE, || {
        let top = load.settle("GET", &format!("/containers/{name}/top")).ok()?;
        let top: Value = serde_json::from_slice(&top.body).ok()?;
        (top["Processes"].as_array()?.len() == 2).then_some(())
    })?;
    load.remove(name)
}

/// Containers that remove themselves.
fn pass(load: &Load, name: &str) -> anyhow::Result<()> {
    while load.goes_on() {
        let mut body = shell("echo x");
        body["HostConfig"]["AutoRemove"] = json!(true);
        load.create(name, &body)?;
        load.start(name)?;
        wait_until(&format!("{name} to be gone"), PATIENCE, || {
            let there = load.inspect(name).ok()?;
            let waits = there.as_ref().is_some_and(|it| it["State"]["Status"] == "created");
            if waits {
                // The engine was killed between the answer of the creation and the start.
                let _ = load.start(name);
            }
            there.is_none().then_some(())
        })?;
        load.rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Containers that are removed while they run, or about to.
fn cut_off(load: &Load, name: &str, chance: &mut Chance) -> anyhow::Result<()> {
    while load.goes_on() {
        let mut body = shell("while :; do echo on and on; sleep 0.01; done");
        body["HostConfig"] = json!({"NetworkMode": "bridge"});
        load.create(name, &body)?;
        load.start(name)?;
        thread::sleep(chance.below(Duration::from_millis(60)));
        load.remove(name)?;
    }
    Ok(())
}

/// Children of the supervisor that have ended and that nobody has reaped.
fn zombies(supervisor: i32) -> Vec<i32> {
    let state = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    all_pids()
        .into_iter()
        .filter(|pid| parent(*pid) == Some(supervisor) && state(*pid) == Some('Z'))
        .collect()
}

#[test]
fn nothing_answered_is_lost_however_often_the_engine_is_killed() {
    let mut engine = NativeEngine::start().unwrap_or_else(|error| panic!("{error:#}"));
    if let Err(error) = soak(&mut engine) {
        panic!("{error:#}\n{}", engine.log_tail());
    }
}

fn soak(engine: &mut NativeEngine) -> anyhow::Result<()> {
    let seconds = std::env::var("SKIFF_SOAK").ok().and_then(|text| text.parse().ok());
    let length = seconds.map_or(SHORT, Duration::from_secs);
    let docker = engine.docker()?;
    docker.feed("load", Image::busybox()?.archive(&["busybox:latest"]))?.ok()?;
    let mut chance = Chance::announced();
    let load = Load {
        socket: engine.socket(),
        kills: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        calls: AtomicU64::new(0),
        unanswered: AtomicU64::new(0),
        rounds: AtomicU64::new(0),
        lines: AtomicU64::new(0),
        execs: AtomicU64::new(0),
    };
    let mut recoveries = Vec::new();
    let outcome: anyhow::Result<()> = thread::scope(|scope| {
        let load = &load;
        let mut cuts = Chance::announced();
        let mut clients = vec![
            scope.spawn(|| count(load, "count-one").context("first counter")),
            scope.spawn(|| count(load, "count-two").context("second counter")),
            scope.spawn(|| exec(load, "execs").context("execs")),
            scope.spawn(|| pass(load, "passing").context("containers that remove themselves")),
        ];
        clients.push(scope.spawn(move || cut_off(load, "cut-off", &mut cuts).context("removals")));
        let until = Instant::now() + length;
        let mut kill = || -> anyhow::Result<()> {
            while Instant::now() < until && !clients.iter().any(|client| client.is_finished()) {
                // The supervisor starts an engine that dies at once slower and slower: now and then one may live longer.
                let calm = if recoveries.len() % 5 == 4 { CALM } else { Duration::from_millis(150) };
                thread::sleep(calm + chance.below(Duration::from_millis(1200)));
                load.kills.fetch_add(1, Ordering::SeqCst);
                let began = Instant::now();
                engine.kill_engine()?;
                recoveries.push(began.elapsed());
                load.kills.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        };
        let killed = kill();
        load.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap_or_else(|_| bail!("a client panicked"))?;
        }
        killed
    });
    let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
    recoveries.sort();
    eprintln!(
        "{length:?}: {} kills, answering again after {:?} (median; longest {:?}); {} calls, {} cut off by a kill; {} \
         containers made and removed, {} log lines and {} execs checked",
        recoveries.len(),
        recoveries.get(recoveries.len() / 2).copied().unwrap_or_default(),
        recoveries.last().copied().unwrap_or_default(),
        get(&load.calls),
        get(&load.unanswered),
        get(&load.rounds),
        get(&load.lines),
        get(&load.execs),
    );
    outcome?;
    ensure!(get(&load.rounds) > 0 && get(&load.execs) > 0 && !recoveries.is_empty(), "nothing happened");
    docker.run("ps -aq")?.ok()?.prints("")?;
    let supervisor = engine.supervisor_pid()?;
    wait_until("all children to be reaped", PATIENCE, || zombies(supervisor).is_empty().then_some(()))?;
    engine.expect_no_leftovers(PATIENCE)
}
