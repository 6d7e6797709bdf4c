//! BuildKit's doors with real clients: buildx's docker driver, bake, compose, and the docker command of 20.10 with
//! `DOCKER_BUILDKIT=1`.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use skiff_testkit::Program;

use crate::{Subject, scenarios};

scenarios![
    buildx_builds_with_contexts_secrets_and_arguments_and_finds_it_all_again,
    buildx_exports_files_and_tars_to_its_client,
    buildx_shows_the_lines_of_an_error,
    a_step_talks_to_the_clients_ssh_agent,
    bake_builds_targets_that_use_each_other,
    compose_builds_and_starts_a_project,
    the_docker_command_of_20_10_builds_through_a_session,
    a_cancelled_build_leaves_no_process,
];

/// A directory with files in it.
pub(super) fn project(files: &[(&str, &str)]) -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir().context("make the project's directory")?;
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        std::fs::write(path, text)?;
    }
    Ok(dir)
}

/// A client that `scripts/fetch-clients` fetches, if it was, on this engine and with a configuration of its own.
pub(super) fn client(on: &Subject, name: &str, config: &Path) -> Option<impl Fn(&[&str]) -> Program> {
    let Some(program) = on.tool(name) else {
        eprintln!("       skipped: {name} is not in target/tools (scripts/fetch-clients puts it there)");
        return None;
    };
    let (host, timeout) = (on.docker.host().to_owned(), on.patience(60));
    let config = config.join(".config");
    Some(move |arguments: &[&str]| {
        Program::new(&program)
            .env("DOCKER_HOST", &host)
            .env("DOCKER_CONFIG", &config)
            .env("BUILDX_CONFIG", config.join("buildx"))
            .env("BUILDKIT_PROGRESS", "plain")
            .env("DOCKER_BUILDKIT", "1")
            .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
            .args(arguments.iter().copied())
            .timeout(timeout)
    })
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

fn buildx_builds_with_contexts_secrets_and_arguments_and_finds_it_all_again(
    on: &Subject,
) -> anyhow::Result<()> {
    let dir = project(&[
        (
            "app/Dockerfile",
            "FROM busybox AS base\nARG WHO=nobody\nCOPY file.txt sub /data/\nCOPY --from=other extra.txt /\n\
             RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length && echo \"hello $WHO\" && ls /data\n\
             FROM base AS app\nLABEL kind=test\nCMD [\"cat\", \"/data/file.txt\", \"/extra.txt\", \"/length\"]\n\
             FROM base AS never\nRUN false\n",
        ),
        ("app/.dockerignore", "sub/ignored\n"),
        ("app/file.txt", "one\n"),
        ("app/sub/kept", ""),
        ("app/sub/ignored", ""),
        ("other/extra.txt", "extra\n"),
        ("token", "123456"),
    ])?;
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let at = |name: &str| dir.path().join(name);
    let (app, token, other) = (at("app"), at("token"), at("other"));
    let (iid, metadata) = (at("iid"), at("metadata"));
    let build = |who: &str, more: &[&str]| {
        let (secret, other) = (format!("id=token,src={}", text(&token)), format!("other={}", text(&other)));
        let who = format!("WHO={who}");
        let mut words = vec!["build", "--target", "app", "--tag", "app:1", "--tag", "app:2"];
        words.extend(["--build-arg", &who, "--secret", &secret, "--build-context", &other]);
        words.extend(["--iidfile", text(&iid), "--metadata-file", text(&metadata)]);
        words.extend(more);
        words.push(text(&app));
        buildx(&words).run()?.ok()
    };
    let since = on.now()?;
    let first = build("me", &[])?;
    // Whoever watches hears of the image by each of its names, as with dockerd.
    let events =
        format!("events --since {since} --until {} --filter type=image --filter event=tag", on.now()?);
    let events =
        on.docker.command(&events).args(["--format", "{{.Actor.Attributes.name}}"]).run()?.ok()?.out();
    ensure!(events == "app:1\napp:2\n", "{events:?}");
    for line in [
        "[internal] load build definition from Dockerfile",
        "hello me",
        "kept",
        "naming to docker.io/library/app:1",
    ] {
        ensure!(first.err().contains(line), "no {line:?} in\n{}", first.err());
    }
    ensure!(!first.err().lines().any(|line| line.ends_with(" ignored")), "an ignored file was sent");
    let id = on.docker.inspect("app:2", "{{.Id}}")?;
    ensure!(std::fs::read_to_string(&iid)?.trim() == id, "another image id");
    let metadata = std::fs::read_to_string(&metadata)?;
    ensure!(metadata.contains(&id), "{metadata}");
    ensure!(on.docker.inspect("app:1", "{{.Config.Labels.kind}}")? == "test", "no label");
    on.docker.run("run --rm app:1")?.ok()?.prints("one\nextra\n6\n")?;

    let again = build("me", &[])?;
    ensure!(again.err().matches("CACHED").count() >= 3, "not cached:\n{}", again.err());
    // The step's name has the words too; its output would be a line that ends with them.
    let ran = again.err().lines().any(|line| line.ends_with(" hello me"));
    ensure!(!ran, "a step ran again:\n{}", again.err());
    ensure!(on.docker.inspect("app:1", "{{.Id}}")? == id, "the same build made another image");
    std::fs::write(app.join("file.txt"), "two\n")?;
    ensure!(build("me", &[])?.err().contains("hello me"), "a changed file was not seen");
    on.docker.run("run --rm app:1")?.ok()?.prints("two\nextra\n6\n")?;
    ensure!(build("me", &["--no-cache"])?.err().contains("hello me"), "--no-cache was not heard");

    // A named image and the registry: pushed by buildx through the engine.
    let reference = on.registry.reference("app");
    let small = project(&[("Dockerfile", "FROM busybox\nRUN echo pushed > /pushed\n")])?;
    buildx(&["build", "--tag", &reference, "--push", text(small.path())]).run()?.ok()?;
    on.docker.args(&["image", "rm", &reference])?.ok()?;
    on.docker.args(&["pull", "--quiet", &reference])?.ok()?;
    buildx(&["du"]).run()?.ok()?.shows("Total:")?;
    buildx(&["prune", "--force"]).run()?.ok()?;
    Ok(())
}

fn buildx_exports_files_and_tars_to_its_client(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[(
        "Dockerfile",
        "FROM busybox AS make\nRUN mkdir /out /out/bin && echo made > /out/bin/app && chmod 750 /out/bin/app && ln -s bin/app /out/app\nFROM scratch\nCOPY --from=make /out /\n",
    )])?;
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let (out, tar) = (dir.path().join("out"), dir.path().join("out.tar"));
    let local = format!("type=local,dest={}", text(&out));
    buildx(&["build", "--output", &local, text(dir.path())]).run()?.ok()?;
    ensure!(std::fs::read_to_string(out.join("bin/app"))? == "made\n", "another file");
    ensure!(std::fs::read_link(out.join("app"))? == Path::new("bin/app"), "another link");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(out.join("bin/app"))?.permissions());
    ensure!(mode & 0o777 == 0o750, "mode {mode:o}");
    let archive = format!("type=tar,dest={}", text(&tar));
    buildx(&["build", "--output", &archive, text(dir.path())]).run()?.ok()?;
    Program::new("tar").args(["-tf", text(&tar)]).run()?.ok()?.shows("bin/app")?;
    Ok(())
}

