//! Dockerfile instructions that change an image's configuration (`docker import --change`).

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::Error;

/// Splits text into its instructions: a line each, unless it ends with a backslash. Comments and empty lines are none.
pub(crate) fn instructions(text: &str) -> Vec<String> {
    let mut instructions = vec![String::new()];
    for line in text.lines() {
        if line.trim_start().starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let (part, goes_on) = match line.trim_end().strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        if let Some(last) = instructions.last_mut() {
            last.push_str(part);
        }
        if !goes_on {
            instructions.push(String::new());
        }
    }
    instructions.retain(|instruction| !instruction.trim().is_empty());
    instructions
}

/// Applies one instruction to the `config` member of an image configuration.
pub(crate) fn apply(config: &mut Map<String, Value>, change: &str) -> Result<(), Error> {
    let change = change.trim();
    let (instruction, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let (name, rest) = (instruction.to_ascii_uppercase(), rest.trim());
    let wrong = |message: String| Error::Invalid { message };
    let arguments = match name.as_str() {
        "CMD" | "ENTRYPOINT" => "",
        "ENV" | "EXPOSE" | "HEALTHCHECK" | "LABEL" | "ONBUILD" | "VOLUME" => "at least one argument",
        "STOPSIGNAL" | "USER" | "WORKDIR" => "exactly one argument",
        _ => return Err(wrong(format!("{name} is not a valid change command"))),
    };
    if rest.is_empty() && !arguments.is_empty() {
        return Err(wrong(format!("{name} requires {arguments}")));
    }
    let known: HashMap<String, String> = config
        .get("Env")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.as_str()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let (words, unquote) = (|text: &str| words(text, &known), |text: &str| words(text, &known).join(" "));
    let pairs =
        |text: &str| pairs(text, &known).ok_or_else(|| wrong(format!("{name} must have two arguments")));
    match name.as_str() {
        "CMD" => set(config, "Cmd", command(rest)),
        "ENTRYPOINT" => set(config, "Entrypoint", command(rest)),
        "USER" => set(config, "User", Value::from(unquote(rest))),
        "STOPSIGNAL" => {
            let signal = unquote(rest);
            if !is_signal(&signal) {
                return Err(wrong(format!("invalid signal: {signal}")));
            }
            set(config, "StopSignal", Value::from(signal));
        }
        "HEALTHCHECK" => set(config, "Healthcheck", health_check(rest).map_err(wrong)?),
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
            for (key, value) in pairs(rest)? {
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
            for (key, value) in pairs(rest)? {
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
                    _ => return Err(wrong(format!("Invalid containerPort: {port}"))),
                }
            }
        }
        "VOLUME" => {
            for volume in json_array(rest).unwrap_or_else(|| words(rest)) {
                object(config, "Volumes").insert(volume, empty());
            }
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match trigger.as_str() {
                "ONBUILD" => {
                    return Err(wrong("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()));
                }
                "FROM" | "MAINTAINER" => {
                    return Err(wrong(format!("{trigger} isn't allowed as an ONBUILD trigger")));
                }
                _ => {}
            }
            let list = config.entry("OnBuild").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = list.as_array_mut() {
                list.push(Value::from(rest));
            }
        }
        _ => {}
    }
    Ok(())
}

fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 34] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    match text.parse::<u8>() {
        Ok(number) => (1..=64).contains(&number),
        Err(_) => NAMES.contains(&name) || name.starts_with("RTMIN") || name.starts_with("RTMAX"),
    }
}

/// `NONE`, or flags and a command.
fn health_check(text: &str) -> Result<Value, String> {
    let (mut check, mut rest) = (Map::new(), text);
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        let name = match key {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return Err(format!("unknown flag: {key}")),
        };
        let number = match key {
            "retries" => value.parse::<i64>().ok().filter(|number| *number >= 0),
            _ => duration(value).filter(|length| *length == 0 || *length >= 1_000_000),
        };
        let number = number.ok_or_else(|| format!("invalid value \"{value}\" for --{key}"))?;
        check.insert(name.to_owned(), Value::from(number));
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" if command.is_empty() => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        "CMD" => match json_array(command) {
            Some(words) => [vec!["CMD".to_owned()], words].concat(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        other => return Err(format!("Unknown type \"{other}\" in HEALTHCHECK (try CMD)")),
    };
    check.insert("Test".to_owned(), Value::from(test));
    Ok(Value::Object(check))
}

