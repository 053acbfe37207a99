//! The JSON form: checks a JSON object and compiles it.
//!
//! Whatever could be wrong with a filter is found here, once, and reported with its place as a
//! JSON pointer (RFC 6901: `/$or/1/session/$gte`). Steps: limit the depth before recursing over a
//! value of any origin; split members into `$and`, `$or`, `$not` and fields; for a field, tell
//! operators from a plain value; bring operands on reserved fields to the form `eval` compares.
//!
//! Strict where leniency would hide a mistake: an operand that can never match (a text for
//! `_pinned`, a date that is none, `$gt` with a list) is an error, not an empty answer.

use serde_json::{Map, Value};

use crate::pure::filter::value::Set;
use crate::pure::filter::{Field, Kind, Node, Order, Path, Reserved, Test, time};
use crate::words::error::{Error, Result};
use crate::words::id::Namespace;
use crate::words::limits;

const OPERATORS: &str =
    "$eq $ne $gt $gte $lt $lte $in $nin $exists $prefix $contains, or around filters $and $or $not";

/// Compiles a filter.
pub(super) fn filter(json: &Value) -> Result<Node> {
    let too_deep = match lone_and(json) {
        Some(list) => list.iter().any(|f| !fits(f, limits::JSON_DEPTH_MAX)),
        None => !fits(json, limits::JSON_DEPTH_MAX),
    };
    if too_deep {
        let limit = limits::JSON_DEPTH_MAX;
        return Err(Error::invalid(format!("a filter nests more than {limit} levels deep")));
    }
    object(json, &Place { parent: None, step: "" })
}

/// The filters that together are this one: the members of an `$and` that stands alone.
pub(super) fn into_conjuncts(json: Value) -> Vec<Value> {
    match json {
        Value::Object(mut map) if map.len() == 1 => match map.remove("$and") {
            Some(Value::Array(list)) => list,
            Some(other) => vec![Value::Object(Map::from_iter([("$and".to_owned(), other)]))],
            None => vec![Value::Object(map)],
        },
        other => vec![other],
    }
}

fn lone_and(json: &Value) -> Option<&Vec<Value>> {
    json.as_object().filter(|map| map.len() == 1)?.get("$and")?.as_array()
}

/// Whether a value nests at most this many arrays and objects. Looks no deeper than that.
fn fits(json: &Value, levels: usize) -> bool {
    match json {
        Value::Array(list) => levels > 0 && list.iter().all(|v| fits(v, levels - 1)),
        Value::Object(map) => levels > 0 && map.values().all(|v| fits(v, levels - 1)),
        _ => true,
    }
}

/// Where in the filter the parser stands. Made into text only when something is wrong there.
struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: &'a str,
}

impl<'a> Place<'a> {
    fn at(&'a self, step: &'a str) -> Place<'a> {
        Place { parent: Some(self), step }
    }

    fn pointer(&self) -> String {
        match self.parent {
            None => String::new(),
            Some(parent) => {
                let step = self.step.replace('~', "~0").replace('/', "~1");
                format!("{}/{step}", parent.pointer())
            }
        }
    }

    fn error(&self, message: impl std::fmt::Display) -> Error {
        match self.parent {
            None => Error::invalid(format!("filter: {message}")),
            Some(_) => Error::invalid(format!("filter at {}: {message}", self.pointer())),
        }
    }
}

fn object(json: &Value, place: &Place<'_>) -> Result<Node> {
    let Value::Object(members) = json else {
        return Err(place.error(format!("{} stands where a filter object must", shown(json))));
    };
    let mut nodes = Vec::with_capacity(members.len());
    for (name, operand) in members {
        let place = place.at(name);
        match name.as_str() {
            // An `$and` adds its members to the ones beside it: both mean "all of them".
            "$and" => nodes.extend(list_of_filters(operand, &place)?),
            "$or" => nodes.push(Node::Or(list_of_filters(operand, &place)?)),
            "$not" => nodes.push(Node::Not(Box::new(object(operand, &place)?))),
            _ if name.starts_with('$') => return Err(misplaced(name, &place)),
            _ => field(name, operand, &place, &mut nodes)?,
        }
    }
    match nodes.pop() {
        Some(only) if nodes.is_empty() => Ok(only),
        last => {
            nodes.extend(last);
            Ok(Node::And(nodes))
        }
    }
}

fn list_of_filters(operand: &Value, place: &Place<'_>) -> Result<Vec<Node>> {
    let Value::Array(list) = operand else {
        return Err(place.error(format!("takes a list of filters, not {}", shown(operand))));
    };
    if list.is_empty() {
        return Err(place.error("the list is empty; it takes at least one filter"));
    }
    list.iter().enumerate().map(|(i, f)| object(f, &place.at(&i.to_string()))).collect()
}

fn misplaced(name: &str, place: &Place<'_>) -> Error {
    match name {
        "$eq" | "$ne" | "$gt" | "$gte" | "$lt" | "$lte" | "$in" | "$nin" | "$exists"
        | "$prefix" | "$contains" => {
            place.error(format!("{name} stands under a field: {{\"field\": {{\"{name}\": ..}}}}"))
        }
        "$and" | "$or" | "$not" => {
            place.error(format!("{name} stands around filters, not under a field"))
        }
        _ => place.error(format!("unknown operator {name:?}; there are {OPERATORS}")),
    }
}

/// One member that is a field: a plain value to equal, or an object of operators.
fn field(name: &str, operand: &Value, place: &Place<'_>, nodes: &mut Vec<Node>) -> Result<()> {
    let field = field_name(name, place)?;
    let operators = match operand {
        Value::Object(map) if map.keys().any(|k| k.starts_with('$')) => map,
        plain => {
            let test = test(&field, "$eq", plain, place)?;
            nodes.push(Node::Test(field, test));
            return Ok(());
        }
    };
    for (operator, operand) in operators {
        let place = place.at(operator);
        if !operator.starts_with('$') {
            return Err(
                place.error("a name beside operators; an object to compare with stands under $eq")
            );
        }
        let test = test(&field, operator, operand, &place)?;
        nodes.push(Node::Test(field.clone(), test));
    }
    Ok(())
}

