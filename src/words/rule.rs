//! Rules: what a user may set about scores and protection, read out of the settings of a store.
//!
//! | setting | value | default |
//! |---|---|---|
//! | `weights` | `[a1, a2, a3]`, each 0 or more, together 1 | 0.4, 0.3, 0.3 |
//! | `half_life_s` | seconds in which recency halves, 1 or more | 7 days |
//! | `age` | `activity` (counted back from the newest event) or `wall` (from now) | `activity` |
//! | `rho` | share of the unpinned entries that is protected, above 0 and up to 1 | 0.20 |
//!
//! `NAME.COLLECTION` holds for one collection, `NAME` for all that have none of their own. Settings are
//! operations in the log, so a rule survives a restart and goes along with a copy of the store.
//!
//! [`check`] refuses a value before it is stored. One that is stored all the same, by a build that knew
//! better, counts as not set.

use serde_json::Value;

use crate::words::error::{Error, Result};

const WEIGHTS: &str = "weights";
const HALF_LIFE: &str = "half_life_s";
const AGE: &str = "age";
const RHO: &str = "rho";

/// How much each term of an entry's importance counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Weight of recency.
    pub recency: f32,
    /// Weight of frequency.
    pub frequency: f32,
    /// Weight of the semantic term.
    pub semantic: f32,
}

impl Default for Weights {
    fn default() -> Weights {
        Weights { recency: 0.4, frequency: 0.3, semantic: 0.3 }
    }
}

/// What age is counted back from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Age {
    /// The newest event of the collection: idle weeks, imports and a wrong clock move nothing.
    #[default]
    Activity,
    /// The wall clock.
    Wall,
}

/// How the entries of a collection are scored, and how many of them are protected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// How the terms are weighed.
    pub weights: Weights,
    /// Time in which recency halves, in microseconds; at least a second.
    pub half_life_us: i64,
    /// What age is counted back from.
    pub age: Age,
    /// Share of its unpinned entries that it adds to the protected ones.
    pub protected_share: f64,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule {
            weights: Weights::default(),
            half_life_us: 7 * 86_400_000_000,
            age: Age::default(),
            protected_share: 0.20,
        }
    }
}

impl Rule {
    /// What the settings say about a collection.
    pub fn of<'a>(setting: impl Fn(&str) -> Option<&'a Value>, collection: &str) -> Rule {
        let known = Rule::default();
        Rule {
            weights: look_up(&setting, WEIGHTS, collection, weights).unwrap_or(known.weights),
            half_life_us: look_up(&setting, HALF_LIFE, collection, half_life_us)
                .unwrap_or(known.half_life_us),
            age: look_up(&setting, AGE, collection, age).unwrap_or(known.age),
            protected_share: look_up(&setting, RHO, collection, rho)
                .unwrap_or(known.protected_share),
        }
    }
}

fn look_up<'a, T>(
    setting: &impl Fn(&str) -> Option<&'a Value>,
    name: &str,
    collection: &str,
    read: fn(&Value) -> Option<T>,
) -> Option<T> {
    let own = setting(&format!("{name}.{collection}")).and_then(read);
    own.or_else(|| setting(name).and_then(read))
}

/// Whether a value may be stored under a name. Names that no rule reads take any. Errors with `Invalid`,
/// naming the value and what the setting takes.
pub fn check(name: &str, value: &Value) -> Result<()> {
    let (known, takes) = match name.split_once('.').map_or(name, |(name, _)| name) {
        WEIGHTS => (weights(value).is_some(), "three numbers, each 0 or more, together 1"),
        HALF_LIFE => (half_life_us(value).is_some(), "a number of seconds, 1 or more"),
        AGE => (age(value).is_some(), "\"activity\" or \"wall\""),
        RHO => (rho(value).is_some(), "a number above 0 and up to 1"),
        _ => return Ok(()),
    };
    match known {
        true => Ok(()),
        false => Err(Error::invalid(format!("{name} takes {takes}, not {value}"))),
    }
}

fn weights(value: &Value) -> Option<Weights> {
    let [a1, a2, a3] = value.as_array()?.as_slice() else { return None };
    let (a1, a2, a3) = (a1.as_f64()?, a2.as_f64()?, a3.as_f64()?);
    let fit = [a1, a2, a3].iter().all(|a| *a >= 0.0) && (a1 + a2 + a3 - 1.0).abs() <= 1e-6;
    fit.then_some(Weights { recency: a1 as f32, frequency: a2 as f32, semantic: a3 as f32 })
}

fn half_life_us(value: &Value) -> Option<i64> {
    // A cast saturates: 290,000 years are as good as for ever.
    value.as_f64().filter(|s| *s >= 1.0).map(|s| (s * 1e6) as i64)
}

fn age(value: &Value) -> Option<Age> {
    match value.as_str()? {
        "activity" => Some(Age::Activity),
        "wall" => Some(Age::Wall),
        _ => None,
    }
}

fn rho(value: &Value) -> Option<f64> {
    value.as_f64().filter(|rho| *rho > 0.0 && *rho <= 1.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn rule(settings: &[(&str, Value)], collection: &str) -> Rule {
        let map: BTreeMap<&str, &Value> = settings.iter().map(|(n, v)| (*n, v)).collect();
        Rule::of(|name| map.get(name).copied(), collection)
    }

    #[test]
    fn a_collection_of_its_own_goes_before_the_store_and_the_store_before_the_default() {
        assert_eq!(rule(&[], "a"), Rule::default());
        let settings = [
            ("rho", json!(0.5)),
            ("rho.a", json!(1)),
            ("half_life_s.a.b", json!(60)),
            ("age", json!("wall")),
            ("weights.a", json!([1, 0, 0])),
            ("weights", json!([0.5, 0.4])),
        ];
        let a = rule(&settings, "a");
        assert_eq!((a.protected_share, a.age, a.weights.recency), (1.0, Age::Wall, 1.0));
        assert_eq!(a.half_life_us, Rule::default().half_life_us);
        let other = rule(&settings, "a.b");
        assert_eq!((other.protected_share, other.half_life_us), (0.5, 60_000_000));
        assert_eq!(
            other.weights,
            Weights::default(),
            "a value that does not fit counts as not set"
        );
    }

    #[test]
    fn what_no_rule_can_use_is_refused() {
        let bad = [
            ("weights", json!([0.4, 0.3, 0.4])),
            ("weights", json!([-0.5, 1.0, 0.5])),
            ("weights.notes", json!([0.5, 0.5])),
            ("weights", json!("0.4,0.3,0.3")),
            ("half_life_s", json!(0.5)),
            ("half_life_s.notes", json!("7d")),
            ("age", json!("never")),
            ("rho", json!(0)),
            ("rho.a.b", json!(1.01)),
        ];
        for (name, value) in bad {
            let error = check(name, &value).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(&value.to_string()), "{error}");
        }
        let good = [
            ("weights", json!([0, 0, 1])),
            ("half_life_s", json!(1e300)),
            ("age.notes", json!("activity")),
            ("rho", json!(0.2)),
            ("colour", json!([0.4, 0.3, 0.4])),
        ];
        for (name, value) in good {
            check(name, &value).unwrap();
        }
        assert_eq!(half_life_us(&json!(1e300)), Some(i64::MAX));
    }
}
