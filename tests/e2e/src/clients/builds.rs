//! Applications as people write them, with packages from the registries, built through every door.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use skiff_testkit::Program;

use super::debian::DEBIAN;
use super::machine::{Machine, sysroot, unreached};
use super::{debian, patience, skipped};
use crate::scenarios::{DOORS, Door};
use crate::{Subject, scenarios};

scenarios![applications_with_packages_from_the_registries_are_built_through_every_door];

/// The image of the machine's Rust.
const RUST: &str = "skiff-rust:latest";
/// What a compiler needs of it.
const OF_RUST: [&str; 3] = ["bin", "lib", "share"];

/// An application: files, the Dockerfile, and what its image prints.
struct Application {
    name: &'static str,
    files: Vec<(&'static str, String)>,
    /// `SETTINGS` stands for the flags by which a step sees the settings of this machine's clients.
    dockerfile: String,
    prints: &'static str,
    /// The door that builds it first; the others find its packages in the cache.
    first: Door,
}

fn applications_with_packages_from_the_registries_are_built_through_every_door(
    on: &Subject,
) -> anyhow::Result<()> {
    if on.in_guest {
        skipped("builds with packages in an emulated guest take minutes, and apt's there has built one");
        return Ok(());
    }
    if let Err(reason) = debian::load(on)? {
        skipped(&reason);
        return Ok(());
    }
    let machine = Machine::settings()?;
    let reached = |name: &str| unreached(name).map(|reason| skipped(&reason)).is_none();
    let mut applications = Vec::new();
    if reached("npm") {
        machine.with_npm()?;
        applications.push(node());
    }
    if reached("pip") {
        applications.push(python());
    }
    applications.push(service());
    match sysroot() {
        Some(sysroot) if reached("cargo") => {
            load_rust(on, &sysroot)?;
            applications.push(rust());
        }
        Some(_) => {}
        None => skipped("no toolchain of Rust in one directory"),
    }
    for application in applications {
        application.build(on, &machine).with_context(|| application.name.to_owned())?;
    }
    Ok(())
}

impl Application {
    fn build(&self, on: &Subject, machine: &Machine) -> anyhow::Result<()> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let (context, config) = (directory.path().join("context"), directory.path().join("config"));
        let token = directory.path().join("token");
        std::fs::create_dir_all(&context)?;
        std::fs::write(&token, "very secret")?;
        for (path, text) in &self.files {
            let path = context.join(path);
            std::fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
            std::fs::write(path, text)?;
        }
        let copy = Program::new("cp").args(["-r".as_ref(), machine.path().as_os_str()]);
        copy.args([context.join("settings")]).run()?.ok()?;
        let (arguments, declared) = machine.build_arguments();
        let mounts = "--mount=type=bind,source=settings,target=/machine --mount=type=secret,id=token";
        let dockerfile = self.dockerfile.replace("SETTINGS", mounts).replace("ARGUMENTS\n", &declared);
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        std::fs::write(context.join(".dockerignore"), "**/*.log\n")?;

        let mut doors = vec![self.first];
        doors.extend(DOORS.into_iter().filter(|door| *door != self.first));
        for (number, door) in doors.into_iter().enumerate() {
            let Some(program) = door.program(on, &on.docker, &config) else {
                skipped(&format!("the client of {door:?} was not fetched"));
                continue;
            };
            let name = format!("built/{}:{number}", self.name);
            // The source differs, the packages don't.
            std::fs::write(context.join("by"), format!("{door:?}\n"))?;
            let secret = format!("id=token,src={}", token.display());
            let program = match door {
                Door::Classic => program,
                Door::Session | Door::Buildx => program.args(["--secret", &secret]),
            };
            let program = program.args(["-t", &name, "--add-host", "host.docker.internal:host-gateway"]);
            let started = Instant::now();
            let built = program.args(&arguments).args([&context]).timeout(patience(on) * 2).run()?.ok()?;
            eprintln!("       {:<8} {door:<8?} {:6.1} s", self.name, started.elapsed().as_secs_f64());
            let said = format!("{}{}", built.out(), built.err());
            let cached = said.contains("CACHED") || said.contains("Using cache");
            ensure!(number == 0 || cached, "nothing was found in the cache by {door:?}:\n{said}");
            let expected = format!("{}\n{door:?}\n", self.prints);
            on.docker.run(&format!("run --rm --network none {name}"))?.ok()?.prints(&expected)?;
            let history = on.docker.run(&format!("history --no-trunc {name}"))?.ok()?.out();
            ensure!(!history.contains("very secret"), "a secret is in the history of {name}");
        }
        let images = on.docker.run(&format!("images -q built/{}", self.name))?.ok()?.out();
        on.docker.command("rmi -f").args(images.split_whitespace()).run()?.ok()?;
        Ok(())
    }
}

