//! Every rule bites: one offender and one innocent each.

use crate::tidy::imports::imports;
use crate::tidy::{lexer, rules};

#[track_caller]
fn bites(findings: &[String], lines: &[usize]) {
    let found: Vec<usize> = findings
        .iter()
        .map(|f| f.split(':').nth(1).and_then(|line| line.parse().ok()).unwrap_or(0))
        .collect();
    assert_eq!(found, lines, "{findings:#?}");
}

#[test]
fn an_import_upwards_is_found() {
    let up = "//! x\nuse crate::words::id::Key;\nuse crate::organs::wal::Wal;\n";
    bites(&imports("src/bytes/codec/op.rs", up), &[3]);
    bites(&imports("src/organs/wal/mod.rs", "use crate::bytes::codec::op;\n"), &[]);
    bites(&imports("src/words/id.rs", "fn f() { crate::io::join(); }\n"), &[1]);
    bites(
        &imports("src/words/id.rs", "// crate::io::join\nfn f(s: &str) { g(\"crate::io\"); }\n"),
        &[],
    );
}

#[test]
fn an_import_upwards_in_a_group_is_found() {
    let group =
        "use crate::{\n    words::{id::Key, error::Error as E},\n    verbs::search,\n    io,\n};\n";
    bites(&imports("src/organs/wal/mod.rs", group), &[3]);
    bites(&imports("src/face/store.rs", group), &[]);
}

#[test]
fn siblings_are_kept_apart() {
    bites(&imports("src/organs/wal/mod.rs", "use crate::organs::archive::Segment;\n"), &[1]);
    bites(&imports("src/organs/wal/reader.rs", "use super::super::archive::Segment;\n"), &[1]);
    bites(&imports("src/organs/wal/reader.rs", "use super::writer::Writer;\n"), &[]);
    bites(
        &imports(
            "src/organs/wal/mod.rs",
            "mod tests {\n    use super::*;\n    use super::reader;\n}\n",
        ),
        &[],
    );
    bites(
        &imports(
            "src/organs/wal/mod.rs",
            "mod tests {\n    use super::super::archive::Segment;\n}\n",
        ),
        &[2],
    );
    bites(&imports("src/pure/topk.rs", "use crate::pure::kernel::dot;\n"), &[1]);
    bites(
        &imports("src/tiers/hot.rs", "use crate::tiers::cold::Cold;\nuse crate::tiers::View;\n"),
        &[1],
    );
    bites(&imports("src/tiers/mover.rs", "use crate::tiers::cold::Cold;\n"), &[]);
    bites(&imports("src/words/entry.rs", "use crate::words::id::Key;\n"), &[]);
    bites(&imports("src/organs/mod.rs", "use crate::organs::wal::Wal;\n"), &[]);
}

#[test]
fn floors_beside_each_other_do_not_meet() {
    bites(&imports("src/pure/topk.rs", "use crate::io::Disk;\n"), &[1]);
    bites(&imports("src/io/file.rs", "use crate::pure::topk::TopK;\n"), &[1]);
}

#[test]
fn the_face_is_not_imported_and_a_new_folder_needs_a_floor() {
    bites(&imports("src/verbs/search/mod.rs", "use crate::Store;\n"), &[1]);
    bites(&imports("src/lib.rs", "pub use crate::face::Store;\n"), &[]);
    bites(&imports("src/misc/helpers.rs", "//! x\n"), &[1]);
    bites(&imports("tools/pmll-cli/src/main.rs", "use crate::Store;\n"), &[]);
}

#[test]
fn a_file_without_a_story_is_found() {
    bites(&rules::story("src/a.rs", "// not a story\n"), &[1]);
    bites(&rules::story("src/a.rs", "//! A story.\n"), &[]);
}

#[test]
fn a_long_file_is_found() {
    let long = "x\n".repeat(501);
    assert_eq!(rules::length("src/a.rs", &long).len(), 1);
    assert_eq!(rules::length("src/a.rs", &long[2..]).len(), 0);
    assert_eq!(rules::length("src/a/tests.rs", &long).len(), 0);
    assert_eq!(rules::length("src/a/tests.rs", &long.repeat(2)).len(), 1);
}

#[test]
fn a_wide_line_is_found() {
    let line = "x".repeat(121);
    bites(&rules::width("src/a.rs", &format!("ok\n{line}\n")), &[2]);
    bites(&rules::width("src/a.rs", &line[1..]), &[]);
}

#[test]
fn odd_characters_and_blanks_are_found() {
    bites(&rules::plain("src/a.rs", "ok\nna\u{ef}ve\n\tx\nx \n"), &[2, 3, 4]);
    bites(&rules::plain("src/a.rs", "no newline"), &[0]);
    bites(&rules::plain("src/a.rs", "two newlines\n\n"), &[0]);
    bites(&rules::plain("src/a.rs", "fine\n"), &[]);
}

