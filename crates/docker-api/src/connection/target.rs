//! The target of a request line, spelled as hyper takes it.
//!
//! Go takes a target as it comes, and people write `curl '…/containers/json?filters={"status":["running"]}'`; hyper
//! refuses quotes and the like, which ought to be percent-encoded.

use bytes::BytesMut;

/// Percent-encodes the bytes of the request line's target that may not stand there. Everything else stays as it is.
pub(super) fn spelled_out(head: BytesMut) -> BytesMut {
    let Some((start, end)) = target(&head) else { return head };
    if !head[start..end].iter().any(|byte| is_odd(*byte)) {
        return head;
    }
    let mut spelled = BytesMut::with_capacity(head.len() + 64);
    spelled.extend_from_slice(&head[..start]);
    for byte in &head[start..end] {
        match is_odd(*byte) {
            true => spelled.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            false => spelled.extend_from_slice(&[*byte]),
        }
    }
    spelled.extend_from_slice(&head[end..]);
    spelled
}

/// Where the target lies. Lines before the request line may be empty.
fn target(head: &[u8]) -> Option<(usize, usize)> {
    let method = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let find = |from: usize, wanted: &[u8]| {
        head[from..].iter().position(|byte| wanted.contains(byte)).map(|at| from + at)
    };
    let start = find(method, b" \r\n").filter(|at| head[*at] == b' ')? + 1;
    let end = find(start, b" \r\n")?;
    Some((start, end))
}

fn is_odd(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(head: &str) -> String {
        String::from_utf8(spelled_out(BytesMut::from(head)).to_vec()).unwrap()
    }

    #[test]
    fn quotes_and_braces_of_a_target_are_percent_encoded_and_nothing_else_is() {
        assert_eq!(
            spelled("\r\nGET /c?f={\"a\":[\"b%20c\"]} HTTP/1.1\r\nX: {\"\"}\r\n\r\n"),
            "\r\nGET /c?f=%7B%22a%22:[%22b%20c%22]%7D HTTP/1.1\r\nX: {\"\"}\r\n\r\n"
        );
        for same in ["GET /a?b=c HTTP/1.1\r\n\r\n", "", "\r\n", "GET", "GET \r\n", "{} \r\n"] {
            assert_eq!(spelled(same), same);
        }
    }
}
