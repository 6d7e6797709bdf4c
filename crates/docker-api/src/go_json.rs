//! JSON read as Go's `encoding/json` reads it, because that is what clients are written against: names of fields count in
//! any case, `null` leaves a field at its zero value, unknown fields are skipped.

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Number, Value};

/// Turns a document into a type.
///
/// # Errors
/// In Go's words where a value is of the wrong kind.
pub(crate) fn from_value<T: DeserializeOwned>(document: Value) -> Result<T, Error> {
    T::deserialize(Go(document))
}

/// Gives fields that differ from one of `names` only in case that name.
pub(crate) fn canonical(fields: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        if fields.contains_key(*name) {
            continue;
        }
        let other = fields.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
        if let Some(value) = other.and_then(|other| fields.remove(&other)) {
            fields.insert((*name).to_owned(), value);
        }
    }
}

/// A value on its way into a type.
struct Go(Value);

impl Go {
    fn unexpected(&self, wanted: &str) -> Error {
        let kind = match &self.0 {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if wanted.starts_with("int") || wanted.starts_with("uint") => {
                format!("number {number}")
            }
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        Error::custom(format!("json: cannot unmarshal {kind} into Go value of type {wanted}"))
    }

    fn number(self, wanted: &str) -> Result<Number, Error> {
        match self.0 {
            Value::Null => Ok(0.into()),
            Value::Number(number) => Ok(number),
            _ => Err(self.unexpected(wanted)),
        }
    }
}

impl IntoDeserializer<'_, Error> for Go {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! numbers {
    ($($method:ident $wanted:literal $as:ident $visit:ident),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let error = self.unexpected($wanted);
            let number = self.number($wanted)?;
            match number.$as() {
                Some(value) => visitor.$visit(value),
                None => Err(error),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Go {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, value) => visitor.visit_f64(value.unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Go))),
            Value::Object(map) => visitor
                .visit_map(MapDeserializer::new(map.into_iter().map(|(name, value)| (name, Go(value))))),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.unexpected("bool")),
        }
    }

    numbers! {
        deserialize_i8 "int8" as_i64 visit_i64,
        deserialize_i16 "int16" as_i64 visit_i64,
        deserialize_i32 "int32" as_i64 visit_i64,
        deserialize_i64 "int64" as_i64 visit_i64,
        deserialize_u8 "uint8" as_u64 visit_u64,
        deserialize_u16 "uint16" as_u64 visit_u64,
        deserialize_u32 "uint32" as_u64 visit_u64,
        deserialize_u64 "uint64" as_u64 visit_u64,
        deserialize_f32 "float32" as_f64 visit_f64,
        deserialize_f64 "float64" as_f64 visit_f64,
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_string(String::new()),
            Value::String(text) => visitor.visit_string(text),
            _ => Err(self.unexpected("string")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let list = match self.0 {
            Value::Null => Vec::new(),
            Value::Array(list) => list,
            _ => return Err(self.unexpected("[]string")),
        };
        let mut elements = SeqDeserializer::new(list.into_iter().map(Go));
        let value = visitor.visit_seq(&mut elements)?;
        elements.end()?;
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Fields::new(Map::new(), &[])),
            Value::Object(map) => visitor.visit_map(Fields::new(map, &[])),
            _ => Err(self.unexpected("map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Fields::new(Map::new(), fields)),
            Value::Object(map) => visitor.visit_map(Fields::new(map, fields)),
            _ => Err(self.unexpected(name)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_enum("".into_deserializer()),
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            _ => Err(self.unexpected("string")),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The fields of an object, under the names that the type has for them.
struct Fields {
    names: &'static [&'static str],
    rest: std::vec::IntoIter<(String, Value)>,
    value: Option<(String, Value)>,
}

impl Fields {
    fn new(map: Map<String, Value>, names: &'static [&'static str]) -> Self {
        let mut fields: Vec<(String, Value)> = Vec::with_capacity(map.len());
        for (name, value) in map {
            let known = names.iter().find(|known| known.eq_ignore_ascii_case(&name));
            let name = known.map_or(name, |known| (*known).to_owned());
            // As in Go, one of two that mean the same field wins.
            match fields.iter_mut().find(|(have, _)| *have == name) {
                Some((_, have)) => *have = value,
                None => fields.push((name, value)),
            }
        }
        // What is missing has its zero value.
        for name in names {
            if !fields.iter().any(|(have, _)| have == name) {
                fields.push(((*name).to_owned(), Value::Null));
            }
        }
        Self { names, rest: fields.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::<Error>::new(&name))?;
        self.value = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (name, value) = self.value.take().expect("serde asks for the key first");
        let value = seed.deserialize(Go(value));
        if self.names.is_empty() {
            return value;
        }
        // Go names the field; the innermost one is the one to be told.
        value.map_err(|error| {
            let text = error.to_string();
            match text.split_once(" into Go value of type ") {
                Some((what, kind)) => {
                    Error::custom(format!("{what} into Go struct field .{name} of type {kind}"))
                }
                None => Error::custom(text.replacen(" field .", &format!(" field .{name}."), 1)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use bollard_stubs::models::{ContainerCreateBody, ExecConfig};
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_fields_count_in_any_case_and_keys_of_maps_as_they_are() {
        let document = json!({
            "image": "a", "CMD": ["b"], "labels": { "Memory": "x", "memory": "y" }, "nobody": [1],
            "hostconfig": { "memory": 5, "restartpolicy": { "name": "always" }, "Sysctls": { "a.B": "1" } },
        });
        let body: ContainerCreateBody = from_value(document).unwrap();
        assert_eq!((body.image.as_deref(), body.cmd.unwrap().len()), (Some("a"), 1));
        let labels = body.labels.unwrap();
        assert_eq!((labels["Memory"].as_str(), labels["memory"].as_str()), ("x", "y"));
        let host = body.host_config.unwrap();
        assert_eq!((host.memory, host.sysctls.unwrap()["a.B"].as_str()), (Some(5), "1"));
        assert_eq!(host.restart_policy.unwrap().name.unwrap().to_string(), "always");
        let exec: ExecConfig = from_value(json!({ "detachKeys": "ctrl-a" })).unwrap();
        assert_eq!(exec.detach_keys.as_deref(), Some("ctrl-a"));
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        let document = json!({
            "Env": null, "Labels": null, "ExposedPorts": { "80/tcp": null }, "HostConfig": {
                "PortBindings": { "80/tcp": null }, "Ulimits": [null], "Mounts": [{ "Type": null, "Target": null }],
            },
        });
        let body: ContainerCreateBody = from_value(document).unwrap();
        assert_eq!(body.exposed_ports, Some(vec!["80/tcp".to_owned()]));
        assert_eq!(body.host_config.unwrap().mounts.unwrap().len(), 1);
    }

    #[test]
    fn a_wrong_kind_is_told_in_gos_words_with_its_field() {
        let error = from_value::<ContainerCreateBody>(json!({ "HostConfig": { "Memory": "lots" } }));
        assert_eq!(
            error.unwrap_err().to_string(),
            "json: cannot unmarshal string into Go struct field .HostConfig.Memory of type int64"
        );
        let error = from_value::<ContainerCreateBody>(json!({ "HostConfig": { "Memory": 1.5 } }));
        assert_eq!(
            error.unwrap_err().to_string(),
            "json: cannot unmarshal number 1.5 into Go struct field .HostConfig.Memory of type int64"
        );
        let error = from_value::<ContainerCreateBody>(json!([1])).unwrap_err().to_string();
        assert_eq!(error, "json: cannot unmarshal array into Go value of type ContainerCreateBody");
    }

    #[test]
    fn names_are_made_canonical_once() {
        let mut fields = Map::from_iter([("cmd".to_owned(), json!("a")), ("b".to_owned(), json!(1))]);
        canonical(&mut fields, &["Cmd", "Env"]);
        assert_eq!(Value::Object(fields), json!({ "Cmd": "a", "b": 1 }));
    }
}
