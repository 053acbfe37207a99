//! The language as a whole: tables of filters, entries and answers; errors with their places; the
//! compiled filter against an interpreter that walks the JSON.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::pure::filter::{FieldValue, Fields, Filter, Needs, Reserved};
use crate::words::error::ErrorKind;
use crate::words::id::Timestamp;
use crate::words::limits;
use crate::words::tier::Tier;

struct Row {
    attributes: Map<String, Value>,
    key: Vec<u8>,
    session: Option<&'static str>,
    expires: Option<i64>,
}

impl Row {
    fn new(attributes: Value) -> Row {
        let Value::Object(attributes) = attributes else { panic!("attributes are an object") };
        Row { attributes, key: b"D1:3".to_vec(), session: Some("42"), expires: None }
    }
}

impl Fields for Row {
    fn attributes(&self) -> Option<&Map<String, Value>> {
        Some(&self.attributes)
    }

    fn reserved(&self, field: Reserved) -> Option<FieldValue<'_>> {
        let at = |micros| FieldValue::Time(Timestamp(micros));
        Some(match field {
            Reserved::Key => FieldValue::Bytes(&self.key),
            Reserved::Namespace => FieldValue::Bytes(b"user/7/notes"),
            // 2023-05-08T13:56:00Z and the four hours after it.
            Reserved::At => at(1_683_554_160_000_000),
            Reserved::Created => at(1_683_557_760_000_000),
            Reserved::Updated => at(1_683_561_360_000_000),
            Reserved::LastAccess => at(1_683_564_960_000_000),
            Reserved::Tier => FieldValue::Tier(Tier::Warm),
            Reserved::Pinned => FieldValue::Flag(true),
            Reserved::Session => FieldValue::Bytes(self.session?.as_bytes()),
            Reserved::Expires => at(self.expires?),
        })
    }
}

fn row() -> Row {
    Row::new(json!({
        "conv": "c26", "session": 3, "score": 2.5, "seen": true, "none": null,
        "tags": ["x", 7, {"a": 1}], "who": {"name": "Ann", "age": 40, "pet": {"kind": "cat"}},
        "a.b": "literal", "a": {"b": "walked", "c": 1}
    }))
}

#[track_caller]
fn check(filter: Value, expected: bool) {
    let parsed = Filter::from_json(&filter).unwrap_or_else(|e| panic!("{filter}: {e}"));
    assert_eq!(parsed.matches(&row()), expected, "{filter}");
    let again = Filter::parse(&parsed.to_string()).expect("own output");
    assert_eq!(again, parsed);
    let not = Filter::from_json(&json!({ "$not": filter })).expect("not");
    assert_eq!(not.matches(&row()), !expected, "$not {filter}");
}

#[track_caller]
fn check_where(clause: &str, json: Value) {
    let filter = Filter::from_where(&[clause]).unwrap_or_else(|e| panic!("{clause}: {e}"));
    assert_eq!(filter.to_json(), json, "{clause}");
}

#[track_caller]
fn check_error(filter: Value, place: &str, words: &str) {
    let error = Filter::from_json(&filter).expect_err(&filter.to_string());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = error.message();
    assert!(message.starts_with(&format!("filter{place}: ")), "{filter}: {message}");
    assert!(message.contains(words), "{filter}: {message}");
}

#[test]
fn plain_values_and_operators() {
    check(json!({}), true);
    check(json!({"conv": "c26"}), true);
    check(json!({"conv": "c27"}), false);
    check(json!({"conv": "c26", "session": 4}), false);
    check(json!({"session": 3.0}), true);
    check(json!({"session": {"$gt": 2, "$lt": 4}}), true);
    check(json!({"session": {"$gt": 2, "$lt": 3}}), false);
    check(json!({"session": {"$gte": 3, "$lte": 3}}), true);
    check(json!({"score": {"$gt": 2}}), true);
    check(json!({"conv": {"$gt": "c2", "$lt": "c3"}}), true);
    check(json!({"seen": true}), true);
    check(json!({"none": null}), true);
    check(json!({"conv": {"$in": ["c1", "c26", 3]}}), true);
    check(json!({"session": {"$in": ["3", 3.0]}}), true);
    check(json!({"session": {"$in": []}}), false);
    check(json!({"session": {"$nin": []}}), true);
    check(json!({"conv": {"$nin": ["c26"]}}), false);
    check(json!({"conv": {"$prefix": "c2"}}), true);
    check(json!({"conv": {"$prefix": "2"}}), false);
    check(json!({"conv": {"$contains": "26"}}), true);
    check(json!({"tags": {"$contains": "x"}}), true);
    check(json!({"tags": {"$contains": 7.0}}), true);
    check(json!({"tags": {"$contains": {"a": 1.0}}}), true);
    check(json!({"tags": {"$contains": "7"}}), false);
    check(json!({"tags": "x"}), false);
    check(json!({"tags": ["x", 7, {"a": 1}]}), true);
    check(json!({"who": {"$contains": "Ann"}}), false);
}

