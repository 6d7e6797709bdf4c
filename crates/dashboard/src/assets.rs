//! The interface as vite has built it, inside this program.

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use crate::answer::{Body, Refusal, set, whole};

/// Paths and contents.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));
/// Stands in the page where the nonce belongs.
const NONCE: &str = "__NONCE__";

/// Whether there is an interface in this program.
pub(crate) fn are_built() -> bool {
    file("/index.html").is_some()
}

fn file(path: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
}

/// Answers with a file. Nothing is looked up in a file system: what is not in the table does not exist.
pub(crate) fn answer(path: &str, host: &str, nonce: &str) -> Response<Body> {
    match find(path, &format!("ws://{host}"), nonce) {
        Some(response) => response.map(whole),
        None => Refusal::new(StatusCode::NOT_FOUND, "there is nothing here").answer(),
    }
}

/// Gives a file of the interface; its page may connect to `other` beside its own origin.
pub(crate) fn find(path: &str, other: &str, nonce: &str) -> Option<Response<Bytes>> {
    if path == "/" {
        return Some(page(other, nonce));
    }
    let bytes = file(path).filter(|_| path.starts_with("/assets/"))?;
    let mut response = Response::new(Bytes::from_static(bytes));
    set(&mut response, header::CONTENT_TYPE, kind(path));
    // Their names change with their contents.
    set(&mut response, header::CACHE_CONTROL, "private, max-age=31536000, immutable");
    Some(response)
}

fn page(other: &str, nonce: &str) -> Response<Bytes> {
    let html = String::from_utf8_lossy(file("/index.html").unwrap_or_default()).replace(NONCE, nonce);
    let mut response = Response::new(Bytes::from(html));
    set(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
    let policy = policy(other, nonce);
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Scripts and styles from us alone, connections to us alone. The terminal makes style elements, which need the nonce; old
/// Safaris don't count WebSockets as `'self'`.
fn policy(other: &str, nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self' {other}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_built_is_served_and_only_below_assets() {
        for path in ["/index.html", "/assets/../index.html", "/assets/", "/etc/passwd", "/assets/none.js"] {
            assert_eq!(answer(path, "localhost", "n").status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn the_policy_allows_nothing_from_elsewhere_and_no_inline_script() {
        let policy = policy("ws://127.0.0.1:7", "abc");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self' 'nonce-abc';"));
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert!(policy.contains("connect-src 'self' ws://127.0.0.1:7;"), "{policy}");
    }
}
