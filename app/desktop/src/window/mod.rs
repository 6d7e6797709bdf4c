//! The window, made with Tauri. Wiring only: what is decided is decided in the library.

mod calls;
mod desktop;
mod tray;
mod watch;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use skiff_dashboard::{Upstream, Window};
use skiff_desktop::autostart::Autostart;
use skiff_desktop::frame::{Frame, SMALLEST, USUAL};
use skiff_desktop::instance::Ears;
use skiff_desktop::link::Link;
use skiff_desktop::memory::Memory;
use skiff_desktop::outside::{Way, way};
use skiff_desktop::program;
use skiff_settings::Paths;
use tauri::webview::{DownloadEvent, NewWindowResponse};
use tauri::{
    AppHandle, Manager as _, RunEvent, WebviewUrl, WebviewWindow, WebviewWindowBuilder, WindowEvent,
};

/// The one window.
const LABEL: &str = "main";
/// The page's own scheme: nobody but the window can ask it.
const SCHEME: &str = "skiff-window";
#[cfg(not(windows))]
const ORIGIN: &str = "skiff-window://localhost";
#[cfg(windows)]
const ORIGIN: &str = "http://skiff-window.localhost";

/// What all parts of the shell know.
struct Shell {
    paths: Paths,
    program: std::path::PathBuf,
    streams: Window,
    memory: Mutex<Memory>,
    autostart: Option<Autostart>,
}

impl Shell {
    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is remembered, and writes it down.
    fn remember(&self, change: impl FnOnce(&mut Memory)) -> Result<(), skiff_desktop::Error> {
        let mut memory = self.memory();
        let before = memory.clone();
        change(&mut memory);
        if *memory == before { Ok(()) } else { memory.write(&self.paths.desktop()) }
    }
}

/// Shows the window until the user has had enough.
pub fn run(paths: Paths, ears: Ears, link: &Link, hidden: bool) -> anyhow::Result<ExitCode> {
    ensure!(Window::is_built(), "this program was built without its interface: run scripts/build first");
    let own = std::env::current_exe().context("find this program")?;
    let program = program::command_line(&own, std::env::var_os("PATH").as_deref())
        .context("there is no `skiff` beside this program or on the PATH, and that is the daemon")?;
    desktop::prepare();
    let upstream = Upstream::Daemon { paths: paths.clone(), program: program.clone() };
    let shell = Arc::new(Shell {
        memory: Mutex::new(Memory::read(&paths.desktop())),
        autostart: Autostart::discover(|name| std::env::var_os(name)).ok(),
        streams: Window::new(upstream),
        program,
        paths,
    });
    let first_place = link.place();
    let app = tauri::Builder::default()
        .register_uri_scheme_protocol(SCHEME, |_, request| match Window::file(request.uri().path()) {
            Some(response) => response.map(|bytes| bytes.to_vec()),
            None => {
                let mut response = tauri::http::Response::new(Vec::new());
                *response.status_mut() = tauri::http::StatusCode::NOT_FOUND;
                response
            }
        })
        .manage(Arc::clone(&shell))
        .invoke_handler(tauri::generate_handler![
            calls::enter,
            calls::pipe_open,
            calls::pipe_tell,
            calls::pipe_send,
            calls::pipe_close,
            calls::choices,
            calls::choose
        ])
        .setup(move |app| {
            let handle = app.handle().clone();
            let tray = tray::make(&handle);
            if !hidden {
                open(&handle, first_place.as_deref())?;
            }
            watch::begin(&handle, tray);
            tauri::async_runtime::spawn(ears.listen(move |wish| {
                // What comes over the socket is as foreign as what comes on the command line.
                let place = wish.parse::<Link>().ok().and_then(|link| link.place());
                let opener = handle.clone();
                let opened = handle.run_on_main_thread(move || {
                    if let Err(error) = open(&opener, place.as_deref()) {
                        tracing::error!(%error, "the window can't be shown");
                    }
                });
                drop(opened);
            }));
            Ok(())
        })
        .build(tauri::generate_context!())
        .context("make the window")?;
    app.run(move |app, event| match event {
        // Without a window we go on only where the user wants that, or starts us so.
        RunEvent::ExitRequested { code: None, api, .. } if hidden || shell.memory().keep_in_tray => {
            api.prevent_exit();
        }
        RunEvent::WindowEvent { event: WindowEvent::CloseRequested { .. }, .. } => keep_frame(app),
        _ => {}
    });
    Ok(ExitCode::SUCCESS)
}

/// Shows the window, at a place in the page if one is named.
fn open(app: &AppHandle, place: Option<&str>) -> tauri::Result<()> {
    if let Some(window) = app.get_webview_window(LABEL) {
        window.unminimize()?;
        window.show()?;
        window.set_focus()?;
        if let Some(place) = place {
            window.eval(format!("location.hash = {}", serde_json::Value::from(place)))?;
        }
        return Ok(());
    }
    let address = format!("{ORIGIN}/#{}", place.unwrap_or("/"));
    let address =
        address.parse().expect("our own origin and a place without special characters make an address");
    let opener = app.clone();
    let builder = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::CustomProtocol(address))
        .title("Skiff")
        .inner_size(USUAL.0, USUAL.1)
        .min_inner_size(SMALLEST.0, SMALLEST.1)
        .on_navigation(|address| match way(address.as_str(), ORIGIN) {
            Way::Stay => true,
            Way::Browser => {
                desktop::browse(address.as_str());
                false
            }
            Way::Nowhere => false,
        })
        .on_new_window(|address, _| {
            if way(address.as_str(), ORIGIN) == Way::Browser {
                desktop::browse(address.as_str());
            }
            NewWindowResponse::Deny
        })
        .on_download(move |_, event| {
            if let DownloadEvent::Finished { path: Some(path), success: true, .. } = event
                && opener.state::<Arc<Shell>>().memory().notifications
            {
                desktop::notify("Saved", &path.display().to_string());
            }
            true
        });
    let window = builder.build()?;
    place_again(app, &window)?;
    Ok(())
}

/// Puts a new window where the last one was.
fn place_again(app: &AppHandle, window: &WebviewWindow) -> tauri::Result<()> {
    let (frame, maximized) = {
        let shell = app.state::<Arc<Shell>>();
        let memory = shell.memory();
        (memory.frame, memory.maximized)
    };
    let screens: Vec<Frame> = window
        .available_monitors()?
        .iter()
        .map(|screen| {
            let (at, size) = (screen.position(), screen.size());
            Frame { x: at.x, y: at.y, width: size.width, height: size.height }
        })
        .collect();
    if let Some(frame) = frame {
        window.set_size(tauri::PhysicalSize::new(frame.width, frame.height))?;
        if frame.is_reachable(&screens) {
            window.set_position(tauri::PhysicalPosition::new(frame.x, frame.y))?;
        }
    }
    if maximized {
        window.maximize()?;
    }
    Ok(())
}

/// Remembers where the window is.
fn keep_frame(app: &AppHandle) {
    let Some(window) = app.get_webview_window(LABEL) else { return };
    let look = || -> tauri::Result<(Frame, bool)> {
        let (at, size) = (window.outer_position()?, window.inner_size()?);
        let frame = Frame { x: at.x, y: at.y, width: size.width, height: size.height };
        Ok((frame, window.is_maximized()?))
    };
    let Ok((frame, maximized)) = look() else { return };
    let kept = app.state::<Arc<Shell>>().remember(|memory| {
        // The size to go back to is the one from before it filled the screen.
        if !maximized {
            memory.frame = Some(frame);
        }
        memory.maximized = maximized;
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "the window's place can't be kept");
    }
}