#[test]
fn missing_fields_and_other_types() {
    for operator in ["$eq", "$gt", "$gte", "$lt", "$lte", "$prefix", "$contains"] {
        check(json!({"missing": {operator: "3"}}), false);
        check(json!({"session": {operator: "3"}}), false);
    }
    check(json!({"missing": null}), false);
    check(json!({"missing": {"$in": [null]}}), false);
    for field in ["missing", "session"] {
        check(json!({field: {"$ne": "3"}}), true);
        check(json!({field: {"$nin": ["3", true]}}), true);
        check(json!({field: {"$in": ["3", true]}}), false);
    }
    check(json!({"missing": {"$exists": false}}), true);
    check(json!({"missing": {"$exists": true}}), false);
    check(json!({"none": {"$exists": true}}), true);
    check(json!({"session": {"$exists": false}}), false);
    check(json!({"$not": {"missing": {"$gt": 3}}}), true);
}

#[test]
fn paths() {
    check(json!({"who.name": "Ann"}), true);
    check(json!({"who.pet.kind": {"$in": ["cat"]}}), true);
    check(json!({"who.name.first": {"$exists": false}}), true);
    check(json!({"who.pet": {"kind": "cat"}}), true);
    check(json!({"who.pet": {"$eq": {"kind": "cat"}}}), true);
    check(json!({"who.pet": {}}), false);
    check(json!({"tags.0": {"$exists": true}}), false);
    check(json!({"a.b": "literal"}), true);
    check(json!({"a.c": 1}), true);
}

#[test]
fn logic() {
    check(json!({"$or": [{"conv": "c27"}, {"session": 3}]}), true);
    check(json!({"$or": [{"conv": "c27"}, {"session": 4}]}), false);
    check(json!({"$and": [{"conv": "c26"}, {"session": 3}]}), true);
    check(json!({"$and": [{"conv": "c26"}, {"session": 4}]}), false);
    check(json!({"conv": "c26", "$or": [{"session": 4}, {"seen": true}]}), true);
    check(json!({"conv": "c27", "$or": [{"session": 4}, {"seen": true}]}), false);
    check(json!({"$not": {"conv": "c26", "session": 4}}), true);
    check(json!({"$and": [{}]}), true);
    check(json!({"$or": [{"conv": "c27"}, {}]}), true);
}

#[test]
fn reserved_fields() {
    check(json!({"_key": "D1:3"}), true);
    check(json!({"_key": {"$prefix": "D1:", "$contains": "1:3"}}), true);
    check(json!({"_key": {"$in": ["D1:2", "D1:3"]}}), true);
    check(json!({"_ns": "user/7/notes"}), true);
    check(json!({"_ns": {"$prefix": "user/7"}}), true);
    check(json!({"_ns": {"$prefix": "user/7/notes"}}), true);
    check(json!({"_ns": {"$prefix": "user/7/no"}}), false);
    check(json!({"_ns": {"$prefix": ""}}), true);
    check(json!({"_at": "2023-05-08T13:56:00Z"}), true);
    check(json!({"_at": "2023-05-08T15:56:00+02:00"}), true);
    check(json!({"_at": 1_683_554_160_000_000_i64}), true);
    check(json!({"_at": {"$gte": "2023-05-08", "$lt": "2023-05-09"}}), true);
    check(json!({"_created": {"$gt": "2023-05-08T13:56:00Z"}}), true);
    check(json!({"_updated": {"$in": ["2023-05-08T15:56:00Z"]}}), true);
    check(json!({"_last_access": {"$lte": "2023-05-08T16:55:59.999999Z"}}), false);
    check(json!({"_expires": {"$exists": false}}), true);
    check(json!({"_expires": {"$lt": "2030-01-01"}}), false);
    check(json!({"_expires": {"$ne": "2030-01-01"}}), true);
    check(json!({"_session": "42"}), true);
    check(json!({"_pinned": true}), true);
    check(json!({"_pinned": {"$ne": true}}), false);
    for warm in [json!(1), json!("L1"), json!("warm")] {
        check(json!({ "_tier": warm }), true);
    }
    check(json!({"_tier": {"$gte": "cold"}}), false);
    check(json!({"_tier": {"$in": [0, "warm"]}}), true);
}

