//! Logs go to standard error: the guest's console, the daemon's log file or the terminal.

use tracing_subscriber::EnvFilter;

/// Starts logging. `SKIFF_LOG` sets what is shown (`info` by default), in the syntax of `RUST_LOG`.
pub fn init() {
    let filter = EnvFilter::try_from_env("SKIFF_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call (tests) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
