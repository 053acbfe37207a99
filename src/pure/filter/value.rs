//! Comparing values: what an entry holds against what a filter says.
//!
//! Numbers compare as the numbers they are, whatever they are stored as: 3 equals 3.0, and
//! 9007199254740993 is larger than 9007199254740992.0 although both round to the same f64. Strings
//! compare by their bytes. Arrays and objects are equal member by member, the order of an object's
//! members does not count, and they have no order. Values of different types are neither equal nor
//! ordered; null equals null.
//!
//! Recursion follows the filter's operand, whose depth the parser has limited; how deep the
//! entry's value goes does not matter.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::pure::filter::FieldValue;

/// A value of an entry, borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) enum View<'a> {
    Json(&'a Value),
    Bytes(&'a [u8]),
    Integer(i64),
    Flag(bool),
}

impl<'a> From<FieldValue<'a>> for View<'a> {
    fn from(value: FieldValue<'a>) -> View<'a> {
        match value {
            FieldValue::Bytes(bytes) => View::Bytes(bytes),
            FieldValue::Time(time) => View::Integer(time.0),
            FieldValue::Tier(tier) => View::Integer(i64::from(tier.level())),
            FieldValue::Flag(flag) => View::Flag(flag),
        }
    }
}

impl<'a> View<'a> {
    /// Equal, by the rules above.
    pub(super) fn equals(self, operand: &Value) -> bool {
        match self {
            View::Json(value) => json_equal(value, operand),
            View::Flag(flag) => operand.as_bool() == Some(flag),
            View::Bytes(_) | View::Integer(_) => self.order(operand) == Some(Ordering::Equal),
        }
    }

    /// Below, at or above the operand; `None` when the two have no order.
    pub(super) fn order(self, operand: &Value) -> Option<Ordering> {
        if let (Some(bytes), Value::String(operand)) = (self.bytes(), operand) {
            return Some(bytes.cmp(operand.as_bytes()));
        }
        match (self, operand) {
            (View::Json(Value::Number(number)), Value::Number(operand)) => {
                compare_numbers(number, operand)
            }
            (View::Integer(integer), Value::Number(operand)) => {
                compare_numbers(&Number::from(integer), operand)
            }
            _ => None,
        }
    }

    /// The bytes of a string; `None` for anything else.
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            View::Json(Value::String(text)) => Some(text.as_bytes()),
            View::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A string that holds the operand as a part, or an array that holds it as an element.
    pub(super) fn contains(self, operand: &Value) -> bool {
        match (self, operand) {
            (View::Json(Value::Array(elements)), _) => {
                elements.iter().any(|element| json_equal(element, operand))
            }
            (View::Json(Value::String(text)), Value::String(part)) => text.contains(part.as_str()),
            (View::Bytes(bytes), Value::String(part)) => {
                part.is_empty() || bytes.windows(part.len()).any(|w| w == part.as_bytes())
            }
            _ => false,
        }
    }
}

/// The operand of `$in`: strings sorted, because lists of keys may be long and every row is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    strings: Vec<String>,
    others: Vec<Value>,
}

impl Set {
    pub(super) fn new(values: Vec<Value>) -> Set {
        let mut set = Set::default();
        for value in values {
            match value {
                Value::String(text) => set.strings.push(text),
                other => set.others.push(other),
            }
        }
        set.strings.sort_unstable();
        set.strings.dedup();
        set
    }

    pub(super) fn has(&self, view: View<'_>) -> bool {
        match view.bytes() {
            Some(bytes) => self.strings.binary_search_by(|s| s.as_bytes().cmp(bytes)).is_ok(),
            None => self.others.iter().any(|operand| view.equals(operand)),
        }
    }
}

fn json_equal(value: &Value, operand: &Value) -> bool {
    match (value, operand) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| json_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && b.iter().all(|(name, b)| a.get(name).is_some_and(|a| json_equal(a, b)))
        }
        _ => false,
    }
}

/// Compares exactly. `None` only for a NaN, which JSON cannot hold.
fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => compare_mixed(a, b.as_f64()?),
        (None, Some(b)) => compare_mixed(b, a.as_f64()?).map(Ordering::reverse),
        (None, None) => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// Numbers stored as i64 or u64; both fit an i128.
fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// An integer of at most 64 bits against a float. Rounding the integer to a float would make
/// neighbours equal from 2^53 on; instead the float is cut to an integer, which is exact, and what
/// was cut off decides a tie.
fn compare_mixed(integer: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // Casting saturates beyond the i128 range, where every integer we meet is on the same side.
    let whole = float.trunc();
    let cut = float - whole;
    Some(integer.cmp(&(whole as i128)).then(if cut > 0.0 {
        Ordering::Less
    } else if cut < 0.0 {
        Ordering::Greater
    } else {
        Ordering::Equal
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn order(a: &Value, b: &Value) -> Option<Ordering> {
        View::Json(a).order(b)
    }

    #[test]
    fn numbers_compare_exactly() {
        let check = |a: Value, b: Value, expected: Ordering| {
            assert_eq!(order(&a, &b), Some(expected), "{a} against {b}");
            assert_eq!(order(&b, &a), Some(expected.reverse()), "{b} against {a}");
            assert_eq!(View::Json(&a).equals(&b), expected.is_eq());
        };
        check(json!(3), json!(3.0), Ordering::Equal);
        check(json!(0), json!(-0.0), Ordering::Equal);
        check(json!(0.0), json!(-0.0), Ordering::Equal);
        check(json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992.0), Ordering::Greater);
        check(json!(u64::MAX), json!(18_446_744_073_709_551_616.0), Ordering::Less);
        check(json!(u64::MAX), json!(-1), Ordering::Greater);
        check(json!(i64::MAX), json!(9_223_372_036_854_775_808.0), Ordering::Less);
        check(json!(i64::MIN), json!(-9_223_372_036_854_775_808.0), Ordering::Equal);
        check(json!(-3), json!(-3.5), Ordering::Greater);
        check(json!(3), json!(3.5), Ordering::Less);
        check(json!(0), json!(5e-324), Ordering::Less);
        check(json!(u64::MAX), json!(1e308), Ordering::Less);
        check(json!(i64::MIN), json!(-1e308), Ordering::Greater);
    }

    proptest! {
        // 12 bits after the point and 40 before it: exact as i128 in units of 2^-12.
        #[test]
        fn mixed_numbers_agree_with_fixed_point(
            a in -(1_i64 << 52)..(1 << 52), b in -(1_i64 << 40)..(1 << 40), near in any::<bool>(),
        ) {
            let integer = if near { a >> 12 } else { b };
            let float = a as f64 / 4096.0;
            let expected = (i128::from(integer) << 12).cmp(&i128::from(a));
            prop_assert_eq!(order(&json!(integer), &json!(float)), Some(expected));
            prop_assert_eq!(order(&json!(float), &json!(integer)), Some(expected.reverse()));
        }

        #[test]
        fn set_is_a_list_of_equals(
            values in prop::collection::vec(
                prop_oneof![
                    "[ab]{0,2}".prop_map(Value::from),
                    (-2..3_i64).prop_map(Value::from),
                    Just(json!(1.0)), Just(json!(null)), Just(json!(true)), Just(json!([1])),
                ], 0..6),
            asked in prop_oneof![
                "[ab]{0,2}".prop_map(Value::from),
                (-2..3_i64).prop_map(Value::from),
                Just(json!(null)), Just(json!(false)), Just(json!([1.0])),
            ],
        ) {
            let expected = values.iter().any(|v| View::Json(&asked).equals(v));
            prop_assert_eq!(Set::new(values).has(View::Json(&asked)), expected);
        }
    }

    #[test]
    fn different_types_are_neither_equal_nor_ordered() {
        let values = [json!(null), json!(true), json!(1), json!("1"), json!([1]), json!({"a": 1})];
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                assert_eq!(View::Json(a).equals(b), i == j, "{a} {b}");
                assert_eq!(order(a, b).is_some(), i == j && (i == 2 || i == 3), "{a} {b}");
            }
        }
        assert!(View::Json(&json!({"a": 1, "b": [2]})).equals(&json!({"b": [2.0], "a": 1.0})));
        assert!(!View::Json(&json!({"a": 1, "b": 2})).equals(&json!({"a": 1})));
        assert!(!View::Json(&json!({"a": 1})).equals(&json!({"b": 1})));
        assert!(!View::Json(&json!([1, 2])).equals(&json!([2, 1])));
    }

    #[test]
    fn keys_that_are_not_text_compare_by_bytes() {
        let key = View::Bytes(b"a\xffb");
        assert_eq!(key.order(&json!("a\u{7f}")), Some(Ordering::Greater));
        assert!(key.contains(&json!("b")) && key.contains(&json!("")));
        assert!(!key.contains(&json!("ab")) && !key.contains(&json!("a long part")));
    }
}