fn buildx_shows_the_lines_of_an_error(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[("file", "")])?;
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let cases = [
        (
            "FROM busybox\nRUN echo before\nRUN exit 3\n",
            &["Dockerfile:3", ">>> RUN exit 3", "did not complete successfully: exit code: 3"][..],
        ),
        ("FROM busybox\nCOPY absent /\n", &["Dockerfile:2", ">>> COPY absent /", "\"/absent\": not found"]),
        ("FROM busybox\nRUNN x\n", &["Dockerfile:2", "unknown instruction: RUNN"]),
        ("FROM nowhere.invalid/x\n", &["Dockerfile:1", "nowhere.invalid/x"]),
    ];
    for (dockerfile, expected) in cases {
        std::fs::write(dir.path().join("Dockerfile"), dockerfile)?;
        let failed = buildx(&["build", text(dir.path())]).run()?.exits(1)?;
        for part in expected {
            ensure!(failed.err().contains(part), "no {part:?} in\n{}", failed.err());
        }
    }
    std::fs::write(dir.path().join("Dockerfile"), "FROM busybox\n")?;
    buildx(&["build", "--target", "x", text(dir.path())])
        .run()?
        .exits(1)?
        .complains("target stage \"x\" could not be found")?;
    Ok(())
}

/// Plays an agent without keys: each question of a connection is answered with none.
fn play_agent(path: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(path).context("listen as an ssh agent")?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut length = [0; 4];
                while stream.read_exact(&mut length).is_ok() {
                    let mut question = vec![0; u32::from_be_bytes(length) as usize];
                    let answer = [0, 0, 0, 5, 12, 0, 0, 0, 0];
                    if stream.read_exact(&mut question).is_err() || stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

/// Asks the agent for its keys and prints the answer; busybox has nothing that speaks to such a socket.
const ASK_AGENT: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(void)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	unsigned char answer[64];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), at, length;

	strncpy(to.sun_path, getenv("SSH_AUTH_SOCK"), sizeof to.sun_path - 1);
	if (connect(fd, (void *)&to, sizeof to) || write(fd, "\0\0\0\001\013", 5) != 5)
		return 1;
	for (length = 0; length < 9; length += at)
		if ((at = read(fd, answer + length, sizeof answer - length)) <= 0)
			return 1;
	for (at = 0; at < length; at++)
		printf("%02x ", answer[at]);
	puts("");
	return 0;
}
"#;

