//! `CONNECT` (RFC 9110, 9.3.6).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Proxy;

/// Longest head of an answer in bytes.
const LONGEST: usize = 16 * 1024;

impl Proxy {
    /// Turns a connection to this proxy into one to a server.
    ///
    /// # Errors
    /// `PermissionDenied` when the proxy wants other credentials or forbids it, `HostUnreachable` when it can't reach the
    /// server, and whatever else breaks the connection.
    pub async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        host: &str,
        port: u16,
    ) -> io::Result<()> {
        if !host.chars().all(|c| c.is_ascii_graphic()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a host name"));
        }
        let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: Basic {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        // Byte by byte: what follows the head belongs to the server.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer is too long"));
            }
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head);
        let line = head.lines().next().unwrap_or_default();
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
        let kind = match status {
            Some(200..=299) => return Ok(()),
            Some(403 | 407) => io::ErrorKind::PermissionDenied,
            Some(502..=504) => io::ErrorKind::HostUnreachable,
            _ => io::ErrorKind::Other,
        };
        let said = line.split_once(' ').map_or(line, |(_, said)| said);
        Err(io::Error::new(kind, format!("proxyconnect tcp: {said}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(answer: &'static str) -> (String, io::Result<()>, String) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let proxy = Proxy { host: "proxy".into(), port: 1, authorization: Some("YTpi".into()) };
        let serving = tokio::spawn(async move {
            let mut request = vec![0; 4096];
            let length = far.read(&mut request).await.unwrap();
            far.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let result = proxy.tunnel(&mut near, "fd00::1", 443).await;
        let request = serving.await.unwrap();
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        (request, result, rest)
    }

    #[tokio::test]
    async fn a_tunnel_begins_right_after_the_answer() {
        let (request, result, rest) = ask("HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nhello").await;
        result.unwrap();
        assert_eq!(rest, "hello");
        assert_eq!(
            request,
            "CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\nProxy-Authorization: Basic YTpi\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn refusals_say_what_the_proxy_said() {
        let (_, result, _) = ask("HTTP/1.0 407 Proxy Authentication Required\r\n\r\n").await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(error.to_string(), "proxyconnect tcp: 407 Proxy Authentication Required");
        assert_eq!(
            ask("HTTP/1.1 503 No\r\n\r\n").await.1.unwrap_err().kind(),
            io::ErrorKind::HostUnreachable
        );
        assert!(ask("nonsense\r\n\r\n").await.1.is_err());
        assert!(ask("HTTP/1.1 200 O").await.1.is_err());
    }
}
