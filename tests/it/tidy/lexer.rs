//! Just enough of Rust's grammar to tell code from comments, strings and tests.
//!
//! [`code`] blanks comments and the inside of literals and keeps every line where it was, so that
//! a word in a comment is never taken for code. [`shipped`] blanks test items as well. [`tokens`]
//! cuts what is left into words and signs with their line numbers. Macros are not expanded: what
//! a macro writes is not seen.

/// A word (identifier, keyword, number) or one sign; `::` is one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// The source with comments and the contents of literals blanked out.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let skip = if rest.starts_with(b"//") {
            rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(len) = string(rest, at.checked_sub(1).map(|before| bytes[before])) {
            len
        } else if rest[0] == b'\'' {
            char_literal(rest)
        } else {
            0
        };
        if skip == 0 {
            out.push(rest[0]);
            at += 1;
        } else {
            out.extend(rest[..skip].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
            at += skip;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Length of the string literal that starts here: plain, raw, byte or C, or `None`.
fn string(rest: &[u8], before: Option<u8>) -> Option<usize> {
    if before.is_some_and(is_word) {
        return None;
    }
    let prefix = rest.iter().take(2).take_while(|b| b"bcr".contains(b)).count();
    let raw = rest[..prefix].contains(&b'r');
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') || (hashes > 0 && !raw) {
        return None;
    }
    let mut at = prefix + hashes + 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' if !raw => at += 2,
            b'"' if rest[at + 1..].iter().take_while(|&&b| b == b'#').count() >= hashes => {
                return Some(at + 1 + hashes);
            }
            _ => at += 1,
        }
    }
    Some(rest.len())
}

/// Length of the character literal that starts here; 0 for a lifetime.
fn char_literal(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(b'\\') => {
            let tail = rest.get(3..).unwrap_or_default();
            tail.iter().position(|&b| b == b'\'').map_or(rest.len(), |end| end + 4)
        }
        Some(&lead) => {
            let width = match lead {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        None => 0,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Words and signs of a text that went through [`code`].
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < bytes.len() {
        let end = if bytes[at] == b'\n' {
            line += 1;
            at += 1;
            continue;
        } else if bytes[at].is_ascii_whitespace() {
            at += 1;
            continue;
        } else if is_word(bytes[at]) {
            at + bytes[at..].iter().take_while(|&&b| is_word(b)).count()
        } else if bytes[at..].starts_with(b"::") {
            at + 2
        } else {
            at + 1
        };
        found.push(Token { text: &code[at..end], line });
        at = end;
    }
    found
}

/// Whether a whole file is test code, by its name or by an inner attribute.
pub(crate) fn is_test_file(path: &str, code: &str) -> bool {
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    stem == "tests"
        || stem.ends_with("_tests")
        || path.split('/').any(|folder| folder == "tests" || folder == "benches")
        || code.contains("#![cfg(test)]")
}

/// Files that `#[cfg(test)] mod name;` in this file makes test code: the paths, without `.rs`, under
/// which `name` may lie. `code` went through [`code`].
pub(crate) fn test_modules(path: &str, code: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let home = match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        file => format!("{folder}/{}", file.trim_end_matches(".rs")),
    };
    let tokens = tokens(code);
    let words: Vec<&str> = tokens.iter().map(|t| t.text).collect();
    words
        .windows(10)
        .filter(|w| w[..7] == ["#", "[", "cfg", "(", "test", ")", "]"] && w[7] == "mod")
        .filter(|w| w[9] == ";")
        .map(|w| format!("{home}/{}", w[8]))
        .collect()
}

/// What of a text that went through [`code`] is compiled into the product: items behind
/// `#[cfg(test)]` are blanked.
pub(crate) fn shipped(path: &str, code: &str) -> String {
    let mut out = code.to_owned();
    if is_test_file(path, code) {
        out.clear();
    }
    for mark in ["#[cfg(test)]", "#[cfg(all(test"] {
        while let Some(start) = out.find(mark) {
            let end = start + item_len(&out[start..]);
            let blank: String =
                out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            out.replace_range(start..end, &blank);
        }
    }
    out
}

/// Length of the item that starts here with an attribute: up to its closing brace, its semicolon,
/// or (a field or an arm) its comma.
fn item_len(text: &str) -> usize {
    let mut depth = 0_usize;
    // Whether a comma cannot be its end, and whether a brace cannot.
    let (mut is_item, mut to_semicolon) = (false, false);
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' if depth == 0 => return at,
            b'}' => {
                depth -= 1;
                if depth == 0 && !to_semicolon {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            b',' if depth == 0 && !is_item => return at + 1,
            _ if depth == 0 && is_word(byte) => {
                let word: String =
                    text[at..].chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
                match word.as_str() {
                    "use" | "const" | "static" | "let" => (is_item, to_semicolon) = (true, true),
                    "fn" | "impl" => (is_item, to_semicolon) = (true, false),
                    "struct" | "enum" | "trait" | "type" | "mod" => is_item = true,
                    _ => {}
                }
                at += word.len().max(1);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}
