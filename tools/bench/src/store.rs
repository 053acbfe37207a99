//! pmll itself, as a store to search in: building it, opening it, asking it.
//!
//! Stores are built of several shapes: `pmll` with a budget that has room for all and every row
//! packed to codes, `pmll-hot` with the same budget and every row exact in RAM, `pmll-20pc`, `pmll-12pc` and
//! `pmll-19pc` with a budget of so many per cent of the vectors as f32, `pmll-64m` with one of 64 MiB,
//! and `pmll-filter`, which is the first one with an attribute. `pmll-codes` asks the first one for scores of
//! codes. Vectors are f16, as the data is, and entries have their texts. Row `n` is the entry put as the
//! `n`-th, so that ids say rows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pmll::{
    Batch, Collection, CollectionSpec, CountAccess, Draft, Element, Exactness, Filter, Hits, Near,
    Options, Policy, Query, Store,
};

use crate::data::{CLASS, CLASSES};
use crate::{Outcome, data};

/// Entries of one durable batch.
pub const BATCH: usize = 256;
/// Codes of all passages and all sketches fit with much to spare.
pub const LARGE_BYTES: u64 = 512 << 20;
/// The smallest budget a store takes.
const BUDGET_BYTES_MIN: u64 = 1 << 20;
const COLLECTION: &str = "passages";

/// What a store may take.
#[derive(Clone, Copy, PartialEq)]
enum Budget {
    /// More than it needs.
    Large,
    /// Per cent of the vectors as f32.
    Percent(usize),
    /// So many bytes.
    Bytes(u64),
}

/// One way of holding and asking pmll.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Folder of the store in the state folder; shapes share one.
    pub folder: &'static str,
    /// Recall that is asked of a search.
    pub target: f32,
    /// Whether scores by codes do.
    by_codes: bool,
    /// What the store may take.
    budget: Budget,
    /// Whether rows have their class, and are asked for by it.
    filtered: bool,
    /// Whether rows stay exact in RAM as long as there is room, as they do where nobody packs them.
    is_hot: bool,
}

impl Shape {
    /// The shape of a subject of a work, if it is pmll.
    pub fn of(work: &str, subject: &str) -> Option<Shape> {
        let usual = Shape {
            folder: "pmll",
            target: 0.99,
            by_codes: false,
            budget: Budget::Large,
            filtered: false,
            is_hot: false,
        };
        let of_percent = |folder, n| Shape { folder, budget: Budget::Percent(n), ..usual };
        let small = Shape { folder: "pmll-64m", budget: Budget::Bytes(64 << 20), ..usual };
        match (work, subject) {
            ("filter", "pmll") => Some(Shape { folder: "pmll-filter", filtered: true, ..usual }),
            (_, "pmll") => Some(usual),
            (_, "pmll-hot") => Some(Shape { folder: "pmll-hot", is_hot: true, ..usual }),
            (_, "pmll-codes") => Some(Shape { by_codes: true, ..usual }),
            (_, "pmll-95") => Some(Shape { target: 0.95, ..usual }),
            (_, "pmll-codes-95") => Some(Shape { target: 0.95, by_codes: true, ..usual }),
            (_, "pmll-12pc") => Some(of_percent("pmll-12pc", 12)),
            (_, "pmll-20pc") => Some(of_percent("pmll-20pc", 20)),
            (_, "pmll-19pc") => Some(of_percent("pmll-19pc", 19)),
            (_, "pmll-19pc-95") => Some(Shape { target: 0.95, ..of_percent("pmll-19pc", 19) }),
            (_, "pmll-64m") => Some(small),
            (_, "pmll-64m-95") => Some(Shape { target: 0.95, ..small }),
            (_, "pmll-filter") => Some(Shape { folder: "pmll-filter", filtered: true, ..usual }),
            _ => None,
        }
    }

    fn budget_bytes(self, rows: usize, dim: usize) -> u64 {
        match self.budget {
            Budget::Percent(n) => ((rows * dim * 4 * n / 100) as u64).max(BUDGET_BYTES_MIN),
            Budget::Bytes(bytes) => bytes,
            Budget::Large => LARGE_BYTES,
        }
    }

