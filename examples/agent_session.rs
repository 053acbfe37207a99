//! An agent's session: turns go in without waiting for the disk, one batch is atomic, a fact is
//! updated only if nobody else did, and a retried request is applied once.
//!
//! `cargo run --example agent_session`

use pmll::{Batch, Draft, ErrorKind, Filter, Patch, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path().join("memory"))?;
    let turns = store.collection("turns")?;
    let facts = store.collection("facts")?;

    // Turns are submitted as they come; the promises are awaited once, at the end of the session.
    let mut promises = Vec::new();
    for (number, text) in ["Hello", "My cat is called Miso", "She is three"].iter().enumerate() {
        let draft = Draft::text(*text).session("monday").attr("speaker", "user");
        promises.push(turns.submit_put(format!("monday:{number}"), draft)?);
    }
    for promise in &promises {
        promise.wait()?; // on disk from here on
    }

    // Two entries of two collections, both or neither. Sent again with the same request number
    // after a timeout, it would be applied once.
    let batch = Batch::new()
        .put(&facts, "cat.name", Draft::text("Miso"))
        .put(&facts, "cat.age", Draft::text("3"))
        .request(7, 1);
    store.write(batch)?;

    // Compare and set: the version says which state the change was made for.
    let age = facts.get("cat.age")?.ok_or("the fact is there")?;
    facts.update("cat.age", Patch::default().payload("4"))?;
    match facts.put_if("cat.age", Some(age.version), Draft::text("5")) {
        Err(e) if e.kind() == ErrorKind::Exists => println!("somebody was faster: {e}"),
        other => println!("{other:?}"),
    }

    let monday = Filter::parse(r#"{"_session": "monday"}"#)?;
    println!("{} turns on monday", turns.count(Some(&monday))?);
    store.close()?;

    let store = Store::open(dir.path().join("memory"))?;
    let age = store.collection("facts")?.get("cat.age")?.ok_or("it survived")?;
    println!("after a reopen the cat is {}", age.text().unwrap_or("?"));
    Ok(store.close()?)
}