fn field_name(name: &str, place: &Place<'_>) -> Result<Field> {
    if name.starts_with('_') {
        return Reserved::parse(name).map(Field::Reserved).ok_or_else(|| {
            let known = Reserved::ALL.map(Reserved::name).join(" ");
            place.error(format!("unknown reserved field {name:?}; there are {known}"))
        });
    }
    if name.split('.').any(str::is_empty) {
        return Err(place.error(format!("field name {name:?} has an empty step")));
    }
    let steps = match name.contains('.') {
        true => name.split('.').map(Box::from).collect(),
        false => Box::default(),
    };
    Ok(Field::Attribute(Path { whole: name.into(), steps }))
}

fn test(field: &Field, operator: &str, operand: &Value, place: &Place<'_>) -> Result<Test> {
    let ordered =
        |order: Order| -> Result<Test> {
            refuse_for(field, operator, &[Kind::Flag], place)?;
            let operand = scalar(field, operand, place)?;
            match operand {
                Value::Number(_) | Value::String(_) => Ok(Test::Order(order, operand)),
                other => Err(place
                    .error(format!("{operator} takes a number or a text, not {}", shown(&other)))),
            }
        };
    match operator {
        "$eq" => Ok(Test::Equal(scalar(field, operand, place)?)),
        "$ne" => Ok(Test::NotEqual(scalar(field, operand, place)?)),
        "$gt" => ordered(Order::Greater),
        "$gte" => ordered(Order::GreaterOrEqual),
        "$lt" => ordered(Order::Less),
        "$lte" => ordered(Order::LessOrEqual),
        "$in" => Ok(Test::In(set(field, operator, operand, place)?)),
        "$nin" => Ok(Test::NotIn(set(field, operator, operand, place)?)),
        "$exists" => match operand {
            Value::Bool(wanted) => Ok(Test::Exists(*wanted)),
            other => Err(place.error(format!("$exists takes true or false, not {}", shown(other)))),
        },
        "$prefix" => {
            refuse_for(field, operator, &[Kind::Time, Kind::Tier, Kind::Flag], place)?;
            let Value::String(prefix) = operand else {
                return Err(place.error(format!("$prefix takes a text, not {}", shown(operand))));
            };
            match field {
                Field::Reserved(Reserved::Namespace) => {
                    let parent = Namespace::new(prefix).map_err(|e| place.error(e.message()))?;
                    Ok(Test::Under(parent))
                }
                _ => Ok(Test::Prefix(prefix.as_str().into())),
            }
        }
        "$contains" => {
            refuse_for(field, operator, &[Kind::Time, Kind::Tier, Kind::Flag], place)?;
            Ok(Test::Contains(scalar(field, operand, place)?))
        }
        other => Err(misplaced(other, place)),
    }
}

fn set(field: &Field, operator: &str, operand: &Value, place: &Place<'_>) -> Result<Set> {
    let Value::Array(list) = operand else {
        return Err(place.error(format!("{operator} takes a list, not {}", shown(operand))));
    };
    let values = list
        .iter()
        .enumerate()
        .map(|(i, v)| scalar(field, v, &place.at(&i.to_string())))
        .collect::<Result<Vec<_>>>()?;
    Ok(Set::new(values))
}

fn refuse_for(field: &Field, operator: &str, kinds: &[Kind], place: &Place<'_>) -> Result<()> {
    match field {
        Field::Reserved(reserved) if kinds.contains(&reserved.kind()) => {
            Err(place.error(format!("{} does not take {operator}", reserved.name())))
        }
        _ => Ok(()),
    }
}

/// An operand in the form it is compared in: as it is for attributes, checked and converted for
/// reserved fields.
fn scalar(field: &Field, operand: &Value, place: &Place<'_>) -> Result<Value> {
    let Field::Reserved(reserved) = field else {
        return Ok(operand.clone());
    };
    let name = reserved.name();
    if operand.is_null() {
        return Err(place.error(format!(
            "{name} is never null; for \"has none\" write {{\"{name}\": {{\"$exists\": false}}}}"
        )));
    }
    let takes = |what: &str| place.error(format!("{name} takes {what}, not {}", shown(operand)));
    match (reserved.kind(), operand) {
        (Kind::Text, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => Ok(operand.clone()),
        (Kind::Text, _) => Err(takes("a text")),
        (Kind::Flag, _) => Err(takes("true or false")),
        (Kind::Time, Value::Number(number)) if number.is_i64() => Ok(operand.clone()),
        (Kind::Time, Value::String(text)) => match time::parse(text) {
            Ok(time) => Ok(Value::from(time.0)),
            Err(why) => Err(place.error(format!("time {}: {why}", shown(operand)))),
        },
        (Kind::Time, _) => Err(takes("a time as text or as whole microseconds since 1970")),
        (Kind::Tier, _) => {
            let level = match operand {
                Value::Number(number) => number.as_u64().filter(|level| *level <= 2),
                Value::String(text) => match text.as_str() {
                    "L0" | "hot" => Some(0),
                    "L1" | "warm" => Some(1),
                    "L2" | "cold" => Some(2),
                    _ => None,
                },
                _ => None,
            };
            level.map(Value::from).ok_or_else(|| takes("0, 1, 2, L0, L1, L2, hot, warm or cold"))
        }
    }
}

/// A value for a message: its start, should it be long.
fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}..", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}