fn node() -> Application {
    let package = r#"{"name":"app","version":"1.0.0","dependencies":{"is-odd":"3.0.1"}}"#;
    let main = "const odd = require('is-odd');\nconsole.log(odd(3), odd(4));\n\
                process.stdout.write(require('fs').readFileSync('/app/by'));\n";
    let dockerfile = format!(
        "FROM {DEBIAN} AS packages\nARGUMENTS\nENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt\n\
         WORKDIR /app\nCOPY package.json ./\n\
         RUN SETTINGS --mount=type=cache,target=/root/.npm NPM_CONFIG_USERCONFIG=/machine/npmrc \
         node /machine/package/bin/npm-cli.js install --silent --no-audit --no-fund\n\
         FROM {DEBIAN}\nWORKDIR /app\nENV NODE_ENV=production\nCOPY --from=packages /app/node_modules node_modules\n\
         COPY index.js by ./\nUSER 1000:1000\nCMD [\"node\", \"index.js\"]\n"
    );
    let files = vec![("package.json", package.to_owned()), ("index.js", main.to_owned())];
    Application { name: "node", files, dockerfile, prints: "true false", first: Door::Buildx }
}

fn python() -> Application {
    let main = "import requests.structures as s\nprint(s.CaseInsensitiveDict(Key='value')['kEY'])\n\
                print(open('/app/by').read(), end='')\n";
    let dockerfile = format!(
        "FROM {DEBIAN} AS packages\nARGUMENTS\nCOPY requirements.txt /\n\
         RUN SETTINGS --mount=type=cache,target=/root/.cache/pip PIP_CONFIG_FILE=/machine/pip.conf \
         pip install -q --no-compile --root-user-action ignore --prefix /packages -r /requirements.txt\n\
         FROM {DEBIAN}\nENV PYTHONUNBUFFERED=1\nCOPY --from=packages /packages /usr\n\
         RUN python3 -c 'import sys, requests; print(requests.__version__)'\n\
         COPY main.py by /app/\nENTRYPOINT [\"python3\", \"/app/main.py\"]\n"
    );
    let files = vec![("requirements.txt", "requests==2.32.3\n".to_owned()), ("main.py", main.to_owned())];
    Application { name: "python", files, dockerfile, prints: "value", first: Door::Session }
}

/// A service of Debian's, with a script of here-documents around it.
fn service() -> Application {
    let dockerfile = format!(
        "FROM {DEBIAN}\nARG DEBIAN_FRONTEND=noninteractive\n\
         RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked <<END\n\
         set -e\napt-get -q update\napt-get -q install -y --no-install-recommends redis-server\nEND\n\
         COPY --chmod=755 <<'END' /usr/local/bin/entrypoint\n#!/bin/sh\nset -e\n\
         redis-server --port 0 --unixsocket /tmp/s --daemonize yes --save '' --logfile /tmp/log >/dev/null\n\
         until redis-cli -s /tmp/s ping >/dev/null 2>&1; do sleep 0.1; done\n\
         redis-cli -s /tmp/s set by \"$(cat /by)\" >/dev/null\necho up; redis-cli -s /tmp/s get by | cat\nEND\n\
         COPY by /\nUSER redis\nHEALTHCHECK CMD redis-cli -s /tmp/s ping\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"entrypoint\"]\n"
    );
    Application { name: "service", files: Vec::new(), dockerfile, prints: "up", first: Door::Classic }
}

fn rust() -> Application {
    let manifest = "[package]\nname = \"app\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"=1.0.15\"\n";
    let main = "fn main() {\n    println!(\"{}\", itoa::Buffer::new().format(1234567));\n    \
                print!(\"{}\", include_str!(\"../by\"));\n}\n";
    let dockerfile = format!(
        "FROM {DEBIAN} AS build\nARGUMENTS\n\
         RUN apt-get -q update && apt-get -q install -y --no-install-recommends gcc libc6-dev\n\
         ENV PATH=/rust/bin:$PATH CARGO_HOME=/cargo CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt\n\
         WORKDIR /app\nCOPY Cargo.toml ./\n\
         RUN SETTINGS --mount=from={RUST},target=/rust --mount=type=cache,target=/cargo/registry \
         mkdir -p src && echo 'fn main() {{}}' >src/main.rs && \
         cp /machine/cargo.toml /cargo/config.toml && cp /machine/credentials.toml /cargo/credentials.toml && \
         cargo -q build --release && rm /cargo/c*.toml\n\
         COPY src src\nCOPY by ./\n\
         RUN --mount=from={RUST},target=/rust --mount=type=cache,target=/cargo/registry \
         touch src/main.rs && cargo -q build --release --offline\n\
         FROM {DEBIAN}\nCOPY --from=build /app/target/release/app /usr/local/bin/\nCMD [\"app\"]\n"
    );
    let files = vec![("Cargo.toml", manifest.to_owned()), ("src/main.rs", main.to_owned())];
    Application { name: "rust", files, dockerfile, prints: "1234567", first: Door::Buildx }
}

/// Makes an image of the machine's Rust.
fn load_rust(on: &Subject, sysroot: &Path) -> anyhow::Result<()> {
    let tar = tempfile::NamedTempFile::new()?;
    let present = OF_RUST.into_iter().filter(|name| sysroot.join(name).exists());
    let pack = Program::new("tar").args(["--exclude=share/doc", "--exclude=share/man", "-cf"]);
    pack.args([tar.path()]).args(["-C".as_ref(), sysroot.as_os_str()]).args(present).run()?.ok()?;
    let import = on.docker.command("import").args([tar.path().as_os_str(), RUST.as_ref()]);
    import.timeout(patience(on)).run()?.ok()?;
    Ok(())
}
