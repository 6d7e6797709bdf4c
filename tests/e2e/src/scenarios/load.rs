//! Many of everything at once.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{Subject, scenarios};

scenarios![many_containers_start_and_are_watched_at_once, long_list_is_quick];

fn create(on: &Subject, command: &str) -> anyhow::Result<String> {
    let body = format!(
        r#"{{"Image":"busybox","Cmd":[{command}],"StopSignal":"SIGKILL","HostConfig":{{"NetworkMode":"none"}}}}"#
    );
    let answer = on.call("POST", "/containers/create", &body)?;
    ensure!(answer.status == 201, "{answer:?}");
    let created: Value = serde_json::from_slice(&answer.body)?;
    Ok(created["Id"].as_str().context("no id")?.to_owned())
}

fn many_containers_start_and_are_watched_at_once(on: &Subject) -> anyhow::Result<()> {
    let count = 200 / on.slowness as usize;
    let ids: Vec<String> =
        (0..count).map(|_| create(on, r#""sleep","1000""#)).collect::<anyhow::Result<_>>()?;
    let started = Instant::now();
    let answers: Vec<anyhow::Result<u16>> = thread::scope(|scope| {
        let starts: Vec<_> = ids
            .iter()
            .map(|id| {
                scope.spawn(move || {
                    let answer = on.call("POST", &format!("/containers/{id}/start"), "")?;
                    ensure!(answer.status == 204, "{answer:?}");
                    Ok(answer.status)
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().expect("no start panics")).collect()
    });
    for answer in answers {
        answer?;
    }
    eprintln!("       {count} starts at once: {:.2} s", started.elapsed().as_secs_f64());
    on.docker.run("ps -q")?.ok()?.has_lines(count)?;

    // A stream of each kind per container, and nobody reads them.
    let _deaf: Vec<_> = ids
        .iter()
        .flat_map(|id| {
            let events = format!("/events?filters=%7B%22container%22%3A%5B%22{id}%22%5D%7D");
            [
                on.deaf_client(&format!("/containers/{id}/stats")),
                on.deaf_client(&events),
                on.deaf_client("/events"),
            ]
        })
        .collect::<anyhow::Result<_>>()?;
    // More events than a socket and the engine's memory of them hold.
    for round in 0..1000 {
        let path = format!("/containers/{}/rename?name=name-{round}-{}", ids[0], "x".repeat(200));
        let answer = on.call("POST", &path, "")?;
        ensure!(answer.status == 204, "{answer:?}");
    }
    if let Some(memory) = on.engine_memory()? {
        eprintln!("       the engine holds {} MB", memory >> 20);
        ensure!(memory < 400 << 20, "the engine holds {memory} bytes");
    }
    on.docker.run("run --rm busybox echo still here")?.ok()?.prints("still here\n")?;
    Ok(())
}

fn long_list_is_quick(on: &Subject) -> anyhow::Result<()> {
    let count = 1000 / on.slowness as usize;
    for _ in 0..count {
        create(on, r#""true""#)?;
    }
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..9 {
        let started = Instant::now();
        let answer = on.call("GET", "/containers/json?all=1", "")?;
        times.push(started.elapsed());
        let list: Value = serde_json::from_slice(&answer.body)?;
        ensure!(list.as_array().map(Vec::len) == Some(count), "the list has another length");
    }
    times.sort();
    eprintln!("       a list of {count}: {:.1} ms", times[4].as_secs_f64() * 1e3);
    // Twenty of an optimised engine; tests run one that is not.
    ensure!(times[4] < on.patience(1), "a list of {count} takes {:?}", times[4]);
    Ok(())
}
