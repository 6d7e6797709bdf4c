//! Many containers at once: how fast they are up and gone, and the memory that each takes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::commands::{read_pid, start};
use super::{Bench, Runtime};
use crate::guest::SOCKET;
use crate::http::Api;
use crate::process::check;
use crate::run::IMAGE;

/// How many there are.
const MANY: usize = 500;
/// How many clients start them.
const CLIENTS: usize = 4;
/// How long one may take to appear on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Starts them by the command and removes them by the command; nothing runs beside them.
pub fn commands(bench: &Bench) -> anyhow::Result<()> {
    bench.write(&["sleep", "1000"])?;
    println!("  {MANY} containers of `sleep`, {CLIENTS} commands at a time, none stays beside them");
    for runtime in &bench.runtimes {
        let command = |arguments: &[&str]| runtime.command(&bench.root, arguments);
        let up = |id: &str| start(command(&["run", "--detach", "--bundle", bench.bundle(), id]));
        let down = |id: &str| check(&mut command(&["delete", "--force", id]));
        around(runtime.name, |_| Ok(0.0), &|| Ok(up), &|| Ok(down))?;
    }
    Ok(())
}

/// Ours with the engine beside them, crun with a conmon for each.
pub fn with_parents(bench: &Bench) -> anyhow::Result<()> {
    bench.write(&["sleep", "1000"])?;
    println!("  {MANY} containers of `sleep`, {CLIENTS} clients at a time, with what stays beside them");
    let body = |id: &str| -> String {
        serde_json::json!({"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"},
            "Labels": {"bench": id}})
        .to_string()
    };
    let client = || -> anyhow::Result<_> {
        let mut api = Api::connect(Path::new(SOCKET))?;
        Ok(move |id: &str| -> anyhow::Result<()> {
            let path = format!("/containers/create?name={id}");
            api.call("POST", &path, Some(body(id).as_bytes()))?;
            api.call("POST", &format!("/containers/{id}/start"), None)?;
            Ok(())
        })
    };
    let remover = || -> anyhow::Result<_> {
        let mut api = Api::connect(Path::new(SOCKET))?;
        Ok(move |id: &str| -> anyhow::Result<()> {
            api.call("DELETE", &format!("/containers/{id}?force=1"), None).map(drop)
        })
    };
    // Supervisor, engine and router are one program, which the guest starts as its first process.
    around("skiff", |before| Ok(memory_of("init")? - before), &client, &remover)?;

    let crun = bench.runtimes.iter().find(|runtime| runtime.name == "crun").context("crun is measured")?;
    let up = |id: &str| under_conmon(bench, crun, id);
    let down = |id: &str| check(&mut crun.command(&bench.root, &["delete", "--force", id]));
    around("crun + conmon", |before| Ok(memory_of("conmon")? - before), &|| Ok(up), &|| Ok(down))
}

/// Starts and removes all, and prints what it took. `beside` says how many KiB the programs beside them have, less than before.
fn around<U, D>(
    name: &str,
    beside: impl Fn(f64) -> anyhow::Result<f64>,
    up: &(dyn Fn() -> anyhow::Result<U> + Sync),
    down: &(dyn Fn() -> anyhow::Result<D> + Sync),
) -> anyhow::Result<()>
where
    U: FnMut(&str) -> anyhow::Result<()>,
    D: FnMut(&str) -> anyhow::Result<()>,
{
    // The kernel goes on taking network namespaces down after their containers are gone, and makes none meanwhile.
    up()?("settled")?;
    down()?("settled")?;
    let (free, own) = (available()?, beside(0.0)?);
    let started = Instant::now();
    by_clients(up)?;
    let took = started.elapsed();
    let (used, own) = (free - available()?, beside(own)?);
    let started = Instant::now();
    by_clients(down)?;
    let each = |kib: f64| kib / 1024.0 / MANY as f64;
    println!(
        "    {name:<14} {:6.2} s up, {:6.2} s down; for each container {:.2} MiB of the machine, of which {:.3} MiB in \
         programs beside it",
        took.as_secs_f64(),
        started.elapsed().as_secs_f64(),
        each(used),
        each(own),
    );
    Ok(())
}

/// Several clients take the next container each until all have had their turn.
fn by_clients<A>(make: &(dyn Fn() -> anyhow::Result<A> + Sync)) -> anyhow::Result<()>
where
    A: FnMut(&str) -> anyhow::Result<()>,
{
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    let mut act = make()?;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= MANY {
                            return Ok(());
                        }
                        act(&format!("many{number}"))?;
                    }
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| match client.join() {
            Ok(result) => result,
            Err(_) => bail!("a client panicked"),
        })
    })
}

/// As podman does it: conmon creates the container and stays beside it.
fn under_conmon(bench: &Bench, runtime: &Runtime, id: &str) -> anyhow::Result<()> {
    let place = bench.root.join("state-conmon").join(id);
    fs::create_dir_all(&place)?;
    let pid = place.join("pid");
    // conmon keeps files of its own in the bundle.
    fs::copy(bench.bundle.join("config.json"), place.join("config.json"))?;
    std::os::unix::fs::symlink(bench.bundle.join("rootfs"), place.join("rootfs"))?;
    let bundle = place.to_str().context("the place is no text")?;
    let mut command = Command::new(bench.root.join("conmon"));
    command.args(["--api-version", "1", "--cid", id, "--cuuid", id, "--name", id, "--bundle", bundle]);
    command.arg("--runtime").arg(&runtime.program);
    command.arg("--runtime-arg").arg(format!("--root={}", runtime.state(&bench.root).display()));
    command.arg("--log-path").arg(format!("k8s-file:{}", place.join("log").display()));
    command.arg("--container-pidfile").arg(&pid).arg("--exit-dir").arg(&place).arg("--full-attach");
    start(command)?;
    let deadline = Instant::now() + PATIENCE;
    while read_pid(&pid).is_err() {
        if Instant::now() > deadline {
            bail!("conmon has made no container {id}: {:?}", fs::read_to_string(place.join("log")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    start(runtime.command(&bench.root, &["start", id]))
}

/// What the kernel could still give, in KiB.
fn available() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    field(&text, "MemAvailable:").context("the kernel does not tell")
}

/// What the processes of a program, as their command lines name it, have in memory, in KiB; what several share counts in parts.
fn memory_of(program: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        // Processes come and go.
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let named = String::from_utf8_lossy(first).rsplit('/').next() == Some(program);
        if let Some(text) = named.then(|| fs::read_to_string(path.join("smaps_rollup")).ok()).flatten() {
            sum += field(&text, "Pss:").unwrap_or(0.0);
        }
    }
    Ok(sum)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
