//! The rules that look at one file at a time. Each takes a path and a text, and touches nothing.

use crate::tidy::Findings;
use crate::tidy::lexer::{self, Token};

const LINES_MAX: usize = 500;
const TEST_LINES_MAX: usize = 800;
const WIDTH_MAX: usize = 120;

/// Files that may hold unsafe code, each with its reason.
const UNSAFE_ALLOWED: &[&str] = &[
    // Kernels of one instruction set each: their loads and stores, and the calls that a test of the
    // machine has made sound.
    // The map of a sealed file.
    "src/io/map.rs",
    "src/pure/kernel/mod.rs",
    "src/pure/kernel/avx2.rs",
    "src/pure/kernel/avx512.rs",
    "src/pure/kernel/neon.rs",
    "src/pure/quant/query.rs",
    "src/pure/quant/panel.rs",
    "src/pure/quant/brief.rs",
    "src/pure/quant/avx2.rs",
    "src/pure/quant/avx512.rs",
    "src/pure/quant/neon.rs",
    "src/pure/sketch/scorer.rs",
    "src/pure/topk/nth.rs",
    "src/pure/topk/reach.rs",
    "src/pure/sketch/avx2.rs",
    "src/pure/sketch/avx512.rs",
    "src/pure/sketch/neon.rs",
];

/// What may be named in one file only: the path as written, its home, and where to turn instead.
const HOMES: &[(&[&str], &str, &str)] = &[
    (&["std", "fs"], "src/io/file.rs", "take a `Disk`"),
    (&["SystemTime"], "src/words/clock.rs", "take a `Clock`"),
    (&["Instant"], "src/words/clock.rs", "take a `Clock`"),
    (&["thread", "spawn"], "src/controller/background.rs", "return work for the background thread"),
    (
        &["thread", "Builder"],
        "src/controller/background.rs",
        "return work for the background thread",
    ),
];

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Rule: the first line is `//!`.
pub(crate) fn story(path: &str, text: &str) -> Findings {
    match text.starts_with("//! ") {
        true => Findings::new(),
        false => vec![format!("{path}:1: open with `//!`: what this file is for")],
    }
}

/// Rule: 500 lines, 800 for a file of tests.
pub(crate) fn length(path: &str, text: &str) -> Findings {
    let tests = lexer::is_test_file(path, text);
    let (count, max) = (text.lines().count(), if tests { TEST_LINES_MAX } else { LINES_MAX });
    match count <= max {
        true => Findings::new(),
        false => vec![format!("{path}: {count} lines, at most {max}: find the second story in it")],
    }
}

/// Rule: 120 characters a line.
pub(crate) fn width(path: &str, text: &str) -> Findings {
    lines(text)
        .filter(|(_, line)| line.chars().count() > WIDTH_MAX)
        .map(|(n, line)| {
            format!("{path}:{n}: {} characters, at most {WIDTH_MAX}", line.chars().count())
        })
        .collect()
}

/// Rule: ASCII, no tabs, no trailing blanks, one newline at the end.
pub(crate) fn plain(path: &str, text: &str) -> Findings {
    let mut findings = Findings::new();
    for (n, line) in lines(text) {
        if let Some(c) = line.chars().find(|c| !c.is_ascii() || c.is_ascii_control()) {
            findings.push(format!("{path}:{n}: {}: write it as an escape", c.escape_unicode()));
        }
        if line.ends_with(' ') {
            findings.push(format!("{path}:{n}: blanks at the end of the line"));
        }
    }
    if !text.ends_with('\n') || text.ends_with("\n\n") {
        findings.push(format!("{path}: end with exactly one newline"));
    }
    findings
}

/// Rule: the keyword `unsafe` only in files of the allow-list.
pub(crate) fn unsafe_code(path: &str, text: &str) -> Findings {
    if UNSAFE_ALLOWED.contains(&path) {
        return Findings::new();
    }
    let code = lexer::code(text);
    lexer::tokens(&code)
        .iter()
        .filter(|token| token.text == "unsafe")
        .map(|token| format!("{path}:{}: unsafe outside its allow-list", token.line))
        .collect()
}