#[test]
fn errors_name_the_place() {
    check_error(json!([]), "", "[] stands where a filter object must");
    check_error(json!({"a": {"$from": 3}}), " at /a/$from", "unknown operator \"$from\"");
    check_error(json!({"$nor": []}), " at /$nor", "unknown operator");
    check_error(json!({"$gt": 3}), " at /$gt", "stands under a field");
    check_error(json!({"a": {"$not": {"$gt": 3}}}), " at /a/$not", "stands around filters");
    check_error(json!({"a": {"$gt": 3, "b": 1}}), " at /a/b", "stands under $eq");
    check_error(json!({"$or": [{}, {"a/~": {"$gt": []}}]}), " at /$or/1/a~1~0/$gt", "not []");
    check_error(json!({"$or": []}), " at /$or", "at least one");
    check_error(json!({"$and": {"a": 1}}), " at /$and", "takes a list of filters");
    check_error(json!({"$not": [1]}), " at /$not", "filter object");
    check_error(json!({"a": {"$gt": null}}), " at /a/$gt", "a number or a text, not null");
    check_error(json!({"a": {"$in": 3}}), " at /a/$in", "takes a list, not 3");
    check_error(json!({"a": {"$exists": 1}}), " at /a/$exists", "true or false");
    check_error(json!({"a": {"$prefix": 1}}), " at /a/$prefix", "takes a text");
    check_error(json!({"a..b": 1}), " at /a..b", "empty step");
    check_error(json!({"": 1}), " at /", "empty step");
    check_error(json!({"_id": 1}), " at /_id", "unknown reserved field \"_id\"; there are _key");
    check_error(json!({"_at": "yesterday"}), " at /_at", "write it like 2026-11-21");
    check_error(json!({"_at": {"$in": [0, 1.5]}}), " at /_at/$in/1", "whole microseconds");
    check_error(json!({"_at": u64::MAX}), " at /_at", "whole microseconds");
    check_error(json!({"_at": {"$prefix": "2023"}}), " at /_at/$prefix", "does not take $prefix");
    check_error(json!({"_expires": null}), " at /_expires", "$exists");
    check_error(json!({"_pinned": "yes"}), " at /_pinned", "takes true or false, not \"yes\"");
    check_error(json!({"_pinned": {"$gt": false}}), " at /_pinned/$gt", "does not take $gt");
    check_error(json!({"_tier": 3}), " at /_tier", "hot, warm or cold");
    check_error(json!({"_key": 3}), " at /_key", "takes a text, not 3");
    check_error(json!({"_ns": {"$prefix": "a//b"}}), " at /_ns/$prefix", "empty segment");
    let long = check_long();
    assert!(long.len() < 200, "{long}");

    let error = Filter::parse("{\"a\": }").expect_err("not JSON");
    assert!(error.message().contains("line 1 column 7"), "{error}");
}

fn check_long() -> String {
    let error = Filter::from_json(&json!({"_at": "\u{e9}".repeat(10_000)})).expect_err("no time");
    error.message().to_owned()
}

/// `{"$not": {"$not": .. {"a": 1}}}` with this many objects.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({"a": 1}), |inner, _| json!({ "$not": inner }))
}