    fn options(self, rows: usize, dim: usize) -> Options {
        let budget_bytes = Some(self.budget_bytes(rows, dim));
        // The compressor runs in the calling thread: figures do not depend on luck. What reads rows back
        // into RAM after an open is the background thread.
        Options { budget_bytes, background: self.is_hot, ..Options::default() }
    }

    /// Fills a new store and packs it.
    pub fn build(self, data: &Path, path: &Path, rows: usize) -> Outcome<()> {
        let (vectors, texts) = (data::passages(data, rows)?, data::texts(data, rows)?);
        let dim = vectors.first().map_or(0, Vec::len);
        // Whatever is to be made is made before it closes.
        let options = Options { background: false, ..self.options(rows, dim) };
        let store = Store::builder(path).options(options).open()?;
        let spec = CollectionSpec::new().element(Element::F16);
        let collection = store.collection_with(COLLECTION, spec)?;
        let all: Vec<_> = vectors.iter().zip(&texts).enumerate().collect();
        for chunk in all.chunks(BATCH) {
            let mut batch = Batch::new();
            for (row, (vector, text)) in chunk {
                let mut draft = Draft::text(text.as_str()).vector(vector.as_slice());
                if self.filtered {
                    draft = draft.attr("c", (row % CLASSES) as u64);
                }
                batch = batch.put(&collection, row.to_string(), draft);
            }
            store.write(batch)?;
        }
        // `Paper` packs codes whatever the budget says: `Watermark` would keep all in RAM, and so do the
        // usual rules with a fifth of the entries.
        let is_packed = self.budget == Budget::Large && !self.is_hot;
        if is_packed {
            store.set_setting("rho", 1e-6.into())?;
        }
        store.compress_with(if is_packed { Policy::Paper } else { Policy::Watermark })?;
        drop(collection);
        Ok(store.close()?)
    }

    /// Opens what was built.
    pub fn open(self, state: &Path, rows: usize, dim: usize) -> Outcome<Opened> {
        let path = state.join(self.folder);
        let options = Options { create: false, ..self.options(rows, dim) };
        let store = Store::builder(&path).options(options).open()?;
        let collection = store.collection(COLLECTION)?;
        while self.is_hot && store.stats()?.tiers[0].resident < rows as u64 {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Opened { shape: self, path, store, collection, class: class_filter()? })
    }
}

fn class_filter() -> Outcome<Filter> {
    Ok(Filter::parse(&format!(r#"{{"c": {CLASS}}}"#))?)
}

/// A store that is ready to be asked.
pub struct Opened {
    shape: Shape,
    pub path: PathBuf,
    store: Store,
    collection: Collection,
    class: Filter,
}

impl Opened {
    /// The query in the form that the store takes. A search counts no access: nothing that is
    /// asked may change what the next one finds.
    pub fn ready(&self, vector: &[f32]) -> Query {
        let Shape { target, by_codes, .. } = self.shape;
        let exactness = if by_codes { Exactness::Codes(target) } else { Exactness::Target(target) };
        let query = Query::vector(vector)
            .k(data::K)
            .exactness(exactness)
            .with_payload(false)
            .count_access(CountAccess::None);
        if self.shape.filtered { query.filter(self.class.clone()) } else { query }
    }

    pub fn ask(&self, query: Query) -> Outcome<Hits<Near>> {
        Ok(self.collection.search_ids(query)?)
    }

    /// The rows of an answer: ids start at 1, in the order of the puts.
    pub fn rows(hits: &Hits<Near>) -> Vec<i64> {
        hits.iter().map(|hit| hit.id.0 as i64 - 1).collect()
    }

    /// Checks that every row is there, and says on which level.
    pub fn check(&self, rows: usize) -> Outcome<String> {
        let count = self.collection.count(None)?;
        if count != rows as u64 {
            return Err(format!("{rows} rows were put, {count} are there").into());
        }
        let stats = self.store.stats()?;
        let [hot, warm, cold] = stats.tiers.map(|tier| tier.entries);
        if self.shape.budget == Budget::Large && cold != 0 {
            return Err(format!("{cold} rows are cold in a store that has room for all").into());
        }
        Ok(format!(
            "hot {hot}, warm {warm}, cold {cold}; counted {:.1} MiB",
            stats.counted_bytes as f64 / (1 << 20) as f64
        ))
    }

    pub fn close(self) -> Outcome<()> {
        drop(self.collection);
        Ok(self.store.close()?)
    }
}
