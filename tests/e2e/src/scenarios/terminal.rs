//! `docker run -it`.

use anyhow::ensure;
use skiff_testkit::PtySession;

use crate::{Subject, scenarios};

scenarios![
    an_interactive_shell_feels_like_one,
    the_terminal_follows_the_window,
    control_c_goes_to_the_container,
    output_of_a_terminal_is_complete_at_exit,
];

const PROMPT: &str = "# ";

fn shell(on: &Subject, line: &str) -> anyhow::Result<PtySession> {
    let mut session = on.docker.terminal(line)?;
    session.expect(PROMPT, on.patience(15))?;
    Ok(session)
}

fn an_interactive_shell_feels_like_one(on: &Subject) -> anyhow::Result<()> {
    let mut session = shell(on, "run --rm -it --name tty busybox sh")?;
    session.send("echo $((6*7))\r")?;
    session.expect("\r\n42\r\n", on.patience(10))?;
    session.send("tty; test -t 0 && test -t 1 && test -t 2 && echo all three\r")?;
    session.expect("/dev/pts/0", on.patience(10))?;
    session.expect("\r\nall three\r\n", on.patience(10))?;
    session.send("echo $TERM; ps\r")?;
    session.expect("\r\nxterm\r\n", on.patience(10))?;
    session.expect("1 root", on.patience(10))?;
    session.send("exit 7\r")?;
    let code = session.wait(on.patience(15))?;
    ensure!(code == 7, "exit code {code}\n{}", session.transcript());
    Ok(())
}

fn the_terminal_follows_the_window(on: &Subject) -> anyhow::Result<()> {
    let mut session = shell(on, "run --rm -it busybox sh")?;
    let has_size = |session: &mut PtySession, size: &str| {
        // The client sends the size after the start: the shell may be faster.
        session.send(format!(
            "until [ \"$(stty size)\" = '{size}' ]; do sleep 0.05; done; echo is-{}\r",
            "now"
        ))?;
        session.expect("\r\nis-now\r\n", on.patience(10)).map(drop)
    };
    has_size(&mut session, "24 80")?;
    session.resize(132, 43)?;
    has_size(&mut session, "43 132")?;
    session.send("exit\r")?;
    ensure!(session.wait(on.patience(15))? == 0, "{}", session.transcript());
    Ok(())
}

fn control_c_goes_to_the_container(on: &Subject) -> anyhow::Result<()> {
    let mut session = shell(on, "run --rm -it busybox sh")?;
    session.send("echo go; sleep 1000\r")?;
    session.expect("\r\ngo\r\n", on.patience(10))?;
    // The shell itself does not act on what comes between its fork and its child's exec: a person would press again.
    let mut tries = 0;
    loop {
        session.send([3])?;
        tries += 1;
        match session.expect(PROMPT, on.patience(2)) {
            Ok(_) => break,
            Err(error) if tries == 5 => return Err(error),
            Err(_) => {}
        }
    }
    session.send("echo code-$?\r")?;
    session.expect("code-130", on.patience(10))?;
    session.send([4])?;
    let code = session.wait(on.patience(15))?;
    ensure!(code == 130 || code == 0, "exit code {code} after end of input\n{}", session.transcript());
    Ok(())
}

fn output_of_a_terminal_is_complete_at_exit(on: &Subject) -> anyhow::Result<()> {
    let mut session = on.docker.terminal("run --rm -t busybox seq 5000")?;
    session.expect("\n5000\r", on.patience(30))?;
    ensure!(session.wait(on.patience(15))? == 0, "{}", session.transcript());
    Ok(())
}
