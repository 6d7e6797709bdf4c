//! Names below `localhost`, asked in HTTP/2 and over a real WebSocket.

use anyhow::ensure;
use skiff_testkit::{Finished, Program, wait_until};

use super::debian::DEBIAN;
use super::{debian, patience, skipped};
use crate::{Subject, scenarios};

scenarios![http2_and_websockets_pass_through_names];

/// HTTP/2 in the clear on one port, with what gRPC needs of it: a stream that answers as it is fed, and trailers.
const HTTP2: &str = r#"
require("http2").createServer().on("stream", (stream, headers) => {
  stream.respond({":status": 200, "content-type": "text/plain", "x-authority": headers[":authority"]}, {waitForTrailers: true});
  stream.on("wantTrailers", () => stream.sendTrailers({"grpc-status": "0"}));
  stream.on("data", data => stream.write("heard " + data));
  stream.on("end", () => stream.end("done\n"));
}).listen(8080);
"#;

/// A WebSocket server (RFC 6455) that gives messages back.
const WEBSOCKET: &str = r#"
const {createHash} = require("crypto");
require("http").createServer((_, answer) => answer.end("plain\n")).on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + createHash("sha1").update(key).digest("base64") + "\r\n\r\n");
  socket.on("data", frame => {
    const mask = frame.subarray(2, 6), text = frame.subarray(6).map((byte, at) => byte ^ mask[at % 4]);
    socket.write(Buffer.concat([Buffer.from([0x81, text.length]), text]));
  });
}).listen(8080);
"#;

/// A client that checks the server's answer to its key and that each message comes back.
const CLIENT: &str = r#"
import base64, hashlib, os, socket, sys
port, host = int(sys.argv[1]), sys.argv[2]
key = base64.b64encode(os.urandom(16))
stream = socket.create_connection(("127.0.0.1", port), 30)
stream.sendall(b"GET /chat HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (host.encode(), port, key))
reader = stream.makefile("rb")
status = reader.readline()
headers = {}
while (line := reader.readline().strip()):
    name, value = line.split(b": ", 1)
    headers[name.lower()] = value
digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
assert b" 101 " in status and headers[b"sec-websocket-accept"] == base64.b64encode(digest), (status, headers)
for number in range(20):
    text, mask = b"message %d" % number, os.urandom(4)
    stream.sendall(bytes([0x81, 0x80 | len(text)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))
    assert reader.read(2) == bytes([0x81, len(text)]) and reader.read(len(text)) == text
print("20 came back")
"#;

fn http2_and_websockets_pass_through_names(on: &Subject) -> anyhow::Result<()> {
    let Some(daemon) = on.daemon_under_test() else { return Ok(()) };
    if let Err(reason) = debian::load(on)? {
        skipped(&reason);
        return Ok(());
    }
    for (name, program) in [("h2", HTTP2), ("chat", WEBSOCKET)] {
        let run = on.docker.command("run -d --init --name").args([name, DEBIAN, "node", "-e", program]);
        run.run()?.ok()?;
    }
    let port = daemon.names_port();
    let curl = |words: &str| -> anyhow::Result<Finished> {
        let url = format!("http://h2.localhost:{port}/service/Call");
        Program::new("curl").args(["-sS", "--max-time", "60"]).args(words.split(' ')).args([url]).run()
    };
    let answer = wait_until("the HTTP/2 server", patience(on), || {
        let asked = curl("--http2-prior-knowledge -i --data-binary request").ok()?;
        asked.out().starts_with("HTTP/2 200").then_some(asked)
    })?;
    let text = answer.out();
    ensure!(text.contains("heard requestdone\n") && text.contains("grpc-status: 0"), "{answer}");
    ensure!(text.contains(&format!("x-authority: h2.localhost:{port}")), "{answer}");
    let chat = || {
        let client = Program::new("python3").args(["-c", CLIENT, &port.to_string(), "chat.localhost"]);
        client.run().ok().filter(|client| client.code == 0)
    };
    wait_until("the WebSocket server", patience(on), chat)?.prints("20 came back\n")?;
    Ok(())
}
