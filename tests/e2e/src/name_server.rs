//! A small name server that the tests ask through containers.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context;

/// What a name server says: a code, and the data of each record.
pub type Answer = (u8, Vec<Vec<u8>>);

/// A name server on port 53 of an address of its own, for as long as the test's process lives.
pub struct NameServer {
    address: Ipv4Addr,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// Starts one; `answers` gets names in lower case and the number of the kind. Over UDP, answers beyond 512 bytes are cut.
    ///
    /// # Errors
    /// When its ports can't be bound.
    pub fn start(
        address: Ipv4Addr,
        answers: impl Fn(&str, u16) -> Answer + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let udp = UdpSocket::bind((address, 53)).with_context(|| format!("serve names on {address}"))?;
        let tcp = TcpListener::bind((address, 53)).with_context(|| format!("serve names on {address}"))?;
        let asked = Arc::new(AtomicUsize::new(0));
        let answers = Arc::new(answers);
        let (count, know) = (Arc::clone(&asked), Arc::clone(&answers));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::Relaxed);
                let question = &buffer[..length];
                let Some(mut found) = answer(question, &*know) else { continue };
                if found.len() > 512 {
                    found = answer(question, &|_, _| (0, Vec::new())).unwrap_or_default();
                    found[2] |= 2;
                }
                let _ = udp.send_to(&found, from);
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let _ = serve(stream, &*answers);
            }
        });
        Ok(Self { address, asked })
    }

    /// The line of `resolv.conf` that names it.
    pub fn line(&self) -> String {
        format!("nameserver {}\n", self.address)
    }

    /// How many questions came over UDP.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: TcpStream, answers: &dyn Fn(&str, u16) -> Answer) -> std::io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    let answer = answer(&message, answers).unwrap_or_default();
    stream.write_all(&(answer.len() as u16).to_be_bytes())?;
    stream.write_all(&answer)
}

fn answer(message: &[u8], answers: &dyn Fn(&str, u16) -> Answer) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while *message.get(at)? != 0 {
        let length = usize::from(message[at]);
        labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([*message.get(at + 1)?, *message.get(at + 2)?]);
    let (code, records) = answers(&labels.join("."), kind);
    let mut bytes = message[..2].to_vec();
    bytes.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    bytes.extend(&message[12..at + 5]);
    for data in records {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 1, 44]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
    Some(bytes)
}

/// The bytes of an address as a record has them.
pub fn address(text: &str) -> Vec<u8> {
    match text.parse().expect("an address") {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

/// The bytes of a name as a record has them.
pub fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}
