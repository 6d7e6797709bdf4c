//! Tokens that work once, and the sessions they are given for.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{self, HeaderMap};

/// Bytes of randomness in each secret.
const LENGTH: usize = 32;
/// Sessions at once; the oldest ends when one more begins.
const SESSIONS: usize = 64;
/// The header that holds a session's key.
pub(crate) const KEY: &str = "x-skiff-key";

/// A secret. Compared in the same time wherever it differs, and never printed by accident.
#[derive(Clone)]
pub(crate) struct Secret([u8; LENGTH]);

impl Secret {
    fn random() -> Self {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes).expect("every system that Skiff runs on has random numbers");
        Self(bytes)
    }

    fn read(text: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }

    /// The text that goes over the wire.
    pub(crate) fn reveal(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Makes a nonce for one page.
pub(crate) fn nonce() -> String {
    Secret::random().reveal()
}

/// What a browser holds.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Sent by the browser; no script can read it.
    pub(crate) cookie: Secret,
    /// Sent by the page; no other port can read it.
    pub(crate) key: Secret,
}

/// Who may come in.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The token that has not been used; a new one takes the place of the last.
    token: Option<Secret>,
    sessions: Vec<Session>,
}

impl Sessions {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a token; the one before it is worth nothing from here on.
    pub(crate) fn token(&self) -> String {
        let token = Secret::random();
        let text = token.reveal();
        self.held().token = Some(token);
        text
    }

    /// Takes a token for a session. It can't be taken again.
    pub(crate) fn open(&self, token: &str) -> Option<Session> {
        let given = Secret::read(token)?;
        let mut held = self.held();
        held.token.take_if(|token| token.is(&given))?;
        let session = Session { cookie: Secret::random(), key: Secret::random() };
        if held.sessions.len() == SESSIONS {
            held.sessions.remove(0);
        }
        held.sessions.push(session.clone());
        Some(session)
    }

    /// Whether a request belongs to a session: cookie and key must be of the same one. Sockets name the key among their
    /// protocols, because a page can't give them headers.
    pub(crate) fn admits(&self, headers: &HeaderMap, cookie_name: &str) -> bool {
        let key = headers.get(KEY).and_then(|value| value.to_str().ok()).or_else(|| protocol_key(headers));
        let Some(key) = key.and_then(Secret::read) else { return false };
        let cookies: Vec<Secret> = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == cookie_name)
            .filter_map(|(_, value)| Secret::read(value))
            .collect();
        let held = self.held();
        held.sessions
            .iter()
            .any(|session| session.key.is(&key) && cookies.iter().any(|cookie| session.cookie.is(cookie)))
    }
}

/// The key among the protocols that a socket offers.
fn protocol_key(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::SEC_WEBSOCKET_PROTOCOL)?
        .to_str()
        .ok()?
        .split(',')
        .find_map(|protocol| protocol.trim().strip_prefix("key."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str, key: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, format!("other=1; skiff-7={cookie}").parse().unwrap());
        headers.insert(KEY, key.parse().unwrap());
        headers
    }

    #[test]
    fn a_token_is_good_for_one_session_and_for_none_after_the_next() {
        let sessions = Sessions::default();
        let token = sessions.token();
        assert!(sessions.open("").is_none() && sessions.open(&token[1..]).is_none());
        assert!(sessions.open(&token).is_some());
        assert!(sessions.open(&token).is_none(), "it was used");
        let old = sessions.token();
        let new = sessions.token();
        assert!(sessions.open(&old).is_none() && sessions.open(&new).is_some());
    }

    #[test]
    fn a_session_is_cookie_and_key_together() {
        let sessions = Sessions::default();
        let one = sessions.open(&sessions.token()).unwrap();
        let two = sessions.open(&sessions.token()).unwrap();
        let (cookie, key) = (one.cookie.reveal(), one.key.reveal());
        assert!(sessions.admits(&headers(&cookie, &key), "skiff-7"));
        assert!(!sessions.admits(&headers(&cookie, &key), "skiff-8"), "another dashboard's");
        assert!(!sessions.admits(&headers(&cookie, &two.key.reveal()), "skiff-7"));
        assert!(!sessions.admits(&headers(&key, &cookie), "skiff-7"));
        assert!(!sessions.admits(&headers(&cookie, ""), "skiff-7"));
        let mut socket = headers(&cookie, "");
        socket.remove(KEY);
        assert!(!sessions.admits(&socket, "skiff-7"));
        let offer = format!("skiff, key.{key}");
        socket.insert(header::SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
        assert!(sessions.admits(&socket, "skiff-7"));
    }

    #[test]
    fn the_oldest_session_makes_room() {
        let sessions = Sessions::default();
        let all: Vec<Session> = (0..=SESSIONS).map(|_| sessions.open(&sessions.token()).unwrap()).collect();
        let admits = |session: &Session| {
            sessions.admits(&headers(&session.cookie.reveal(), &session.key.reveal()), "skiff-7")
        };
        assert!(!admits(&all[0]) && admits(&all[1]) && admits(&all[SESSIONS]));
    }

    #[test]
    fn secrets_do_not_print_themselves() {
        assert_eq!(format!("{:?}", Secret::random()), "Secret");
    }
}
