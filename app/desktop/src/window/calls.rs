//! The page's calls.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skiff_dashboard::Said;
use tauri::State;
use tauri::ipc::{Channel, InvokeBody, InvokeResponseBody, Request};

use super::Shell;

/// Names the stream that bytes are for.
const PIPE: &str = "skiff-pipe";

/// What the user has chosen for the window.
#[derive(Debug, Serialize, Deserialize)]
pub struct Choices {
    notifications: bool,
    autostart: bool,
    keep_in_tray: bool,
}

/// A page begins; one that was there before is gone.
#[tauri::command]
pub async fn enter(shell: State<'_, Arc<Shell>>) -> Result<(), String> {
    shell.streams.close_all();
    Ok(())
}

/// Opens a stream.
#[tauri::command]
pub async fn pipe_open(
    shell: State<'_, Arc<Shell>>,
    channel: Channel<InvokeResponseBody>,
) -> Result<u32, String> {
    let hear = move |said: Option<Said>| {
        let message = match said {
            Some(Said::Text(json)) => InvokeResponseBody::Json(json),
            Some(Said::Bytes(bytes)) => InvokeResponseBody::Raw(bytes.into()),
            None => InvokeResponseBody::Json("null".to_owned()),
        };
        channel.send(message).is_ok()
    };
    shell.streams.open(hear).map_err(|error| error.to_string())
}

/// Sends JSON.
#[tauri::command]
pub async fn pipe_tell(shell: State<'_, Arc<Shell>>, id: u32, text: String) -> Result<(), String> {
    shell.streams.say(id, Said::Text(text)).await.map_err(|error| error.to_string())
}

/// Sends bytes.
#[tauri::command]
pub async fn pipe_send(shell: State<'_, Arc<Shell>>, request: Request<'_>) -> Result<(), String> {
    let id = request.headers().get(PIPE).and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let (Some(id), InvokeBody::Raw(bytes)) = (id, request.body()) else {
        return Err("bytes for a stream are wanted".to_owned());
    };
    let said = Said::Bytes(bytes.clone().into());
    shell.streams.say(id, said).await.map_err(|error| error.to_string())
}

/// Ends a stream.
#[tauri::command]
pub async fn pipe_close(shell: State<'_, Arc<Shell>>, id: u32) -> Result<(), String> {
    shell.streams.close(id);
    Ok(())
}

/// Tells the user's choices.
#[tauri::command]
pub async fn choices(shell: State<'_, Arc<Shell>>) -> Result<Choices, String> {
    let memory = shell.memory();
    Ok(Choices {
        notifications: memory.notifications,
        autostart: shell.autostart.as_ref().is_some_and(skiff_desktop::autostart::Autostart::is_on),
        keep_in_tray: memory.keep_in_tray,
    })
}

/// Changes them.
#[tauri::command]
pub async fn choose(shell: State<'_, Arc<Shell>>, choices: Choices) -> Result<(), String> {
    let choose = || -> Result<(), skiff_desktop::Error> {
        match &shell.autostart {
            Some(autostart) => {
                let own = std::env::current_exe().unwrap_or_else(|_| "skiff-desktop".into());
                autostart.set(choices.autostart, &own)?;
            }
            None if choices.autostart => return Err(skiff_desktop::Error::NoHome),
            None => {}
        }
        shell.remember(|memory| {
            memory.notifications = choices.notifications;
            memory.keep_in_tray = choices.keep_in_tray;
        })
    };
    choose().map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}
