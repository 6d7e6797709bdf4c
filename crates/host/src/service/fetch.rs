//! `fetch` and `roots`: the engine reaches its servers as programs of this host do, by its proxies and with its trust.
//!
//! The proxies are those of the daemon's environment. What they want to know of us stays here: the guest gets a connection.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::json;
use skiff_link::{Incoming, MAX_ROOTS, ReplyCode, copy_both};
use skiff_proxy::Proxies;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    NETWORK_DEADLINE,
    egress::{Policy, Refusal, dial},
};

/// Longest variable that is told, in characters: it has to fit into an answer.
const MOST_SHOWN: usize = 1000;

/// Where systems keep what they trust, in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(super) async fn serve(
    incoming: Incoming,
    (host, port): (&str, u16),
    tls: bool,
    policy: &Policy,
    proxies: &Proxies,
) {
    let proxy = proxies.for_server(tls, host, port);
    let dialing = async {
        let Some(proxy) = proxy else { return dial(host, port, policy).await };
        // The user's own proxy may be on this host, whatever containers may reach.
        let open = Policy { loopback: true, ..policy.clone() };
        let mut outside = dial(&proxy.host, proxy.port, &open).await?;
        match proxy.tunnel(&mut outside, host, port).await {
            Ok(()) => Ok(outside),
            Err(error) => Err(Refusal { code: ReplyCode::from_io(&error), message: error.to_string() }),
        }
    };
    let dialed = timeout(NETWORK_DEADLINE, dialing).await.unwrap_or_else(|_| {
        let message = format!("dial tcp {host}:{port}: i/o timeout");
        Err(Refusal { code: ReplyCode::TimedOut, message })
    });
    let outside = match dialed {
        Ok(outside) => outside,
        Err(Refusal { code, message }) => return incoming.refuse(code, message).await,
    };
    let Ok(guest) = incoming.accept(None).await else { return };
    if let Err(error) = copy_both(guest, outside).await {
        tracing::debug!(%error, port, "engine's connection broke");
    }
}

/// Serves the certificates that this host trusts, in PEM; the answer names its proxies, as they may be shown.
pub(super) async fn serve_roots(incoming: Incoming, proxies: &Proxies) {
    let short = |text: &str| text.chars().take(MOST_SHOWN).collect::<String>();
    let told = proxies.variables();
    let data = json!({ "http": short(&told.http), "https": short(&told.https), "no": short(&told.no) });
    let pem = tokio::task::spawn_blocking(roots).await.unwrap_or_default();
    if let Ok(mut stream) = incoming.accept(Some(data)).await
        && stream.write_all(&pem).await.is_ok()
    {
        let _ = stream.shutdown().await;
    }
}

fn roots() -> Vec<u8> {
    let named = std::env::var_os(skiff_settings::env::SSL_CERT_FILE).filter(|file| !file.is_empty());
    match named {
        Some(file) => read(Path::new(&file)),
        None => BUNDLES
            .map(PathBuf::from)
            .iter()
            .map(|path| read(path))
            .find(|pem| !pem.is_empty())
            .unwrap_or_else(keychain),
    }
}

fn read(path: &Path) -> Vec<u8> {
    let mut pem = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MAX_ROOTS).read_to_end(&mut pem);
    }
    pem
}

/// macOS keeps what administrators and companies add in a keychain.
fn keychain() -> Vec<u8> {
    if !cfg!(target_os = "macos") {
        return Vec::new();
    }
    let told = std::process::Command::new("/usr/bin/security")
        .args(["find-certificate", "-a", "-p", "/Library/Keychains/System.keychain"])
        .output();
    let mut pem = told.map(|told| told.stdout).unwrap_or_default();
    pem.truncate(MAX_ROOTS as usize);
    pem
}
