//! Answers of other servers: what they say, and for how long.

use crate::HEADER;

const SOA: u16 = 6;
/// The pseudo record of EDNS (RFC 6891), whose lifetime field is none.
const OPT: u16 = 41;
/// Where the lifetime is after a record's name, and where its data begins.
const LIFETIME: usize = 4;
const DATA: usize = 10;

/// The code of an answer (RFC 1035, 4.1.1); `None` when the bytes are no answer.
pub fn code(message: &[u8]) -> Option<u8> {
    (message.len() >= HEADER && message[2] & 0x80 != 0).then(|| message[3] & 0x0f)
}

/// Whether the answer was cut to fit a datagram.
pub fn is_cut(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Whether `answer` is about the question of `question`: same number, same question section.
pub fn belongs_to(answer: &[u8], question: &[u8]) -> bool {
    let section = |message: &[u8]| -> Option<Vec<u8>> {
        let end = skip_name(message, HEADER)? + 4;
        message.get(HEADER..end).map(<[u8]>::to_ascii_lowercase)
    };
    if code(answer).is_none() || answer[..2] != question[..2.min(question.len())] {
        return false;
    }
    // A server that could not read the question may leave it out.
    answer[4..6] == [0, 0] || section(answer) == section(question)
}

/// Whether an answer without an error has records beside those about itself.
pub fn has_records(message: &[u8]) -> bool {
    message.get(6..8).is_some_and(|count| count != [0, 0])
}

/// How many seconds an answer may be kept: the shortest lifetime in it, or for the answer that there is nothing what the
/// zone says about that (RFC 2308). `None` when it says nothing or can't be read: then it should not be kept.
pub fn lifetime(message: &[u8]) -> Option<u32> {
    let mut shortest = None::<u32>;
    walk(message, |record| {
        let mut seconds = record.lifetime;
        if record.kind == SOA && !has_records(message) {
            // The last number of the record is the lifetime of denials.
            let minimum = record.data.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
            seconds = seconds.min(minimum.unwrap_or(0));
        }
        shortest = Some(shortest.map_or(seconds, |shortest| shortest.min(seconds)));
    })?;
    shortest
}

/// Takes `seconds` from every lifetime of an answer.
pub fn grow_older(message: &mut [u8], seconds: u32) {
    let mut places = Vec::new();
    if walk(message, |record| places.push((record.place, record.lifetime))).is_none() {
        return;
    }
    for (place, lifetime) in places {
        message[place..place + 4].copy_from_slice(&lifetime.saturating_sub(seconds).to_be_bytes());
    }
}

struct Record<'a> {
    kind: u16,
    lifetime: u32,
    /// Where the lifetime is in the message.
    place: usize,
    data: &'a [u8],
}

/// Calls `visit` with every record but those of EDNS. `None` when the message is not whole.
fn walk(message: &[u8], mut visit: impl FnMut(Record<'_>)) -> Option<()> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let records = [6, 8, 10].into_iter().try_fold(0u32, |sum, at| Some(sum + u32::from(word(at)?)))?;
    let mut at = HEADER;
    for _ in 0..word(4)? {
        at = skip_name(message, at)? + 4;
    }
    for _ in 0..records {
        at = skip_name(message, at)?;
        let lifetime = message.get(at + LIFETIME..at + LIFETIME + 4)?;
        let lifetime = u32::from_be_bytes(lifetime.try_into().ok()?);
        let length = usize::from(word(at + DATA - 2)?);
        let data = message.get(at + DATA..at + DATA + length)?;
        let kind = word(at)?;
        if kind != OPT {
            visit(Record { kind, lifetime, place: at + LIFETIME, data });
        }
        at += DATA + length;
    }
    Some(())
}

/// Where what follows a name begins.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some(at + 1),
            // A pointer to an earlier name ends this one.
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            1..=63 => at += 1 + length,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Code, Data, Kind, Question, query};

    fn address_answer(lifetime: u32) -> (Vec<u8>, Vec<u8>) {
        let question = query(9, "web.example", Kind::A).unwrap();
        let parsed = Question::parse(&question).unwrap();
        let records = ["10.0.0.1", "10.0.0.2"].map(|ip| Data::Address(ip.parse().unwrap()));
        (question, parsed.answer(Code::NoError, &records, lifetime))
    }

    #[test]
    fn lifetimes_are_found_and_run_down() {
        let (question, mut answer) = address_answer(300);
        assert!(belongs_to(&answer, &question) && has_records(&answer));
        assert_eq!((code(&answer), lifetime(&answer), is_cut(&answer)), (Some(0), Some(300), false));
        grow_older(&mut answer, 100);
        assert_eq!(lifetime(&answer), Some(200));
        grow_older(&mut answer, 1000);
        assert_eq!(lifetime(&answer), Some(0));
    }

    #[test]
    fn an_answer_about_something_else_is_told_apart() {
        let (question, answer) = address_answer(1);
        let other = query(9, "web.example.org", Kind::A).unwrap();
        assert!(!belongs_to(&answer, &other));
        let other = query(8, "web.example", Kind::A).unwrap();
        assert!(!belongs_to(&answer, &other));
        assert!(!belongs_to(&question, &question), "a question is no answer");
        let shouted = query(9, "WEB.example", Kind::A).unwrap();
        assert!(belongs_to(&answer, &shouted));
    }

    #[test]
    fn denials_live_as_long_as_their_zone_says() {
        let question = query(1, "gone.example", Kind::A).unwrap();
        let mut answer = Question::parse(&question).unwrap().answer(Code::NameError, &[], 0);
        assert_eq!(lifetime(&answer), None, "nothing is said");
        answer[9] = 1;
        // The root's SOA record: two empty names, then five numbers.
        answer.extend([0, 0, 6, 0, 1, 0, 0, 3, 132, 0, 22, 0, 0]);
        for number in [1u32, 2, 3, 4, 60] {
            answer.extend(number.to_be_bytes());
        }
        assert_eq!(lifetime(&answer), Some(60));
        assert_eq!(code(&answer), Some(3));
    }

    #[test]
    fn what_edns_says_is_no_lifetime() {
        let (_, mut answer) = address_answer(300);
        answer[11] = 1;
        answer.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lifetime(&answer), Some(300));
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (code(&bytes), is_cut(&bytes), has_records(&bytes), lifetime(&bytes));
            let _ = belongs_to(&bytes, &bytes[..bytes.len().min(30)]);
            grow_older(&mut bytes, 1);
        }

        #[test]
        fn a_damaged_answer_makes_nothing_panic(at in 0usize..80, value in any::<u8>()) {
            let (question, mut answer) = address_answer(5);
            if let Some(byte) = answer.get_mut(at) {
                *byte = value;
            }
            let _ = (lifetime(&answer), belongs_to(&answer, &question));
            grow_older(&mut answer, 1);
        }
    }
}
