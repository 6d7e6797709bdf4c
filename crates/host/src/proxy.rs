//! The Docker socket: every connection becomes an `api` stream, byte for byte.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use skiff_link::{Args, BoxStream, OpenError, ReplyCode, StreamHeader, copy_both};
use skiff_machine::{Error, Lease, Machine};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

use crate::{control::Failure, listen::Listener};

/// Connections at once; more wait in the socket's queue.
const CONNECTIONS: usize = 2048;
/// How long an engine that restarts may be out of reach.
const ENGINE_DEADLINE: Duration = Duration::from_secs(15);

/// Serves the Docker socket until dropped.
pub(crate) async fn serve(listener: Listener, machine: Machine) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok(client) => {
                let machine = machine.clone();
                tokio::spawn(async move {
                    connection(client, &machine).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "docker socket does not accept");
                // Out of descriptors, most likely: some come back with time.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(client: BoxStream, machine: &Machine) {
    match open(machine).await {
        Ok((lease, guest)) => {
            let result = copy_both(client, guest).await;
            drop(lease);
            if let Err(error) = result {
                tracing::debug!(%error, "docker connection broke");
            }
        }
        Err(failure) => {
            tracing::warn!(error = %failure, "docker connection refused");
            refuse(client, &failure).await;
        }
    }
}

/// Starts the guest if needed and opens the stream; an engine that restarts is waited for.
async fn open(machine: &Machine) -> Result<(Lease, BoxStream), Failure> {
    let deadline = Instant::now() + ENGINE_DEADLINE;
    loop {
        let lease = machine.lease().await.map_err(|error| failure(&error))?;
        let error = match lease.open(&StreamHeader { args: Args::Api {} }).await {
            Ok(stream) => return Ok((lease, stream)),
            Err(error) => error,
        };
        let passing = match &error {
            OpenError::Refused { code, .. } => {
                matches!(code, ReplyCode::Refused | ReplyCode::NotFound | ReplyCode::Unreachable)
            }
            OpenError::Link { .. } => true,
        };
        if !passing || Instant::now() >= deadline {
            return Err(Failure::new(&error));
        }
        drop(lease);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a client is told about a guest that is not there.
pub(crate) fn failure(error: &Error) -> Failure {
    Failure { hint: error.hint(), detail: error.detail(), ..Failure::new(error) }
}

/// Answers in the engine's stead, in the form that every Docker client understands.
async fn refuse(mut client: BoxStream, failure: &Failure) {
    let mut message = failure.message.clone();
    if let Some(hint) = &failure.hint {
        message.push_str(&format!(" ({hint})"));
    }
    let body = json!({ "message": message }).to_string();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n",
        body.len()
    );
    // The client is gone if this fails.
    let _ = client.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = client.shutdown().await;
    // A socket closed over unread bytes resets the connection, and the answer with it.
    let mut sink = [0; 4096];
    let drain = async { while client.read(&mut sink).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}
