//! Pulls by HTTP proxies, and from registries whose certificate authority has to be known first.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use skiff_images::{Config, Dial, Io, ProxyDial, Silent, Store, TcpDial, Trust};
use skiff_proxy::Proxies;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pull::two_layers;
use crate::registry::Registry;
use crate::workspace::Workspace;

/// A proxy that finds every name on the loopback, and counts its tunnels.
async fn proxy() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counting = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let counting = Arc::clone(&counting);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let line = head.lines().next().unwrap();
                let port = line.split(' ').nth(1).and_then(|place| place.rsplit(':').next()).unwrap();
                assert!(line.starts_with("CONNECT registry.test:"), "{line}");
                assert!(head.contains("Proxy-Authorization: Basic YW5uOng="), "{head}");
                let mut server = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).await.unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                counting.fetch_add(1, Ordering::Relaxed);
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, count)
}

/// Finds every name on the loopback.
struct Loopback;

impl Dial for Loopback {
    fn dial<'a>(
        &'a self,
        tls: bool,
        _host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, std::io::Result<Box<dyn Io>>> {
        TcpDial.dial(tls, "127.0.0.1", port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_through_the_proxy_unless_no_proxy_names_its_registry() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    registry.push("app", "latest", &two_layers(10).docker());
    let (proxy, count) = proxy().await;
    let name = format!("registry.test:{}", registry.port);
    let open = |no_proxy: &'static str| {
        let proxies = Proxies::from_variables(|variable| match variable {
            "HTTP_PROXY" | "HTTPS_PROXY" => Some(format!("http://ann:x@{proxy}")),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        });
        let dial = Arc::new(ProxyDial::new(TcpDial, proxies));
        Store::open(Config { insecure: vec![name.clone()], dial, ..workspace.config() }).unwrap()
    };
    let store = open("");
    store.pull(&format!("{name}/app"), None, None, &Silent).await.unwrap();
    assert!(count.swap(0, Ordering::Relaxed) > 0);
    drop(store);
    let error = open("registry.test").pull(&format!("{name}/app"), None, None, &Silent).await.unwrap_err();
    assert!(error.to_string().contains("no such host"), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

/// TLS in front of a registry, with a certificate of the test's authority for `registry.test`.
async fn with_tls(registry: &Registry) -> u16 {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let chain =
        CertificateDer::pem_file_iter(files.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(files.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (own, behind) = (listener.local_addr().unwrap().port(), registry.port);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_trusted_by_an_authority_that_came_later_or_is_its_own() {
    let (registry, workspace) = (Registry::start(), Workspace::new());
    registry.push("app", "latest", &two_layers(10).docker());
    let port = with_tls(&registry).await;
    let name = format!("registry.test:{port}");
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/authority.pem");
    let pem = std::fs::read(&authority).unwrap();

    let trust = Trust::default();
    let config = Config { dial: Arc::new(Loopback), trust: trust.clone(), ..workspace.config() };
    let store = Store::open(config).unwrap();
    let reference = format!("{name}/app");
    let error = store.pull(&reference, None, None, &Silent).await.unwrap_err();
    let words = |name: &str, reason: &str| format!("Get \"https://{name}/v2/\": {reason}");
    let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!(error.to_string(), words(&name, unknown));
    let plain = format!("registry.test:{}", registry.port);
    let error = store.pull(&format!("{plain}/app"), None, None, &Silent).await.unwrap_err();
    assert_eq!(error.to_string(), words(&plain, "http: server gave HTTP response to HTTPS client"));
    trust.set(&pem);
    store.pull(&reference, None, None, &Silent).await.unwrap();
    let other = format!("other.test:{port}");
    let error = store.pull(&format!("{other}/app"), None, None, &Silent).await.unwrap_err();
    let wrong =
        "tls: failed to verify certificate: x509: certificate is valid for registry.test, not other.test";
    assert_eq!(error.to_string(), words(&other, wrong));
    drop(store);

    // Called insecure with its port, a registry may show any certificate, or none.
    let workspace = Workspace::new();
    let config = Config { dial: Arc::new(Loopback), insecure: vec![name, plain], ..workspace.config() };
    let store = Store::open(config).unwrap();
    for name in [format!("registry.test:{port}"), format!("registry.test:{}", registry.port)] {
        store.pull(&format!("{name}/app"), None, None, &Silent).await.unwrap();
    }
    let name = format!("registry.test:{port}");
    drop(store);

    let (other, certificates) = (Workspace::new(), tempfile::tempdir().unwrap());
    let directory = certificates.path().join(&name);
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("ca.crt"), &pem).unwrap();
    let certs_dir = Some(certificates.path().to_path_buf());
    let config = Config { dial: Arc::new(Loopback), certs_dir, ..other.config() };
    let store = Store::open(config).unwrap();
    store.pull(&reference, None, None, &Silent).await.unwrap();
    std::fs::write(directory.join("client.cert"), b"nonsense").unwrap();
    drop(store);
    let (third, certs_dir) = (Workspace::new(), Some(certificates.path().to_path_buf()));
    let store = Store::open(Config { dial: Arc::new(Loopback), certs_dir, ..third.config() }).unwrap();
    let error = store.pull(&reference, None, None, &Silent).await.unwrap_err();
    assert!(error.to_string().contains("client.key"), "a key that is not there is named: {error}");
}
