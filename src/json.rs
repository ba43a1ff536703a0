//! JSON in which no field may be given twice.
//!
//! Of two fields with the same name, `serde_json::Value` silently keeps the last one. In a configuration or an event,
//! that is a mistake to report.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::shortened;

/// Any JSON value, and the path of the first field that is given twice, such as `ai_secrets[0].id`.
///
/// Such a field doesn't fail the deserialization, because Lambda's runtime library would then answer in place of the
/// function.
pub struct Payload {
    pub value: Value,
    pub duplicate_field: Option<String>,
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self { value, duplicate_field: None }
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Payload, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Payload, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Payload, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Payload, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Payload, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Payload, E> {
        Ok(Value::from(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Payload, A::Error> {
        let (mut items, mut duplicate_field) = (Vec::new(), None);
        while let Some(item) = array.next_element::<Payload>()? {
            let path = item.duplicate_field.map(|path| inside(&format!("[{}]", items.len()), &path));
            duplicate_field = duplicate_field.or(path);
            items.push(item.value);
        }
        Ok(Payload { value: Value::Array(items), duplicate_field })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Payload, A::Error> {
        let (mut fields, mut duplicate_field) = (Map::new(), None);
        while let Some((name, field)) = object.next_entry::<String, Payload>()? {
            let path = match fields.contains_key(&name) {
                true => Some(shortened(&name)),
                false => field.duplicate_field.map(|path| inside(&name, &path)),
            };
            duplicate_field = duplicate_field.or(path);
            fields.insert(name, field.value);
        }
        Ok(Payload { value: Value::Object(fields), duplicate_field })
    }
}

fn inside(parent: &str, path: &str) -> String {
    let dot = if path.starts_with('[') { "" } else { "." };
    shortened(&format!("{parent}{dot}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_one_that_serde_json_reads() {
        for json in [
            r#"null"#,
            r#""text with \"escapes\" and \u20ac""#,
            r#"[true, -1, 18446744073709551615, 0.5, 1e300, "", [], {}]"#,
            r#"{"a": {"b": [{"c": null}]}, "a b": false}"#,
            r#"{"a": 1, "a": 2}"#,
        ] {
            let payload: Payload = serde_json::from_str(json).unwrap();
            assert_eq!(payload.value, serde_json::from_str::<Value>(json).unwrap(), "{json}");
        }
        assert!(serde_json::from_str::<Payload>(r#"{"a": }"#).is_err());
    }

    #[test]
    fn the_first_field_that_is_given_twice_is_named_by_its_path() {
        for (json, path) in [
            (r#"{"a": 1, "b": {"a": 1}, "c": [{"a": 1}, {"a": 1}]}"#, None),
            (r#"{"a": 1, "b": 2, "a": 1}"#, Some("a")),
            (r#"{"a": 1, "a": null, "b": 1, "b": 1}"#, Some("a")),
            (r#"{"a": [0, {"b": {"c": 1, "c": 2}}]}"#, Some("a[1].b.c")),
            (r#"[{"a": 1, "\u0061": 2}]"#, Some("[0].a")),
        ] {
            let payload: Payload = serde_json::from_str(json).unwrap();
            assert_eq!(payload.duplicate_field.as_deref(), path, "{json}");
        }
    }
}
