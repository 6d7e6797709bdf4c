//! Package managers and version control in containers.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use anyhow::{Context, ensure};
use skiff_testkit::Program;

use super::debian::{DEBIAN, INSTALLED};
use super::machine::{Machine, SEEN, sysroot, unreached};
use super::web::Web;
use super::{debian, patience, skipped};
use crate::{Subject, scenarios};

scenarios![clients_of_every_kind_work_side_by_side_in_containers];

const HOST: &str = "--add-host host.docker.internal:host-gateway";

/// What a client is made to do, and what it prints then.
struct Client<'a> {
    name: &'a str,
    options: Vec<String>,
    script: String,
    prints: &'a str,
}

fn clients_of_every_kind_work_side_by_side_in_containers(on: &Subject) -> anyhow::Result<()> {
    if let Err(reason) = debian::load(on)? {
        skipped(&reason);
        return Ok(());
    }
    let machine = Machine::settings()?;
    // A guest's name for the host leads to its loopback; a native engine's leads to the bridge, as dockerd's does.
    let address = if on.in_guest { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let web = Web::start(IpAddr::from(address))?;
    std::fs::copy(web.authority(), machine.path().join("ca.pem")).context("show containers the authority")?;

    let mut clients = vec![git(&web)];
    let reached = |name: &str| match unreached(name) {
        None => true,
        Some(reason) => {
            skipped(&reason);
            false
        }
    };
    if reached("pip") {
        clients.push(pip(&web));
    }
    if reached("npm") {
        machine.with_npm()?;
        clients.push(npm());
    }
    // A compiler under emulation takes minutes, and its traffic is of the same kind as that of the others.
    let compile = !on.in_guest || std::env::var_os("SKIFF_CLIENTS").is_some_and(|which| which == "all");
    match sysroot() {
        _ if !compile => skipped("cargo in an emulated guest; SKIFF_CLIENTS=all has it run there too"),
        Some(sysroot) if reached("cargo") => clients.push(cargo(&sysroot.display().to_string())),
        Some(_) => {}
        None => skipped("no toolchain of Rust in one directory"),
    }
    let results: Vec<anyhow::Result<()>> = thread::scope(|scope| {
        let started: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(|| run(on, &machine, client)))
            .chain([scope.spawn(|| apt(on))])
            .collect();
        started.into_iter().map(|client| client.join().expect("clients do not panic")).collect()
    });
    let failed: Vec<String> =
        results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));

    let log = ["--git-dir".as_ref(), web.served().as_os_str(), "log".as_ref(), "--format=%s".as_ref()]
        .map(|word| word.to_owned());
    Program::new("git").args(log).args(["main"]).run()?.ok()?.prints("from a container\nfirst\n")?;
    Ok(())
}

fn run(on: &Subject, machine: &Machine, client: &Client<'_>) -> anyhow::Result<()> {
    let command = on.docker.command(&format!("run --rm {HOST}")).args(machine.options());
    let command = command.args(client.options.clone()).args([DEBIAN, "bash", "-euc", &client.script]);
    let started = std::time::Instant::now();
    let finished = command.timeout(patience(on)).run()?;
    eprintln!("       {:<8} {:6.1} s", client.name, started.elapsed().as_secs_f64());
    let finished = finished.ok().with_context(|| client.name.to_owned())?;
    ensure!(finished.out().ends_with(client.prints), "{}\n{finished}", client.name);
    Ok(())
}

/// A build installs packages, and a container of its image has them.
fn apt(on: &Subject) -> anyhow::Result<()> {
    let dockerfile = format!(
        "FROM {DEBIAN}\nENV DEBIAN_FRONTEND=noninteractive\nRUN apt-get -q update && apt-get -q install -y \
         --no-install-recommends redis-server\n"
    );
    let started = std::time::Instant::now();
    let build = on.docker.command("build -q -t").args([INSTALLED, "-"]).env("DOCKER_BUILDKIT", "0");
    let built = build.stdin(dockerfile).timeout(patience(on)).run()?;
    eprintln!("       {:<8} {:6.1} s", "apt", started.elapsed().as_secs_f64());
    built.ok().context("apt")?;
    let line = format!("run --rm {INSTALLED} dpkg-query -W -f ${{Status}} redis-server");
    on.docker.run(&line)?.ok()?.prints("install ok installed")?;
    Ok(())
}

/// Fetches, commits, sends, and is refused without the server's authority.
fn git(web: &Web) -> Client<'static> {
    let url = web.repository();
    let script = format!(
        "export GIT_SSL_CAINFO={SEEN}/ca.pem HOME=/tmp; cd /tmp
         git clone -q {url} copy; cd copy; sha256sum -c sums
         git config user.email a@b; git config user.name n
         echo new >new; git add new; git commit -qm 'from a container'; git push -q origin main
         GIT_SSL_CAINFO=/etc/ssl/certs/ca-certificates.crt git ls-remote {url} 2>&1 | grep -ci certificate"
    );
    Client { name: "git", options: Vec::new(), script, prints: "noise: OK\n1\n" }
}

fn pip(web: &Web) -> Client<'static> {
    let url = web.repository() + "/info/refs?service=git-upload-pack";
    let script = format!(
        "pip install -q --no-compile --root-user-action ignore --target /tmp/p requests
         PYTHONPATH=/tmp/p python3 -c 'import requests; print(requests.get(\"{url}\", verify=\"{SEEN}/ca.pem\").status_code)'"
    );
    Client { name: "pip", options: Vec::new(), script, prints: "200\n" }
}

fn npm() -> Client<'static> {
    let script = format!(
        "cd /tmp; node {SEEN}/package/bin/npm-cli.js install --silent --no-audit --no-fund is-odd
         node -e 'console.log(require(\"is-odd\")(3), require(\"is-number\")(4))'"
    );
    Client { name: "npm", options: Vec::new(), script, prints: "true true\n" }
}

/// A library needs no linker, and so no C compiler in the image.
fn cargo(sysroot: &str) -> Client<'static> {
    let options = ["-v".to_owned(), format!("{sysroot}:/rust:ro")].into();
    let script = format!(
        "export PATH=/rust/bin:$PATH CARGO_HOME=/tmp/cargo CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt
         mkdir -p $CARGO_HOME; cp {SEEN}/cargo.toml $CARGO_HOME/config.toml
         cp {SEEN}/credentials.toml $CARGO_HOME/credentials.toml
         cd /tmp; cargo -q new --lib --vcs none mine; cd mine; cargo -q add itoa; cargo -q fetch
         echo 'pub fn shown(n: u32) -> String {{ itoa::Buffer::new().format(n).into() }}' >src/lib.rs
         cargo -q build --offline; ls target/debug/libmine.rlib"
    );
    Client { name: "cargo", options, script, prints: "target/debug/libmine.rlib\n" }
}
