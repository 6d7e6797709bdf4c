//! What `run`, `start -a`, `attach` and `exec` share: waiting, forwarding signals, exit codes.

use http::Method;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::api::client::empty;
use crate::api::{Client, Query};
use crate::error::Error;
use crate::format::value::Value;
use crate::terminal::signals;

/// A wait for a container's end that the engine has accepted.
pub struct Wait {
    client: Client,
    response: http::Response<Incoming>,
}

impl Wait {
    /// Begins to wait. When this returns the engine watches, so an exit right after is seen.
    pub async fn begin(client: &Client, id: &str, condition: &str) -> Result<Wait, Error> {
        let query = Query::new().with("condition", condition);
        let response =
            client.send(Method::POST, &format!("/containers/{id}/wait"), &query, empty(), &[]).await?;
        Ok(Wait { client: client.clone(), response })
    }

    /// Returns the container's exit code.
    pub async fn exit_code(self) -> Result<i64, Error> {
        let body = self.client.collect(self.response).await?;
        let answer =
            Value::parse(&body).map_err(|error| Error::plain(format!("reading the exit code: {error}")))?;
        if let Some(message) = answer.at(&["Error", "Message"]).and_then(Value::as_str)
            && !message.is_empty()
        {
            return Err(Error::plain(message));
        }
        Ok(answer.int("StatusCode"))
    }
}

/// Ends the command with a container's exit code.
pub fn end_with(code: i64) -> Result<(), Error> {
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Error::Status(code)),
        Err(_) => Err(Error::Status(255)),
    }
}

/// Gives a failed start the exit code that a shell would give: 127 for a programme that is not there, 126 for
/// one that can't be executed, else 125.
pub fn start_failure(error: Error) -> Error {
    let Error::Daemon { message, .. } = &error else { return error.with_status(125) };
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let status =
        if has(&["executable file not found", "no such file or directory", "system cannot find the file"]) {
            127
        } else if has(&["permission denied", "not a directory", "is a directory", "exec format error"]) {
            126
        } else {
            125
        };
    error.with_status(status)
}

/// Caught signals, not yet bound to a container.
pub struct Forwarding(mpsc::Receiver<&'static str>);

impl Forwarding {
    /// Catches signals from now on.
    pub fn catch() -> Result<Forwarding, Error> {
        signals::forwarded()
            .map(Forwarding)
            .map_err(|error| Error::plain(format!("catching signals: {error}")))
    }

    /// Sends caught signals to the container until the result is dropped.
    pub fn forward_to(mut self, client: &Client, id: &str) -> Forwarder {
        let client = client.clone();
        let path = format!("/containers/{id}/kill");
        Forwarder(tokio::spawn(async move {
            let mut insisted = 0;
            while let Some(name) = self.0.recv().await {
                // A process 1 without handlers ignores them all: who asks three times wants to leave.
                insisted += u32::from(matches!(name, "INT" | "TERM"));
                if insisted == 3 {
                    crate::terminal::leave("got 3 SIGTERM/SIGINTs, forcefully exiting");
                }
                let mut failed = client.post(&path, &Query::new().with("signal", name)).await;
                // A signal that comes before the container runs is sent until it does.
                for _ in 0..50 {
                    match &failed {
                        Err(Error::Daemon { status: 409, .. }) => {
                            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                            failed = client.post(&path, &Query::new().with("signal", name)).await;
                        }
                        _ => break,
                    }
                }
                if let Err(error) = failed {
                    tracing::debug!(error = %error, "forwarding a signal failed");
                }
            }
        }))
    }
}

/// Forwards signals until dropped.
pub struct Forwarder(tokio::task::JoinHandle<()>);

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_starts_end_like_a_shell() {
        let code = |message: &str| {
            start_failure(Error::Daemon { status: 400, message: message.to_owned() }).exit_code()
        };
        assert_eq!(code("exec: \"foo\": executable file not found in $PATH"), 127);
        assert_eq!(code("stat /nodir: no such file or directory"), 127);
        assert_eq!(code("exec: \"/etc\": permission denied"), 126);
        assert_eq!(code("port is already allocated"), 125);
    }

    #[test]
    fn exit_codes_are_the_container_s() {
        assert!(end_with(0).is_ok());
        assert_eq!(end_with(137).unwrap_err().exit_code(), 137);
        assert_eq!(end_with(-1).unwrap_err().exit_code(), 255);
    }
}
