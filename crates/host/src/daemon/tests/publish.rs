//! Published ports, with a guest that echoes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::*;

/// Where the guest gives back what it gets.
const ECHO: &str = "10.1.2.3:80";
/// Where nobody listens.
const CLOSED: &str = "10.1.2.3:1";
/// Where a connection breaks off at once.
const BROKEN: &str = "10.1.2.3:2";

fn publish(address: SocketAddr, protocol: Protocol, target: &str) -> StreamHeader {
    let target = target.parse().unwrap();
    let (host_ip, host_port) = (address.ip(), address.port());
    let container = "web".to_owned();
    StreamHeader { args: Args::Publish { container, host_ip, host_port, protocol, target } }
}

async fn published(guest: &Link, protocol: Protocol, target: &str) -> (BoxStream, u16) {
    let (stream, reply) = guest.open_with_data(&publish(loopback(0), protocol, target)).await.unwrap();
    (stream, reply.data.unwrap()["host_port"].as_u64().unwrap().try_into().unwrap())
}

#[tokio::test]
async fn published_port_leads_to_the_container_for_as_long_as_its_stream_lives() {
    let daemon = Daemon::start().await;
    let guest = daemon.guest().await;
    let (stream, port) = published(&guest, Protocol::Tcp, ECHO).await;
    let mut client = TcpStream::connect(loopback(port)).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello", "half-close passes through");

    let (code, message) = refused(guest.open(&publish(loopback(port), Protocol::Tcp, ECHO)).await);
    assert_eq!(code, ReplyCode::AddressInUse);
    assert_eq!(message, format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));

    drop(stream);
    for _ in 0..200 {
        if TcpStream::connect(loopback(port)).await.is_err() {
            drop(guest);
            return daemon.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the port outlives its stream");
}

#[tokio::test]
async fn port_of_another_program_is_refused_with_its_name() {
    let daemon = Daemon::start().await;
    let guest = daemon.guest().await;
    let other = TcpListener::bind(loopback(0)).await.unwrap();
    let address = other.local_addr().unwrap();
    let (code, message) = refused(guest.open(&publish(address, Protocol::Tcp, ECHO)).await);
    assert_eq!(code, ReplyCode::AddressInUse);
    assert!(message.starts_with("address already in use"), "{message}");
    if cfg!(target_os = "linux") {
        assert!(message.ends_with(&format!(", pid {})", std::process::id())), "{message}");
    }
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);
    let (_, message) = refused(guest.open(&publish(nowhere, Protocol::Tcp, ECHO)).await);
    assert_eq!(message, "cannot assign requested address");
    drop(guest);
    daemon.stop().await;
}

