//! Dockerfile instructions that change an image's configuration (`docker import --change`).

use serde_json::{Map, Value};

use crate::error::Error;

/// Applies one instruction to the `config` member of an image configuration.
pub(crate) fn apply(config: &mut Map<String, Value>, change: &str) -> Result<(), Error> {
    let change = change.trim();
    let (instruction, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let (name, rest) = (instruction.to_ascii_uppercase(), rest.trim());
    let wrong = |reason: &str| Error::Invalid { message: format!("invalid change \"{change}\": {reason}") };
    if rest.is_empty() && name != "CMD" && name != "ENTRYPOINT" {
        return Err(wrong("an argument is required"));
    }
    match name.as_str() {
        "CMD" => set(config, "Cmd", command(rest)),
        "ENTRYPOINT" => set(config, "Entrypoint", command(rest)),
        "USER" => set(config, "User", Value::from(unquote(rest))),
        "STOPSIGNAL" => set(config, "StopSignal", Value::from(unquote(rest))),
        "WORKDIR" => {
            let directory = unquote(rest);
            let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let directory = match directory.starts_with('/') {
                true => directory,
                false => format!("{}/{directory}", before.trim_end_matches('/')),
            };
            set(config, "WorkingDir", Value::from(directory));
        }
        "ENV" => {
            for (key, value) in pairs(rest).ok_or_else(|| wrong("can't find = in it"))? {
                let env = config.entry("Env").or_insert_with(|| Value::Array(Vec::new()));
                if let Some(list) = env.as_array_mut() {
                    list.retain(|old| {
                        old.as_str().and_then(|o| o.split_once('=')).is_none_or(|(k, _)| k != key)
                    });
                    list.push(Value::from(format!("{key}={value}")));
                }
            }
        }
        "LABEL" => {
            for (key, value) in pairs(rest).ok_or_else(|| wrong("can't find = in it"))? {
                object(config, "Labels").insert(key, Value::from(value));
            }
        }
        "EXPOSE" => {
            for port in words(rest) {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                let (first, last) = number.split_once('-').unwrap_or((number, number));
                let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
                let protocol = protocol.to_ascii_lowercase();
                match range {
                    Some((first, last))
                        if first <= last && ["tcp", "udp", "sctp"].contains(&protocol.as_str()) =>
                    {
                        for number in first..=last {
                            object(config, "ExposedPorts").insert(format!("{number}/{protocol}"), empty());
                        }
                    }
                    _ => return Err(wrong(&format!("invalid port \"{port}\""))),
                }
            }
        }
        "VOLUME" => {
            for volume in json_array(rest).unwrap_or_else(|| words(rest)) {
                object(config, "Volumes").insert(volume, empty());
            }
        }
        "ONBUILD" => {
            let list = config.entry("OnBuild").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = list.as_array_mut() {
                list.push(Value::from(rest));
            }
        }
        _ => {
            return Err(Error::Invalid { message: format!("{} is not a valid change command", name) });
        }
    }
    Ok(())
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

fn object<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = config.entry(key).or_insert_with(empty);
    if !slot.is_object() {
        *slot = empty();
    }
    slot.as_object_mut().expect("it was made an object one line above")
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// Reads the exec form, or wraps the shell form.
fn command(text: &str) -> Value {
    match json_array(text) {
        Some(list) => Value::from(list),
        None if text.is_empty() => Value::Array(Vec::new()),
        None => Value::from(vec!["/bin/sh", "-c", text]),
    }
}

fn json_array(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Reads `key=value …` with quotes, or the old form `key value`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text);
    if !words.first()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(unquote(key), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .map(|pair| pair.filter(|(key, _)| !key.is_empty()))
        .collect()
}

/// Splits at white space; quotes and backslashes protect it.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut open, mut quote) = (Vec::new(), String::new(), false, None);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                open = true;
                word.extend(characters.next());
            }
            ('"' | '\'', None) => {
                open = true;
                quote = Some(c);
            }
            (c, Some(q)) if c == q => quote = None,
            (c, None) if c.is_whitespace() => {
                if open {
                    words.push(std::mem::take(&mut word));
                    open = false;
                }
            }
            (c, _) => {
                open = true;
                word.push(c);
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}

fn unquote(text: &str) -> String {
    words(text).join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn applied(changes: &[&str]) -> Value {
        let mut config = Map::new();
        for change in changes {
            apply(&mut config, change).unwrap();
        }
        Value::Object(config)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = applied(&[
            "CMD [\"sh\", \"-c\", \"x\"]",
            "entrypoint /bin/x y",
            "ENV A=1 B=\"two words\"",
            "ENV A changed",
            "WORKDIR /srv",
            "WORKDIR sub",
            "EXPOSE 80 53/udp 8000-8001",
            "USER 1000:1000",
            "LABEL a.b=\"c d\"",
            "VOLUME [\"/data\"]",
            "VOLUME /x /y",
        ]);
        let wanted = json!({
            "Cmd": ["sh", "-c", "x"],
            "Entrypoint": ["/bin/sh", "-c", "/bin/x y"],
            "Env": ["B=two words", "A=changed"],
            "WorkingDir": "/srv/sub",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}},
            "User": "1000:1000",
            "Labels": {"a.b": "c d"},
            "Volumes": {"/data": {}, "/x": {}, "/y": {}},
        });
        assert_eq!(config, wanted);
    }

    #[test]
    fn wrong_instructions_are_named() {
        let error = |change: &str| apply(&mut Map::new(), change).unwrap_err().to_string();
        assert_eq!(error("RUN x"), "RUN is not a valid change command");
        assert!(error("EXPOSE x").contains("invalid port"));
        assert!(error("ENV").contains("argument"));
        assert!(error("ENV x").contains("="));
    }

    proptest! {
        #[test]
        fn any_text_is_applied_or_refused_without_panic(
            name in "(CMD|ENV|LABEL|EXPOSE|VOLUME|WORKDIR|[A-Z]{1,4})", rest in ".{0,60}"
        ) {
            let _ = apply(&mut Map::new(), &format!("{name} {rest}"));
        }
    }
}
