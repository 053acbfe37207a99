//! The excerpt the demonstration lives on: passages, their embeddings, queries and the exact answers.
//!
//! It lies in `tests/data` of the repository and is read when it is needed, so that neither the
//! binary nor the published crate carries it. Where it is looked for: the folder given, `tests/data`
//! under the current folder, and the repository the binary was built from. When it is nowhere the
//! answer says so and what to do; nothing is made up in its place.

use std::path::{Path, PathBuf};

use pmll_cli::npy::NpyReader;

use super::Result;
use crate::output::Failure;

/// Answers per query in the table of truth.
pub const K: usize = 10;

/// The excerpt in memory, about 5 MB.
pub struct Data {
    /// Where it was found.
    pub folder: PathBuf,
    /// Passages, one for each row of `vectors`.
    pub passages: Vec<String>,
    /// Embeddings of the passages, all values exact in f16.
    pub vectors: Vec<Vec<f32>>,
    /// Embeddings of the queries.
    pub queries: Vec<Vec<f32>>,
    /// The exact ten nearest passages of each query.
    pub truth: Vec<Vec<usize>>,
}

impl Data {
    /// Reads the excerpt from `given`, or from where it usually is.
    pub fn load(given: Option<&Path>) -> Result<Data> {
        let folder = find(given)?;
        let file = |name: &str| folder.join(name);
        let text = std::fs::read_to_string(file("passages.txt"))
            .map_err(|e| Failure::io(&format!("read {}", file("passages.txt").display()), &e))?;
        let passages: Vec<String> = text.lines().map(str::to_owned).collect();
        let vectors = rows(&file("passages.f16.npy"))?;
        let queries = rows(&file("queries.f16.npy"))?;
        let truth = truth(&file("truth.i32.npy"), passages.len())?;
        let fits = vectors.len() == passages.len()
            && truth.len() == queries.len()
            && vectors.iter().chain(&queries).all(|v| v.len() == dim(&vectors));
        if passages.len() < 100 || queries.is_empty() || !fits {
            let message = format!("the files in {} do not fit together", folder.display());
            return Err(Failure::invalid(message));
        }
        Ok(Data { folder, passages, vectors, queries, truth })
    }

    /// Values of one embedding.
    pub fn dim(&self) -> usize {
        dim(&self.vectors)
    }
}

fn dim(vectors: &[Vec<f32>]) -> usize {
    vectors.first().map_or(0, Vec::len)
}

fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = given {
        return Ok(folder.to_owned());
    }
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data");
    let places = [PathBuf::from("tests/data"), built_from];
    let found = places.into_iter().find(|folder| folder.join("passages.f16.npy").is_file());
    found.map(|folder| folder.canonicalize().unwrap_or(folder)).ok_or_else(|| {
        Failure::not_found("the excerpt of tests/data in the repository is not here")
            .hint("run it in a clone, or name the folder with --data")
    })
}

fn rows(path: &Path) -> Result<Vec<Vec<f32>>> {
    let mut reader = NpyReader::open(path)?;
    (0..reader.rows()).map(|row| Ok(reader.row(row)?)).collect()
}

fn truth(path: &Path, passages: usize) -> Result<Vec<Vec<usize>>> {
    let mut reader = NpyReader::open(path)?;
    let mut all = Vec::new();
    for row in 0..reader.rows() {
        let numbers = reader.numbers(row)?;
        let best: Vec<usize> = numbers
            .iter()
            .filter_map(|&n| usize::try_from(n).ok())
            .filter(|&n| n < passages)
            .collect();
        if best.len() != K {
            let message = format!("{}: row {row} does not name {K} passages", path.display());
            return Err(Failure::invalid(message));
        }
        all.push(best);
    }
    Ok(all)
}
