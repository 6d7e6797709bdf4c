//! Keeps an eye on daemon and engine while the window runs, for the tray and for notifications. This wakes nobody.

use std::sync::Arc;
use std::time::Duration;

use skiff_desktop::news::news;
use skiff_desktop::sight::{Sight, containers};
use skiff_host::control::{Client, MachineState};
use skiff_host::spawn;
use tauri::tray::TrayIcon;
use tauri::{AppHandle, Manager as _};

use super::{LABEL, Shell, desktop, tray};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(3);

/// Starts the daemon if none runs, then looks again and again.
pub fn begin(app: &AppHandle, icon: Option<TrayIcon>) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        let shell = Arc::clone(&app.state::<Arc<Shell>>());
        if let Err(error) = spawn::ensure_daemon_of(&shell.paths, &shell.program).await {
            // The page tells the same, with a button to try again.
            tracing::error!(%error, "the daemon does not start");
        }
        let mut before = Sight::default();
        loop {
            let now = look(&shell).await;
            if now != before {
                if let Some(icon) = &icon {
                    tray::update(&app, icon, &now);
                }
                if shell.memory().notifications && !is_watched(&app) {
                    for one in news(&before, &now) {
                        desktop::notify(&one.title, &one.body);
                    }
                }
            }
            before = now;
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// Whether the user has the window before them.
fn is_watched(app: &AppHandle) -> bool {
    app.get_webview_window(LABEL).is_some_and(|window| window.is_focused().unwrap_or(false))
}

async fn look(shell: &Shell) -> Sight {
    let Ok(client) = Client::connect(&shell.paths.control_socket()).await else { return Sight::default() };
    let Ok(status) = client.status().await else { return Sight::default() };
    let machine = status.machine;
    let list = match machine.state {
        MachineState::Running => shell.streams.look("/containers/json?all=true").await,
        _ => None,
    };
    let containers = list.and_then(|json| containers(&json));
    Sight { machine: Some(machine.state), reason: machine.reason, containers }
}

/// Starts or stops the guest, as the user has asked in the tray.
pub fn machine(app: &AppHandle, start: bool) {
    let shell = Arc::clone(&app.state::<Arc<Shell>>());
    tauri::async_runtime::spawn(async move {
        let work = async {
            spawn::ensure_daemon_of(&shell.paths, &shell.program).await.map_err(|error| error.to_string())?;
            let client =
                Client::connect(&shell.paths.control_socket()).await.map_err(|error| error.to_string())?;
            let done = if start { client.start(false, |_| ()).await } else { client.stop(|_| ()).await };
            done.map_err(|error| error.to_string())
        };
        if let Err(error) = work.await {
            desktop::notify(if start { "The guest did not start" } else { "The guest did not stop" }, &error);
        }
    });
}
