//! The name server that everybody in the guest can ask: every question goes to the host's resolver.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skiff_dns::{Code, Question};
use skiff_link::Link;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Outside;
use crate::query;

/// How long a silent connection is kept.
const SILENCE: Duration = Duration::from_secs(30);

/// Answers one datagram, some time later.
pub(super) fn serve_datagram(
    outside: &Arc<Outside>,
    socket: &Arc<UdpSocket>,
    from: SocketAddr,
    message: Vec<u8>,
) {
    let Some(question) = Question::parse(&message) else { return };
    let Some(place) = outside.place(from.ip()) else { return };
    let (link, socket) = (outside.host.link(), Arc::clone(socket));
    tokio::spawn(async move {
        let answer = answer(link, &question, &message).await;
        let _ = socket.send_to(&question.fit_datagram(answer), from).await;
        drop(place);
    });
}

/// Answers the questions of one connection, one after the other.
pub(super) async fn serve_stream(outside: &Outside, mut connection: TcpStream) -> io::Result<()> {
    loop {
        let length = usize::from(timeout(SILENCE, connection.read_u16()).await??);
        let mut message = vec![0; length];
        timeout(SILENCE, connection.read_exact(&mut message)).await??;
        let Some(question) = Question::parse(&message) else { return Ok(()) };
        let answer = answer(outside.host.link(), &question, &message).await;
        let mut bytes = u16::try_from(answer.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
        bytes.extend(answer);
        connection.write_all(&bytes).await?;
    }
}

async fn answer(link: Option<Link>, question: &Question, message: &[u8]) -> Vec<u8> {
    let asked = match link {
        Some(link) => query::ask(&link, message).await,
        None => Err(io::ErrorKind::NotConnected.into()),
    };
    asked.unwrap_or_else(|error| {
        tracing::debug!(%error, "name is not resolved");
        question.answer(Code::ServerFailure, &[], 0)
    })
}
