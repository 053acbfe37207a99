//! The first memory: put two entries, find them by nearness, by filter and by key.
//!
//! `cargo run --example first_memory [-- DIR]`. Without a folder it uses a temporary one; with one,
//! run it twice: the second run finds what the first one put.

use pmll::{Draft, Filter, Query, Scan, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args().nth(1).map_or_else(|| temporary.path().join("memory"), Into::into);
    let store = Store::open(&dir)?;
    let notes = store.collection("notes")?;
    println!("{} holds {} entries", dir.display(), notes.count(None)?);

    // Any embedding model will do; these three numbers stand for its vector.
    let violin = Draft::text("Caroline plays the violin").vector([0.9, 0.1, 0.0]);
    notes.put("violin", violin.attr("speaker", "Caroline"))?;
    let paints = Draft::text("Melanie paints").vector([0.1, 0.9, 0.0]);
    notes.put("paints", paints.attr("speaker", "Melanie"))?;

    for hit in notes.search(Query::vector([0.8, 0.3, 0.1]).k(2))? {
        println!("{:.3}  {}", hit.score, hit.entry.text().unwrap_or("(bytes)"));
    }
    let melanie = Filter::parse(r#"{"speaker": "Melanie"}"#)?;
    for entry in notes.scan(Scan::new().filter(melanie))?.entries {
        println!("by filter: {} = {}", entry.key, entry.text().unwrap_or("(bytes)"));
    }
    if let Some(entry) = notes.get("violin")? {
        println!("by key: {} at version {}", entry.text().unwrap_or("(bytes)"), entry.version);
    }
    Ok(store.close()?)
}