fn a_step_talks_to_the_clients_ssh_agent(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[
        ("ask.c", ASK_AGENT),
        ("Dockerfile", "FROM busybox\nCOPY ask /ask\nRUN --mount=type=ssh /ask\n"),
    ])?;
    let (source, program) = (dir.path().join("ask.c"), dir.path().join("ask"));
    let compiled =
        std::process::Command::new("cc").args(["-static", "-o"]).arg(&program).arg(&source).status();
    ensure!(compiled.context("run cc")?.success(), "ask.c does not compile");
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let socket = dir.path().join("agent.sock");
    play_agent(&socket)?;
    let agent = format!("default={}", text(&socket));
    let built = buildx(&["build", "--ssh", &agent, text(dir.path())]).run()?.ok()?;
    ensure!(
        built.err().contains("00 00 00 05 0c 00 00 00 00"),
        "the agent said something else:\n{}",
        built.err()
    );
    Ok(())
}

fn bake_builds_targets_that_use_each_other(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[(
        "docker-bake.hcl",
        "group \"default\" { targets = [\"app\", \"tool\"] }\n\
             target \"base\" { dockerfile-inline = \"FROM busybox\\nRUN echo base > /base\" }\n\
             target \"app\" {\n contexts = { base = \"target:base\" }\n dockerfile-inline = \"FROM base\\nCMD cat /base\"\n tags = [\"baked:app\"]\n }\n\
             target \"tool\" {\n dockerfile-inline = \"FROM busybox\\nCMD echo tool\"\n tags = [\"baked:tool\"]\n }\n",
    )])?;
    let Some(buildx) = client(on, "docker-buildx", dir.path()) else { return Ok(()) };
    let file = dir.path().join("docker-bake.hcl");
    buildx(&["bake", "--file", text(&file)]).run()?.ok()?;
    on.docker.run("run --rm baked:app")?.ok()?.prints("base\n")?;
    on.docker.run("run --rm baked:tool")?.ok()?.prints("tool\n")?;
    Ok(())
}

fn compose_builds_and_starts_a_project(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[
        (
            "compose.yaml",
            "services:\n  web:\n    build:\n      context: web\n      args: [GREETING=hi]\n    command: sleep 1000\n",
        ),
        ("web/Dockerfile", "FROM busybox\nARG GREETING\nRUN echo $GREETING > /greeting\nCOPY . /src\n"),
        ("web/main.c", "int main;\n"),
    ])?;
    let Some(compose) = client(on, "docker-compose", dir.path()) else { return Ok(()) };
    let file = dir.path().join("compose.yaml");
    let run = |words: &[&str]| {
        let all: Vec<&str> =
            ["--project-name", "built", "--file", text(&file)].iter().chain(words).copied().collect();
        compose(&all).run()
    };
    run(&["build"])?.ok()?;
    run(&["up", "--build", "--detach"])?.ok()?;
    on.docker.run("exec built-web-1 cat /greeting /src/main.c")?.ok()?.prints("hi\nint main;\n")?;
    // Nothing has changed: the same container goes on.
    let before = on.docker.run("ps -q --no-trunc")?.ok()?.out();
    run(&["up", "--build", "--detach"])?.ok()?;
    ensure!(on.docker.run("ps -q --no-trunc")?.ok()?.out() == before, "the container was made anew");
    run(&["down", "--timeout", "0"])?.ok()?;
    Ok(())
}