#[test]
fn depth_is_limited_before_anything_recurses() {
    let limit = limits::JSON_DEPTH_MAX;
    let deepest = Filter::from_json(&nested(limit)).expect("at the limit");
    assert!(Filter::from_json(&nested(limit + 1)).is_err());
    assert!(Filter::from_json(&nested(2_000)).is_err());
    let operand = (0..limit).fold(json!(1), |inner, _| json!([inner]));
    assert!(Filter::from_json(&json!({ "a": operand })).is_err());

    // What `and` makes of filters at the limit is still a filter that can be read back.
    let mut chain = Filter::all();
    for _ in 0..50 {
        chain = deepest.clone().and(chain).and(Filter::all());
    }
    assert_eq!(Filter::parse(&chain.to_string()).expect("own output"), chain);
}

#[test]
fn and_joins() {
    let filter = |json: Value| Filter::from_json(&json).expect("valid");
    let (a, b) = (filter(json!({"conv": "c26"})), filter(json!({"session": {"$gt": 9}})));
    assert!(a.matches(&row()) && !b.matches(&row()));
    assert!(!a.clone().and(b.clone()).matches(&row()));
    assert!(!b.clone().and(a.clone()).matches(&row()));
    assert_eq!(Filter::all().and(a.clone()), a);
    assert_eq!(a.clone().and(Filter::default()), a);
    let three = a.clone().and(b.clone()).and(a.clone());
    assert_eq!(
        three.to_string(),
        r#"{"$and":[{"conv":"c26"},{"session":{"$gt":9}},{"conv":"c26"}]}"#
    );
    // An `$and` beside other members is not alone and stays as it is.
    let mixed = filter(json!({"$and": [{"a": 1}], "b": 2}));
    assert_eq!(mixed.and(a).to_string(), r#"{"$and":[{"$and":[{"a":1}],"b":2},{"conv":"c26"}]}"#);
}

#[test]
fn needs_are_what_is_asked_for() {
    let needs = |json: Value| Filter::from_json(&json).expect("valid").needs();
    let none = Needs::default();
    assert_eq!(needs(json!({})), none);
    assert_eq!(needs(json!({"_at": {"$gt": 3}, "_pinned": true, "_expires": 4})), none);
    assert_eq!(needs(json!({"$not": {"a": 1}})), Needs { attributes: true, ..none });
    for name in ["_key", "_ns", "_session"] {
        assert_eq!(needs(json!({name: "x"})), Needs { key_or_ns_or_session: true, ..none });
    }
    assert_eq!(needs(json!({"$or": [{"_tier": 1}]})), Needs { tier: true, ..none });
    assert_eq!(needs(json!({"_last_access": 1})), Needs { last_access: true, ..none });
    let both =
        Filter::parse(r#"{"a":1}"#).expect("a").and(Filter::parse(r#"{"_key":"k"}"#).expect("k"));
    assert_eq!(both.needs(), Needs { attributes: true, key_or_ns_or_session: true, ..none });
}

#[test]
fn short_form() {
    check_where("conv=c26", json!({"conv": {"$eq": "c26"}}));
    check_where("  conv == c 26  ", json!({"conv": {"$eq": "c 26"}}));
    check_where("session>=3", json!({"session": {"$gte": 3}}));
    check_where("session <= 3.5", json!({"session": {"$lte": 3.5}}));
    check_where("session>-3", json!({"session": {"$gt": -3}}));
    check_where("session<3", json!({"session": {"$lt": 3}}));
    check_where("seen!=true", json!({"seen": {"$ne": true}}));
    check_where("none=null", json!({"none": {"$eq": null}}));
    check_where("zip=007", json!({"zip": {"$eq": "007"}}));
    check_where("zip=\"7\"", json!({"zip": {"$eq": "7"}}));
    check_where(r#"q = "a \"b\" \\" "#, json!({"q": {"$eq": "a \"b\" \\"}}));
    check_where("text=\"\"", json!({"text": {"$eq": ""}}));
    check_where("list=[1]", json!({"list": {"$eq": "[1]"}}));
    check_where("url=http://x/?a=b", json!({"url": {"$eq": "http://x/?a=b"}}));
    check_where("name^=12", json!({"name": {"$prefix": "12"}}));
    check_where("tags~7", json!({"tags": {"$contains": 7}}));
    check_where("tags ~ x,y", json!({"tags": {"$contains": "x,y"}}));
    check_where("speaker in A,B", json!({"speaker": {"$in": ["A", "B"]}}));
    check_where("n in 1, \"a,b\" ,c d", json!({"n": {"$in": [1, "a,b", "c d"]}}));
    check_where("n not  in 1", json!({"n": {"$nin": [1]}}));
    check_where("index in in", json!({"index": {"$in": ["in"]}}));
    check_where("in=3", json!({"in": {"$eq": 3}}));
    check_where("who.name exists", json!({"who.name": {"$exists": true}}));
    check_where("!who", json!({"who": {"$exists": false}}));
    check_where("! who ", json!({"who": {"$exists": false}}));
    check_where("\"odd name=\">3", json!({"odd name=": {"$gt": 3}}));
    check_where("_session=42", json!({"_session": {"$eq": "42"}}));
    check_where("_key in 1,2", json!({"_key": {"$in": ["1", "2"]}}));
    check_where("_at>=2023-05-08", json!({"_at": {"$gte": "2023-05-08"}}));
    check_where("_tier=L1", json!({"_tier": {"$eq": "L1"}}));

    let two = Filter::from_where(&["conv=c26", "session>=4"]).expect("valid");
    assert!(!two.matches(&row()));
    let three = Filter::from_where(&["conv=c26", "session>=3", "_session in 41,42"]).expect("ok");
    assert!(three.matches(&row()));
    assert!(Filter::from_where::<&str>(&[]).expect("none").is_all());
}

#[test]
fn short_form_errors_name_clause_and_column() {
    let check = |clause: &str, place: &str, words: &str| {
        let error = Filter::from_where(&["a=1", clause]).expect_err(clause);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let message = error.message();
        assert!(message.starts_with(&format!("where clause 2{place}")), "{clause}: {message}");
        assert!(message.contains(words), "{clause}: {message}");
    };
    check("", ", column 1:", "field name is missing");
    check("=3", ", column 1:", "field name is missing");
    check("!", ", column 2:", "field name is missing");
    check("a", ", column 2:", "operator is missing");
    check("a b", ", column 3:", "operator is missing");
    check("a inx", ", column 3:", "operator is missing");
    check("a ! 3", ", column 3:", "operator is missing");
    check("a not 3", ", column 7:", "after not comes in");
    check("a=", ", column 3:", "value is missing");
    check("\u{e9}\u{e9}=", ", column 4:", "value is missing");
    check("a in", ", column 5:", "value is missing");
    check("a in 1,,2", ", column 8:", "value is missing");
    check("a in 1,", ", column 8:", "value is missing");
    check("a in \"x\" y", ", column 10:", "comma is missing");
    check("a=\"x", ", column 3:", "no end");
    check("a=\"\\q\"", ", column 3:", "escape");
    check("a=\"x\"y", ", column 6:", "something follows");
    check("a=>3", ", column 3:", "must be quoted");
    check("a exists 3", ", column 10:", "nothing follows");
    check("!a=3", ", column 3:", "nothing follows");
    check("$or=3", ", column 1:", "JSON form");
    check("_at>=yesterday", " (in \"_at>=yesterday\"): filter at /_at/$gte:", "2026-11-21");
    check("_foo=1", " (in", "unknown reserved field");
    check("a..b=1", " (in", "empty step");
}

/// The meaning of a filter, read off its JSON without compiling anything. Numbers are small.
fn interpret(filter: &Value, row: &Map<String, Value>) -> bool {
    let list = |v: &Value| v.as_array().expect("list").clone();
    filter.as_object().expect("object").iter().all(|(name, operand)| match name.as_str() {
        "$and" => list(operand).iter().all(|f| interpret(f, row)),
        "$or" => list(operand).iter().any(|f| interpret(f, row)),
        "$not" => !interpret(operand, row),
        field => operand.as_object().expect("operators").iter().all(|(operator, operand)| {
            let value = row.get(field);
            let equal = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => a == b,
            };
            let order = |v: &Value| match (v, operand) {
                (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
                (a, b) => a.as_f64()?.partial_cmp(&b.as_f64()?),
            };
            let among = |v: &Value| list(operand).iter().any(|o| equal(v, o));
            match (operator.as_str(), value) {
                ("$exists", value) => value.is_some() == (operand == true),
                ("$ne", value) => !value.is_some_and(|v| equal(v, operand)),
                ("$nin", value) => !value.is_some_and(among),
                (_, None) => false,
                ("$eq", Some(v)) => equal(v, operand),
                ("$in", Some(v)) => among(v),
                ("$gt", Some(v)) => order(v).is_some_and(|o| o.is_gt()),
                ("$gte", Some(v)) => order(v).is_some_and(|o| o.is_ge()),
                ("$lt", Some(v)) => order(v).is_some_and(|o| o.is_lt()),
                ("$lte", Some(v)) => order(v).is_some_and(|o| o.is_le()),
                ("$prefix", Some(v)) => {
                    v.as_str().is_some_and(|v| v.starts_with(operand.as_str().expect("text")))
                }
                ("$contains", Some(Value::Array(v))) => v.iter().any(|v| equal(v, operand)),
                ("$contains", Some(v)) => match (v.as_str(), operand.as_str()) {
                    (Some(v), Some(o)) => v.contains(o),
                    _ => false,
                },
                (operator, _) => panic!("{operator}"),
            }
        }),
    })
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-2..3_i64).prop_map(Value::from),
        (-4..5_i64).prop_map(|n| json!(n as f64 / 2.0)),
        "[ab]{0,2}".prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let comparable = scalar().prop_filter("ordered", |v| v.is_number() || v.is_string());
    let operators = prop_oneof![
        (prop::sample::select(vec!["$eq", "$ne", "$contains"]), scalar()),
        (prop::sample::select(vec!["$gt", "$gte", "$lt", "$lte"]), comparable),
        (
            prop::sample::select(vec!["$in", "$nin"]),
            prop::collection::vec(scalar(), 0..4).prop_map(Value::from)
        ),
        (Just("$exists"), any::<bool>().prop_map(Value::from)),
        (Just("$prefix"), "[ab]{0,2}".prop_map(Value::from)),
    ];
    (prop::sample::select(vec!["a", "b", "c"]), prop::collection::vec(operators, 1..3)).prop_map(
        |(field, operators)| {
            let operators: Map<_, _> =
                operators.into_iter().map(|(name, v)| (name.to_owned(), v)).collect();
            json!({ field: operators })
        },
    )
}

fn any_filter() -> impl Strategy<Value = Value> {
    condition().prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            list.clone().prop_map(|l| json!({ "$and": l })),
            list.clone().prop_map(|l| json!({ "$or": l })),
            inner.clone().prop_map(|f| json!({ "$not": f })),
            (inner, list).prop_map(|(f, l)| json!({ "$not": f, "$or": l })),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_the_interpreter(
        filter in any_filter(),
        other in any_filter(),
        rows in prop::collection::vec(prop::collection::btree_map(
            prop::sample::select(vec!["a", "b", "c"]),
            prop_oneof![4 => scalar(), 1 => prop::collection::vec(scalar(), 0..3).prop_map(Value::from)],
            0..4), 8),
    ) {
        let parsed = Filter::from_json(&filter).expect("valid");
        let joined = parsed.clone().and(Filter::from_json(&other).expect("valid"));
        let read_back = Filter::parse(&joined.to_string()).expect("own output");
        for row in rows {
            let row: Map<String, Value> =
                row.into_iter().map(|(name, v)| (name.to_owned(), v)).collect();
            let (a, b) = (interpret(&filter, &row), interpret(&other, &row));
            let row = Row::new(Value::Object(row));
            prop_assert_eq!(parsed.matches(&row), a, "{}", parsed);
            prop_assert_eq!(joined.matches(&row), a && b, "{}", joined);
            prop_assert_eq!(read_back.matches(&row), a && b, "{}", joined);
        }
    }

    #[test]
    fn no_text_makes_the_short_form_panic(text in "[a!=<>^~\"\\\\, \u{e9}in$_.0-9]{0,12}") {
        let _ = Filter::from_where(&[text]);
    }
}
