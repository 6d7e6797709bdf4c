//! The desktop around the window: its browser, its notifications.

/// What must be known before the toolkit starts.
pub fn prepare() {
    // WebKit's way of sharing buffers shows an empty window with NVIDIA's own driver.
    #[cfg(target_os = "linux")]
    if std::path::Path::new("/proc/driver/nvidia").exists() {
        let _ = glib::setenv("WEBKIT_DISABLE_DMABUF_RENDERER", "1", false);
    }
}

/// Shows an address in the user's browser.
pub fn browse(address: &str) {
    #[cfg(target_os = "linux")]
    let result = gio::AppInfo::launch_default_for_uri(address, None::<&gio::AppLaunchContext>);
    #[cfg(not(target_os = "linux"))]
    let result = {
        let program = if cfg!(windows) { "explorer" } else { "open" };
        std::process::Command::new(program).arg(address).spawn().map(drop)
    };
    if let Err(error) = result {
        tracing::warn!(%error, "the browser can't be started");
    }
}

/// Shows a notification, where there is somebody who shows any. Returns at once.
pub fn notify(title: &str, body: &str) {
    #[cfg(target_os = "linux")]
    {
        let (title, body) = (title.to_owned(), body.to_owned());
        tauri::async_runtime::spawn_blocking(move || {
            if let Err(error) = send(&title, &body) {
                tracing::debug!(%error, "nobody shows notifications");
            }
        });
    }
    #[cfg(not(target_os = "linux"))]
    tracing::info!(title, body, "a notification");
}

/// Notifications as freedesktop.org has them.
#[cfg(target_os = "linux")]
fn send(title: &str, body: &str) -> Result<(), glib::Error> {
    use glib::variant::ToVariant as _;

    const NAME: &str = "org.freedesktop.Notifications";
    const PATIENCE_MS: i32 = 2000;
    let bus = gio::bus_get_sync(gio::BusType::Session, None::<&gio::Cancellable>)?;
    // The body may hold markup, and names of containers are not meant as such.
    let body = glib::markup_escape_text(body);
    let actions: Vec<String> = Vec::new();
    let hints =
        std::collections::HashMap::from([("desktop-entry".to_owned(), "dev.skiff.Desktop".to_variant())]);
    let parameters = ("Skiff", 0_u32, "skiff", title, body.as_str(), actions, hints, -1_i32).to_variant();
    let path = "/org/freedesktop/Notifications";
    let flags = gio::DBusCallFlags::NONE;
    let nobody = None::<&gio::Cancellable>;
    bus.call_sync(Some(NAME), path, NAME, "Notify", Some(&parameters), None, flags, PATIENCE_MS, nobody)?;
    Ok(())
}