fn the_docker_command_of_20_10_builds_through_a_session(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY file /\nRUN --mount=type=secret,id=s cat /run/secrets/s > /secret && echo step\nCMD cat /file /secret\n",
        ),
        ("file", "text\n"),
        ("secret", "hidden\n"),
    ])?;
    let Some(docker) = client(on, "docker-20.10", dir.path()) else { return Ok(()) };
    let (secret, iid) = (format!("id=s,src={}", text(&dir.path().join("secret"))), dir.path().join("iid"));
    let build = ["build", "--secret", &secret, "--iidfile", text(&iid), "--tag", "old:1", text(dir.path())];
    let built = docker(&build).run()?.ok()?;
    ensure!(built.err().contains("step"), "no live progress:\n{}", built.err());
    on.docker.run("run --rm old:1")?.ok()?.prints("text\nhidden\n")?;
    ensure!(std::fs::read_to_string(&iid)?.trim() == on.docker.inspect("old:1", "{{.Id}}")?, "another id");
    let quiet = docker(&["build", "--quiet", "--secret", &secret, text(dir.path())]).run()?.ok()?;
    quiet.prints(&format!("{}\n", on.docker.inspect("old:1", "{{.Id}}")?))?;
    // A Dockerfile, and then a whole context, from standard input.
    let from_stdin = "FROM busybox\nCOPY file /other\nCMD cat /other\n";
    docker(&["build", "--tag", "old:2", "--file", "-", text(dir.path())]).stdin(from_stdin).run()?.ok()?;
    on.docker.run("run --rm old:2")?.ok()?.prints("text\n")?;
    let tar =
        Program::new("tar").args(["-C", text(dir.path()), "-cf", "-", "Dockerfile", "file"]).run()?.ok()?;
    docker(&["build", "--secret", &secret, "--tag", "old:3", "-"]).stdin(tar.stdout.clone()).run()?.ok()?;
    on.docker.run("run --rm old:3")?.ok()?.prints("text\nhidden\n")?;
    docker(&["build", "--tag", "old:4", "-"]).stdin("FROM busybox\nCMD echo alone\n").run()?.ok()?;
    on.docker.run("run --rm old:4")?.ok()?.prints("alone\n")?;
    // Files back to the client, and an error with its words.
    let out = dir.path().join("out");
    let output = format!("type=local,dest={}", text(&out));
    let scratch = "FROM scratch\nCOPY file /\n";
    docker(&["build", "--output", &output, "--file", "-", text(dir.path())]).stdin(scratch).run()?.ok()?;
    ensure!(std::fs::read_to_string(out.join("file"))? == "text\n", "another file");
    docker(&["build", "--file", "-", text(dir.path())])
        .stdin("FROM busybox\nRUN exit 4\n")
        .run()?
        .exits(1)?
        .complains_anywhere("exit code: 4")?;
    Ok(())
}

fn a_cancelled_build_leaves_no_process(on: &Subject) -> anyhow::Result<()> {
    let dir = project(&[("Dockerfile", "FROM busybox\nRUN echo begun && sleep 1000\n")])?;
    for (name, words) in [("docker-buildx", &["build"][..]), ("docker-20.10", &["build"])] {
        let Some(client) = client(on, name, dir.path()) else { continue };
        let words: Vec<&str> = words.iter().copied().chain(["--no-cache", text(dir.path())]).collect();
        let running = client(&words).start()?;
        running.wait_for_complaint("begun", on.patience(30))?;
        running.signal(Signal::INT)?;
        ensure!(running.finish(on.patience(20))?.code != 0, "{name} says that all is well");
    }
    // That nothing is left is looked at after every scenario.
    Ok(())
}
