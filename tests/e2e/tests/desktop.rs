//! The native window on a screen that nobody looks at, with a real engine in a real guest, driven through WebKit's own driver.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use skiff_testkit::binaries::{desktop, guest_image, programs, target_directory};
use skiff_testkit::webdriver::{Screen, Session};
use skiff_testkit::{Program, wait_until};

const SOON: Duration = Duration::from_secs(45);
/// A guest that is emulated on a busy machine takes its time.
const BOOT: Duration = Duration::from_secs(180);
const SETTINGS: &str = r#"{"machine": {"backend": "qemu", "memory_mib": 1024}, "names": {"enabled": false}}"#;

/// A user's home, with a screen and nothing running.
struct Home {
    screen: Screen,
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("skiff-desktop-").tempdir()?;
        let home = Self { screen: Screen::start(1280, 800)?, directory };
        std::fs::create_dir(home.state())?;
        std::fs::write(home.state().join("settings.json"), SETTINGS)?;
        Ok(home)
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn variables(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let mut path = OsString::from(programs()?);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let home = self.directory.path().display().to_string();
        Ok(vec![
            ("DISPLAY", self.screen.name().to_owned()),
            ("HOME", home.clone()),
            ("XDG_RUNTIME_DIR", home.clone()),
            ("XDG_CONFIG_HOME", format!("{home}/.config")),
            ("XDG_DATA_HOME", format!("{home}/.local/share")),
            ("XDG_CACHE_HOME", format!("{home}/.cache")),
            ("DBUS_SESSION_BUS_ADDRESS", "disabled:".to_owned()),
            ("SKIFF_GUEST_IMAGE", guest_image()?.display().to_string()),
            ("NO_AT_BRIDGE", "1".to_owned()),
            ("PATH", path.into_string().ok().context("a search path that is text")?),
            ("SKIFF_STATE", self.state().display().to_string()),
        ])
    }

    fn open(&self) -> anyhow::Result<Session> {
        Session::start(&desktop()?, &self.variables()?)
    }

    /// The program as a user calls it beside a window that is open.
    fn call(&self, argument: &str) -> anyhow::Result<Program> {
        let mut program = Program::new(desktop()?).args([argument]);
        for (name, value) in self.variables()? {
            program = program.env(name, value);
        }
        Ok(program)
    }

    fn daemon(&self) -> Option<Pid> {
        let pid = std::fs::read_to_string(self.state().join("lock")).ok()?;
        let pid = Pid::from_raw(pid.lines().next()?.parse().ok()?)?;
        rustix::process::test_kill_process(pid).ok().map(|()| pid)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The window's daemon outlives it, as that of the command line does.
        if let Some(pid) = self.daemon() {
            let _ = kill_process(pid, Signal::TERM);
            let _ = wait_until("the daemon to end", SOON, || self.daemon().is_none().then_some(()));
        }
    }
}

/// The container's own page.
const MADE: &str = "//*[self::h1 or self::h2][contains(., 'made')]";

fn button(name: &str) -> String {
    format!("//button[normalize-space()='{name}' or @aria-label='{name}']")
}

fn field(label: &str) -> String {
    format!("//label[contains(normalize-space(), '{label}')]//input")
}

/// Types into the terminal that is shown.
fn type_in_terminal(window: &Session, text: &str) -> anyhow::Result<()> {
    window.read("//*[contains(@class, 'xterm-rows')]", "#")?;
    window.type_into("//textarea[contains(@class, 'xterm-helper-textarea')]", &format!("{text}\u{e007}"))
}

