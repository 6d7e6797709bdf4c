//! A web server that many ask at once, over connections that stay.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Barrier;

use anyhow::{Context, ensure};
use skiff_testkit::{free_port, http, wait_until};

use super::debian::DEBIAN;
use super::{debian, patience, skipped};
use crate::{Subject, scenarios};

scenarios![nginx_answers_a_thousand_clients_at_once];

/// One process with room for all of them.
const NGINX: &str = "ulimit -n 4096; mkdir -p /run /www; head -c 20000 /dev/zero | tr '\\0' x >/www/page; \
     echo 'daemon off; pid /run/nginx.pid; error_log stderr; events {worker_connections 4000;} \
     http {access_log off; server {listen 80 backlog=1024; root /www;}}' >/etc/nginx.conf; exec nginx -c /etc/nginx.conf";
const CLIENTS: usize = 1000;
const PAGE: usize = 20_000;

fn nginx_answers_a_thousand_clients_at_once(on: &Subject) -> anyhow::Result<()> {
    if let Err(reason) = debian::load(on)? {
        skipped(&reason);
        return Ok(());
    }
    let port = free_port()?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let run = format!("run -d --name web -p 127.0.0.1:{port}:80 {DEBIAN} bash -c");
    on.docker.command(&run).args([NGINX]).run()?.ok()?;
    wait_until("nginx", patience(on), || http::get(at, "/page").ok().filter(|page| page.status == 200))
        .with_context(|| {
            on.docker.run("logs web").map_or_else(|error| error.to_string(), |logs| logs.to_string())
        })?;
    // Nobody asks before everybody is connected.
    let connected = Barrier::new(CLIENTS);
    let ask = || -> std::io::Result<Vec<u8>> {
        let client = TcpStream::connect_timeout(&at, on.patience(30));
        connected.wait();
        let mut client = client?;
        client.set_read_timeout(Some(on.patience(60)))?;
        let mut answer = Vec::new();
        // Two pages over each connection, the second after the first has arrived.
        for last in ["keep-alive", "close"] {
            write!(client, "GET /page HTTP/1.1\r\nHost: web\r\nConnection: {last}\r\n\r\n")?;
            let end = answer.len() + PAGE;
            let mut buffer = [0; 16 * 1024];
            while answer.len() < end {
                match client.read(&mut buffer)? {
                    0 => return Ok(answer),
                    length => answer.extend_from_slice(&buffer[..length]),
                }
            }
        }
        client.read_to_end(&mut answer)?;
        Ok(answer)
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let clients = (0..CLIENTS)
            .map(|_| std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, ask))
            .collect::<Result<Vec<_>, _>>()?;
        for (number, client) in clients.into_iter().enumerate() {
            let answer = client.join().expect("clients do not panic");
            let answer = answer.with_context(|| format!("client {number}"))?;
            let body = answer.iter().filter(|byte| **byte == b'x').count();
            ensure!(body >= 2 * PAGE, "client {number} got {} bytes, {body} of the pages", answer.len());
        }
        Ok(())
    })
}
