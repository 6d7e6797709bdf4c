//! What the egress scenarios run in containers: one network operation, and its outcome in a line.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use skiff_e2e::probe::{Pattern, outcome};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["connect", to, seconds] => connect(to, seconds),
        ["talk", to, text] => talk(to, text),
        ["download", to, size] => download(to, size),
        ["upload", to, size] => upload(to, size),
        ["udp", to, from, ref sizes @ ..] => udp(to, from, sizes),
        ["many", to, count] => many(to, count, "0"),
        ["many", to, count, seconds] => many(to, count, seconds),
        ["idle", to, seconds] => idle(to, seconds),
        ["stuck", to] => stuck(to),
        ["dns", server, kind, name] => dns(server, kind, name),
        _ => Err(io::Error::other(format!("what is {words:?}?"))),
    };
    match result {
        Ok(text) => println!("{text}"),
        Err(error) => println!("{}", outcome(&error)),
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(io::Error::other)
}

/// An address, of IPv4 if there is one.
fn address(text: &str) -> io::Result<SocketAddr> {
    text.to_socket_addrs()?.min_by_key(SocketAddr::is_ipv6).ok_or(io::ErrorKind::NotFound.into())
}

fn connect(to: &str, seconds: &str) -> io::Result<String> {
    TcpStream::connect_timeout(&address(to)?, Duration::from_secs(number(seconds)?))?;
    Ok("connected".into())
}

/// Says something, ends its half, and reads the answer to its end.
fn talk(to: &str, text: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address(to)?)?;
    stream.write_all(text.as_bytes())?;
    // After a reset that is here already there is nothing to end, and the read tells about it.
    match stream.shutdown(std::net::Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(error),
        _ => {}
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn download(to: &str, size: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address(to)?)?;
    let mut pattern = Pattern::default();
    let mut buffer = vec![0; 256 * 1024];
    let mut left = number(size)?;
    while left > 0 {
        let length = stream.read(&mut buffer)?;
        if length == 0 || !pattern.matches(&buffer[..length]) {
            return Err(io::Error::other(format!("wrong or ended {left} bytes before the end")));
        }
        left = left.saturating_sub(length as u64);
    }
    Ok(format!("whole {}", stream.read(&mut buffer)?))
}

fn upload(to: &str, size: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address(to)?)?;
    Pattern::default().write(&mut stream, number(size)?)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Sends datagrams of these sizes from a port and expects each of them back.
fn udp(to: &str, from: &str, sizes: &[&str]) -> io::Result<String> {
    let to = address(to)?;
    let any: IpAddr = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, number(from)? as u16))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.connect(to)?;
    let mut buffer = vec![0; 65_536];
    for size in sizes {
        let sent: Vec<u8> = (0..number(size)?).map(|byte| byte as u8).collect();
        socket.send(&sent)?;
        let length = socket.recv(&mut buffer)?;
        if buffer[..length] != sent {
            return Err(io::Error::other(format!("{length} bytes came back for {size}")));
        }
    }
    Ok("echoed".into())
}

/// Opens connections, some at a time, has each of them echo a number, and keeps all of them for a while.
fn many(to: &str, count: &str, seconds: &str) -> io::Result<String> {
    const AT_A_TIME: u64 = 16;
    let (to, count) = (address(to)?, number(count)?);
    let part = |first: u64| -> io::Result<Vec<TcpStream>> {
        (first..count).step_by(AT_A_TIME as usize).map(|_| TcpStream::connect(to)).collect()
    };
    let opened: io::Result<Vec<Vec<TcpStream>>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..AT_A_TIME.min(count)).map(|first| scope.spawn(move || part(first))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread does not panic")).collect()
    });
    let mut streams: Vec<TcpStream> = opened?.into_iter().flatten().collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&(number as u32).to_be_bytes())?;
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; 4];
        stream.read_exact(&mut back)?;
        if back != (number as u32).to_be_bytes() {
            return Err(io::Error::other("an answer of another connection"));
        }
    }
    println!("{count} echoed");
    std::thread::sleep(Duration::from_secs(number(seconds)?));
    Ok("kept".to_owned())
}

/// Echoes, says nothing for a while, and echoes again.
fn idle(to: &str, seconds: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address(to)?)?;
    for text in [b"one!", b"two!"] {
        stream.write_all(text)?;
        let mut back = [0; 4];
        stream.read_exact(&mut back)?;
        if text == b"one!" {
            println!("first");
            std::thread::sleep(Duration::from_secs(number(seconds)?));
        }
    }
    Ok("second".into())
}

/// Connects and reads nothing until it is killed.
fn stuck(to: &str) -> io::Result<String> {
    let _stream = TcpStream::connect(address(to)?)?;
    println!("connected");
    std::thread::sleep(Duration::from_secs(600));
    Ok("awake".into())
}

/// Asks for a record over `udp:` or `tcp:` and prints the code and each record's data in hexadecimal digits.
fn dns(server: &str, kind: &str, name: &str) -> io::Result<String> {
    let (transport, server) = server.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.push(0);
    question.extend((number(kind)? as u16).to_be_bytes());
    question.extend([0, 1]);
    let to = SocketAddr::new(server.parse().map_err(io::Error::other)?, 53);
    let answer = if transport == "udp" {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        socket.connect(to)?;
        socket.send(&question)?;
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        buffer
    } else {
        let mut stream = TcpStream::connect(to)?;
        let mut bytes = (question.len() as u16).to_be_bytes().to_vec();
        bytes.extend(&question);
        stream.write_all(&bytes)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut buffer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut buffer)?;
        buffer
    };
    skiff_e2e::probe::describe(&answer, question.len()).ok_or(io::ErrorKind::InvalidData.into())
}
