//! Imports go down only, and siblings never meet.
//!
//! Every path that starts with `crate` or `super` is resolved to a module of the tree, also inside
//! groups (`use crate::{words::id, io::Disk}`) and in expressions, also in tests. What a macro
//! writes is not seen.

use crate::tidy::Findings;
use crate::tidy::lexer::{self, Token};

/// The floors, lowest first; modules of one floor may not import each other either.
const FLOORS: &[&[&str]] = &[
    &["words"],
    &["pure", "io"],
    &["bytes"],
    &["organs"],
    &["tiers"],
    &["verbs"],
    &["controller"],
    &["face"],
];

/// Folders whose direct modules do not know each other.
const SIBLINGS_APART: &[&str] = &["pure", "organs", "tiers", "verbs"];

/// Modules that exist to speak of their siblings: one carries records from tier to tier, one packs
/// what is archived into blocks, one groups its sketches, one keeps records of the tables when they
/// are archived, one asks a copy of any tier, one says where blocks have the codes of a group, one
/// has all caches, and one is a test of the whole pure floor. The others do not know each other.
const GO_BETWEENS: &[&str] = &[
    "tiers/mover",
    "tiers/packer",
    "tiers/grouper",
    "tiers/levels",
    "tiers/probe",
    "tiers/places",
    "tiers/caches",
    "pure/recall",
];

/// Tests that need what another module makes: what is vacuumed has been recovered before.
const TESTS_BETWEEN: &[&str] = &["src/verbs/vacuum/tests.rs"];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Findings for one file of `src/`; other files have none.
pub(crate) fn imports(path: &str, text: &str) -> Findings {
    let Some(inside) = path.strip_prefix("src/") else { return Findings::new() };
    let mut home: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    if matches!(home.last(), Some(&"mod" | &"lib")) {
        home.pop();
    }
    let Some(&top) = home.first() else { return Findings::new() };
    let Some(own) = floor(top) else {
        return vec![format!(
            "{path}:1: `{top}` has no floor: give it one in tests/it/tidy/imports.rs"
        )];
    };

    let code = lexer::code(text);
    let mut findings = Findings::new();
    for (line, target) in paths(&lexer::tokens(&code), &home) {
        let Some(there) = target.first() else { continue };
        let shown = target.join("::");
        match floor(there) {
            None => findings.push(format!(
                "{path}:{line}: crate::{shown} is the face of the crate: name the module it lives in"
            )),
            Some(floor) if floor > own => {
                findings.push(format!("{path}:{line}: crate::{shown} lies on a higher floor"));
            }
            Some(floor) if floor == own && *there != top => {
                findings.push(format!("{path}:{line}: crate::{shown} is beside this floor, not below"));
            }
            Some(_) => {
                let apart = *there == top
                    && SIBLINGS_APART.contains(&top)
                    && !TESTS_BETWEEN.contains(&path);
                if let (true, Some(mine), Some(theirs)) = (apart, home.get(1), target.get(1))
                    && mine != theirs
                    && !is_item(theirs)
                    && !GO_BETWEENS.contains(&format!("{top}/{mine}").as_str())
                {
                    findings.push(format!("{path}:{line}: crate::{shown} is a sibling of {mine}"));
                }
            }
        }
    }
    findings
}

/// Types and constants directly under a folder belong to the folder itself, not to a sibling.
fn is_item(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
}

/// All paths from the crate root that the tokens name, with their lines.
fn paths<'a>(tokens: &[Token<'a>], home: &[&'a str]) -> Vec<(usize, Vec<&'a str>)> {
    let mut found = Vec::new();
    // One entry for each open brace: the inline module it opens, if it does.
    let mut braces: Vec<Option<&str>> = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = |n: usize| tokens.get(at + n).map_or("", |t| t.text);
        match token.text {
            "{" => {
                let opens = at >= 2 && tokens[at - 2].text == "mod";
                braces.push(opens.then(|| tokens[at - 1].text));
            }
            "}" => {
                braces.pop();
            }
            "crate" if next(1) == "::" => {
                at = tree(tokens, at + 2, &[], &mut found);
                continue;
            }
            "super" if next(1) == "::" => {
                let mut base: Vec<&str> = home.to_vec();
                base.extend(braces.iter().flatten());
                while tokens.get(at).is_some_and(|t| t.text == "super")
                    && tokens.get(at + 1).is_some_and(|t| t.text == "::")
                {
                    base.pop();
                    at += 2;
                }
                at = tree(tokens, at, &base, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one path, or the group at its end, from `at`; returns where reading goes on.
fn tree<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    base: &[&'a str],
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let mut path = base.to_vec();
    let line = tokens.get(at).map_or(0, |t| t.line);
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t.text != "}") {
                    let from = at;
                    at = tree(tokens, at, &path, found);
                    // `as name` and the commas between.
                    while tokens.get(at).is_some_and(|t| !["}", ","].contains(&t.text)) {
                        at += 1;
                    }
                    if tokens.get(at).is_some_and(|t| t.text == ",") {
                        at += 1;
                    }
                    at = at.max(from + 1);
                }
                return at + 1;
            }
            "*" | "self" => {
                at += 1;
                break;
            }
            word if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
                path.push(word);
                at += 1;
                if tokens.get(at).is_none_or(|t| t.text != "::") {
                    break;
                }
                at += 1;
            }
            // A turbofish or a qualified path ends what names a module.
            _ => break,
        }
    }
    found.push((line, path));
    at
}
