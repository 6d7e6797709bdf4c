//! One line of the QEMU machine protocol, parsed.
//!
//! The monitor's lines come from the program that runs the guest, so they are outside data: whatever they hold gives
//! a [`Message`] or an error.

use serde_json::Value;

/// Longest accepted line; replies to the commands we send stay far below.
pub(super) const LINE_LIMIT: usize = 1 << 20;

/// A line of the monitor.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Sent first on every connection.
    Greeting {
        /// QEMU's version.
        version: String,
    },
    /// The answer to the command with this id.
    Return {
        /// The command's id.
        id: Option<u64>,
        /// Its result.
        value: Value,
    },
    /// The refusal of the command with this id.
    Error {
        /// The command's id.
        id: Option<u64>,
        /// Class of the error, such as `CommandNotFound`.
        class: String,
        /// The reason.
        description: String,
    },
    /// Something happened.
    Event(Event),
}

/// Something that happened in the virtual machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, such as `SHUTDOWN`.
    pub name: String,
    /// What is known about it.
    pub data: Value,
}

/// Why a line makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is not JSON.
    #[error("not JSON")]
    Json(#[from] serde_json::Error),
    /// It is JSON of an unknown kind.
    #[error("neither greeting nor reply nor event")]
    Kind,
}

/// Parses one line.
///
/// # Errors
/// Fails when the line is not a message of the protocol.
pub fn parse(line: &[u8]) -> Result<Message, ParseError> {
    let mut value: Value = serde_json::from_slice(line)?;
    let id = value.get("id").and_then(Value::as_u64);
    if let Some(qmp) = value.get("QMP") {
        let number = |part: &str| qmp["version"]["qemu"][part].as_u64().unwrap_or_default();
        let version = format!("{}.{}.{}", number("major"), number("minor"), number("micro"));
        return Ok(Message::Greeting { version });
    }
    if let Some(name) = value.get("event").and_then(Value::as_str) {
        let name = name.to_owned();
        return Ok(Message::Event(Event { name, data: value["data"].take() }));
    }
    if let Some(error) = value.get("error") {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        return Ok(Message::Error { id, class: text("class"), description: text("desc") });
    }
    match value.get_mut("return") {
        Some(result) => Ok(Message::Return { id, value: result.take() }),
        None => Err(ParseError::Kind),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_of_a_real_session_are_understood() {
        let greeting = br#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian"}, "capabilities": ["oob"]}}"#;
        assert_eq!(parse(greeting).unwrap(), Message::Greeting { version: "10.0.2".to_owned() });
        assert_eq!(
            parse(br#"{"return": {"status": "running"}, "id": 3}"#).unwrap(),
            Message::Return { id: Some(3), value: json!({"status": "running"}) }
        );
        assert_eq!(
            parse(br#"{"id": 4, "error": {"class": "CommandNotFound", "desc": "no such"}}"#).unwrap(),
            Message::Error { id: Some(4), class: "CommandNotFound".into(), description: "no such".into() }
        );
        let event = br#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;
        assert_eq!(
            parse(event).unwrap(),
            Message::Event(Event {
                name: "SHUTDOWN".into(),
                data: json!({"guest": true, "reason": "guest-shutdown"})
            })
        );
        assert!(matches!(parse(b"{}"), Err(ParseError::Kind)));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zA-Z\"\\\\]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let key = prop_oneof![
                "QMP",
                "return",
                "error",
                "event",
                "id",
                "data",
                "class",
                "version",
                "[a-z]{1,4}"
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_json_gives_a_message_or_an_error(value in json_value()) {
            let _ = parse(value.to_string().as_bytes());
        }

        #[test]
        fn replies_keep_their_id_and_value(id: u64, value in json_value()) {
            let line = json!({"return": value.clone(), "id": id}).to_string();
            prop_assert_eq!(parse(line.as_bytes()).unwrap(), Message::Return { id: Some(id), value });
        }
    }
}
