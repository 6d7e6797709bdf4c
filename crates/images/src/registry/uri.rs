//! Addresses: showing them, comparing them, following redirects.

use http::{HeaderMap, Uri};

use super::connect::bare_host;

pub(super) fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", |a| a.as_str())
}

/// Returns an address without its query, which may be a signature that opens a private blob.
pub(super) fn shown_url(uri: &Uri) -> String {
    format!("{}://{}{}", uri.scheme_str().unwrap_or_default(), authority(uri), uri.path())
}

pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    a.scheme() == b.scheme() && a.host().map(bare_host) == b.host().map(bare_host) && port(a) == port(b)
}

/// Resolves a redirect; one from `https` to `http` is not followed.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let absolute = if location.starts_with("//") {
        format!("{}:{location}", base.scheme_str()?)
    } else if location.starts_with('/') {
        format!("{}://{}{location}", base.scheme_str()?, authority(base))
    } else {
        location.to_owned()
    };
    let uri: Uri = absolute.split('#').next()?.parse().ok()?;
    let fine = match uri.scheme_str()? {
        "https" => true,
        "http" => base.scheme_str() == Some("http"),
        _ => false,
    };
    (fine && uri.host().is_some()).then_some(uri)
}

pub(super) fn content_range_start(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(http::header::CONTENT_RANGE)?.to_str().ok()?;
    value.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
