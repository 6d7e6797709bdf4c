//! Which port of a container speaks HTTP.

use std::{future::Future, time::Duration};

use skiff_link::{BoxStream, OpenError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Ports that web servers like, most liked first.
const LIKED: [u16; 12] = [80, 8080, 3000, 8000, 5000, 5173, 4200, 8888, 9000, 8081, 8090, 1313];
/// Ports of protocols that are no HTTP: their servers are not bothered.
const OTHERS: [u16; 12] = [21, 22, 23, 25, 110, 143, 3306, 5432, 5672, 6379, 11211, 27017];
/// Ports that are tried.
const MOST: usize = 16;
/// How long a server may take to answer the question what it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// The ports to try, in order: those that are listened on, the ones that the image names first.
pub(super) fn candidates(exposed: &[u16], listening: Option<&[u16]>) -> Vec<u16> {
    let mut all: Vec<u16> = listening.unwrap_or(exposed).to_vec();
    all.retain(|port| !OTHERS.contains(port));
    let rank = |port: &u16| {
        let liked = LIKED.iter().position(|liked| liked == port).unwrap_or(LIKED.len());
        (!exposed.contains(port), liked, *port)
    };
    all.sort_by_key(rank);
    all.dedup();
    all.truncate(MOST);
    all
}

/// The first port that answers in HTTP; the only one if there is one, whatever it speaks.
pub(super) async fn first_http<F>(candidates: &[u16], dial: impl Fn(u16) -> F) -> Option<u16>
where
    F: Future<Output = Result<BoxStream, OpenError>>,
{
    if let [only] = candidates {
        return Some(*only);
    }
    for port in candidates {
        let ask = async {
            let stream = dial(*port).await.ok()?;
            speaks_http(stream).await.then_some(*port)
        };
        if let Ok(Some(port)) = timeout(PATIENCE, ask).await {
            return Some(port);
        }
    }
    None
}

/// Asks for nothing in particular: whatever the answer is, its form tells.
async fn speaks_http(mut stream: BoxStream) -> bool {
    let question = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nUser-Agent: skiff\r\n\r\n";
    if stream.write_all(question).await.is_err() || stream.flush().await.is_err() {
        return false;
    }
    let mut start = [0; 5];
    stream.read_exact(&mut start).await.is_ok() && start == *b"HTTP/"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_come_in_the_order_of_their_likelihood() {
        assert_eq!(candidates(&[443, 80], None), [80, 443]);
        assert_eq!(candidates(&[8443], Some(&[8443, 3000, 80, 22])), [8443, 80, 3000]);
        assert!(candidates(&[5432], Some(&[5432])).is_empty());
        assert!(candidates(&[], None).is_empty());
        assert!(candidates(&[80], Some(&[])).is_empty(), "what nobody listens on is no port");
        assert_eq!(candidates(&[], Some(&(1000..2000).collect::<Vec<_>>())).len(), MOST);
    }

    async fn server(answer: &'static [u8]) -> BoxStream {
        let (near, mut far) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let _ = far.read(&mut buffer).await;
            let _ = far.write_all(answer).await;
        });
        Box::new(near)
    }

    #[tokio::test]
    async fn the_first_port_that_speaks_http_is_found() {
        let dial = |port: u16| async move {
            Ok(match port {
                3000 => server(b"HTTP/1.1 404 Not Found\r\n\r\n").await,
                _ => server(b"220 mail\r\n").await,
            })
        };
        assert_eq!(first_http(&[8443, 3000, 9000], dial).await, Some(3000));
        assert_eq!(first_http(&[8443, 9000], dial).await, None);
        assert_eq!(first_http(&[9000], dial).await, Some(9000), "the only one");
        assert_eq!(first_http(&[], dial).await, None);
    }
}
