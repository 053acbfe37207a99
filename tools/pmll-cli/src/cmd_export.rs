//! `export`: a collection as `NAME.jsonl` and `NAME.npy`, which `import` takes back as it was.
//!
//! Entries come page by page in the order of (namespace, key); each is written as it comes, so that
//! memory stays that of a page. Both files are written under temporary names and renamed when they
//! are complete: a folder never holds half an export under a good name.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use pmll::{Element, Scan};
use pmll_cli::npy::NpyWriter;
use serde_json::{Value, json};

use crate::open::{self, Choice, Context, Place};
use crate::output::{Failure, Outcome};
use crate::record;

/// Write a collection to NAME.jsonl and NAME.npy
///
/// Attributes stand as they were beside `key` and `text`; everything else that can be put back
/// stands under `_pmll`. `pmll import` takes the files back without loss.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll export memory notes --out backup
  pmll import other notes --entries backup/notes.jsonl --vectors backup/notes.npy")]
pub struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// Folder for the files; made if it is missing
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    choice: Choice,
}

pub fn run(args: &ExportArgs, context: &Context) -> Outcome {
    let filter = args.choice.filter()?;
    let collection = args.place.read(context)?;
    let spec = collection.spec()?;
    std::fs::create_dir_all(&args.out)
        .map_err(|e| Failure::io(&format!("create {}", args.out.display()), &e))?;
    let stem = file_stem(&args.place.name);
    let jsonl = args.out.join(format!("{stem}.jsonl"));
    let npy = args.out.join(format!("{stem}.npy"));
    let (jsonl_tmp, npy_tmp) = (temporary(&jsonl), temporary(&npy));

    let io = |path: &Path, e: std::io::Error| Failure::io(&format!("write {}", path.display()), &e);
    let file = File::create(&jsonl_tmp).map_err(|e| io(&jsonl_tmp, e))?;
    let mut lines = BufWriter::with_capacity(64 << 10, file);
    let dim = spec.dim.map_or(0, |dim| dim as usize);
    let mut vectors = NpyWriter::create(&npy_tmp, dim, spec.element == Element::F16)?;

    let total = if filter.is_none() { Some(collection.count(None)?) } else { None };
    let bar = context.voice.bar(total, "exporting");
    let mut scan = Scan::new().with_vector(true);
    if let Some(filter) = filter {
        scan = scan.filter(filter);
    }
    let mut entries = 0u64;
    open::for_each(&collection, scan, |entry| {
        let row = match &entry.vector {
            None => None,
            Some(vector) => {
                let row = vectors.rows();
                vectors.push(vector)?;
                Some(row)
            }
        };
        let told = (entries == 0).then(|| record::collection_json(&spec));
        let line = Value::Object(record::to_line(&entry, row, told));
        writeln!(lines, "{line}").map_err(|e| io(&jsonl_tmp, e))?;
        entries += 1;
        bar.set_position(entries);
        Ok(true)
    })?;
    bar.finish_and_clear();
    let rows = vectors.rows();
    vectors.finish()?;
    lines
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(|e| io(&jsonl_tmp, e))?;
    for (from, to) in [(&npy_tmp, &npy), (&jsonl_tmp, &jsonl)] {
        std::fs::rename(from, to).map_err(|e| io(to, e))?;
    }
    let object = json!({
        "collection": args.place.name,
        "entries": entries,
        "vectors": rows,
        "files": [jsonl.to_string_lossy(), npy.to_string_lossy()],
    });
    context.voice.say(&object, || {
        format!(
            "exported {entries} entries ({rows} with a vector) to {} and {}",
            jsonl.display(),
            npy.display()
        )
    })
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// A collection's name as a file name: what could lead out of the folder, hide the file or not be
/// shown is written as %XX.
fn file_stem(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.chars().enumerate() {
        if matches!(c, '/' | '\\' | '%' | ':') || c.is_control() || (c == '.' && at == 0) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out += &format!("%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder() {
        assert_eq!(file_stem("notes"), "notes");
        assert_eq!(file_stem("../x"), "%2E.%2Fx");
        assert_eq!(file_stem("a%b\n"), "a%25b%0A");
        assert_eq!(file_stem("f\u{fc}r.alle"), "f\u{fc}r.alle");
    }
}
