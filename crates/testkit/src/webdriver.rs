//! As much of the WebDriver protocol as a test of our own window needs: WebKit's driver starts the program and drives the page.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::process::{Program, Running};
use crate::wait::{free_port, wait_until};
use crate::{Finished, http};

/// How the standard names an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What a page may take to come to what is waited for.
const SOON: Duration = Duration::from_secs(45);

/// A screen that nobody looks at.
pub struct Screen {
    server: Option<Running>,
    name: String,
}

impl Screen {
    /// Starts an X server of this size on a display that is free.
    pub fn start(width: u32, height: u32) -> anyhow::Result<Self> {
        let size = format!("{width}x{height}x24");
        let server = Program::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", size.as_str(), "-nolisten", "tcp"])
            .start()
            .context("start Xvfb")?;
        let name = wait_until("the display's number", SOON, || {
            let out = String::from_utf8(server.stdout()).ok()?;
            Some(format!(":{}", out.strip_suffix('\n')?))
        })?;
        Ok(Self { server: Some(server), name })
    }

    /// What `DISPLAY` has to be.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.signal(rustix::process::Signal::TERM);
            let _ = server.finish(SOON);
        }
    }
}

/// A program with a web view, driven.
pub struct Session {
    driver: Option<Running>,
    address: SocketAddr,
    path: String,
}

impl Session {
    /// Starts `program` in this environment through WebKit's driver; returns when its page has begun.
    pub fn start(program: &Path, variables: &[(&str, String)]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut driver = Program::new("WebKitWebDriver").args([format!("--port={port}")]);
        for (name, value) in variables {
            driver = driver.env(*name, value.as_str());
        }
        let driver =
            driver.env("TAURI_WEBVIEW_AUTOMATION", "true").start().context("start WebKitWebDriver")?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut session = Self { driver: Some(driver), address, path: String::new() };
        wait_until("the driver to listen", SOON, || http::get(address, "/status").ok())?;
        let options = json!({ "binary": program, "args": [] });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "webkitgtk:browserOptions": options } } });
        let made = session.call("POST", "/session", &wanted)?;
        let id = made["sessionId"].as_str().context("the driver made no session")?;
        session.path = format!("/session/{id}");
        Ok(session)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let text = if method == "POST" { body.to_string() } else { String::new() };
        let headers = [("Content-Type", "application/json")];
        let path = format!("{}{path}", self.path);
        let answer = http::request(method, self.address, &path, &headers, text.as_bytes())?;
        let value: Value = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
        ensure!(answer.status == 200, "{method} {path}: {}", value["value"]["message"]);
        Ok(value["value"].clone())
    }

    /// What the page's script answers.
    pub fn script(&self, script: &str) -> anyhow::Result<Value> {
        self.call("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    fn find(&self, xpath: &str) -> anyhow::Result<String> {
        let element = self.call("POST", "/element", &json!({ "using": "xpath", "value": xpath }))?;
        Ok(element[ELEMENT].as_str().context("no element")?.to_owned())
    }

    /// The text of something that takes up room on the page. WebDriver's own idea of what can be seen fails on what scrolls.
    fn shown(&self, xpath: &str) -> Option<String> {
        let script = "const found = document.evaluate(arguments[0], document, null, XPathResult.ORDERED_NODE_SNAPSHOT_TYPE); \
                      for (let i = 0; i < found.snapshotLength; i++) { const one = found.snapshotItem(i); \
                      if (one.getClientRects().length) return one.innerText; } return null;";
        let text = self.call("POST", "/execute/sync", &json!({ "script": script, "args": [xpath] })).ok()?;
        text.as_str().map(str::to_owned)
    }

    /// Waits until something is there and takes up room; gives its text.
    pub fn see(&self, xpath: &str) -> anyhow::Result<String> {
        wait_until(xpath, SOON, || self.shown(xpath)).with_context(|| self.text())
    }

    /// Waits until something says this.
    pub fn read(&self, xpath: &str, text: &str) -> anyhow::Result<()> {
        let mut last = String::new();
        wait_until(&format!("{text:?} in {xpath}"), SOON, || {
            last = self.shown(xpath)?;
            last.contains(text).then_some(())
        })
        .with_context(|| format!("it says {last:?}"))
    }

    /// Waits for something and clicks it.
    pub fn click(&self, xpath: &str) -> anyhow::Result<()> {
        self.act(xpath, "click", &json!({}))
    }

    /// Waits for something and types into it.
    pub fn type_into(&self, xpath: &str, text: &str) -> anyhow::Result<()> {
        self.act(xpath, "value", &json!({ "text": text }))
    }

    fn act(&self, xpath: &str, what: &str, body: &Value) -> anyhow::Result<()> {
        let mut why = String::new();
        // What moves or is drawn anew in this moment is found again.
        wait_until(&format!("{what} of {xpath}"), SOON, || {
            let done = self
                .find(xpath)
                .and_then(|element| self.call("POST", &format!("/element/{element}/{what}"), body));
            done.map_err(|error| why = format!("{error:#}")).ok()
        })
        .with_context(|| format!("{why}\n{}", self.text()))?;
        Ok(())
    }

    /// Writes a picture of the window.
    pub fn picture(&self, path: &Path) -> anyhow::Result<()> {
        let picture = self.call("GET", "/screenshot", &Value::Null)?;
        let bytes = base64(picture.as_str().context("no picture")?)?;
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
    }

    /// All that the page says, for an error.
    fn text(&self) -> String {
        let text = self.script("return document.body.innerText").unwrap_or_default();
        format!("the page says: {}", text.as_str().unwrap_or_default())
    }

    /// Closes the window and ends the driver; gives what both have written.
    pub fn close(mut self) -> anyhow::Result<Finished> {
        self.call("DELETE", "", &Value::Null)?;
        let driver = self.driver.take().context("the driver has ended")?;
        driver.signal(rustix::process::Signal::TERM)?;
        driver.finish(SOON)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            let _ = self.call("DELETE", "", &Value::Null);
            let _ = driver.signal(rustix::process::Signal::TERM);
            let _ = driver.finish(SOON);
        }
    }
}

fn base64(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut have) = (0_u32, 0);
    for character in text.bytes().filter(|character| *character != b'=') {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("the picture is not in base64"),
        };
        bits = bits << 6 | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
            bits &= (1 << have) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn pictures_are_decoded() {
        assert_eq!(super::base64("aGVsbG8gd29ybGQ=").unwrap(), b"hello world");
        assert_eq!(super::base64("/+8=").unwrap(), [0xff, 0xef]);
        assert!(super::base64("a b").is_err());
    }
}