/// Go's form of a length of time (`1m30s`, `500ms`) in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0.0, text);
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    Some(total as i64)
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
fn pairs(text: &str, known: &HashMap<String, String>) -> Option<Vec<(String, String)>> {
    let all = words(text, known);
    if !all.first()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(words(key, known).join(" "), value.trim().to_owned())]);
    }
    all.into_iter()
        .map(|word| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .map(|pair| pair.filter(|(key, _)| !key.is_empty()))
        .collect()
}

/// Splits at white space; quotes and backslashes protect it. Variables of the configuration are replaced.
fn words(text: &str, known: &HashMap<String, String>) -> Vec<String> {
    let (mut words, mut word, mut open, mut quote) = (Vec::new(), String::new(), false, None);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                open = true;
                word.extend(characters.next());
            }
            ('$', None | Some('"')) => {
                open = true;
                let mut name = String::new();
                if characters.next_if_eq(&'{').is_some() {
                    name.extend(characters.by_ref().take_while(|c| *c != '}'));
                } else {
                    while let Some(c) = characters.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    if name.is_empty() {
                        word.push('$');
                    }
                }
                word.push_str(&variable(&name, known));
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

/// The value of `NAME`, `NAME:-instead` or `NAME:+when-set`.
fn variable(text: &str, known: &HashMap<String, String>) -> String {
    let value = |name: &str| known.get(name).filter(|value| !value.is_empty()).cloned();
    if let Some((name, instead)) = text.split_once(":-") {
        return value(name).unwrap_or_else(|| instead.to_owned());
    }
    if let Some((name, set)) = text.split_once(":+") {
        return value(name).map(|_| set.to_owned()).unwrap_or_default();
    }
    value(text).unwrap_or_default()
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
    fn a_change_may_be_several_lines() {
        let text = "EXPOSE 8000\n# a remark\n\nCMD [\"py\", \\\n  \"x\"]\nUSER 1";
        assert_eq!(instructions(text), ["EXPOSE 8000", "CMD [\"py\",   \"x\"]", "USER 1"]);
        assert!(instructions("# x\n \n").is_empty());
    }

    #[test]
    fn wrong_instructions_are_named() {
        let error = |change: &str| apply(&mut Map::new(), change).unwrap_err().to_string();
        assert_eq!(error("RUN x"), "RUN is not a valid change command");
        assert_eq!(error("EXPOSE x"), "Invalid containerPort: x");
        assert_eq!(error("ENV"), "ENV requires at least one argument");
        assert_eq!(error("ENV x"), "ENV must have two arguments");
        assert_eq!(error("WORKDIR"), "WORKDIR requires exactly one argument");
        assert_eq!(error("BAD"), "BAD is not a valid change command");
        assert_eq!(error("STOPSIGNAL BAD"), "invalid signal: BAD");
        assert_eq!(error("HEALTHCHECK x y"), "Unknown type \"X\" in HEALTHCHECK (try CMD)");
        assert_eq!(error("HEALTHCHECK CMD"), "Missing command after HEALTHCHECK CMD");
        assert_eq!(error("HEALTHCHECK --bad=1 CMD x"), "unknown flag: bad");
        assert_eq!(error("HEALTHCHECK --interval=5 CMD x"), "invalid value \"5\" for --interval");
        assert_eq!(error("ONBUILD FROM x"), "FROM isn't allowed as an ONBUILD trigger");
    }

    #[test]
    fn health_checks_signals_and_variables_are_understood() {
        let config = applied(&[
            "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD [\"a\", \"b\"]",
            "STOPSIGNAL sigint",
            "ENV A=1 B='$A'",
            "ENV C=$A-${B}-${NONE:-d} D=\\$A",
            "LABEL l=\"$C\"",
        ]);
        let wanted = json!({
            "Healthcheck": {
                "Interval": 90_000_000_000_i64, "Timeout": 500_000_000, "Retries": 3, "Test": ["CMD", "a", "b"],
            },
            "StopSignal": "sigint",
            "Env": ["A=1", "B=$A", "C=1-$A-d", "D=$A"],
            "Labels": {"l": "1-$A-d"},
        });
        assert_eq!(config, wanted);
        assert_eq!(
            applied(&["HEALTHCHECK CMD x || y"]),
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "x || y"]}})
        );
        assert_eq!(applied(&["HEALTHCHECK none"]), json!({"Healthcheck": {"Test": ["NONE"]}}));
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
