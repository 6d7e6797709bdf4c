//! One question in, addresses or a name out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::HEADER;

/// Longest name, in the text form (RFC 1035, 2.3.4).
const NAME_LIMIT: usize = 253;
const CLASS_INTERNET: u16 = 1;
/// What an answer over UDP may hold when the question does not say more (RFC 1035, 4.2.1).
const DATAGRAM: usize = 512;
/// The pseudo record by which a client says more (RFC 6891): the root's name, the type, then the size.
const EDNS: [u8; 3] = [0, 0, 41];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Pointer,
    /// Anything else.
    Other(u16),
}

impl Kind {
    fn of(number: u16) -> Self {
        match number {
            1 => Self::A,
            28 => Self::Aaaa,
            12 => Self::Pointer,
            other => Self::Other(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Pointer => 12,
            Self::Other(other) => other,
        }
    }
}

/// How an answer is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// This is what is known; possibly nothing of that kind.
    NoError = 0,
    /// Nobody could be asked.
    ServerFailure = 2,
    /// There is no such name.
    NameError = 3,
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// A question of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked for.
    pub kind: Kind,
    /// The name in lower case, without the dot at the end.
    pub name: String,
    id: u16,
    recursion: bool,
    /// What an answer over UDP may hold, in bytes.
    room: usize,
    /// The question's own bytes, repeated in the answer.
    section: Vec<u8>,
}

impl Question {
    /// Reads a message with exactly one question about the internet; anything else is `None`.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let flags = word(2)?;
        let is_query = flags & 0x8000 == 0 && flags & 0x7800 == 0;
        if !is_query || word(4)? != 1 {
            return None;
        }
        let mut name = String::new();
        let mut at = HEADER;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // A first name can't be compressed: there is nothing before it.
            if length > 63 {
                return None;
            }
            let label = message.get(at..at + length)?;
            if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
            at += length;
        }
        if name.len() > NAME_LIMIT || word(at + 2)? != CLASS_INTERNET {
            return None;
        }
        // Records of a question are rare beside that of EDNS, which clients put first.
        let extra = message.get(at + 4..).unwrap_or_default();
        let says_more = word(10)? > 0 && extra.starts_with(&EDNS);
        let room = if says_more { usize::from(word(at + 7)?).max(DATAGRAM) } else { DATAGRAM };
        Some(Self {
            room,
            kind: Kind::of(word(at)?),
            name,
            id: word(0)?,
            recursion: flags & 0x0100 != 0,
            section: message[HEADER..at + 4].to_vec(),
        })
    }

    /// The address that a reverse lookup is about.
    pub fn reverse(&self) -> Option<IpAddr> {
        if self.kind != Kind::Pointer {
            return None;
        }
        if let Some(digits) = self.name.strip_suffix(".in-addr.arpa") {
            let mut octets: Vec<u8> =
                digits.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
            octets.reverse();
            return <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into());
        }
        let digits = self.name.strip_suffix(".ip6.arpa")?;
        let nibbles: Vec<u128> = digits
            .split('.')
            .map(|part| if part.len() == 1 { u128::from_str_radix(part, 16).ok() } else { None })
            .collect::<Option<_>>()?;
        (nibbles.len() == 32).then(|| {
            let bits = nibbles.iter().rev().fold(0, |bits, nibble| bits << 4 | nibble);
            Ipv6Addr::from(bits).into()
        })
    }

    /// Writes an answer. Records that don't fit what the kind asks for are left out.
    pub fn answer(&self, code: Code, records: &[Data], ttl: u32) -> Vec<u8> {
        let records: Vec<Vec<u8>> = records.iter().filter_map(|record| self.data(record)).collect();
        // An answer, recursion available.
        let flags = 0x8080 | u16::from(self.recursion) << 8 | u16::from(code as u8);
        let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
        let mut message = Vec::with_capacity(DATAGRAM);
        for word in [self.id, flags, 1, count, 0, 0] {
            message.extend(word.to_be_bytes());
        }
        message.extend(&self.section);
        for data in records.iter().take(count.into()) {
            // The name is the question's: a pointer to where that begins.
            message.extend([0xc0, HEADER as u8]);
            message.extend(self.kind.number().to_be_bytes());
            message.extend(CLASS_INTERNET.to_be_bytes());
            message.extend(ttl.to_be_bytes());
            message.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
            message.extend(data);
        }
        message
    }

    /// Shortens an answer that does not fit a datagram to the word that it was cut: the client asks again over TCP.
    pub fn fit_datagram(&self, answer: Vec<u8>) -> Vec<u8> {
        if answer.len() <= self.room {
            return answer;
        }
        let mut cut = self.answer(Code::NoError, &[], 0);
        // The code stays, and whether the answer was proven.
        cut[3] = answer.get(3).copied().unwrap_or(cut[3]);
        cut[2] |= 0x02;
        cut
    }

    /// Whether one of the records would be in the answer.
    pub fn is_answered_by(&self, records: &[Data]) -> bool {
        records.iter().any(|record| self.data(record).is_some())
    }

    fn data(&self, record: &Data) -> Option<Vec<u8>> {
        match (self.kind, record) {
            (Kind::A, Data::Address(IpAddr::V4(ip))) => Some(ip.octets().to_vec()),
            (Kind::Aaaa, Data::Address(IpAddr::V6(ip))) => Some(ip.octets().to_vec()),
            (Kind::Pointer, Data::Name(name)) => encode(name),
            _ => None,
        }
    }
}

