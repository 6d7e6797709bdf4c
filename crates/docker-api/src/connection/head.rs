//! The head of an HTTP/1 request, as far as the gate must know it.

/// As many as hyper takes.
const MAX_HEADERS: usize = 100;
/// The longest configuration of an exec's start that is looked at.
const START_CONFIG_LIMIT: usize = 16 << 10;

/// How much body follows a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Known(u64),
    Chunked,
}

/// What the gate wants to know of a request's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the head itself.
    pub length: usize,
    pub body: BodyLength,
    /// Whether it asks for an upgrade, so that only the answer tells what follows.
    pub upgrade: bool,
    /// Whether it may hijack the connection without asking for an upgrade.
    pub bare_hijack: bool,
    expects_continue: bool,
}

/// The outcome of looking for a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Complete(Head),
    Partial,
    Invalid,
}

impl Head {
    /// Returns the length of the body that must be seen before the head can be judged.
    ///
    /// A client that waits for `100 Continue` sends it only after hyper has had the head.
    pub fn start_config(&self) -> Option<usize> {
        match self.body {
            BodyLength::Known(length) if self.bare_hijack && !self.expects_continue => {
                usize::try_from(length).ok().filter(|length| (1..=START_CONFIG_LIMIT).contains(length))
            }
            _ => None,
        }
    }

    /// Looks for a head at the beginning of these bytes.
    pub fn parse(bytes: &[u8]) -> Parsed {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Parsed::Partial,
            Err(_) => return Parsed::Invalid,
        };
        let method = request.method.unwrap_or_default();
        let path = request.path.unwrap_or_default();
        let mut body = BodyLength::Known(0);
        let mut upgrade = method == "CONNECT";
        let mut expects_continue = false;
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("upgrade") {
                upgrade = true;
            } else if header.name.eq_ignore_ascii_case("expect") {
                expects_continue = true;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                body = BodyLength::Chunked;
            } else if header.name.eq_ignore_ascii_case("content-length")
                && matches!(body, BodyLength::Known(_))
            {
                match std::str::from_utf8(header.value).ok().and_then(|value| value.trim().parse().ok()) {
                    Some(length) => body = BodyLength::Known(length),
                    None => return Parsed::Invalid,
                }
            }
        }
        let bare_hijack = !upgrade && method == "POST" && hijacks(path);
        Parsed::Complete(Self { length, body, upgrade, bare_hijack, expects_continue })
    }
}

/// Returns whether an exec's start configuration asks for no stdio.
pub(super) fn is_detached(config: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(rename = "Detach")]
        detach: Option<bool>,
    }
    serde_json::from_slice::<Config>(config).is_ok_and(|config| config.detach == Some(true))
}

/// Returns whether the answer to a POST to this path may be a hijack: `…/containers/{id}/attach`, `…/exec/{id}/start`.
fn hijacks(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let mut segments = path.trim_start_matches('/').split('/').peekable();
    segments.next_if(|segment| segment.starts_with("v1."));
    matches!(
        (segments.next(), segments.next(), segments.next(), segments.next()),
        (Some("containers"), Some(_), Some("attach"), None) | (Some("exec"), Some(_), Some("start"), None)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Head {
        match Head::parse(text.as_bytes()) {
            Parsed::Complete(head) => head,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn only_attach_and_exec_start_hijack() {
        for path in [
            "/containers/a/attach?stdin=1",
            "/v1.24/containers/a/attach",
            "/exec/e/start",
            "/v1.51/exec/e/start",
        ] {
            assert!(head(&format!("POST {path} HTTP/1.1\r\n\r\n")).bare_hijack, "{path}");
            assert!(!head(&format!("GET {path} HTTP/1.1\r\n\r\n")).bare_hijack, "{path}");
            let upgrade = head(&format!("POST {path} HTTP/1.1\r\nupgrade: tcp\r\n\r\n"));
            assert!(upgrade.upgrade && !upgrade.bare_hijack, "{path}");
        }
        for path in [
            "/containers/a/start",
            "/containers/attach",
            "/exec/e/resize",
            "/x?/exec/e/start",
            "/exec/e/start/x",
            "*",
        ] {
            assert!(!head(&format!("POST {path} HTTP/1.1\r\n\r\n")).bare_hijack, "{path}");
        }
    }

    #[test]
    fn the_bodys_length_is_found() {
        assert_eq!(head("POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n").body, BodyLength::Known(5));
        assert_eq!(head("POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n").body, BodyLength::Chunked);
        assert_eq!(head("GET /a HTTP/1.1\r\n\r\n").body, BodyLength::Known(0));
        assert_eq!(Head::parse(b"POST /a HTTP/1.1\r\nContent-Length: x\r\n\r\n"), Parsed::Invalid);
        assert_eq!(Head::parse(b"POST /a HTT"), Parsed::Partial);
    }

    #[test]
    fn a_start_configuration_is_waited_for_unless_the_client_waits() {
        let start = |more: &str| {
            head(&format!("POST /exec/e/start HTTP/1.1\r\nContent-Length: 3\r\n{more}\r\n")).start_config()
        };
        assert_eq!(start(""), Some(3));
        assert_eq!(start("Expect: 100-continue\r\n"), None);
        assert_eq!(start("Upgrade: tcp\r\n"), None);
        assert!(is_detached(br#"{"Detach": true, "Tty": false}"#));
        for config in [&b"{}"[..], b"", b"[]", br#"{"Detach": false}"#, br#"{"Detach": null}"#] {
            assert!(!is_detached(config));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::parse(&bytes);
            let _ = is_detached(&bytes);
        }
    }
}