#[test]
fn the_window_boots_the_guest_runs_an_image_reads_its_log_and_types_into_it() -> anyhow::Result<()> {
    let home = Home::new()?;
    let begun = Instant::now();
    let window = home.open()?;
    // Nothing ran: the daemon is started by the window, the guest by its user.
    window.see(&button("Start the guest"))?;
    println!("cold start to a usable window: {} ms", begun.elapsed().as_millis());
    ensure!(home.daemon().is_some(), "the window did not start the daemon");
    let begun = Instant::now();
    window.click(&button("Start the guest"))?;
    wait_until("the guest", BOOT, || window.see("//*[contains(text(), 'Engine is running')]").ok())?;
    println!("from the click to a guest that runs: {} ms", begun.elapsed().as_millis());

    window.click("//nav//a[contains(., 'Containers')]")?;
    window.click(&button("New container"))?;
    window.type_into(&field("Image"), "skiff/toolbox")?;
    window.type_into("//input[@placeholder='web']", "made")?;
    let greet = "sh -c 'echo greetings from inside; exec sleep 100000'";
    window.type_into(&field("Command"), greet)?;
    window.click(&button("Create and start"))?;
    window.see(MADE)?;
    window.click("//*[@role='tab'][contains(., 'Logs')]")?;
    window.read("//*[@role='log']", "greetings from inside")?;
    window.click("//*[@role='tab'][contains(., 'Terminal')]")?;
    type_in_terminal(&window, "echo typed-$((6 * 7))")?;
    window.read("//*[contains(@class, 'xterm-rows')]", "typed-42")?;
    let shots = target_directory().join("dashboard");
    window.picture(&shots.join("window-terminal.png"))?;

    // A call of the interface that is no stream, in both directions: an archive.
    window.click("//*[@role='tab'][contains(., 'Files')]")?;
    window.see("//button[normalize-space()='etc']")?;
    window.click("//nav//a[contains(., 'Machine')]")?;
    window.see("//*[contains(text(), 'Docker socket')]")?;
    window.picture(&shots.join("window-machine.png"))?;
    // The guest's own shell, and its console.
    window.click("//*[@role='tab'][contains(., 'Shell')]")?;
    type_in_terminal(&window, "echo guest-$((6 * 7)); uname -s")?;
    window.read("//*[contains(@class, 'xterm-rows')]", "guest-42")?;
    window.picture(&shots.join("window-shell.png"))?;
    window.click(&button("Close: Shell 1"))?;
    window.click("//*[@role='tab'][contains(., 'State')]")?;
    window.click(&button("Give free space back now"))?;
    window.see("//*[contains(text(), 'given back to this computer')]")?;

    window.click("//nav//a[contains(., 'Settings')]")?;
    window.click("//label[contains(., 'Start with the session')]//input")?;
    let entry = home.directory.path().join(".config/autostart/dev.skiff.Desktop.desktop");
    wait_until("the autostart entry", SOON, || entry.exists().then_some(()))?;
    window.picture(&shots.join("window-settings.png"))?;

    // Another start, with a link, comes to this window; a link that is none is refused.
    home.call("skiff://container/made")?.run()?.ok()?;
    window.see(MADE)?;
    home.call("skiff://container/../etc")?.run()?.exits(1)?.complains_anywhere("is not a link of Skiff's")?;

    // Nothing but the page itself is shown in the window, and nothing may be loaded from elsewhere.
    window.script("location.href = 'http://127.0.0.1:1/'; return 0")?;
    let script = "const heard = []; addEventListener('securitypolicyviolation', (e) => heard.push(e.violatedDirective)); \
                  window.heard = heard; fetch('http://127.0.0.1:1/').catch(() => 0); return location.protocol";
    ensure!(window.script(script)? == "skiff-window:", "the window left its page");
    wait_until("the policy to be kept", SOON, || {
        (window.script("return window.heard.join()").ok()? == "connect-src").then_some(())
    })?;

    window.close()?;
    ensure!(home.daemon().is_some(), "the daemon ended with the window");
    let begun = Instant::now();
    let window = home.open()?;
    window.see("//*[contains(text(), 'Engine is running')]")?;
    let usable = window.script("return Math.round(performance.now())")?;
    println!(
        "start to usable with a running daemon: {} ms, of which the page {usable} ms",
        begun.elapsed().as_millis()
    );
    window.close()?;
    Ok(())
}