/// Rule: no half-done work, no debugging aids.
pub(crate) fn left_over(path: &str, text: &str) -> Findings {
    let mut findings = Findings::new();
    let code = lexer::code(text);
    for pair in lexer::tokens(&code).windows(2) {
        if ["todo", "unimplemented", "dbg"].contains(&pair[0].text) && pair[1].text == "!" {
            findings.push(format!("{path}:{}: left over: {}!", pair[0].line, pair[0].text));
        }
    }
    // The marks stand in comments, so they are looked for in the whole text.
    for (n, line) in lines(text) {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(mark) = words.find(|word| MARKS.contains(word)) {
            findings.push(format!("{path}:{n}: left over: {mark}"));
        }
    }
    findings
}

/// Written in two halves, so that this file passes its own rule.
pub(crate) const MARKS: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

/// Rule: no `.unwrap()` and no `.expect(` in what is shipped. A parser's own `self.expect(` is
/// another word.
pub(crate) fn unwrapping(path: &str, text: &str) -> Findings {
    if !is_product(path) {
        return Findings::new();
    }
    let code = lexer::shipped(path, &lexer::code(text));
    let tokens = lexer::tokens(&code);
    let mut findings = Findings::new();
    for (at, token) in tokens.iter().enumerate() {
        let word = |n: usize| tokens.get(n).map_or("", |t| t.text);
        let called = at > 0 && word(at - 1) == "." && word(at + 1) == "(";
        let own = at > 1 && word(at - 2) == "self";
        let panics = match token.text {
            "unwrap" => called && word(at + 2) == ")",
            "expect" => called && !own,
            _ => false,
        };
        if panics {
            findings.push(format!(
                "{path}:{}: .{}() may panic: return an error",
                token.line, token.text
            ));
        }
    }
    findings
}

/// Rule: files, clocks and threads are reached from one place each.
pub(crate) fn homes(path: &str, text: &str) -> Findings {
    if !path.starts_with("src/") {
        return Findings::new();
    }
    let code = lexer::shipped(path, &lexer::code(text));
    let tokens = lexer::tokens(&code);
    let mut findings = Findings::new();
    for (what, home, instead) in HOMES {
        if path == *home {
            continue;
        }
        for line in named(&tokens, what) {
            let shown = what.join("::");
            findings.push(format!("{path}:{line}: {shown} belongs to {home}: {instead}"));
        }
    }
    findings
}

/// Lines that name a path, written out (`std::fs`) or through a group (`std::{fs, io}`).
fn named(tokens: &[Token<'_>], path: &[&str]) -> Vec<usize> {
    let [head, rest @ ..] = path else { return Vec::new() };
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text != *head {
            continue;
        }
        let Some(next) = rest.first() else {
            found.push(token.line);
            continue;
        };
        let text = |n: usize| tokens.get(n).map_or("", |t| t.text);
        if text(at + 1) != "::" {
            continue;
        }
        if text(at + 2) == *next {
            found.push(token.line);
        } else if text(at + 2) == "{" {
            let mut depth = 0_usize;
            for inner in &tokens[at + 2..] {
                match inner.text {
                    "{" => depth += 1,
                    "}" if depth == 1 => break,
                    "}" => depth -= 1,
                    word if depth == 1 && word == *next => found.push(inner.line),
                    _ => {}
                }
            }
        }
    }
    found
}

/// Rule: `#[ignore]` carries its reason.
pub(crate) fn ignored(path: &str, text: &str) -> Findings {
    let code = lexer::code(text);
    let tokens = lexer::tokens(&code);
    tokens
        .windows(4)
        .filter(|w| {
            w[0].text == "#" && w[1].text == "[" && w[2].text == "ignore" && w[3].text != "="
        })
        .map(|w| format!("{path}:{}: #[ignore = \"why, and the command that runs it\"]", w[0].line))
        .collect()
}

/// Rule: a link to a file of the repository names one that exists.
pub(crate) fn links(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Findings {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Findings::new();
    for (n, line) in lines(text) {
        for piece in line.split("](").skip(1) {
            let Some((link, _)) = piece.split_once(')') else { continue };
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !exists(&joined(folder, target)) {
                findings.push(format!("{path}:{n}: {target} does not exist"));
            }
        }
    }
    findings
}

/// `target` seen from `folder`, with `..` resolved.
fn joined(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a file is part of what is shipped: the library or a tool.
fn is_product(path: &str) -> bool {
    path.starts_with("src/") || (path.starts_with("tools/") && path.contains("/src/"))
}
