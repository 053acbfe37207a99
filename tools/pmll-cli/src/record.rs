//! An entry as one line of an exported file, and back.
//!
//! ```json
//! {"key":"c26:D1:3","text":"...","speaker":"Ann","_pmll":{"at":"2023-05-08T13:56:00Z","row":2}}
//! ```
//!
//! `key` and `text` stand first, then the user's attributes as they were; `_pmll` holds what else can
//! be put back: `ns at session sequence salience pinned expires`, `row` (its row in the `.npy` file),
//! `key` or `payload` in base64 where they are not UTF-8, and under `attributes` those whose names are
//! taken by `key`, `text` and `_pmll`. The first line also says under `collection` what the collection
//! is. What the store makes itself (id, version, created, updated, counts) is not there, so that
//! export, import and export again give the same bytes.
//!
//! Lines without `_pmll` are the user's own: [`Mapping`] says which field is what.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pmll::{Draft, Entry, Namespace, Timestamp};
use pmll_cli::lines::Line;
use pmll_cli::time;
use serde_json::{Map, Value};

use crate::render;

const SYSTEM: &str = "_pmll";
const RESERVED: [&str; 3] = ["key", "text", SYSTEM];

/// The line of an entry. `row` is its row in the vector file, `collection` stands on the first line.
pub fn to_line(entry: &Entry, row: Option<u64>, collection: Option<Value>) -> Map<String, Value> {
    let mut line = Map::new();
    let mut system = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            system.insert(name.to_owned(), value);
        }
    };
    put("collection", collection);
    put("ns", (!entry.namespace.is_root()).then(|| entry.namespace.as_str().into()));
    put("at", Some(render::moment(entry.at)));
    put("session", entry.session.as_deref().map(Value::from));
    put("sequence", entry.sequence.map(Value::from));
    put("salience", entry.salience.map(render::number));
    put("pinned", entry.pinned.then_some(Value::Bool(true)));
    put("expires", entry.expires.map(render::moment));
    put("row", row.map(Value::from));
    match entry.key.as_str() {
        Some(key) => {
            line.insert("key".into(), key.into());
        }
        None => put("key", Some(BASE64.encode(entry.key.as_bytes()).into())),
    }
    match entry.text() {
        Some(text) => {
            line.insert("text".into(), text.into());
        }
        None => put("payload", Some(BASE64.encode(&entry.payload).into())),
    }
    let mut taken = Map::new();
    for (name, value) in &entry.attributes {
        let home = if RESERVED.contains(&name.as_str()) { &mut taken } else { &mut line };
        home.insert(name.clone(), value.clone());
    }
    put("attributes", (!taken.is_empty()).then_some(Value::Object(taken)));
    line.insert(SYSTEM.into(), Value::Object(system));
    line
}

/// Which field of the user's own lines is what.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// Fields whose values, joined by `:`, are the key; the row's number when empty.
    pub key: Vec<String>,
    /// Field of the payload.
    pub text: String,
    /// Field of the event time, and its form.
    pub time: Option<String>,
    pub time_format: Option<String>,
    /// Field of the session.
    pub session: Option<String>,
    /// Field of the semantic value.
    pub salience: Option<String>,
    /// Namespace that everything goes below.
    pub namespace: Namespace,
}

/// What a line says.
#[derive(Debug, PartialEq)]
pub struct Record {
    pub namespace: Namespace,
    pub key: Vec<u8>,
    pub draft: Draft,
    /// Its row in the vector file; `None` when it has no vector.
    pub row: Option<u64>,
    /// What the collection was, on the first line of an export.
    pub collection: Option<Value>,
}

impl Mapping {
    /// Reads a line; an error says what is wrong with it, not where it stands.
    pub fn record(&self, row: u64, line: Line) -> Result<Record, String> {
        match line {
            Line::Text(payload) => {
                Ok(self.plain(row, row.to_string().into(), Draft::bytes(payload)))
            }
            Line::Object(mut object) => match object.shift_remove(SYSTEM) {
                Some(Value::Object(system)) => self.exported(object, system),
                Some(_) => Err(format!("{SYSTEM} is not an object")),
                None => self.own(row, object),
            },
        }
    }

    /// A row that has a vector and nothing else.
    pub fn vector_only(&self, row: u64) -> Record {
        self.plain(row, row.to_string().into(), Draft::bytes([]))
    }

    fn plain(&self, row: u64, key: Vec<u8>, draft: Draft) -> Record {
        let namespace = self.namespace.clone();
        Record { namespace, key, draft, row: Some(row), collection: None }
    }

