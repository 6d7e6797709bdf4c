//! A git repository over HTTPS on this host, with an authority of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use skiff_testkit::{Program, Running, free_port, wait_until};
use tempfile::TempDir;

/// Serves `git http-backend` below its directory over TLS.
const SERVER: &str = r#"
import http.server, os, ssl, subprocess, sys
address, port, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        path, _, query = self.path.partition("?")
        length = self.headers.get("Content-Length", "0")
        environment = dict(os.environ, GIT_PROJECT_ROOT=root, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path,
            QUERY_STRING=query, REQUEST_METHOD=self.command, CONTENT_LENGTH=length,
            CONTENT_TYPE=self.headers.get("Content-Type", ""), REMOTE_USER="test",
            HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
            GIT_PROTOCOL=self.headers.get("Git-Protocol", ""))
        body = self.rfile.read(int(length))
        made = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True).stdout
        head, _, rest = made.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
        status = [value for name, value in lines if name == "Status"]
        self.send_response(int(status[0].split()[0]) if status else 200)
        for name, value in lines:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)
    do_GET = do_POST = answer
    def log_message(self, *words):
        pass

server = http.server.ThreadingHTTPServer((address, port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(root + "/../server.pem", root + "/../server.key")
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

/// Makes an authority, a certificate for the host's name in containers, and a repository.
const PREPARATION: &str = r#"
set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=Test authority' -keyout ca.key -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE
openssl req -newkey rsa:2048 -nodes -subj /CN=host.docker.internal -keyout server.key -out server.csr
printf 'subjectAltName=DNS:host.docker.internal\n' >names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.pem
mkdir served work
git init -q -b main work
cd work
git config user.email test@example.org
git config user.name test
head -c 3000000 /dev/urandom >noise
sha256sum noise >sums
git add .
git commit -qm first
git clone -q --bare . ../served/repository.git
git -C ../served/repository.git config http.receivepack true
"#;

/// A server with one repository; it ends when dropped.
pub(super) struct Web {
    directory: TempDir,
    port: u16,
    _server: Running,
}

impl Web {
    /// Starts it on an address of this host.
    pub(super) fn start(address: IpAddr) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("skiff-web-").tempdir_in("/tmp")?;
        let path = directory.path();
        let prepare = Program::new("sh").args(["-c", &format!("cd '{}'\n{PREPARATION}", path.display())]);
        prepare.run()?.ok().context("prepare a repository and certificates")?;
        let port = free_port()?;
        let server = Program::new("python3").args(["-c", SERVER, &address.to_string(), &port.to_string()]);
        let server = server.args([path.join("served")]).start()?;
        let there = if address.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address };
        wait_until("the git server", Duration::from_secs(15), || {
            std::net::TcpStream::connect(SocketAddr::new(there, port)).ok()
        })?;
        Ok(Self { directory, port, _server: server })
    }

    /// The repository as containers name it.
    pub(super) fn repository(&self) -> String {
        format!("https://host.docker.internal:{}/repository.git", self.port)
    }

    /// The repository's directory.
    pub(super) fn served(&self) -> std::path::PathBuf {
        self.directory.path().join("served/repository.git")
    }

    /// The authority's certificate.
    pub(super) fn authority(&self) -> std::path::PathBuf {
        Path::join(self.directory.path(), "ca.pem")
    }
}
