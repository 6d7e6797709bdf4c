//! JSON that keeps the order of its keys: what the engine sent is printed in the engine's order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A JSON value with ordered objects.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `null`, and Go's nil.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// A number, kept as it was written.
    Number(serde_json::Number),
    /// A string.
    String(String),
    /// An array.
    List(Vec<Value>),
    /// An object in the order of the document.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Parses one JSON document.
    pub fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Returns the value under `key`; exact spelling first, then without regard to case, because Go's
    /// field names (`.ID`, `.NanoCPUs`) and the JSON names (`Id`, `NanoCpus`) differ only in that.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Map(entries) = self else { return None };
        entries
            .iter()
            .find(|(name, _)| name == key)
            .or_else(|| entries.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)))
            .map(|(_, value)| value)
    }

    /// Returns the value at a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// Returns the string, or nothing for another type.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the string under `key`, or an empty one.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the integer under `key`, or 0.
    pub fn int(&self, key: &str) -> i64 {
        self.get(key).and_then(Value::as_i64).unwrap_or_default()
    }

    /// Returns whether `key` holds `true`.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Value::Bool(true)))
    }

    /// Returns the list under `key`, or an empty one.
    pub fn list(&self, key: &str) -> &[Value] {
        match self.get(key) {
            Some(Value::List(items)) => items,
            _ => &[],
        }
    }

    /// Returns the entries of the object under `key`, or none.
    pub fn entries(&self, key: &str) -> &[(String, Value)] {
        match self.get(key) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }

    /// Returns the number as an integer where it is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)),
            _ => None,
        }
    }

    /// Returns the number as a float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// Returns the value as compact JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a tree of plain values always serialises")
    }

    /// Returns the value as JSON indented by four blanks, the way `inspect` prints.
    pub fn to_pretty_json(&self) -> String {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        self.serialize(&mut serializer).expect("a tree of plain values always serialises");
        String::from_utf8(out).expect("JSON is UTF-8")
    }
}

/// Prints like Go's `%v`: `map[a:1]`, `[a b]`, `<no value>`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("<no value>"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value}"),
            Value::String(value) => f.write_str(value),
            Value::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { " " } else { "" }, Inner(item))?;
                }
                f.write_str("]")
            }
            Value::Map(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
                f.write_str("map[")?;
                for (index, (key, value)) in sorted.into_iter().enumerate() {
                    write!(f, "{}{key}:{}", if index > 0 { " " } else { "" }, Inner(value))?;
                }
                f.write_str("]")
            }
        }
    }
}

struct Inner<'a>(&'a Value);

impl fmt::Display for Inner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("<nil>"),
            other => write!(f, "{other}"),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(value) => value.serialize(serializer),
            Value::String(value) => serializer.serialize_str(value),
            Value::List(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::String(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Value::Map(entries))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_numbers_their_size() {
        let text = r#"{"b":1,"a":{"z":[true,null],"y":18446744073709551615}}"#;
        assert_eq!(Value::parse(text.as_bytes()).unwrap().to_json(), text);
    }

    #[test]
    fn prints_like_go() {
        let value = Value::parse(br#"{"b":[1,"x"],"a":null}"#).unwrap();
        assert_eq!(value.to_string(), "map[a:<nil> b:[1 x]]");
        assert_eq!(Value::Null.to_string(), "<no value>");
    }

    #[test]
    fn pretty_json_is_indented_by_four() {
        let value = Value::parse(br#"[{"a":[],"b":{}}]"#).unwrap();
        assert_eq!(value.to_pretty_json(), "[\n    {\n        \"a\": [],\n        \"b\": {}\n    }\n]");
    }
}
