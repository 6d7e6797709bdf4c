//! Whether a request can be from our own page: its host, its origin, its path.

use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode};

use crate::answer::Refusal;

/// What a browser calls the site of our page.
const SITES: [&str; 2] = ["same-origin", "none"];

/// Gives the host that a request names, if that is loopback.
///
/// A page of a name that its owner lets point to 127.0.0.1 asks with that name, whatever port. Ports may differ from ours:
/// a tunnel to this machine has its own.
///
/// # Errors
/// 421 for any other host, or none.
pub(crate) fn host(headers: &HeaderMap) -> Result<&str, Refusal> {
    let refused = || {
        let message = "the dashboard answers on 127.0.0.1 and localhost only";
        Refusal::new(StatusCode::MISDIRECTED_REQUEST, message)
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(refused()) };
    let host = host.to_str().map_err(|_| refused())?;
    let (name, port) = match host.rsplit_once(':') {
        // An address of IPv6 without a port has colons inside its brackets.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_is_number = port.is_none_or(|port| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    if matches!(name, "127.0.0.1" | "localhost" | "[::1]") && port_is_number {
        Ok(host)
    } else {
        Err(refused())
    }
}

/// Checks that a request comes from a page of the host it goes to.
///
/// # Errors
/// 403 for another origin, or for none where browsers always say one.
pub(crate) fn origin(
    headers: &HeaderMap,
    method: &Method,
    host: &str,
    is_socket: bool,
) -> Result<(), Refusal> {
    let refused = || Refusal::new(StatusCode::FORBIDDEN, "the request comes from another page");
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text("sec-fetch-site").is_some_and(|site| !SITES.contains(&site)) {
        return Err(refused());
    }
    match text("origin") {
        Some(origin) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        Some(_) => Err(refused()),
        None if is_socket || !matches!(*method, Method::GET | Method::HEAD) => Err(refused()),
        None => Ok(()),
    }
}

/// Checks the path of a request to the engine, which begins with a slash and may have a query.
///
/// The engine's router need not agree with us about dots, empty parts and escaped slashes, so none pass.
///
/// # Errors
/// 400 for what no client writes.
pub(crate) fn path(path_and_query: &str) -> Result<(), Refusal> {
    let path = path_and_query.split('?').next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    let whole = path_and_query.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#'));
    let parts = path
        .strip_prefix('/')
        .is_some_and(|rest| !rest.is_empty() && rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
    let escapes = ["%2f", "%5c", "%2e", "%00", "%25"].iter().any(|escape| lower.contains(escape));
    if whole && parts && !escapes && path_and_query.len() <= 32 << 10 {
        Ok(())
    } else {
        Err(Refusal::new(StatusCode::BAD_REQUEST, "the path is not one of the engine's"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_names_of_loopback_are_hosts() {
        for good in ["127.0.0.1:80", "localhost:49152", "localhost", "[::1]:7", "[::1]", "127.0.0.1"] {
            assert_eq!(host(&headers(&[("host", good)])).unwrap(), good);
        }
        for bad in [
            "evil.example",
            "evil.example:80",
            "localhost.evil.example",
            "web.localhost:80",
            "127.0.0.1.nip.io",
            "127.0.0.2",
            "localhost:",
            "localhost:99999",
            "localhost:80:80",
            "localhost:+1",
            "0.0.0.0:80",
            "[::1",
            "user@localhost",
            "",
        ] {
            let refusal = host(&headers(&[("host", bad)])).unwrap_err();
            assert_eq!(refusal.status, StatusCode::MISDIRECTED_REQUEST, "{bad}");
        }
        assert!(host(&headers(&[])).is_err());
        assert!(host(&headers(&[("host", "localhost"), ("host", "evil.example")])).is_err());
    }

    #[test]
    fn only_pages_of_the_same_host_and_port_may_ask() {
        let ask = |pairs: &[(&'static str, &str)], method: Method, socket| {
            origin(&headers(pairs), &method, "localhost:7", socket).is_ok()
        };
        assert!(ask(&[("origin", "http://localhost:7")], Method::POST, false));
        assert!(ask(
            &[("origin", "http://localhost:7"), ("sec-fetch-site", "same-origin")],
            Method::GET,
            true
        ));
        assert!(ask(&[], Method::GET, false), "a navigation has no origin");
        for bad in
            ["http://localhost:8", "https://localhost:7", "http://evil.example", "null", "localhost:7", ""]
        {
            assert!(!ask(&[("origin", bad)], Method::GET, false), "{bad}");
        }
        assert!(!ask(&[], Method::POST, false));
        assert!(!ask(&[], Method::DELETE, false));
        assert!(!ask(&[], Method::GET, true), "sockets always have one");
        assert!(!ask(&[("sec-fetch-site", "cross-site")], Method::GET, false));
        assert!(!ask(&[("sec-fetch-site", "same-site")], Method::GET, false), "another port");
    }

    #[test]
    fn tricks_with_paths_are_refused() {
        for good in [
            "/_ping",
            "/v1.44/containers/json?all=1&filters=%7B%2F..%7D",
            "/images/a.b/c:1@sha256:0/json",
            "/x/.hidden",
        ] {
            assert!(path(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "x",
            "//x",
            "/a//b",
            "/a/../b",
            "/..",
            "/a/.",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a b",
            "/a\r\nb",
            "/a\0",
            "/a#b",
            "/a/%252e",
            "/a/%00",
            "/a/",
            "/ä",
        ] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        assert!(path(&format!("/{}", "a".repeat(40 << 10))).is_err());
    }

    proptest! {
        #[test]
        fn a_path_that_passes_stays_what_it_is_for_every_reader(text in "[/.%a-fA-F0-9\\\\? #]{0,24}") {
            if path(&text).is_ok() {
                let path = text.split('?').next().unwrap();
                prop_assert!(path.starts_with('/') && !path.contains("//"));
                prop_assert!(!path.split('/').any(|part| part == ".." || part == "."));
                prop_assert!(path.parse::<hyper::Uri>().is_ok());
            }
        }
    }
}
