//! The host's proxy and the authorities that it trusts, taken over by pulls, builds and pushes of an engine in a guest.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use skiff_e2e::outside;
use skiff_testkit::{Backend, DaemonUnderTest, Image, Program, Running, binaries, free_port, wait_until};

/// Whom the registry's certificate is for. Only the proxy knows where that is.
const NAME: &str = "registry.test";
const BOOT: Duration = Duration::from_secs(120);

/// Places that were asked for, in order.
type Asked = Arc<Mutex<Vec<String>>>;

/// A proxy that finds every name on the loopback.
fn proxy() -> anyhow::Result<(SocketAddr, Asked)> {
    let asked = Asked::default();
    let record = Arc::clone(&asked);
    let address = outside::serve(Ipv4Addr::LOCALHOST, move |client| {
        let mut head = BufReader::new(client.try_clone()?);
        let mut first = String::new();
        head.read_line(&mut first)?;
        let mut line = String::new();
        while head.read_line(&mut line)? > 2 {
            line.clear();
        }
        let place = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let port = place.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        record.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        let mut client = client;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut back, mut there) = (server.try_clone()?, client.try_clone()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back, &mut there);
            let _ = there.shutdown(std::net::Shutdown::Write);
        });
        let mut server = server;
        std::io::copy(&mut head, &mut server)?;
        server.shutdown(std::net::Shutdown::Write)
    })?;
    Ok((address, asked))
}

/// A registry that speaks TLS with a certificate of the tests' authority.
fn registry(certificates: &Path, state: &Path) -> anyhow::Result<(u16, Running)> {
    let port = free_port()?;
    let serve =
        Program::new(binaries::skiff()?).env("HOME", state).args(["--state".as_ref(), state.as_os_str()]);
    let serve = serve.args(["registry", "serve", "--listen", &format!("127.0.0.1:{port}")]);
    let serve = serve.args(["--tls-cert".into(), certificates.join("server.pem").into_os_string()]);
    let registry =
        serve.args(["--tls-key".into(), certificates.join("server.key").into_os_string()]).start()?;
    wait_until("the registry", Duration::from_secs(20), || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    })?;
    Ok((port, registry))
}

fn proxy_and_authorities() -> anyhow::Result<()> {
    let certificates =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/images/tests/tls").canonicalize()?;
    let state = tempfile::tempdir()?;
    let (port, _registry) = registry(&certificates, state.path())?;
    let (proxy, asked) = proxy()?;
    let image = format!("{NAME}:{port}/app:1");
    let authority = certificates.join("authority.pem");
    let variables = [
        ("HTTPS_PROXY", format!("http://{proxy}")),
        ("NO_PROXY", "other.test".into()),
        ("SSL_CERT_FILE", authority.display().to_string()),
    ];
    // What containers may reach is another matter: the proxy is the user's.
    let settings = r#"{"network": {"host_loopback": false}, "names": {"enabled": false}}"#;
    let daemon = DaemonUnderTest::start_with_variables(Backend::Qemu, settings, &variables)?;
    let test = || -> anyhow::Result<()> {
        let docker = daemon.docker()?;
        docker.feed("load", Image::busybox()?.archive(&["busybox:latest", &image]))?.ok()?;
        docker.command(&format!("push {image}")).timeout(BOOT).run()?.ok().context("push")?;
        docker.run(&format!("rmi {image} busybox:latest"))?.ok()?;
        docker
            .command(&format!("run --rm {image} echo pulled"))
            .timeout(BOOT)
            .run()?
            .ok()?
            .prints("pulled\n")?;
        docker.run(&format!("rmi {image}"))?.ok()?;
        let dockerfile = format!("FROM {image}\nRUN echo built > /made\nCMD [\"cat\", \"/made\"]\n");
        docker.feed("build -q -t made -", dockerfile)?.ok().context("build")?;
        docker.run("run --rm made")?.ok()?.prints("built\n")?;
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Connections are kept, so that one may have served all of them; nobody but the proxy knows the name.
        ensure!(
            !asked.is_empty() && asked.iter().all(|place| *place == format!("{NAME}:{port}")),
            "{asked:?}"
        );
        // Whom NO_PROXY names is looked for without it.
        docker.run(&format!("pull other.test:{port}/app:1"))?.exits(1)?.complains("no such host")?;
        // Both say what is used, without what is secret.
        docker
            .run("info -f {{.HTTPSProxy}}|{{.NoProxy}}|{{.HTTPProxy}}")?
            .ok()?
            .prints(&format!("http://{proxy}|other.test|\n"))?;
        daemon.skiff("doctor network")?.run()?.shows(&format!("HTTPS_PROXY is set: http://{proxy}"))?;
        Ok(())
    };
    test().with_context(|| daemon.log_tail())
}

#[test]
fn the_hosts_proxy_and_authorities_serve_pulls_builds_and_pushes() {
    proxy_and_authorities().unwrap_or_else(|error| panic!("{error:#}"));
}
