//! Writing a halted guest to a file and reading it back, by QEMU's migration (`file:`, with the `mapped-ram` layout:
//! every page has its place, pages of zeros are holes).

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::qmp::Qmp;
use crate::{Error, Result};

/// How often QEMU is asked how far it is.
const POLL: Duration = Duration::from_millis(4);
/// Bytes a second; QEMU's own limit is for networks.
const BANDWIDTH: u64 = 1 << 40;

/// Writes the guest; the file is not on stable storage yet.
pub(super) async fn save(qmp: &Qmp, path: &Path) -> Result<()> {
    set_up(qmp).await?;
    run(qmp, "migrate", json!({ "uri": uri(path) })).await?;
    finish(qmp, "saved").await
}

/// Reads a guest, which stands still afterwards.
pub(super) async fn load(qmp: &Qmp, path: &Path) -> Result<()> {
    set_up(qmp).await?;
    run(qmp, "migrate-incoming", json!({ "uri": uri(path) })).await?;
    finish(qmp, "restored").await
}

/// What QEMU calls a migration that is under way.
const UNDER_WAY: [&str; 4] = ["setup", "active", "device", "cancelling"];

/// Calls off what is under way, and waits until nothing is: at its end a migration halts the guest, whatever it did meanwhile.
pub(super) async fn call_off(qmp: &Qmp) -> Result<()> {
    if UNDER_WAY.contains(&status(qmp).await?.0.as_str()) {
        run(qmp, "migrate_cancel", Value::Null).await?;
        while UNDER_WAY.contains(&status(qmp).await?.0.as_str()) {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

async fn set_up(qmp: &Qmp) -> Result<()> {
    let capabilities = json!({ "capabilities": [{ "capability": "mapped-ram", "state": true }] });
    run(qmp, "migrate-set-capabilities", capabilities).await?;
    run(qmp, "migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH })).await
}

async fn finish(qmp: &Qmp, what: &'static str) -> Result<()> {
    loop {
        let (status, reason) = status(qmp).await?;
        match status.as_str() {
            "completed" => return Ok(()),
            "failed" | "cancelled" | "cancelling" => return Err(Error::Migration { what, reason }),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// The migration's status, and QEMU's reason where it failed.
async fn status(qmp: &Qmp) -> Result<(String, String)> {
    let failed = |source| Error::Monitor { command: "query-migrate", source };
    let answer = qmp.execute("query-migrate", Value::Null).await.map_err(failed)?;
    let status = answer["status"].as_str().unwrap_or("none").to_owned();
    let reason = answer["error-desc"].as_str().unwrap_or(&status).to_owned();
    Ok((status, reason))
}

pub(super) async fn run(qmp: &Qmp, command: &'static str, arguments: Value) -> Result<()> {
    match qmp.execute(command, arguments).await {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Monitor { command, source }),
    }
}

/// QEMU takes everything behind the colon as the path, but for an offset at its end, which ours never have.
fn uri(path: &Path) -> String {
    format!("file:{}", path.display())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    use super::*;

    /// A monitor whose migrations come to this status after a while.
    async fn monitor(last: &'static str) -> Qmp {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let (reader, mut writer) = tokio::io::split(theirs);
            writer.write_all(b"{\"QMP\": {\"version\": {}}}\n").await.unwrap();
            let mut lines = BufReader::new(reader).lines();
            let mut asked = 0;
            while let Ok(Some(line)) = lines.next_line().await {
                let request: Value = serde_json::from_str(&line).unwrap();
                asked += u32::from(request["execute"] == "query-migrate");
                let status = if asked < 3 { "active" } else { last };
                let answer = json!({ "status": status, "error-desc": "No space left on device" });
                let answer = json!({ "return": answer, "id": request["id"] });
                writer.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            }
        });
        Qmp::connect(ours).await.unwrap()
    }

    #[tokio::test]
    async fn a_migration_is_waited_for_and_its_failure_has_qemus_reason() {
        save(&monitor("completed").await, Path::new("/s/ram")).await.unwrap();
        load(&monitor("completed").await, Path::new("/s/ram")).await.unwrap();
        call_off(&monitor("cancelled").await).await.unwrap();
        let error = save(&monitor("failed").await, Path::new("/s/ram")).await.unwrap_err();
        assert_eq!(error.to_string(), "the guest cannot be saved: No space left on device");
    }
}
