//! The world that containers reach in the scenarios: an interface of this host with servers on it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::event::epoll;
use skiff_testkit::Program;

use crate::probe::{Pattern, outcome};

/// The names of the host in guests.
pub const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];

/// An interface of its own with an address, a neighbour who never answers, and a neighbourhood that can't be reached.
pub struct Outside {
    name: String,
    third: u8,
    /// Whether it has addresses of IPv6 as well.
    pub has_ipv6: bool,
}

impl Outside {
    /// Makes it; several may exist side by side.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn new() -> anyhow::Result<Self> {
        // TEST-NET-2 and the benchmarking network (RFC 5737, RFC 2544) are nobody's.
        let third = (std::process::id() % 250) as u8;
        let has_ipv6 = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6")
            .is_ok_and(|off| off.trim() == "0");
        let outside = Self { name: format!("skout{third}"), third, has_ipv6 };
        let ip = |line: String| Program::new("ip").args(line.split(' ')).run()?.ok().map(drop);
        // A tunnel that nobody reads swallows what is sent into it.
        ip(format!("tuntap add dev {} mode tun", outside.name))?;
        ip(format!("address add {}/28 dev {}", outside.address(), outside.name))?;
        ip(format!("link set {} up", outside.name))?;
        ip(format!("route add unreachable {}/32", outside.unreachable()))?;
        if has_ipv6 {
            ip(format!("address add {}/124 dev {} nodad", outside.address6(), outside.name))?;
            ip(format!("-6 route add unreachable {}/128", outside.unreachable6()))?;
        }
        Ok(outside)
    }

    /// The servers' address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.third, 1)
    }

    /// The same places of IPv6, in what is set apart for benchmarks (RFC 5180).
    pub fn address6(&self) -> Ipv6Addr {
        self.ip6(1)
    }

    /// An address of IPv6 where nobody answers.
    pub fn silent6(&self) -> Ipv6Addr {
        self.ip6(9)
    }

    /// An address of IPv6 that this host says it can't reach.
    pub fn unreachable6(&self) -> Ipv6Addr {
        self.ip6(200)
    }

    fn ip6(&self, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 2, 0, self.third.into(), 0, 0, 0, last)
    }

    /// An address where nobody answers.
    pub fn silent(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.third, 9)
    }

    /// An address that this host says it can't reach.
    pub fn unreachable(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.third, 200)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let lines = [
            format!("route del unreachable {}/32", self.unreachable()),
            format!("-6 route del unreachable {}/128", self.unreachable6()),
            format!("link del {}", self.name),
        ];
        for line in lines.iter().filter(|line| self.has_ipv6 || !line.starts_with("-6")) {
            let _ = Program::new("ip").args(line.split(' ')).run();
        }
    }
}

/// Serves every connection to an address by a thread of its own, for as long as the test's process lives.
///
/// # Errors
/// When the address can't be bound.
pub fn serve(
    address: impl Into<IpAddr>,
    work: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> anyhow::Result<SocketAddr> {
    serve_at(SocketAddr::new(address.into(), 0), work)
}

/// The same on a port of one's choice.
///
/// # Errors
/// When the address can't be bound.
pub fn serve_at(
    address: SocketAddr,
    work: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let bound = listener.local_addr()?;
    let work = Arc::new(work);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let work = Arc::clone(&work);
            thread::Builder::new().stack_size(128 * 1024).spawn(move || work(stream)).expect("a thread");
        }
    });
    Ok(bound)
}

/// Says back what it hears, when the client's half has ended; the client can see that it waited.
pub fn repeat(mut stream: TcpStream) -> std::io::Result<()> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    stream.write_all(&text)
}

/// Says who it is when the client's half has ended.
pub fn say(text: &'static str) -> impl Fn(TcpStream) -> std::io::Result<()> {
    move |mut stream| {
        stream.read_to_end(&mut Vec::new())?;
        stream.write_all(text.as_bytes())
    }
}

/// Says everything back at once.
pub fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// Echoes on any number of connections, all by one thread, for as long as the test's process lives.
///
/// # Errors
/// When the address can't be bound.
pub fn echo_for_many(address: impl Into<IpAddr>) -> anyhow::Result<SocketAddr> {
    const LISTENER: u64 = 0;
    let listener = TcpListener::bind((address.into(), 0))?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    thread::spawn(move || -> std::io::Result<()> {
        let (mut streams, mut next) = (HashMap::new(), LISTENER + 1);
        let mut buffer = [0; 4096];
        loop {
            let mut events = Vec::with_capacity(256);
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in events {
                let number = event.data.u64();
                if number == LISTENER {
                    while let Ok((stream, _)) = listener.accept() {
                        let data = epoll::EventData::new_u64(next);
                        epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
                        streams.insert(next, stream);
                        next += 1;
                    }
                } else if let Some(stream) = streams.get_mut(&number) {
                    let echoed = stream.read(&mut buffer).and_then(|length| {
                        stream.write_all(&buffer[..length])?;
                        Ok(length)
                    });
                    if !echoed.is_ok_and(|length| length > 0) {
                        streams.remove(&number);
                    }
                }
            }
        }
    });
    Ok(bound)
}

/// Sends `size` bytes of the pattern.
pub fn send_pattern(size: u64) -> impl Fn(TcpStream) -> std::io::Result<()> {
    move |mut stream| Pattern::default().write(&mut stream, size)
}

/// Compares what it gets with the pattern and says how much was right.
pub fn check_pattern(mut stream: TcpStream) -> std::io::Result<()> {
    let mut pattern = Pattern::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return write!(stream, "whole {}", pattern.place());
        }
        if !pattern.matches(&buffer[..length]) {
            return write!(stream, "wrong before {}", pattern.place());
        }
    }
}

/// Breaks every connection off.
pub fn reset(mut stream: TcpStream) -> std::io::Result<()> {
    stream.read_exact(&mut [0])?;
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}

/// Sends until the client breaks off, and leaves what it then saw in the record.
pub fn flood(seen: Arc<Mutex<Vec<String>>>) -> impl Fn(TcpStream) -> std::io::Result<()> {
    move |mut stream| {
        let error = loop {
            if let Err(error) = stream.write_all(&[7; 65536]) {
                break error;
            }
        };
        let _ = stream.shutdown(Shutdown::Both);
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(outcome(&error));
        Ok(())
    }
}

/// Echoes datagrams for as long as the test's process lives.
///
/// # Errors
/// When the address can't be bound.
pub fn echo_datagrams(address: impl Into<IpAddr>) -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind((address.into(), 0))?;
    let bound = socket.local_addr()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    Ok(bound)
}

/// What a process on this host sees when it connects.
pub fn connect_from_host(to: SocketAddr, patience: Duration) -> String {
    match TcpStream::connect_timeout(&to, patience) {
        Ok(_) => "connected".to_owned(),
        Err(error) => outcome(&error),
    }
}

/// Fails unless something took at least so long.
///
/// # Errors
/// When it was faster.
pub fn took_at_least(started: Instant, least: Duration) -> anyhow::Result<()> {
    let took = started.elapsed();
    ensure!(took >= least, "it took {took:?}, not {least:?}");
    Ok(())
}
