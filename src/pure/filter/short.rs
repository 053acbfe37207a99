//! The short form of the command line: one clause such as `session>=3`, made into JSON.
//!
//! A clause is a field, an operator and a value; this file only splits it and decides what the
//! value is, then hands `{"session": {"$gte": 3}}` to the JSON form, which checks the meaning. So
//! there is one language, and whatever the short form cannot say, JSON can.
//!
//! A value is JSON where it reads as a number, `true`, `false`, `null` or a quoted string, and text
//! as it stands otherwise; quoting it makes anything a text. Two fields of work where guessing
//! would bite are closed: an empty value must be quoted, and so must one that begins with a
//! character of an operator (`a=>3` is a slip, not the text `>3`).

use serde_json::{Map, Value};

use crate::pure::filter::{Filter, Kind, Reserved};
use crate::words::error::{Error, Result};

/// Characters that end a field name and begin an operator.
const OPERATOR_CHARS: [char; 6] = ['=', '!', '>', '<', '^', '~'];

/// Longest first, so that `>=` is not read as `>`.
const OPERATORS: [(&str, &str); 9] = [
    ("==", "$eq"),
    ("!=", "$ne"),
    (">=", "$gte"),
    ("<=", "$lte"),
    ("^=", "$prefix"),
    ("=", "$eq"),
    (">", "$gt"),
    ("<", "$lt"),
    ("~", "$contains"),
];

/// Reads one clause; `index` counts from 0 and is told in errors from 1.
pub(super) fn clause(index: usize, text: &str) -> Result<Filter> {
    let (field, operator, operand) = split(text).map_err(|slip| {
        let column = text.get(..slip.at).unwrap_or(text).chars().count() + 1;
        Error::invalid(format!(
            "where clause {}, column {column}: {} (in {text:?})",
            index + 1,
            slip.what
        ))
    })?;
    let condition = Value::Object(Map::from_iter([(operator.to_owned(), operand)]));
    let json = Value::Object(Map::from_iter([(field, condition)]));
    Filter::from_json(&json).map_err(|error| {
        Error::new(
            error.kind(),
            format!("where clause {} (in {text:?}): {}", index + 1, error.message()),
        )
    })
}

/// What is wrong with a clause, and at which byte.
struct Slip {
    at: usize,
    what: &'static str,
}

/// The text of a clause and how far it has been read.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// A word that ends at a space or the end of the clause.
    fn take_word(&mut self, word: &str) -> bool {
        let found = self
            .rest()
            .strip_prefix(word)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if found {
            self.at += word.len();
            self.skip_spaces();
        }
        found
    }

    fn slip<T>(&self, what: &'static str) -> Result<T, Slip> {
        Err(Slip { at: self.at, what })
    }

    /// A JSON string; the scanner stands at its opening quote.
    fn quoted(&mut self) -> Result<String, Slip> {
        let mut escaped = false;
        let end = self.rest().char_indices().skip(1).find(|&(_, c)| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some((end, _)) = end else {
            return self.slip("a quoted text has no end");
        };
        let text = self.rest().get(..=end).unwrap_or_default();
        match serde_json::from_str(text) {
            Ok(string) => {
                self.at += text.len();
                Ok(string)
            }
            Err(_) => self.slip("a quoted text has an escape that JSON does not know"),
        }
    }

    /// A quoted text, or everything up to `end`.
    fn value(&mut self, end: Option<char>, kind: ValueKind) -> Result<Value, Slip> {
        self.skip_spaces();
        let rest = self.rest();
        if rest.starts_with('"') {
            let text = self.quoted()?;
            self.skip_spaces();
            return Ok(Value::String(text));
        }
        let stop = end.and_then(|end| rest.find(end)).unwrap_or(rest.len());
        let word = rest.get(..stop).unwrap_or_default().trim_end();
        if word.is_empty() {
            return self.slip("a value is missing; an empty text is written \"\"");
        }
        if end.is_none() && word.starts_with(OPERATOR_CHARS) {
            return self.slip("a value that begins like an operator must be quoted");
        }
        self.at += stop;
        Ok(kind.read(word))
    }
}

/// How an unquoted value is read.
#[derive(Clone, Copy, PartialEq)]
enum ValueKind {
    /// As JSON where it is a number, true, false or null.
    Scalar,
    /// As text always: names such as `_session`, and prefixes.
    Text,
}

impl ValueKind {
    fn read(self, word: &str) -> Value {
        let text = || Value::String(word.to_owned());
        if self == ValueKind::Text {
            return text();
        }
        match serde_json::from_str(word) {
            Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
            _ => text(),
        }
    }
}

fn split(text: &str) -> Result<(String, &'static str, Value), Slip> {
    let mut scanner = Scanner { text: text.trim_end(), at: 0 };
    scanner.skip_spaces();
    let absent = scanner.take("!");
    scanner.skip_spaces();
    let field = field(&mut scanner)?;
    scanner.skip_spaces();
    if absent {
        return match scanner.rest().is_empty() {
            true => Ok((field, "$exists", Value::Bool(false))),
            false => scanner.slip("nothing follows the field of a !field clause"),
        };
    }
    let kind = match Reserved::parse(&field) {
        Some(reserved) if reserved.kind() == Kind::Text => ValueKind::Text,
        _ => ValueKind::Scalar,
    };

    if scanner.take_word("exists") {
        return match scanner.rest().is_empty() {
            true => Ok((field, "$exists", Value::Bool(true))),
            false => scanner.slip("nothing follows exists"),
        };
    }
    if scanner.take_word("in") {
        return Ok((field, "$in", list(&mut scanner, kind)?));
    }
    if scanner.take_word("not") {
        if !scanner.take_word("in") {
            return scanner.slip("after not comes in");
        }
        return Ok((field, "$nin", list(&mut scanner, kind)?));
    }
    for (token, operator) in OPERATORS {
        if scanner.take(token) {
            let kind = if operator == "$prefix" { ValueKind::Text } else { kind };
            let value = scanner.value(None, kind)?;
            return match scanner.rest().is_empty() {
                true => Ok((field, operator, value)),
                false => scanner.slip("something follows a quoted text"),
            };
        }
    }
    scanner.slip("an operator is missing: = != > >= < <= ^= ~, in, not in or exists")
}

fn field(scanner: &mut Scanner<'_>) -> Result<String, Slip> {
    let start = scanner.at;
    let name = if scanner.rest().starts_with('"') {
        scanner.quoted()?
    } else {
        let rest = scanner.rest();
        let end = rest
            .find(|c: char| c.is_whitespace() || OPERATOR_CHARS.contains(&c))
            .unwrap_or(rest.len());
        scanner.at += end;
        rest.get(..end).unwrap_or_default().to_owned()
    };
    match name.chars().next() {
        None => Err(Slip { at: start, what: "a field name is missing" }),
        Some('$') => Err(Slip { at: start, what: "$ operators belong to the JSON form" }),
        Some(_) => Ok(name),
    }
}

fn list(scanner: &mut Scanner<'_>, kind: ValueKind) -> Result<Value, Slip> {
    let mut values = Vec::new();
    loop {
        values.push(scanner.value(Some(','), kind)?);
        if scanner.rest().is_empty() {
            return Ok(Value::Array(values));
        }
        if !scanner.take(",") {
            return scanner.slip("a comma is missing after a quoted text");
        }
    }
}