/// A name as labels; `None` when it is none.
fn encode(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= NAME_LIMIT + 2).then_some(bytes)
}

/// A question as a client would send it, for those who ask themselves.
pub fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(64);
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    message.extend(encode(name)?);
    message.extend(kind.number().to_be_bytes());
    message.extend(CLASS_INTERNET.to_be_bytes());
    Some(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_is_read_and_answered() {
        let message = query(7, "Web.Example", Kind::A).unwrap();
        let question = Question::parse(&message).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web.example", Kind::A));
        let answer = question.answer(
            Code::NoError,
            &[Data::Address("10.0.0.1".parse().unwrap()), Data::Address("::1".parse().unwrap())],
            600,
        );
        assert_eq!(&answer[..8], [0, 7, 0x81, 0x80, 0, 1, 0, 1], "one answer: the other is of another kind");
        assert_eq!(&answer[12..message.len()], &message[12..], "the question is repeated, its case too");
        assert_eq!(&answer[message.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 10, 0, 0, 1]);
    }

    #[test]
    fn reverse_names_are_addresses() {
        let of = |name: &str| Question::parse(&query(1, name, Kind::Pointer).unwrap()).unwrap().reverse();
        assert_eq!(of("2.0.18.172.in-addr.arpa"), Some("172.18.0.2".parse().unwrap()));
        let six = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(of(six), Some("2001:db8::567:89ab".parse().unwrap()));
        for wrong in ["18.172.in-addr.arpa", "256.0.18.172.in-addr.arpa", "a.ip6.arpa", "example"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_come_back_as_labels() {
        let question = Question::parse(&query(1, "2.0.18.172.in-addr.arpa", Kind::Pointer).unwrap()).unwrap();
        let answer = question.answer(Code::NoError, &[Data::Name("web.front".into())], 1);
        assert!(answer.ends_with(b"\x03web\x05front\x00"));
        let refused = question.answer(Code::NoError, &[Data::Name("a..b".into())], 1);
        assert_eq!(refused[7], 0, "no name, no record");
    }

    #[test]
    fn an_answer_too_big_for_a_datagram_says_so() {
        let question = Question::parse(&query(1, "many", Kind::A).unwrap()).unwrap();
        let many: Vec<_> = (0..100u32).map(|number| Data::Address(Ipv4Addr::from(number).into())).collect();
        let answer = question.answer(Code::NoError, &many, 1);
        assert!(answer.len() > DATAGRAM);
        let cut = question.fit_datagram(answer);
        assert!(cut.len() <= DATAGRAM && cut[2] & 2 == 2);
        let small = question.answer(Code::NoError, &many[..3], 1);
        assert_eq!(question.fit_datagram(small.clone()), small);

        let mut message = query(1, "many", Kind::A).unwrap();
        message[11] = 1;
        message.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        let question = Question::parse(&message).unwrap();
        let answer = question.answer(Code::NoError, &many, 1);
        assert_eq!(question.fit_datagram(answer.clone()), answer, "a client that takes 4096 bytes gets them");
    }

    #[test]
    fn what_is_no_question_is_passed_over() {
        let good = query(1, "a", Kind::A).unwrap();
        let mut answer = good.clone();
        answer[2] |= 0x80;
        let mut two = good.clone();
        two[5] = 2;
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        for bad in [&answer, &two, &pointer, &good[..good.len() - 1], &[]] {
            assert_eq!(Question::parse(bad), None);
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(question) = Question::parse(&bytes) {
                let _ = question.reverse();
                prop_assert!(question.name.len() <= NAME_LIMIT);
                prop_assert_eq!(&question.answer(Code::NameError, &[], 0)[..2], &bytes[..2]);
            }
        }

        #[test]
        fn written_questions_are_read_back(
            labels in prop::collection::vec("[a-z0-9_-]{1,20}", 1..8),
            id in any::<u16>(),
            number in any::<u16>(),
        ) {
            let name = labels.join(".");
            let question = Question::parse(&query(id, &name, Kind::of(number)).unwrap()).unwrap();
            prop_assert_eq!((question.name, question.kind), (name, Kind::of(number)));
        }

        #[test]
        fn reverse_names_of_all_addresses_are_read(bits in any::<u32>()) {
            let ip = Ipv4Addr::from(bits);
            let [a, b, c, d] = ip.octets();
            let name = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
            let question = Question::parse(&query(1, &name, Kind::Pointer).unwrap()).unwrap();
            prop_assert_eq!(question.reverse(), Some(ip.into()));
        }
    }
}
