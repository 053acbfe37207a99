//! Filters: which entries a search, a scan or a count looks at, said in one small language.
//!
//! Two written forms, one meaning. The JSON form (`parse`) is the language; the short form of the
//! command line (`short`) is translated into it clause by clause, so that neither can mean
//! something the other does not. A filter is checked once, when it is read: operators, reserved
//! fields, types of operands, times, depth. Evaluating it (`eval`) then cannot fail and answers
//! yes or no for one entry, in two-valued logic: a missing field or a value of another type makes a
//! condition false, and `$ne` and `$nin` true.
//!
//! The steps: [`Filter::from_json`] checks and compiles; [`Filter::needs`] says which parts of an
//! entry have to be decoded; [`Filter::matches`] asks them through [`Fields`] and nothing else.
//!
//! It never reads a clock (there is no "now" in a filter), never decodes an entry, never guesses:
//! what it does not know is an error that names the place. It plans nothing either: an index
//! may narrow down the rows to look at, and the filter is still asked for every one of them.

mod eval;
mod parse;
mod short;
#[cfg(test)]
mod tests;
mod time;
mod value;

use std::fmt;

use serde_json::{Map, Value};

use crate::words::error::{Error, Result};
use crate::words::id::{Namespace, Timestamp};
use crate::words::tier::Tier;

/// A checked condition on entries: their attributes and their reserved fields.
///
/// The JSON form is an object; every member is one condition and all of them must hold. A member
/// is `"field": value` (equal), `"field": {"$operator": operand, ..}` or one of `"$and": [..]`,
/// `"$or": [..]`, `"$not": {..}`. Field operators: `$eq $ne $gt $gte $lt $lte $in $nin $exists
/// $prefix $contains`. A dotted name walks into objects. Names that begin with `_` are reserved:
/// `_key _ns _at _created _updated _last_access _tier _pinned _session _expires`.
///
/// ```
/// use pmll::Filter;
/// let json = Filter::parse(r#"{"conv": "c26", "session": {"$gte": 3}}"#)?;
/// let short = Filter::from_where(&["conv=c26", "session>=3"])?;
/// assert_eq!(short.to_string(), r#"{"$and":[{"conv":{"$eq":"c26"}},{"session":{"$gte":3}}]}"#);
///
/// let error = Filter::parse(r#"{"session": {"$from": 3}}"#).unwrap_err();
/// assert!(error.message().contains("/session/$from"));
/// # let _ = json;
/// # Ok::<(), pmll::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Filter {
    /// The JSON form, as it was given; what `Display` prints.
    json: Value,
    node: Node,
    needs: Needs,
}

impl Filter {
    /// The filter that every entry passes: `{}`.
    #[must_use]
    pub fn all() -> Filter {
        Filter {
            json: Value::Object(Map::new()),
            node: Node::And(Vec::new()),
            needs: Needs::default(),
        }
    }

    /// Checks a filter in JSON form. Nesting is limited to 16 levels, not counting one `$and`
    /// that stands alone at the root.
    ///
    /// # Errors
    /// `Invalid` on an unknown operator or reserved field, an operand of a type its operator or
    /// field cannot take, an unreadable time or too many levels; the message has the place as a
    /// JSON pointer, such as `/$or/1/session/$gte`.
    pub fn from_json(json: &Value) -> Result<Filter> {
        let node = parse::filter(json)?;
        let mut needs = Needs::default();
        node.add_needs(&mut needs);
        Ok(Filter { json: json.clone(), node, needs })
    }

    /// Reads the JSON form from text.
    ///
    /// # Errors
    /// `Invalid` when it is not JSON (with line and column), and as [`Filter::from_json`].
    pub fn parse(text: &str) -> Result<Filter> {
        let json: Value = serde_json::from_str(text)
            .map_err(|e| Error::invalid(format!("a filter is not a JSON object: {e}")))?;
        Filter::from_json(&json)
    }

