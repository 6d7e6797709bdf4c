//! Repositories as contexts and in `ADD`, from a server that speaks git's protocol over HTTP; a guest has no git of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use anyhow::{Context, ensure};
use skiff_testkit::Program;

use super::buildx::{client, project, text};
use crate::{Subject, outside, scenarios};

scenarios![repositories_are_contexts_and_sources];

/// A repository with branches, tags and another one in it.
const PREPARATION: &str = r#"
set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
git init -q -b main part
cd part
seq 5000 >numbers
(cat numbers; echo more) >others
git add . && git commit -qm part && cd ..
git init -q -b main app
cd app
printf 'FROM scratch\nCOPY . /\n' >Dockerfile
echo base >version && ln -s version link && printf '#!/bin/sh\n' >run && chmod +x run
git add . && git commit -qm base && git tag -a -m one v1 && git branch old
mkdir sub && cp Dockerfile sub/ && echo sub >sub/version
printf '[submodule "part"]\n\tpath = lib/part\n\turl = ../part.git\n' >.gitmodules
git update-index --add --cacheinfo "160000,$(git -C ../part rev-parse HEAD),lib/part"
echo main >version && git add . ':!lib' && git commit -qm main && cd ..
for name in app part; do git clone -q --bare "$name" "$name.git"; done
"#;

/// Answers one request by `git http-backend`.
fn answer(stream: &mut TcpStream, root: &Path) -> anyhow::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let found = lines.iter().filter_map(|line| line.split_once(": "));
        found.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let mut words = lines.first().context("a request has a line")?.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let backend = Program::new("git").args(["http-backend"]).env("GIT_PROJECT_ROOT", root);
    let backend = backend.env("GIT_HTTP_EXPORT_ALL", "1").env("PATH_INFO", path).env("QUERY_STRING", query);
    let backend = backend.env("REQUEST_METHOD", method).env("CONTENT_LENGTH", length.to_string());
    let backend = backend.env("CONTENT_TYPE", header("content-type").unwrap_or_default());
    let made = backend.env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default()).stdin(body).run()?;
    let end = made.stdout.windows(4).position(|four| four == b"\r\n\r\n").context("an answer has a head")?;
    let head = String::from_utf8_lossy(&made.stdout[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let rest = &made.stdout[end + 4..];
    let fields = head.lines().filter(|line| !line.starts_with("Status: ")).collect::<Vec<_>>().join("\r\n");
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n\r\n",
        rest.len()
    )?;
    Ok(stream.write_all(rest)?)
}

fn repositories_are_contexts_and_sources(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[("app/unused", "")])?;
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let served = tempfile::tempdir()?;
    let script = format!("cd '{}'\n{PREPARATION}", served.path().display());
    Program::new("sh").args(["-c", &script]).run()?.ok()?;
    let app = served.path().join("app.git");
    let root = served.path().to_owned();
    let address = outside::serve(Ipv4Addr::LOCALHOST, move |mut stream| {
        if let Err(error) = answer(&mut stream, &root) {
            eprintln!("       the git server: {error:#}");
        }
        Ok(())
    })?;
    let url = format!("http://{address}/app.git");
    let rev = |name: &str| {
        let found = Program::new("git").args(["-C", text(&app), "rev-parse", name]).run()?.ok()?.out();
        anyhow::Ok(found.trim().to_owned())
    };
    let (old, main) = (rev("v1^{commit}")?, rev("main")?);
    let out = dir.path().join("out");
    let fetched = |place: &str| -> anyhow::Result<String> {
        let _ = std::fs::remove_dir_all(&out);
        buildx(&["build", "--output", &format!("type=local,dest={}", text(&out)), place]).run()?.ok()?;
        Ok(std::fs::read_to_string(out.join("version"))?.trim().to_owned())
    };
    for (place, expected) in [
        ("#v1".to_owned(), "base"),
        ("?branch=old".to_owned(), "base"),
        (format!("?commit={}", &old[..9]), "base"),
        (format!("#{old}"), "base"),
        ("#main:sub".to_owned(), "sub"),
        (String::new(), "main"),
    ] {
        let version = fetched(&format!("{url}{place}"))?;
        ensure!(version == expected, "{place}: {version}");
    }
    ensure!(std::fs::read_link(out.join("link"))? == Path::new("version"), "another link");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(out.join("run"))?.permissions());
    ensure!(mode & 0o111 == 0o111, "mode {mode:o}");

    // In a Dockerfile, with what git keeps.
    let dockerfile = format!(
        "FROM busybox\nADD --keep-git-dir --checksum={main} {url}#main /src\n\
         RUN cat /src/version /src/.git/HEAD && ls -d /src/.git/index && tail -n 1 /src/lib/part/others\n"
    );
    let place = dir.path().join("app");
    std::fs::write(place.join("Dockerfile"), dockerfile)?;
    buildx(&["build", text(&place)]).run()?.ok()?.complains("main")?.complains(&main)?.complains("more")?;

    for (place, why) in [
        ("#none".to_owned(), "repository does not contain ref none".to_owned()),
        (format!("?tag=v1&commit={main}"), format!("expected checksum to match {main}, got {old}")),
        ("?checksum=what".to_owned(), "expected hex commit hash".to_owned()),
        ("?color=blue".to_owned(), "unexpected query \"color\"".to_owned()),
    ] {
        buildx(&["build", &format!("{url}{place}")]).run()?.exits(1)?.complains(&why)?;
    }
    let nowhere = format!("http://{address}/none.git");
    buildx(&["build", &nowhere]).run()?.exits(1)?.complains("not found")?;
    Ok(())
}
