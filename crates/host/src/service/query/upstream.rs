//! Questions to name servers: over UDP, and over TCP when the answer was cut.

use std::{io, net::SocketAddr, time::Duration};

use skiff_dns::{Servers, answer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long an answer over UDP is waited for before the question is sent again: datagrams get lost.
const AGAIN: Duration = Duration::from_secs(2);
const LARGEST: usize = 65_535;

/// Asks one server after the other until one knows; the answer has the question's number.
///
/// # Errors
/// When none answers. A server that failed to find out is the answer only if no other one does better.
pub(super) async fn ask(known: &Servers, question: &[u8], servers: &[SocketAddr]) -> io::Result<Vec<u8>> {
    let id = *question.first_chunk::<2>().ok_or(io::ErrorKind::InvalidInput)?;
    let ask = |server| {
        let question = question.to_vec();
        async move { ask_one(&question, server).await }
    };
    let mut found = known.ask(servers, ask).await?;
    found[..2].copy_from_slice(&id);
    Ok(found)
}

async fn ask_one(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut question = question.to_vec();
    // The guest's number is known to whoever is in the guest: servers get one that nobody can guess.
    getrandom::fill(&mut question[..2]).map_err(|error| io::Error::other(error.to_string()))?;
    let found = over_datagrams(server, &question).await?;
    if !answer::is_cut(&found) {
        return Ok(found);
    }
    // A server without TCP leaves what came, cut as it is.
    over_stream(server, &question).await.or(Ok(found))
}

async fn over_datagrams(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // A port of its own for every question is what keeps others from answering it.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let Ok(received) = timeout(AGAIN, socket.recv(&mut buffer)).await else {
            socket.send(question).await?;
            continue;
        };
        let length = received?;
        if answer::belongs_to(&buffer[..length], question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_stream(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(question);
    stream.write_all(&bytes).await?;
    let mut found = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut found).await?;
    if answer::belongs_to(&found, question) {
        Ok(found)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
    }
}

#[cfg(test)]
mod tests {
    use skiff_dns::{Code, Data, Kind, Question};
    use tokio::net::TcpListener;

    use super::*;

    fn question() -> Vec<u8> {
        skiff_dns::query(7, "web.example", Kind::A).unwrap()
    }

    fn answer_to(message: &[u8], code: Code, last: u8) -> Vec<u8> {
        let records = [Data::Address([192, 0, 2, last].into())];
        let records = if code == Code::NoError { &records[..] } else { &[] };
        Question::parse(message).unwrap().answer(code, records, 60)
    }

    /// A name server with what it makes of each question.
    async fn server(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                for answer in answers(&buffer[..length]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_one_fails_and_answers_to_others_are_passed_over() {
        let failing = server(|question| vec![answer_to(question, Code::ServerFailure, 0)]).await;
        let good = server(|question| {
            let mut forged = answer_to(question, Code::NoError, 66);
            forged[0] ^= 0xff;
            vec![forged, answer_to(question, Code::NoError, 1)]
        })
        .await;
        let found = ask(&Servers::default(), &question(), &[failing, good]).await.unwrap();
        assert_eq!(found, answer_to(&question(), Code::NoError, 1));
        let found = ask(&Servers::default(), &question(), &[failing]).await.unwrap();
        assert_eq!(answer::code(&found), Some(2), "the only server's failure is the answer");
        let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(ask(&Servers::default(), &question(), &[nobody]).await.is_err());
    }

    #[tokio::test]
    async fn a_cut_answer_is_asked_for_again_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut cut = answer_to(&buffer[..length], Code::NoError, 1);
            cut[2] |= 2;
            socket.send_to(&cut, from).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut message).await.unwrap();
            let whole = answer_to(&message, Code::NoError, 2);
            stream.write_u16(whole.len() as u16).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        });
        let found = ask(&Servers::default(), &question(), &[address]).await.unwrap();
        assert_eq!(found, answer_to(&question(), Code::NoError, 2));
    }
}
