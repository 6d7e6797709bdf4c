//! The functions a template may call: Go's, and Docker's `json`, `join`, `split`, `lower`, `upper`, `title`,
//! `pad`, `truncate`, `println`.

use std::cmp::Ordering;

use super::eval::{Mode, truth};
use crate::format::value::Value;

const NAMES: &[&str] = &[
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print", "println",
    "printf", "json", "join", "split", "lower", "upper", "title", "pad", "truncate", "html", "urlquery",
];

/// Padding asked for by a template is bounded: it comes from the command line.
const MAX_PADDING: i64 = 4096;

/// Tells whether there is a function of this name.
pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function; the error is the text after `error calling NAME:`.
pub fn call(name: &str, args: &[Value], mode: Mode) -> Result<Value, String> {
    if mode == Mode::Header {
        // Titles stay as they are: `{{upper .Names}}` has the header NAMES, `{{slice .ID 0 3}}` CONTAINER ID.
        let title = args.iter().find(|arg| matches!(arg, Value::String(_) | Value::Map(_)));
        if let (
            Some(title),
            "json" | "join" | "split" | "lower" | "upper" | "title" | "pad" | "truncate" | "slice",
        ) = (title, name)
        {
            return Ok(title.clone());
        }
    }
    match name {
        "not" => Ok(Value::Bool(!truth(one(args)?))),
        "eq" => {
            let (first, rest) = args.split_first().ok_or("missing argument for comparison")?;
            if rest.is_empty() {
                return Err("missing argument for comparison".to_owned());
            }
            Ok(Value::Bool(
                rest.iter().any(|other| compare(first, other) == Some(Ordering::Equal) || first == other),
            ))
        }
        "ne" => Ok(Value::Bool(
            compare2(args).map_or_else(|_| args[0] != args[1], |order| order != Ordering::Equal),
        )),
        "lt" => compare2(args).map(|order| Value::Bool(order == Ordering::Less)),
        "le" => compare2(args).map(|order| Value::Bool(order != Ordering::Greater)),
        "gt" => compare2(args).map(|order| Value::Bool(order == Ordering::Greater)),
        "ge" => compare2(args).map(|order| Value::Bool(order != Ordering::Less)),
        "len" => match one(args)? {
            Value::String(text) => Ok(Value::from(text.len() as i64)),
            Value::List(items) => Ok(Value::from(items.len() as i64)),
            Value::Map(entries) => Ok(Value::from(entries.len() as i64)),
            other => Err(format!("len of type {}", kind(other))),
        },
        "index" => index(args),
        "slice" => slice(args),
        "print" => Ok(Value::from(spaced(args, false))),
        "println" => Ok(Value::from(spaced(args, true) + "\n")),
        "printf" => printf(args).map(Value::from),
        "json" => Ok(Value::from(one(args)?.to_json())),
        "join" => match args {
            [Value::List(items), Value::String(separator)] => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                Ok(Value::from(items.join(separator)))
            }
            [Value::Null, Value::String(_)] => Ok(Value::from("")),
            _ => Err("wants a list and a separator".to_owned()),
        },
        "split" => match args {
            [Value::String(text), Value::String(separator)] if separator.is_empty() => {
                Ok(Value::List(text.chars().map(|c| Value::from(c.to_string())).collect()))
            }
            [Value::String(text), Value::String(separator)] => {
                Ok(Value::List(text.split(separator.as_str()).map(Value::from).collect()))
            }
            _ => Err("wants a string and a separator".to_owned()),
        },
        "lower" => Ok(Value::from(string(one(args)?)?.to_lowercase())),
        "upper" => Ok(Value::from(string(one(args)?)?.to_uppercase())),
        "title" => Ok(Value::from(title(string(one(args)?)?))),
        "pad" => match args {
            [Value::String(text), Value::Number(before), Value::Number(after)] => {
                // Docker leaves the empty string empty.
                if text.is_empty() {
                    return Ok(Value::from(""));
                }
                let blanks = |count: &serde_json::Number| {
                    " ".repeat(count.as_i64().unwrap_or(0).clamp(0, MAX_PADDING) as usize)
                };
                Ok(Value::from(format!("{}{text}{}", blanks(before), blanks(after))))
            }
            _ => Err("wants a string and two numbers".to_owned()),
        },
        "truncate" => match args {
            [Value::String(text), Value::Number(limit)] => {
                let limit = usize::try_from(limit.as_i64().unwrap_or(0)).unwrap_or(0);
                Ok(Value::from(text.chars().take(limit).collect::<String>()))
            }
            _ => Err("wants a string and a length".to_owned()),
        },
        "html" => Ok(Value::from(
            spaced(args, false)
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&#34;")
                .replace('\'', "&#39;"),
        )),
        "urlquery" => Ok(Value::from(crate::api::query::encode(&spaced(args, false)))),
        _ => Err("no such function".to_owned()),
    }
}

fn one(args: &[Value]) -> Result<&Value, String> {
    match args {
        [arg] => Ok(arg),
        _ => Err(format!("wrong number of args: want 1 got {}", args.len())),
    }
}

fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("wrong type for value; expected string; got {}", kind(value)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::List(_) => "list",
        Value::Map(_) => "map",
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) if a == b => Some(Ordering::Equal),
        _ => None,
    }
}

fn compare2(args: &[Value]) -> Result<Ordering, String> {
    match args {
        [a, b] => compare(a, b).ok_or_else(|| "incompatible types for comparison".to_owned()),
        _ => Err(format!("wrong number of args: want 2 got {}", args.len())),
    }
}

fn index(args: &[Value]) -> Result<Value, String> {
    let (first, keys) = args.split_first().ok_or("wrong number of args: want at least 1 got 0")?;
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::List(items), Value::Number(at)) => usize::try_from(at.as_i64().unwrap_or(-1))
                .ok()
                .and_then(|at| items.get(at).cloned())
                .ok_or_else(|| format!("index out of range: {at}"))?,
            (Value::Map(entries), Value::String(key)) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.clone())
                .unwrap_or_default(),
            (Value::String(text), Value::Number(at)) => usize::try_from(at.as_i64().unwrap_or(-1))
                .ok()
                .and_then(|at| text.as_bytes().get(at))
                .map(|byte| Value::from(i64::from(*byte)))
                .ok_or_else(|| format!("index out of range: {at}"))?,
            (Value::Null, _) => return Err("index of untyped nil".to_owned()),
            (value, _) => return Err(format!("can't index item of type {}", kind(value))),
        };
    }
    Ok(value)
}

fn slice(args: &[Value]) -> Result<Value, String> {
    let (value, bounds) = args.split_first().ok_or("wrong number of args: want at least 1 got 0")?;
    let length = match value {
        Value::String(text) => text.len(),
        Value::List(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", kind(other))),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(value) => value
            .as_i64()
            .and_then(|at| usize::try_from(at).ok())
            .filter(|&at| at <= length)
            .ok_or_else(|| format!("index out of range: {value}")),
    };
    let (start, end) = (bound(0, 0)?, bound(1, length)?);
    if start > end {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    match value {
        Value::List(items) => Ok(Value::List(items[start..end].to_vec())),
        // Go slices bytes; a cut inside a character gives the replacement sign instead of bad UTF-8.
        Value::String(text) => {
            Ok(Value::from(String::from_utf8_lossy(&text.as_bytes()[start..end]).into_owned()))
        }
        _ => unreachable!("the length was taken from a string or a list"),
    }
}

fn spaced(args: &[Value], always: bool) -> String {
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        let text = |value: &Value| matches!(value, Value::String(_));
        // Go's Print puts blanks only between operands that are both not strings.
        if at > 0 && (always || (!text(arg) && !text(&args[at - 1]))) {
            out.push(' ');
        }
        out.push_str(&arg.to_string());
    }
    out
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn printf(args: &[Value]) -> Result<String, String> {
    let (format, args) = args.split_first().ok_or("wrong number of args: want at least 1 got 0")?;
    let format = string(format)?;
    let mut args = args.iter();
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            flags.push(flag);
        }
        let mut number = || {
            let mut value: Option<usize> = None;
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                let digit = digit.to_digit(10).expect("just checked") as usize;
                value = Some((value.unwrap_or(0) * 10 + digit).min(MAX_PADDING as usize));
            }
            value
        };
        let width = number();
        let precision = if chars.next_if_eq(&'.').is_some() {
            let mut value = 0;
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                value = (value * 10 + digit.to_digit(10).expect("just checked") as usize)
                    .min(MAX_PADDING as usize);
            }
            Some(value)
        } else {
            None
        };
        let verb = chars.next().ok_or("%!(NOVERB)")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(arg) = args.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let text = verb_text(verb, arg, precision);
        let pad = width.unwrap_or(0).saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', pad));
        } else {
            let zero = flags.contains('0') && matches!(verb, 'd' | 'f' | 'x');
            out.extend(std::iter::repeat_n(if zero { '0' } else { ' ' }, pad));
            out.push_str(&text);
        }
    }
    Ok(out)
}

fn verb_text(verb: char, arg: &Value, precision: Option<usize>) -> String {
    match (verb, arg) {
        ('v', arg) => arg.to_string(),
        ('s', Value::String(text)) => match precision {
            Some(limit) => text.chars().take(limit).collect(),
            None => text.clone(),
        },
        ('q', Value::String(text)) => format!("{text:?}"),
        ('d', Value::Number(number)) if number.as_f64().is_some_and(|float| float.fract() == 0.0) => {
            number.to_string()
        }
        ('x', Value::Number(number)) if number.as_i64().is_some() => {
            format!("{:x}", number.as_i64().unwrap_or_default())
        }
        ('f', Value::Number(number)) => {
            format!("{:.*}", precision.unwrap_or(6), number.as_f64().unwrap_or_default())
        }
        ('t', Value::Bool(value)) => value.to_string(),
        ('s', arg @ (Value::List(_) | Value::Map(_))) => arg.to_string(),
        (verb, arg) => format!("%!{verb}({}={arg})", kind(arg)),
    }
}
