//! `docker attach` and `docker start -a`.

use anyhow::ensure;

use crate::{Subject, scenarios};

scenarios![
    attach_carries_input_output_and_the_exit_code,
    attach_shows_what_comes_from_now_on,
    detach_keys_leave_the_container_running,
    start_attached_gives_output_and_exit_code,
    two_clients_see_the_same_output,
];

fn attach_carries_input_output_and_the_exit_code(on: &Subject) -> anyhow::Result<()> {
    let script = "while read line; do echo \"got $line\"; [ \"$line\" = q ] && exit 9; done";
    on.docker.sh("run -di --name reader busybox", script)?.ok()?;
    on.docker.feed("attach reader", "a\nq\n")?.exits(9)?.prints("got a\ngot q\n")?;
    let code = on.docker.inspect("reader", "{{.State.ExitCode}}")?;
    ensure!(code == "9", "inspect says {code}");
    on.docker.run("attach reader")?.exits(1)?.complains("cannot attach to a stopped container")?;
    Ok(())
}

fn attach_shows_what_comes_from_now_on(on: &Subject) -> anyhow::Result<()> {
    let script = "echo early; while [ ! -e /go ]; do sleep 0.1; done; echo late; echo problem >&2; exit 2";
    on.docker.sh("run -d --name talker busybox", script)?.ok()?;
    let client = on.docker.start("attach --no-stdin talker")?;
    // The attachment has no visible beginning: give the request time to arrive.
    std::thread::sleep(on.patience(1) / 2);
    // The container may end before the exec is seen to, and take it along.
    on.docker.run("exec talker touch /go")?;
    let finished = client.finish(on.patience(15))?.exits(2)?.prints("late\n")?;
    ensure!(finished.err() == "problem\n", "stderr\n{finished}");
    Ok(())
}

fn detach_keys_leave_the_container_running(on: &Subject) -> anyhow::Result<()> {
    on.docker.run("run -dit --name shell busybox sh")?.ok()?;
    for (line, keys) in [("attach shell", [16_u8, 17]), ("attach --detach-keys=ctrl-a,d shell", [1, b'd'])] {
        let mut session = on.docker.terminal(line)?;
        session.send("echo $((40+2))\r")?;
        session.expect("42", on.patience(10))?;
        session.send(keys)?;
        session.wait(on.patience(10))?;
        let running = on.docker.inspect("shell", "{{.State.Running}}")?;
        ensure!(running == "true", "after {line}: running is {running}\n{}", session.transcript());
    }
    let mut session = on.docker.terminal("attach shell")?;
    session.send("exit 5\r")?;
    let code = session.wait(on.patience(10))?;
    ensure!(code == 5, "exit code {code}\n{}", session.transcript());
    Ok(())
}

fn start_attached_gives_output_and_exit_code(on: &Subject) -> anyhow::Result<()> {
    on.docker.sh("create --name job busybox", "echo ran; exit 6")?.ok()?;
    for _ in 0..2 {
        on.docker.run("start -a job")?.exits(6)?.prints("ran\n")?;
    }
    on.docker.run("create -i --name eater busybox cat")?.ok()?;
    on.docker.feed("start -ai eater", "food\n")?.ok()?.prints("food\n")?;
    Ok(())
}

fn two_clients_see_the_same_output(on: &Subject) -> anyhow::Result<()> {
    on.docker
        .sh("run -d --name echo busybox", "while [ ! -e /go ]; do sleep 0.1; done; echo for both")?
        .ok()?;
    let one = on.docker.start("attach --no-stdin echo")?;
    let other = on.docker.start("attach --no-stdin echo")?;
    std::thread::sleep(on.patience(1) / 2);
    on.docker.run("exec echo touch /go")?;
    one.finish(on.patience(10))?.ok()?.prints("for both\n")?;
    other.finish(on.patience(10))?.ok()?.prints("for both\n")?;
    Ok(())
}