    /// A line of the user: the payload's field is taken out, all others stay attributes.
    fn own(&self, row: u64, mut object: Map<String, Value>) -> Result<Record, String> {
        let key = self.joined_key(&object)?.unwrap_or_else(|| row.to_string());
        let mut draft = Draft::default();
        if let Some(field) = &self.time {
            draft.at = present(&object, field)
                .map(|v| time::parse_value(v, self.time_format.as_deref()))
                .transpose()
                .map_err(|e| format!("field {field}: {e}"))?
                .map(Timestamp);
        }
        if let Some(field) = &self.session {
            draft.session = present(&object, field).map(|v| word(field, v)).transpose()?;
        }
        if let Some(field) = &self.salience {
            draft.salience = present(&object, field).map(|v| fraction(field, v)).transpose()?;
        }
        draft.payload = match object.shift_remove(&self.text) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.into_bytes(),
            Some(other) => other.to_string().into_bytes(),
        };
        draft.attributes = object;
        Ok(self.plain(row, key.into_bytes(), draft))
    }

    fn joined_key(&self, object: &Map<String, Value>) -> Result<Option<String>, String> {
        if self.key.is_empty() {
            return Ok(None);
        }
        let part = |field: &String| match present(object, field) {
            Some(value) => word(field, value),
            None => Err(format!("there is no field {field} to make the key of")),
        };
        let parts: Result<Vec<String>, String> = self.key.iter().map(part).collect();
        Ok(Some(parts?.join(":")))
    }

    /// A line of an export.
    fn exported(
        &self,
        mut object: Map<String, Value>,
        mut system: Map<String, Value>,
    ) -> Result<Record, String> {
        let mut take = |name: &str| system.shift_remove(name);
        let (named, own_text) = (object.shift_remove("key"), object.shift_remove("text"));
        let key = match (take("key"), named) {
            (Some(bytes), _) => base64("_pmll.key", &bytes)?,
            (None, Some(Value::String(key))) => key.into_bytes(),
            _ => return Err("there is no text in field key".into()),
        };
        let payload = match (take("payload"), own_text) {
            (Some(bytes), _) => base64("_pmll.payload", &bytes)?,
            (None, None) => Vec::new(),
            (None, Some(Value::String(text))) => text.into_bytes(),
            (None, Some(_)) => return Err("field text is not text".into()),
        };
        let moment = |name: &str, value: Option<Value>| {
            value
                .map(|v| time::parse_value(&v, None).map(Timestamp))
                .transpose()
                .map_err(|e| format!("_pmll.{name}: {e}"))
        };
        let mut draft = Draft::bytes(payload);
        draft.at = moment("at", take("at"))?;
        draft.expires = moment("expires", take("expires"))?;
        draft.session = take("session").map(|v| word("_pmll.session", &v)).transpose()?;
        draft.sequence = take("sequence").map(|v| count("_pmll.sequence", &v)).transpose()?;
        draft.salience = take("salience").map(|v| fraction("_pmll.salience", &v)).transpose()?;
        draft.pinned = match take("pinned") {
            None => Some(false),
            Some(Value::Bool(pinned)) => Some(pinned),
            Some(_) => return Err("_pmll.pinned is neither true nor false".into()),
        };
        let row = take("row").map(|v| count("_pmll.row", &v)).transpose()?;
        let below = match take("ns") {
            None => String::new(),
            Some(ns) => word("_pmll.ns", &ns)?,
        };
        let namespace = join(&self.namespace, &below)?;
        let collection = take("collection");
        draft.attributes = object;
        match take("attributes") {
            None => {}
            Some(Value::Object(taken)) => draft.attributes.extend(taken),
            Some(_) => return Err("_pmll.attributes is not an object".into()),
        }
        if let Some(unknown) = system.keys().next() {
            // Dropping it would lose something without a word.
            return Err(format!("_pmll.{unknown} is not known to this version"));
        }
        Ok(Record { namespace, key, draft, row, collection })
    }
}

fn join(above: &Namespace, below: &str) -> Result<Namespace, String> {
    let path = match (above.as_str(), below) {
        ("", below) => below.to_owned(),
        (above, "") => above.to_owned(),
        (above, below) => format!("{above}/{below}"),
    };
    Namespace::new(&path).map_err(|e| e.to_string())
}

/// A field that is there and not null.
fn present<'a>(object: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

/// Text, or a number or truth value as text.
pub fn word(field: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(format!("field {field} is neither text nor a number")),
    }
}

fn fraction(field: &str, value: &Value) -> Result<f32, String> {
    value.as_f64().map(|v| v as f32).ok_or_else(|| format!("field {field} is not a number"))
}

fn count(field: &str, value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("field {field} is not a whole number"))
}

fn base64(field: &str, value: &Value) -> Result<Vec<u8>, String> {
    value
        .as_str()
        .and_then(|text| BASE64.decode(text).ok())
        .ok_or_else(|| format!("field {field} is not base64"))
}

/// What an export says the collection was.
pub fn collection_json(spec: &pmll::CollectionSpec) -> Value {
    let mut object = crate::open::spec_json(spec);
    if let Some(map) = object.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    object
}