#[test]
fn unsafe_code_is_found() {
    bites(&rules::unsafe_code("src/a.rs", "//! unsafe\nfn f() { unsafe { g() } }\n"), &[2]);
    bites(&rules::unsafe_code("src/a.rs", "#![deny(unsafe_code)]\nlet s = \"unsafe\";\n"), &[]);
}

#[test]
fn left_overs_are_found() {
    for word in ["todo", "unimplemented", "dbg"] {
        bites(&rules::left_over("src/a.rs", &format!("fn f() {{\n    {word}!()\n}}\n")), &[2]);
    }
    for mark in rules::MARKS {
        bites(&rules::left_over("src/a.rs", &format!("// {mark}: later\n")), &[1]);
        bites(&rules::left_over("src/a.rs", &format!("// {mark}S\n")), &[]);
    }
    bites(&rules::left_over("src/a.rs", "// no dbg! here\nlet todo = 1;\n"), &[]);
}

#[test]
fn unwrapping_is_found_outside_tests() {
    let text = "fn f() {\n    g().unwrap();\n    h().expect(\"h\");\n}\n";
    bites(&rules::unwrapping("src/a.rs", text), &[2, 3]);
    bites(&rules::unwrapping("tools/x/src/a.rs", text), &[2, 3]);
    bites(&rules::unwrapping("tests/it/a.rs", text), &[]);
    bites(&rules::unwrapping("src/a/tests.rs", text), &[]);
    let inside = format!("#[cfg(test)]\nmod tests {{\n{text}}}\nfn k() {{ l().unwrap() }}\n");
    bites(&rules::unwrapping("src/a.rs", &inside), &[8]);
    bites(
        &rules::unwrapping("src/a.rs", "f().unwrap_or(1); // .unwrap()\nself.expect(b'{')?;\n"),
        &[],
    );
}

#[test]
fn files_clocks_and_threads_away_from_home_are_found() {
    let text =
        "use std::fs;\nuse std::{io, fs::File};\nlet t = Instant::now();\nstd::thread::spawn(f);\n";
    bites(&rules::homes("src/organs/wal/mod.rs", text), &[1, 2, 3, 4]);
    bites(&rules::homes("src/io/file.rs", text), &[3, 4]);
    bites(&rules::homes("src/words/clock.rs", text), &[1, 2, 4]);
    bites(&rules::homes("src/controller/background.rs", text), &[1, 2, 3]);
    bites(&rules::homes("tools/pmll-cli/src/main.rs", text), &[]);
    bites(&rules::homes("src/organs/wal/mod.rs", "use std::io;\nuse rustix::fs::openat;\n"), &[]);
}

#[test]
fn an_ignored_test_without_a_reason_is_found() {
    bites(&rules::ignored("src/a.rs", "#[test]\n#[ignore]\nfn f() {}\n"), &[2]);
    bites(&rules::ignored("src/a.rs", "#[ignore = \"minutes: run with --ignored\"]\n"), &[]);
}

#[test]
fn a_dead_link_is_found() {
    let exists = |target: &str| ["docs/A.md", "README.md"].contains(&target);
    let text = "[a](A.md) [b](../README.md#top) [c](https://x.org) [d](#here)\n[e](B.md)\n";
    bites(&rules::links("docs/X.md", text, &exists), &[2]);
}

#[test]
fn the_lexer_tells_code_from_the_rest() {
    let text = "a /* b /* c */ d */ e 'f' '\\'' \"g \\\" h\" r#\"i \" j\"# b\"k\" <'l> 'm: //n\no";
    let code = lexer::code(text);
    let words: Vec<&str> = lexer::tokens(&code).iter().map(|t| t.text).collect();
    assert_eq!(words, ["a", "e", "<", "'", "l", ">", "'", "m", ":", "o"]);
    assert_eq!(code.lines().count(), 2);
    assert_eq!(code.len(), text.len());
}

#[test]
fn the_lexer_finds_the_end_of_a_test_item() {
    for (item, rest) in [
        ("#[cfg(test)]\nuse a::{b, c};", " x"),
        ("#[cfg(test)]\n#[allow(dead_code)]\nfn f<A, B>(a: [u8; 2]) -> u8 { { 1 } }", " x"),
        ("#[cfg(test)]\nconst fn f() {}", " x"),
        ("#[cfg(test)]\nconst N: S = S { a: 1 };", " x"),
        ("#[cfg(all(test, unix))]\nmod m;", " x"),
        ("#[cfg(test)]\nfield: Vec<u8>,", " x"),
    ] {
        let left = lexer::shipped("src/a.rs", &format!("{item}{rest}"));
        assert_eq!(left.trim(), "x", "{item}");
    }
}

#[test]
fn the_lexer_finds_files_of_tests() {
    let text = "#[cfg(test)]\nmod crash;\nmod real;\n#[cfg(test)]\nmod tests { }\n";
    assert_eq!(lexer::test_modules("src/a/mod.rs", text), ["src/a/crash"]);
    assert_eq!(lexer::test_modules("src/a/b.rs", text), ["src/a/b/crash"]);
    assert_eq!(lexer::test_modules("src/lib.rs", text), ["src/crash"]);
}
