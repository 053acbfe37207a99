//! The house rules as tests: `cargo test --test it tidy`.
//!
//! 1. `sources` walks the work tree and reads every file a person wrote.
//! 2. Each rule of `rules` and `imports` is a pure function of a path and a text, and answers with
//!    a list of findings, each of the form `path:line: what is wrong and what to do`.
//! 3. Every rule has a test in `teeth` that shows it one offender and one innocent, so that a rule
//!    which can no longer fail is noticed.
//!
//! Nothing here compiles or runs the code it reads, and nothing is written.

mod imports;
mod lexer;
mod rules;
mod teeth;

use std::path::{Path, PathBuf};

/// One finding: where, and what is wrong.
pub(crate) type Findings = Vec<String>;

/// A file of the work tree: its path from the root with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Folders that hold nothing a person wrote for this repository.
fn skipped(name: &str) -> bool {
    name == "target"
        || name == "scratch"
        || (name.starts_with('.') && name != ".ci" && name != ".github")
}

fn sources(suffixes: &[&str]) -> Vec<Source> {
    fn walk(folder: &Path, suffixes: &[&str], found: &mut Vec<Source>) {
        let mut entries: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                if !skipped(&name) {
                    walk(&path, suffixes, found);
                }
            } else if suffixes.iter().any(|suffix| name.ends_with(suffix)) {
                let text = std::fs::read_to_string(&path).unwrap();
                let relative = path.strip_prefix(root()).unwrap();
                let path = relative.to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), suffixes, &mut found);
    found
}

#[track_caller]
fn nothing_found(findings: Findings) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn check(suffixes: &[&str], rule: impl Fn(&str, &str) -> Findings) {
    let sources = sources(suffixes);
    assert!(!sources.is_empty(), "no file ends with {suffixes:?}: the walk is broken");
    nothing_found(sources.iter().flat_map(|s| rule(&s.path, &s.text)).collect());
}

/// Checks only what is compiled into the product.
fn check_shipped(rule: impl Fn(&str, &str) -> Findings) {
    let sources = sources(&[".rs"]);
    let tests: Vec<String> =
        sources.iter().flat_map(|s| lexer::test_modules(&s.path, &lexer::code(&s.text))).collect();
    let is_test = |path: &str| {
        tests.iter().any(|test| {
            path.strip_prefix(test.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    assert!(!tests.is_empty(), "no module of tests: the lexer is broken");
    nothing_found(
        sources.iter().filter(|s| !is_test(&s.path)).flat_map(|s| rule(&s.path, &s.text)).collect(),
    );
}

#[test]
fn imports_go_down_and_siblings_do_not_meet() {
    check(&[".rs"], imports::imports);
}

#[test]
fn every_source_opens_with_its_story() {
    check(&[".rs"], rules::story);
}

#[test]
fn no_source_is_longer_than_its_limit() {
    check(&[".rs"], rules::length);
}

#[test]
fn no_line_is_too_wide() {
    check(&[".rs"], rules::width);
}

#[test]
fn sources_are_ascii_and_end_with_one_newline() {
    check(&[".rs", ".toml", ".yml"], rules::plain);
}

#[test]
fn unsafe_stands_only_where_it_is_allowed() {
    check(&[".rs"], rules::unsafe_code);
}

#[test]
fn nothing_is_left_over() {
    check(&[".rs"], rules::left_over);
}

#[test]
fn nothing_unwraps_outside_tests() {
    check_shipped(rules::unwrapping);
}

#[test]
fn files_clocks_and_threads_have_one_home_each() {
    check_shipped(rules::homes);
}

#[test]
fn an_ignored_test_says_why() {
    check(&[".rs"], rules::ignored);
}

#[test]
fn links_between_pages_lead_somewhere() {
    check(&[".md"], |path, text| rules::links(path, text, &|target| root().join(target).exists()));
}
