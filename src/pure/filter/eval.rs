//! Evaluating a checked filter on one entry: yes or no, without errors and without allocation.
//!
//! Two-valued: a condition on a missing field or on a value of another type is false, except for
//! `$ne`, `$nin` and `$exists: false`; `$not` turns whatever stands below it around. Conditions are
//! asked in the order they were written and the first that decides ends it, so a caller that puts
//! the cheap ones first is paid for it.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::pure::filter::value::View;
use crate::pure::filter::{Field, Fields, Node, Order, Path, Test};

pub(super) fn matches<F: Fields + ?Sized>(node: &Node, fields: &F) -> bool {
    match node {
        Node::And(nodes) => nodes.iter().all(|node| matches(node, fields)),
        Node::Or(nodes) => nodes.iter().any(|node| matches(node, fields)),
        Node::Not(node) => !matches(node, fields),
        Node::Test(Field::Reserved(reserved), test) => {
            holds(test, fields.reserved(*reserved).map(View::from))
        }
        Node::Test(Field::Attribute(path), test) => {
            let value = fields.attributes().and_then(|attributes| find(attributes, path));
            holds(test, value.map(View::Json))
        }
    }
}

fn holds(test: &Test, value: Option<View<'_>>) -> bool {
    let Some(value) = value else {
        return matches!(test, Test::NotEqual(_) | Test::NotIn(_) | Test::Exists(false));
    };
    match test {
        Test::Equal(operand) => value.equals(operand),
        Test::NotEqual(operand) => !value.equals(operand),
        Test::Order(order, operand) => {
            value.order(operand).is_some_and(|ordering| order.accepts(ordering))
        }
        Test::In(set) => set.has(value),
        Test::NotIn(set) => !set.has(value),
        Test::Exists(wanted) => *wanted,
        Test::Prefix(prefix) => value.bytes().is_some_and(|b| b.starts_with(prefix.as_bytes())),
        Test::Under(parent) => value.bytes().is_some_and(|path| {
            parent.is_root()
                || path
                    .strip_prefix(parent.as_str().as_bytes())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        }),
        Test::Contains(operand) => value.contains(operand),
    }
}

impl Order {
    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
        }
    }
}

/// The value at a path. A member whose name is the whole path, dots and all, comes first: imported
/// attributes have such names, and a filter that shows no match for them would look like a bug.
fn find<'a>(attributes: &'a Map<String, Value>, path: &Path) -> Option<&'a Value> {
    if let Some(value) = attributes.get(&*path.whole) {
        return Some(value);
    }
    let (first, rest) = path.steps.split_first()?;
    rest.iter().try_fold(attributes.get(&**first)?, |value, step| value.as_object()?.get(&**step))
}