/// Reads it back.
pub fn collection_spec(value: &Value) -> Result<pmll::CollectionSpec, String> {
    let mut spec = pmll::CollectionSpec::new();
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if let Some(dim) = value.get("dim") {
        let dim = dim.as_u64().and_then(|d| u32::try_from(d).ok());
        spec.dim = Some(dim.ok_or("_pmll.collection.dim is not a dimension")?);
    }
    if let Some(metric) = text("metric") {
        spec.metric = pmll::Metric::parse(metric).map_err(|e| e.to_string())?;
    }
    spec.element = match text("element") {
        None | Some("f32") => pmll::Element::F32,
        Some("f16") => pmll::Element::F16,
        Some(other) => return Err(format!("_pmll.collection.element {other:?} is not known")),
    };
    spec.model = text("model").map(str::to_owned);
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(text: &str) -> Line {
        Line::Object(serde_json::from_str(text).unwrap())
    }

    fn mapping() -> Mapping {
        Mapping { text: "text".into(), ..Mapping::default() }
    }

    #[test]
    fn own_lines_keep_every_field_but_the_payload() {
        let mapping = Mapping {
            key: vec!["conv".into(), "id".into()],
            time: Some("when".into()),
            session: Some("session".into()),
            salience: Some("value".into()),
            ..mapping()
        };
        let text = r#"{"conv":"c1","id":7,"session":3,"when":"2026-11-21","value":0.5,"text":"hi","x":[1]}"#;
        let record = mapping.record(4, line(text)).unwrap();
        assert_eq!(record.key, b"c1:7");
        assert_eq!(record.row, Some(4));
        assert_eq!(record.draft.payload, b"hi");
        assert_eq!(record.draft.session.as_deref(), Some("3"));
        assert_eq!(record.draft.salience, Some(0.5));
        assert_eq!(record.draft.at.unwrap().0, time::parse("2026-11-21").unwrap());
        let names: Vec<_> = record.draft.attributes.keys().collect();
        assert_eq!(names, ["conv", "id", "session", "when", "value", "x"]);
    }

    #[test]
    fn fields_may_be_missing_but_not_of_the_key() {
        let mapping = Mapping {
            key: vec!["id".into()],
            time: Some("when".into()),
            session: Some("session".into()),
            ..mapping()
        };
        let record = mapping.record(0, line(r#"{"id":"a","when":null}"#)).unwrap();
        assert_eq!((record.draft.at, record.draft.session), (None, None));
        let error = mapping.record(0, line("{}")).unwrap_err();
        assert!(error.contains("id"), "{error}");
        let error = mapping.record(0, line(r#"{"id":"a","when":"soon"}"#)).unwrap_err();
        assert!(error.contains("when"), "{error}");
    }

    #[test]
    fn rows_number_the_keys_and_other_payloads_become_text() {
        let record = mapping().record(9, line(r#"{"text":2022,"key":"x"}"#)).unwrap();
        assert_eq!((record.key, record.draft.payload), (b"9".to_vec(), b"2022".to_vec()));
        assert_eq!(record.draft.attributes["key"], "x");
        let record = mapping().record(3, Line::Text(vec![0xff])).unwrap();
        assert_eq!((record.key, record.draft.payload), (b"3".to_vec(), vec![0xff]));
    }

    #[test]
    fn exported_lines_are_taken_back() {
        let text = r#"{"key":"k","a":1,"_pmll":{"ns":"u/7","at":"2026-11-21T05:00:00.5Z","session":"s",
            "sequence":4,"salience":0.3,"pinned":true,"expires":"2027-01-01T00:00:00Z","row":2,
            "payload":"/w==","attributes":{"key":1,"_pmll":2}}}"#;
        let record = mapping().record(7, line(text)).unwrap();
        assert_eq!(record.namespace.as_str(), "u/7");
        assert_eq!((record.key.as_slice(), record.row), (&b"k"[..], Some(2)));
        let draft = record.draft;
        assert_eq!(draft.payload, [0xff]);
        assert_eq!(draft.pinned, Some(true));
        assert_eq!((draft.sequence, draft.salience), (Some(4), Some(0.3)));
        assert_eq!(Value::Object(draft.attributes), json!({"a": 1, "key": 1, "_pmll": 2}));
        let below = Mapping { namespace: Namespace::new("old").unwrap(), ..mapping() };
        assert_eq!(below.record(7, line(text)).unwrap().namespace.as_str(), "old/u/7");
    }

    #[test]
    fn nothing_is_dropped_without_a_word() {
        for (text, word) in [
            (r#"{"key":"k","_pmll":{"colour":1}}"#, "_pmll.colour"),
            (r#"{"key":"k","_pmll":3}"#, "not an object"),
            (r#"{"_pmll":{}}"#, "key"),
            (r#"{"key":"k","_pmll":{"payload":"?"}}"#, "base64"),
            (r#"{"key":"k","_pmll":{"pinned":1}}"#, "pinned"),
            (r#"{"key":"k","_pmll":{"ns":"a//b"}}"#, "namespace"),
        ] {
            let error = mapping().record(0, line(text)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn collections_are_told_and_read() {
        let spec = pmll::CollectionSpec::new().dim(3).metric(pmll::Metric::L2).model("m");
        assert_eq!(collection_spec(&collection_json(&spec)).unwrap(), spec);
        assert!(collection_spec(&json!({"metric": "far"})).is_err());
    }
}
