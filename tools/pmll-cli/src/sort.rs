//! Order of listed entries by one field, reserved or attribute.
//!
//! Values order as: missing last (in both directions), then false < true < numbers < text; times
//! are numbers. Equal values keep the order of (namespace, key).

use std::cmp::Ordering;

use pmll::Entry;
use serde_json::Value;

use crate::output::Failure;

/// A field and a direction, such as `-_at`.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    field: String,
    descending: bool,
}

/// A value that orders.
#[derive(Clone, Debug, PartialEq)]
pub enum Rank {
    Bool(bool),
    Whole(i64),
    Number(f64),
    Text(String),
    Missing,
}

const RESERVED: &[&str] = &[
    "_key",
    "_ns",
    "_at",
    "_created",
    "_updated",
    "_last_access",
    "_access_count",
    "_tier",
    "_pinned",
    "_session",
    "_sequence",
    "_salience",
    "_expires",
    "_id",
    "_version",
];

impl Order {
    /// Reads `field` or `-field`.
    pub fn parse(text: &str) -> Result<Order, Failure> {
        let (field, descending) = match text.strip_prefix('-') {
            Some(field) => (field, true),
            None => (text.strip_prefix('+').unwrap_or(text), false),
        };
        if field.is_empty() || (field.starts_with('_') && !RESERVED.contains(&field)) {
            return Err(Failure::invalid(format!("cannot sort by {text:?}"))
                .hint(format!("an attribute, or one of {}", RESERVED.join(" "))));
        }
        Ok(Order { field: field.to_owned(), descending })
    }

    /// The value of an entry's field.
    pub fn rank(&self, entry: &Entry) -> Rank {
        let time = |t: pmll::Timestamp| Rank::Whole(t.0);
        match self.field.as_str() {
            "_key" => Rank::Text(entry.key.display()),
            "_ns" => Rank::Text(entry.namespace.to_string()),
            "_at" => time(entry.at),
            "_created" => time(entry.created),
            "_updated" => time(entry.updated),
            "_last_access" => time(entry.last_access),
            "_access_count" => whole(entry.access_count),
            "_tier" => whole(u64::from(entry.tier.level())),
            "_pinned" => Rank::Bool(entry.pinned),
            "_session" => entry.session.clone().map_or(Rank::Missing, Rank::Text),
            "_sequence" => entry.sequence.map_or(Rank::Missing, whole),
            "_salience" => entry.salience.map_or(Rank::Missing, |s| Rank::Number(f64::from(s))),
            "_expires" => entry.expires.map_or(Rank::Missing, time),
            "_id" => whole(entry.id.0),
            "_version" => whole(entry.version.0),
            path => attribute(entry, path),
        }
    }

    /// Which of two values comes first.
    pub fn compare(&self, a: &Rank, b: &Rank) -> Ordering {
        match (a, b) {
            (Rank::Missing, Rank::Missing) => Ordering::Equal,
            (Rank::Missing, _) => Ordering::Greater,
            (_, Rank::Missing) => Ordering::Less,
            _ if self.descending => b.order(a),
            _ => a.order(b),
        }
    }
}

impl Rank {
    fn order(&self, other: &Rank) -> Ordering {
        match (self, other) {
            (Rank::Bool(a), Rank::Bool(b)) => a.cmp(b),
            (Rank::Whole(a), Rank::Whole(b)) => a.cmp(b),
            (Rank::Number(a), Rank::Number(b)) => a.total_cmp(b),
            (Rank::Text(a), Rank::Text(b)) => a.cmp(b),
            _ => self.class().cmp(&other.class()),
        }
    }

    fn class(&self) -> u8 {
        match self {
            Rank::Bool(_) => 0,
            Rank::Whole(_) | Rank::Number(_) => 1,
            Rank::Text(_) => 2,
            Rank::Missing => 3,
        }
    }
}

fn whole(value: u64) -> Rank {
    i64::try_from(value).map_or(Rank::Number(value as f64), Rank::Whole)
}

/// An attribute by its name, or by a dotted path.
fn attribute(entry: &Entry, path: &str) -> Rank {
    let mut value = entry.attributes.get(path);
    if value.is_none() {
        let mut parts = path.split('.');
        value = parts.next().and_then(|first| entry.attributes.get(first));
        for part in parts {
            value = value.and_then(|v| v.get(part));
        }
    }
    match value {
        Some(Value::Bool(b)) => Rank::Bool(*b),
        Some(Value::Number(n)) => n.as_f64().map_or(Rank::Missing, Rank::Number),
        Some(Value::String(s)) => Rank::Text(s.clone()),
        _ => Rank::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_is_last_in_both_directions() {
        for text in ["year", "-year"] {
            let order = Order::parse(text).unwrap();
            assert_eq!(order.compare(&Rank::Missing, &Rank::Number(1.0)), Ordering::Greater);
        }
        let down = Order::parse("-year").unwrap();
        assert_eq!(down.compare(&Rank::Number(2.0), &Rank::Number(1.0)), Ordering::Less);
        let up = Order::parse("year").unwrap();
        assert_eq!(up.compare(&Rank::Number(2.0), &Rank::Text("1".into())), Ordering::Less);
        assert!(Order::parse("_nothing").is_err());
        assert!(Order::parse("-").is_err());
    }
}
