//! Tells Tauri which calls of the page there are; a call that is not listed here does not exist for any page.

#[cfg(feature = "window")]
const CALLS: &[&str] = &["enter", "pipe_open", "pipe_tell", "pipe_send", "pipe_close", "choices", "choose"];

fn main() {
    #[cfg(feature = "window")]
    {
        let manifest = tauri_build::AppManifest::new().commands(CALLS);
        let attributes = tauri_build::Attributes::new().app_manifest(manifest);
        if let Err(error) = tauri_build::try_build(attributes) {
            println!("cargo::error={error:#}");
        }
    }
}
