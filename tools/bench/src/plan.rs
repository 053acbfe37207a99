//! What is compared with what: the subjects of every part, and who measures them.
//!
//! A subject that is asked for recall 0.95 is compared with pmll asked for 0.95; all others with
//! pmll as it comes.

use clap::ValueEnum;

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Ten nearest of all rows, one core
    Search,
    /// Ten nearest of one row in a hundred, by an attribute
    Filter,
    /// Durable single puts, 1 and 8 threads
    Puts,
    /// All passages in durable batches of 256
    Bulk,
    /// From process start to the first answer
    Open,
}

/// Who measures a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// This program, started anew.
    Here,
    /// `rivals.py`.
    Python,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub name: &'static str,
    pub by: By,
    /// The subject it is compared with.
    pub base: &'static str,
    /// What `build` is called with first, where an index is needed.
    pub build: Option<&'static str>,
}

/// Subjects that are measured in turn and share a table.
#[derive(Clone, Debug)]
pub struct Group {
    pub part: Part,
    pub title: String,
    pub work: &'static str,
    pub rows: usize,
    pub threads: usize,
    pub subjects: Vec<Subject>,
}

const fn here(name: &'static str, base: &'static str, build: &'static str) -> Subject {
    Subject { name, by: By::Here, base, build: Some(build) }
}

const fn python(name: &'static str, base: &'static str, build: &'static str) -> Subject {
    Subject { name, by: By::Python, base, build: Some(build) }
}

const fn engine(name: &'static str, by: By) -> Subject {
    Subject { name, by, base: "pmll", build: None }
}

const SEARCH: &[Subject] = &[
    here("pmll", "pmll", "pmll"),
    here("pmll-hot", "pmll", "pmll-hot"),
    here("pmll-20pc", "pmll", "pmll-20pc"),
    here("pmll-12pc", "pmll", "pmll-12pc"),
    here("pmll-codes", "pmll", "pmll"),
    python("faiss-pq4fs-refine", "pmll", "faiss-pq4fs-refine"),
    python("turbovec-4bit", "pmll", "turbovec-4bit"),
    python("faiss-hnsw-sq8-99", "pmll", "faiss-hnsw-sq8"),
    python("hnswlib-99", "pmll", "hnswlib"),
    here("usearch-bf16-99", "pmll", "usearch-bf16-99"),
    here("usearch-i8-99", "pmll", "usearch-i8-99"),
    here("pmll-95", "pmll-95", "pmll"),
    here("pmll-codes-95", "pmll-95", "pmll"),
    python("faiss-hnsw-sq8-95", "pmll-95", "faiss-hnsw-sq8"),
    python("hnswlib-95", "pmll-95", "hnswlib"),
    here("usearch-bf16-95", "pmll-95", "usearch-bf16-99"),
    here("usearch-i8-95", "pmll-95", "usearch-i8-99"),
];

/// Of more rows than there are passages: pmll alone, to show how it grows.
const SEARCH_MANY: &[Subject] = &[
    here("pmll-19pc", "pmll-19pc", "pmll-19pc"),
    here("pmll-19pc-95", "pmll-19pc-95", "pmll-19pc"),
    here("pmll-64m", "pmll-19pc", "pmll-64m"),
    here("pmll-64m-95", "pmll-19pc-95", "pmll-64m"),
];

/// Passages there are.
const PASSAGES: usize = 64_287;

const FILTER: &[Subject] =
    &[here("pmll", "pmll", "pmll-filter"), python("faiss-flat-bitmap", "pmll", "faiss-flat")];

const PUTS: &[Subject] = &[
    engine("pmll", By::Here),
    engine("raw", By::Here),
    engine("raw-group", By::Here),
    engine("fjall", By::Here),
    engine("sqlite", By::Here),
    engine("redb", By::Here),
    engine("lmdb", By::Python),
];

const BULK: &[Subject] = &[
    engine("pmll", By::Here),
    engine("pmll+compress", By::Here),
    engine("pmll-f16", By::Here),
    engine("fjall", By::Here),
    engine("sqlite", By::Here),
    engine("redb", By::Here),
    engine("lmdb", By::Python),
    engine("sqlite-vec", By::Python),
];

const OPEN: &[Subject] = &[
    here("pmll", "pmll", "pmll"),
    here("usearch-bf16-load", "pmll", "usearch-bf16-99"),
    here("usearch-bf16-view", "pmll", "usearch-bf16-99"),
    python("faiss-hnsw-sq8", "pmll", "faiss-hnsw-sq8"),
    python("faiss-pq4fs-refine", "pmll", "faiss-pq4fs-refine"),
];

/// Crates that only the feature `rivals` brings.
const BEHIND_FEATURE: &[&str] = &["fjall", "redb", "sqlite", "usearch"];

/// The groups of a part, with the subjects that can be measured.
pub fn groups(part: Part, rows: &[usize], with_python: bool) -> Vec<Group> {
    let group = |title: String, work, rows, threads, subjects: &[Subject]| {
        let subjects = subjects.iter().copied().filter(|s| is_here(*s, with_python)).collect();
        Group { part, title, work, rows, threads, subjects }
    };
    let each = |title: &str, work, subjects| {
        rows.iter()
            .map(|n| group(format!("{title}, {n} rows"), work, *n, 1, subjects))
            .collect::<Vec<_>>()
    };
    match part {
        Part::Search => {
            let subjects = |n: usize| if n > PASSAGES { SEARCH_MANY } else { SEARCH };
            let title = |n| format!("search, ten nearest, one core, {n} rows");
            rows.iter().map(|n| group(title(*n), "search", *n, 1, subjects(*n))).collect()
        }
        Part::Filter => each("search filtered to 1 % of the rows, one core", "filter", FILTER),
        Part::Open => each("open in a new process to the first answer", "open", OPEN),
        Part::Puts => [1, 8]
            .map(|n| group(format!("durable puts of 1736 B, {n} thread(s)"), "puts", 0, n, PUTS))
            .to_vec(),
        Part::Bulk => {
            let most = rows.iter().copied().max().unwrap_or_default();
            let title = format!("{most} rows with text in durable batches of 256, one core");
            vec![group(title, "bulk", most, 1, BULK)]
        }
    }
}

fn is_here(subject: Subject, with_python: bool) -> bool {
    let behind = BEHIND_FEATURE.iter().any(|name| subject.name.starts_with(name));
    match subject.by {
        By::Python => with_python,
        By::Here => cfg!(feature = "rivals") || !behind,
    }
}
