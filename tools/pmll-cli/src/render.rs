//! Entries as JSON objects and as lines for people.

use crate::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pmll::{Entry, Fidelity, Tier, TierStats, Timestamp};
use serde_json::{Map, Value, json};

use crate::output::one_line;

/// The whole entry. Bytes that are not UTF-8 stand as base64 under `key_base64` or
/// `payload_base64`; optional fields are absent when they are not set.
pub fn entry(entry: &Entry, with_payload: bool) -> Map<String, Value> {
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    match entry.key.as_str() {
        Some(key) => set("key", key.into()),
        None => set("key_base64", BASE64.encode(entry.key.as_bytes()).into()),
    }
    if !entry.namespace.is_root() {
        set("ns", entry.namespace.as_str().into());
    }
    if with_payload {
        match entry.text() {
            Some(text) => set("text", text.into()),
            None => set("payload_base64", BASE64.encode(&entry.payload).into()),
        }
    }
    set("attributes", Value::Object(entry.attributes.clone()));
    set("at", moment(entry.at));
    if let Some(session) = &entry.session {
        set("session", session.as_str().into());
    }
    if let Some(sequence) = entry.sequence {
        set("sequence", sequence.into());
    }
    if let Some(salience) = entry.salience {
        set("salience", number(salience));
    }
    set("pinned", entry.pinned.into());
    if let Some(expires) = entry.expires {
        set("expires", moment(expires));
    }
    set("created", moment(entry.created));
    set("updated", moment(entry.updated));
    set("last_access", moment(entry.last_access));
    set("access_count", entry.access_count.into());
    set("id", entry.id.0.into());
    set("version", entry.version.0.into());
    set("tier", entry.tier.to_string().into());
    if let Some(model) = &entry.model {
        set("model", model.as_str().into());
    }
    if let Some(vector) = &entry.vector {
        set("vector", vector.iter().copied().map(number).collect());
    }
    out
}

/// A time as RFC 3339.
pub fn moment(at: Timestamp) -> Value {
    time::format(at.0)
}

/// An f32 with the digits that name it, `0.3` rather than `0.30000001192092896`; it reads back to
/// the same f32.
pub fn number(value: f32) -> Value {
    let short = value.to_string().parse::<f64>().unwrap_or_else(|_| f64::from(value));
    Value::from(if short as f32 == value { short } else { f64::from(value) })
}

/// Payload for people, one line.
pub fn preview(entry: &Entry, width: usize) -> String {
    match entry.text() {
        Some(text) => one_line(text, width),
        None => format!("({} bytes)", entry.payload.len()),
    }
}

/// The key with its namespace for people.
pub fn path(entry: &Entry) -> String {
    let key = one_line(&entry.key.display(), 200);
    if entry.namespace.is_root() { key } else { format!("{}/{key}", entry.namespace) }
}

/// Everything about an entry for people.
pub fn details(entry: &Entry) -> String {
    let mut out = format!("key: {}\n", path(entry));
    for (name, value) in self::entry(entry, false) {
        match (name.as_str(), &value) {
            ("key" | "key_base64" | "ns" | "vector" | "attributes", _) => {}
            (_, Value::String(text)) => out += &format!("{name}: {}\n", one_line(text, 300)),
            (_, value) => out += &format!("{name}: {value}\n"),
        }
    }
    for (name, value) in &entry.attributes {
        out += &format!("  {}: {}\n", one_line(name, 80), one_line(&value.to_string(), 300));
    }
    if let Some(vector) = &entry.vector {
        out += &format!("vector: {} values\n", vector.len());
    }
    match entry.text() {
        // Text keeps its lines, but no other control character.
        Some(text) => {
            out.extend(text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }));
        }
        None => out += &format!("({} bytes that are not text)", entry.payload.len()),
    }
    out
}

/// A tier's figures. `bits` counts its entries by width: `int8` and `int4` in Warm, `exact` elsewhere.
pub fn tier(tier: &TierStats) -> Value {
    let of =
        |entries: u64, of: Option<Fidelity>| json!({"entries": entries, "fidelity": fidelity(of)});
    let bits = match tier.tier {
        Tier::Warm => json!({
            "int8": of(tier.int8.entries, tier.int8.fidelity),
            "int4": of(tier.int4.entries, tier.int4.fidelity),
        }),
        _ => json!({"exact": of(tier.entries, tier.fidelity)}),
    };
    json!({
        "tier": tier.tier.to_string(),
        "entries": tier.entries,
        "resident": tier.resident,
        "bytes": tier.bytes,
        "fidelity": fidelity(tier.fidelity),
        "bits": bits,
    })
}

fn fidelity(fidelity: Option<Fidelity>) -> Value {
    fidelity
        .map_or(Value::Null, |f| json!({"mean": f.mean, "worst": f.worst, "samples": f.samples}))
}

/// Fidelity for people: mean, and the worst of those that were compared.
pub fn fidelity_text(fidelity: Option<Fidelity>) -> String {
    match fidelity {
        None => "-".to_owned(),
        Some(f) if f.mean == 1.0 && f.worst == 1.0 => "exact".to_owned(),
        Some(f) => format!("{:.4} (worst {:.4})", f.mean, f.worst),
    }
}

/// Entries of a tier by width, for people.
pub fn bits_text(tier: &TierStats) -> String {
    match tier.tier {
        Tier::Warm => format!("int8 {}, int4 {}", tier.int8.entries, tier.int4.entries),
        _ => "exact".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact() {
        assert_eq!(number(0.3).to_string(), "0.3");
        assert_eq!(number(1.0).to_string(), "1.0");
        let mut bits = 12345u32;
        for _ in 0..10_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = f32::from_bits(bits);
            if value.is_finite() {
                let text = number(value).to_string();
                assert_eq!(text.parse::<f64>().unwrap() as f32, value, "{text}");
            }
        }
    }
}