    /// Reads clauses in the short form; all of them must hold, none at all is [`Filter::all`].
    ///
    /// Clauses: `field=value != > >= < <=`, `field^=text` (prefix), `field~value` (contains),
    /// `field in A,B`, `field not in A,B`, `field exists`, `!field`. A value that is a JSON number,
    /// `true`, `false`, `null` or a quoted JSON string is that, anything else is text as it stands.
    ///
    /// ```
    /// use pmll::Filter;
    /// let filter = Filter::from_where(&["speaker in Caroline,\"Melanie, Jr\"", "_at>=2023-05-08"])?;
    /// assert!(Filter::from_where(&["speaker in"]).is_err());
    /// # let _ = filter;
    /// # Ok::<(), pmll::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid`, naming the clause and the column in it.
    pub fn from_where<S: AsRef<str>>(clauses: &[S]) -> Result<Filter> {
        let mut all = Filter::all();
        for (index, clause) in clauses.iter().enumerate() {
            all = all.and(short::clause(index, clause.as_ref())?);
        }
        Ok(all)
    }

    /// Both filters must hold.
    #[must_use]
    pub fn and(self, other: Filter) -> Filter {
        if self.is_all() {
            return other;
        }
        if other.is_all() {
            return self;
        }
        // Root `$and`s are joined rather than nested, so that a long chain stays flat: evaluation
        // recurses once per level, and `to_json` must stay readable by `from_json`.
        let mut list = parse::into_conjuncts(self.json);
        list.extend(parse::into_conjuncts(other.json));
        let json = Value::Object(Map::from_iter([("$and".to_owned(), Value::Array(list))]));
        let mut nodes = self.node.into_conjuncts();
        nodes.extend(other.node.into_conjuncts());
        Filter { json, node: Node::And(nodes), needs: self.needs.or(other.needs) }
    }

    /// Whether it is `{}`, which every entry passes.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(&self.node, Node::And(nodes) if nodes.is_empty())
    }

    /// The JSON form; [`Filter::from_json`] reads it back.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.json.clone()
    }

    /// Whether this entry passes. Asks `fields` only for what [`Filter::needs`] names.
    pub(crate) fn matches<F: Fields + ?Sized>(&self, fields: &F) -> bool {
        eval::matches(&self.node, fields)
    }

    /// Which parts of an entry [`Filter::matches`] may ask for.
    pub(crate) fn needs(&self) -> Needs {
        self.needs
    }
}

impl Default for Filter {
    fn default() -> Self {
        Filter::all()
    }
}

impl PartialEq for Filter {
    /// Same JSON form. Two filters that mean the same may still differ.
    fn eq(&self, other: &Filter) -> bool {
        self.json == other.json
    }
}

impl fmt::Display for Filter {
    /// Compact JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.json)
    }
}

/// What an entry answers a filter with. The caller decodes no more than [`Filter::needs`] says.
pub trait Fields {
    /// The attributes; `None` counts as an empty object.
    fn attributes(&self) -> Option<&Map<String, Value>>;
    /// A reserved field; `None` when the entry has none (no session, no expiry).
    fn reserved(&self, field: Reserved) -> Option<FieldValue<'_>>;
}

/// The value of a reserved field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// Key, namespace or session, as bytes: a key need not be UTF-8.
    Bytes(&'a [u8]),
    /// A moment.
    Time(Timestamp),
    /// The tier the entry is answered from.
    Tier(Tier),
    /// A yes or no.
    Flag(bool),
}

/// A field that every entry has by itself, apart from its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reserved {
    /// `_key`.
    Key,
    /// `_ns`: the namespace; `$prefix` goes by whole path segments.
    Namespace,
    /// `_at`: event time.
    At,
    /// `_created`: time of the first write.
    Created,
    /// `_updated`: time of the last write.
    Updated,
    /// `_last_access`: time of the last counted access.
    LastAccess,
    /// `_tier`: 0, 1 or 2.
    Tier,
    /// `_pinned`.
    Pinned,
    /// `_session`.
    Session,
    /// `_expires`: when it hides.
    Expires,
}

