//! The bytes of every header and reply. A change here is a new frame version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;
use skiff_link::{
    Args, Error, FrameError, MAX_BODY, Protocol, Reply, ReplyCode, Service, StreamHeader, read_header,
    read_reply, write_header, write_reply,
};
use tokio::io::AsyncReadExt;

fn frame(code: u8, json: &str) -> Vec<u8> {
    let mut bytes = vec![1, code];
    bytes.extend((json.len() as u16).to_le_bytes());
    bytes.extend(json.as_bytes());
    bytes
}

#[test]
fn headers_have_these_bytes() {
    let golden = [
        (Args::Api {}, frame(1, "")),
        (
            Args::Dial { addr: "172.17.0.2:80".parse().unwrap(), protocol: Protocol::Tcp },
            frame(2, r#"{"addr":"172.17.0.2:80","protocol":"tcp"}"#),
        ),
        (Args::Shell {}, frame(3, "")),
        (Args::Control {}, frame(4, "")),
        (
            Args::Publish {
                container: "web".into(),
                host_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                host_port: 8080,
                protocol: Protocol::Udp,
                target: (Ipv6Addr::LOCALHOST, 53).into(),
            },
            frame(
                5,
                r#"{"container":"web","host_ip":"0.0.0.0","host_port":8080,"protocol":"udp","target":"[::1]:53"}"#,
            ),
        ),
        (
            Args::Egress { host: "example.org".into(), port: 443, protocol: Protocol::Tcp },
            frame(6, r#"{"host":"example.org","port":443,"protocol":"tcp"}"#),
        ),
        (Args::Resolve { name: "example.org".into() }, frame(7, r#"{"name":"example.org"}"#)),
        (Args::Files { share: "/home/u".into() }, frame(8, r#"{"share":"/home/u"}"#)),
        (Args::Query { question: "0007".into() }, frame(9, r#"{"question":"0007"}"#)),
        (Args::Echo { host: "192.0.2.1".into() }, frame(10, r#"{"host":"192.0.2.1"}"#)),
        (
            Args::Fetch { host: "example.org".into(), port: 443, tls: true },
            frame(11, r#"{"host":"example.org","port":443,"tls":true}"#),
        ),
        (Args::Roots {}, frame(12, "")),
    ];
    for (service, (args, bytes)) in Service::ALL.into_iter().zip(golden) {
        let header = StreamHeader::new(args);
        assert_eq!(header.service(), service);
        assert_eq!(header.encode().unwrap(), bytes, "{service}");
        assert_eq!(StreamHeader::decode(&bytes).unwrap(), header);
    }
}

#[test]
fn replies_have_these_bytes() {
    let golden = [
        (Reply::ok(None), frame(0, "")),
        (Reply::ok(Some(json!({"host_port": 4711}))), frame(0, r#"{"data":{"host_port":4711}}"#)),
        (Reply::ok(Some(json!({"addresses": ["::1"]}))), frame(0, r#"{"data":{"addresses":["::1"]}}"#)),
        (
            Reply::refused(ReplyCode::AddressInUse, "port 80 is taken"),
            frame(4, r#"{"message":"port 80 is taken"}"#),
        ),
    ];
    for (reply, bytes) in golden {
        assert_eq!(reply.encode().unwrap(), bytes);
        assert_eq!(Reply::decode(&bytes).unwrap(), reply);
    }
    for (number, code) in ReplyCode::ALL.into_iter().enumerate() {
        assert_eq!(code as usize, number);
        assert_eq!(Reply::decode(&frame(number as u8, "")).unwrap().code, code);
    }
}

#[test]
fn malformed_headers_are_refused_with_a_reason() {
    let reason = |bytes: &[u8]| StreamHeader::decode(bytes).unwrap_err();
    assert!(matches!(reason(&[]), FrameError::Length));
    assert!(matches!(reason(&[1, 1, 0]), FrameError::Length));
    assert!(matches!(reason(&[1, 1, 1, 0]), FrameError::Length));
    assert!(matches!(reason(&[1, 1, 0, 0, 0]), FrameError::Length));
    assert!(matches!(reason(&[2, 1, 0, 0]), FrameError::Version { version: 2 }));
    assert!(matches!(reason(&frame(0, "")), FrameError::Code { code: 0 }));
    assert!(matches!(reason(&frame(13, "")), FrameError::Code { code: 13 }));
    assert!(matches!(reason(&[1, 1, 1, 0x40]), FrameError::TooLong { length: 16385, .. }));
    for json in ["{", "[]", "null", r#"{"x":1}"#, "{}{}", r#"{}, "dial": {}"#] {
        assert!(matches!(reason(&frame(1, json)), FrameError::Body { .. }), "{json}");
    }
    assert!(matches!(reason(&frame(2, "")), FrameError::Body { .. }));
    assert!(matches!(reason(&frame(2, r#"{"addr":"x","protocol":"tcp"}"#)), FrameError::Body { .. }));
}

#[test]
fn what_is_too_long_is_refused_or_cut() {
    let header = StreamHeader::new(Args::Resolve { name: "x".repeat(MAX_BODY) });
    assert!(matches!(header.encode(), Err(FrameError::TooLong { .. })));
    let reply = Reply::refused(ReplyCode::Internal, "\u{1}ö".repeat(10_000));
    let cut = Reply::decode(&reply.encode().unwrap()).unwrap();
    assert!(reply.message.starts_with(&cut.message) && cut.message.len() > 2000);
    assert!(Reply::ok(Some(json!("x".repeat(MAX_BODY)))).encode().is_err());
}

#[tokio::test]
async fn frames_are_read_without_a_byte_more() {
    let (mut near, mut far) = tokio::io::duplex(3);
    let header = StreamHeader::new(Args::Resolve { name: "example.org".into() });
    let expected = header.clone();
    let writing = tokio::spawn(async move {
        write_header(&mut near, &header).await.unwrap();
        write_reply(&mut near, &Reply::ok(Some(json!(1)))).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut near, b"rest").await.unwrap();
    });
    assert_eq!(read_header(&mut far).await.unwrap(), expected);
    assert_eq!(read_reply(&mut far).await.unwrap(), Reply::ok(Some(json!(1))));
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"rest");
    writing.await.unwrap();
    assert!(matches!(read_header(&mut &[1, 1][..]).await, Err(Error::Io { .. })));
    assert!(matches!(read_header(&mut &[1, 1, 0, 255][..]).await, Err(Error::Frame { .. })));
}
