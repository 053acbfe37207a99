//! `expected.jsonl`: what the command line tool said is in the store.
//!
//! One JSON object a line: a collection, its entries, then the settings. Times are RFC 3339, bytes that
//! are no text base64, and a long text of one letter its length and CRC-32.

use serde_json::{Map, Value};

use super::bytes::crc;
use super::operations::{Define, Entry, Metric};

/// Values of a line by name.
pub type Line = Map<String, Value>;

pub fn lines(text: &str) -> Vec<Line> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Compares one entry with its line, but for levels and accesses.
pub fn compare(entry: &Entry, model: Option<&str>, line: &Line) {
    let key = &entry.key;
    let number = |name: &str| line[name].as_u64().unwrap();
    let time = |name: &str| line.get(name).map(|value| micros(value.as_str().unwrap()));
    let text = |name: &str| line.get(name).map(|value| value.as_str().unwrap());
    assert_eq!(text("key"), Some(key.as_str()));
    assert_eq!(text("ns").unwrap_or(""), entry.namespace, "{key}");
    assert_eq!((number("id"), number("version")), (entry.id, entry.version), "{key}");
    assert_eq!(text("session"), entry.session.as_deref(), "{key}");
    assert_eq!(time("at"), Some(entry.at), "{key}");
    assert_eq!(time("created"), Some(entry.created), "{key}");
    assert_eq!(time("updated"), Some(entry.updated), "{key}");
    assert_eq!(time("expires"), entry.expires, "{key}");
    assert_eq!(line["pinned"], entry.pinned, "{key}");
    let salience = line.get("salience").map(|value| value.as_f64().unwrap() as f32);
    assert_eq!(salience, entry.salience, "{key}");
    assert_eq!(entry.sequence, None, "{key}: the tool shows no sequence");
    assert_eq!(text("model"), model, "{key}");
    let attributes: Value = serde_json::from_str(&entry.attributes).unwrap();
    assert_eq!(line["attributes"], attributes, "{key}");
    assert_eq!(
        line["attributes"].to_string(),
        attributes.to_string(),
        "{key}: order of attributes"
    );

    let vector = line.get("vector").map(|values| {
        let values = values.as_array().unwrap().iter();
        values.map(|value| (value.as_f64().unwrap() as f32).to_bits()).collect::<Vec<_>>()
    });
    let found = entry.vector.as_ref();
    let found = found.map(|values| values.iter().map(|value| value.to_bits()).collect());
    assert_eq!(vector, found, "{key}: vector");

    match (line.get("text"), line.get("payload_base64")) {
        (Some(Value::String(text)), None) => assert_eq!(text.as_bytes(), entry.payload, "{key}"),
        (Some(Value::Object(long)), None) => {
            assert_eq!(long["bytes"], entry.payload.len(), "{key}");
            assert_eq!(long["crc32"], crc(&[&entry.payload]), "{key}");
        }
        (None, Some(packed)) => {
            assert_eq!(base64(packed.as_str().unwrap()), entry.payload, "{key}");
        }
        other => panic!("{key}: payload {other:?}"),
    }
}

pub fn compare_collection(define: &Define, line: &Line) {
    let metric = match define.metric {
        Metric::Cosine => "cosine",
        Metric::Dot => "dot",
        Metric::L2 => "l2",
    };
    let name = &define.name;
    assert_eq!(line["metric"], metric, "{name}");
    assert_eq!(line["element"], if define.half { "f16" } else { "f32" }, "{name}");
    assert_eq!(line["dim"], Value::from(define.dimension), "{name}");
    assert_eq!(line["model"], Value::from(define.model.clone()), "{name}");
    assert_eq!(micros(line["created"].as_str().unwrap()), define.created, "{name}");
}

/// A time such as `2026-11-21T05:00:00.25Z` in microseconds since 1970.
pub fn micros(time: &str) -> i64 {
    let (date, clock) = time.strip_suffix('Z').unwrap().split_once('T').unwrap();
    let numbers = |text: &str, between: char| -> Vec<i64> {
        text.split(between).map(|part| part.parse().unwrap()).collect()
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let (date, clock) = (numbers(date, '-'), numbers(clock, ':'));
    // Years from March on, so that a leap day ends one.
    let (year, month) =
        if date[1] > 2 { (date[0], date[1] - 3) } else { (date[0] - 1, date[1] + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leaps + (month * 153 + 2) / 5 + date[2] - 719_469;
    let seconds = days * 86_400 + clock[0] * 3_600 + clock[1] * 60 + clock[2];
    seconds * 1_000_000 + format!("{fraction:0<6}").parse::<i64>().unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = letters.iter().position(|other| *other == letter).unwrap();
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}