/// What a reserved field holds, and so what it may be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Time,
    Tier,
    Flag,
}

impl Reserved {
    /// All of them, in the order messages list them.
    pub const ALL: [Reserved; 10] = [
        Reserved::Key,
        Reserved::Namespace,
        Reserved::At,
        Reserved::Created,
        Reserved::Updated,
        Reserved::LastAccess,
        Reserved::Tier,
        Reserved::Pinned,
        Reserved::Session,
        Reserved::Expires,
    ];

    /// The name in a filter, with its underscore.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reserved::Key => "_key",
            Reserved::Namespace => "_ns",
            Reserved::At => "_at",
            Reserved::Created => "_created",
            Reserved::Updated => "_updated",
            Reserved::LastAccess => "_last_access",
            Reserved::Tier => "_tier",
            Reserved::Pinned => "_pinned",
            Reserved::Session => "_session",
            Reserved::Expires => "_expires",
        }
    }

    fn parse(name: &str) -> Option<Reserved> {
        Reserved::ALL.into_iter().find(|r| r.name() == name)
    }

    fn kind(self) -> Kind {
        match self {
            Reserved::Key | Reserved::Namespace | Reserved::Session => Kind::Text,
            Reserved::At
            | Reserved::Created
            | Reserved::Updated
            | Reserved::LastAccess
            | Reserved::Expires => Kind::Time,
            Reserved::Tier => Kind::Tier,
            Reserved::Pinned => Kind::Flag,
        }
    }
}

/// Which parts of an entry a filter looks at. Times (but for the last access) and the pin stand
/// in every row and cost nothing, so they are not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The attributes have to be parsed.
    pub attributes: bool,
    /// Key, namespace or session have to be decoded.
    pub key_or_ns_or_session: bool,
    /// The last access time has to be looked up.
    pub last_access: bool,
    /// The tier has to be known.
    pub tier: bool,
}

impl Needs {
    fn or(self, other: Needs) -> Needs {
        Needs {
            attributes: self.attributes || other.attributes,
            key_or_ns_or_session: self.key_or_ns_or_session || other.key_or_ns_or_session,
            last_access: self.last_access || other.last_access,
            tier: self.tier || other.tier,
        }
    }
}

/// The compiled filter. `And` of nothing is true; `Or` of nothing does not get past the parser.
#[derive(Clone, Debug)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Test(Field, Test),
}

impl Node {
    fn into_conjuncts(self) -> Vec<Node> {
        match self {
            Node::And(nodes) => nodes,
            other => vec![other],
        }
    }

    fn add_needs(&self, needs: &mut Needs) {
        match self {
            Node::And(nodes) | Node::Or(nodes) => nodes.iter().for_each(|n| n.add_needs(needs)),
            Node::Not(node) => node.add_needs(needs),
            Node::Test(Field::Attribute(_), _) => needs.attributes = true,
            Node::Test(Field::Reserved(reserved), _) => match reserved {
                Reserved::Key | Reserved::Namespace | Reserved::Session => {
                    needs.key_or_ns_or_session = true;
                }
                Reserved::LastAccess => needs.last_access = true,
                Reserved::Tier => needs.tier = true,
                _ => {}
            },
        }
    }
}

#[derive(Clone, Debug)]
enum Field {
    Attribute(Path),
    Reserved(Reserved),
}

/// A name of an attribute. With dots it is first looked for as it stands, then step by step.
#[derive(Clone, Debug)]
struct Path {
    whole: Box<str>,
    /// Empty when there is no dot.
    steps: Box<[Box<str>]>,
}

/// One condition. Operands on reserved fields were made comparable by the parser: times are
/// integer microseconds, tiers are levels.
#[derive(Clone, Debug)]
enum Test {
    Equal(Value),
    NotEqual(Value),
    Order(Order, Value),
    In(value::Set),
    NotIn(value::Set),
    Exists(bool),
    Prefix(Box<str>),
    Under(Namespace),
    Contains(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}