#[tokio::test]
async fn ports_are_closed_when_the_guest_is_stopped() {
    let daemon = Daemon::start().await;
    let guest = daemon.guest().await;
    let (_stream, port) = published(&guest, Protocol::Tcp, ECHO).await;
    drop(guest);
    daemon.fake.link.lock().unwrap().take();
    daemon.control().await.stop(|_| {}).await.unwrap();
    for _ in 0..200 {
        if TcpStream::connect(loopback(port)).await.is_err() {
            return daemon.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the port outlives its guest");
}

#[tokio::test]
async fn a_refusal_of_the_container_and_a_broken_connection_are_resets() {
    let daemon = Daemon::start().await;
    let guest = daemon.guest().await;
    for target in [CLOSED, BROKEN] {
        let (_stream, port) = published(&guest, Protocol::Tcp, target).await;
        let mut client = TcpStream::connect(loopback(port)).await.unwrap();
        let error = client.read(&mut [0; 8]).await.expect_err(target);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{target}");
    }
    drop(guest);
    daemon.stop().await;
}

#[tokio::test]
async fn datagrams_of_every_client_are_a_flow_of_their_own() {
    let daemon = Daemon::start().await;
    let guest = daemon.guest().await;
    let (stream, port) = published(&guest, Protocol::Udp, ECHO).await;
    let (code, message) = refused(guest.open(&publish(loopback(port), Protocol::Udp, ECHO)).await);
    assert_eq!(code, ReplyCode::AddressInUse);
    assert_eq!(message, format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));
    let mut clients = Vec::new();
    for _ in 0..20 {
        let client = UdpSocket::bind(loopback(0)).await.unwrap();
        client.connect(loopback(port)).await.unwrap();
        clients.push(client);
    }
    let large = vec![7; 9000];
    // Few at once: what a socket's buffer has no room for is lost, as datagrams are.
    for (number, client) in clients.iter().enumerate() {
        client.send(number.to_string().as_bytes()).await.unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        client.send(&large).await.unwrap();
        client.send(b"").await.unwrap();
        let mut buffer = vec![0; 10_000];
        for expected in [number.to_string().as_bytes(), &large, b""] {
            let length = client.recv(&mut buffer).await.unwrap();
            assert!(&buffer[..length] == expected, "client {number} got {length} bytes");
        }
    }
    // TCP has the same port free.
    drop(TcpListener::bind(loopback(port)).await.unwrap());
    drop(stream);
    for _ in 0..200 {
        if UdpSocket::bind(loopback(port)).await.is_ok() {
            drop(guest);
            return daemon.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the port outlives its stream");
}

#[tokio::test]
async fn port_of_a_guest_that_sleeps_stays_bound_and_who_comes_wakes_it_and_waits() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let daemon = Daemon::start().await;
        std::fs::write(daemon.paths().disk(), b"disk").unwrap();
        let guest = daemon.guest().await;
        let wakes = daemon.fake.wakes.load(Ordering::SeqCst);
        let (_stream, port) = published(&guest, protocol, ECHO).await;
        drop(guest);
        daemon.fake.link.lock().unwrap().take();
        daemon.control().await.suspend(|_| {}).await.unwrap();
        let status = daemon.control().await.status().await.unwrap();
        assert_eq!(status.machine.state, MachineState::Asleep);
        assert_eq!(daemon.fake.wakes.load(Ordering::SeqCst), wakes);

        let client = tokio::spawn(async move {
            let mut answer = [0; 5];
            if protocol == Protocol::Tcp {
                let mut client = TcpStream::connect(loopback(port)).await.unwrap();
                client.write_all(b"hello").await.unwrap();
                client.read_exact(&mut answer).await.unwrap();
            } else {
                let client = UdpSocket::bind(loopback(0)).await.unwrap();
                client.connect(loopback(port)).await.unwrap();
                client.send(b"hello").await.unwrap();
                client.recv(&mut answer).await.unwrap();
            }
            answer
        });
        // The container's engine publishes it again.
        let guest = loop {
            let link = daemon.fake.link.lock().unwrap().clone();
            match link {
                Some(link) if daemon.fake.wakes.load(Ordering::SeqCst) > wakes => break link,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let again = publish(loopback(port), protocol, ECHO);
        let stream = guest.open(&again).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), client).await.unwrap().unwrap();
        assert_eq!(&answer, b"hello");
        drop((stream, guest));
        daemon.fake.link.lock().unwrap().take();
        daemon.stop().await;
    }
}

#[tokio::test]
async fn ports_of_a_sleeping_guest_are_closed_when_it_is_stopped() {
    let daemon = Daemon::start().await;
    std::fs::write(daemon.paths().disk(), b"disk").unwrap();
    let guest = daemon.guest().await;
    let (_stream, port) = published(&guest, Protocol::Tcp, ECHO).await;
    drop(guest);
    daemon.fake.link.lock().unwrap().take();
    daemon.control().await.suspend(|_| {}).await.unwrap();
    assert!(TcpListener::bind(loopback(port)).await.is_err(), "the port stays bound");
    daemon.control().await.stop(|_| {}).await.unwrap();
    for _ in 0..200 {
        if TcpListener::bind(loopback(port)).await.is_ok() {
            assert_eq!(daemon.fake.wakes.load(Ordering::SeqCst), 0);
            return daemon.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the port outlives the guest");
}
