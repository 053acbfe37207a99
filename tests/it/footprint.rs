//! What a store leaves on a real file system: its own files, for the owner alone, and nothing else.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pmll::{Draft, ErrorKind, Options, Query, Store};
use serde_json::json;

use crate::support::{Rng, dump, tiny};

/// Everything that writes, once.
fn work(path: &Path) -> Store {
    let options = Options { budget_bytes: Some(2 << 20), ..tiny() };
    let store = Store::builder(path).options(options).open().unwrap();
    let mut rng = Rng(23);
    let notes = store.collection("notes").unwrap();
    for round in 0..4 {
        for n in 0..200 {
            let draft = Draft::text(rng.text(20)).vector(rng.vector(32)).attr("n", n);
            notes.put(format!("k{round}-{n}"), draft).unwrap();
        }
        store.checkpoint().unwrap();
        for n in 0..150 {
            notes.delete(format!("k{round}-{n}")).unwrap();
        }
        notes.get(format!("k{round}-180")).unwrap();
        notes.search(Query::vector(rng.vector(32)).k(5)).unwrap();
    }
    notes.put("large", Draft::bytes(rng.bytes(200_000))).unwrap();
    store.set_setting("mine", json!(1)).unwrap();
    store.compress_with(pmll::Policy::Paper).unwrap();
    store.recompress().unwrap();
    store.vacuum().unwrap();
    store.set_budget(3 << 20).unwrap();
    notes.put("late", Draft::text("late")).unwrap();
    store
}

/// Files and folders below a path, links not followed.
fn below(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}

fn assert_private(root: &Path) {
    let all = below(root);
    assert!(all.len() > 8, "{all:?}");
    for path in all {
        let meta = path.symlink_metadata().unwrap();
        let expected = if meta.is_dir() { 0o700 } else { 0o600 };
        assert!(meta.is_dir() || meta.is_file(), "{} is neither file nor folder", path.display());
        assert_eq!(meta.permissions().mode() & 0o7777, expected, "{}", path.display());
    }
}

#[test]
fn every_file_is_its_owners_alone_and_none_lies_outside() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = work(&path);
    assert_private(&path);
    store.close().unwrap();
    // A second owner, after derived files are gone.
    std::fs::remove_file(path.join("index.redb")).unwrap();
    let store = Store::open(&path).unwrap();
    store.checkpoint().unwrap();
    assert_private(&path);
    store.close().unwrap();
    assert_private(&path);
    pmll::salvage(&path, parent.path().join("saved")).unwrap();
    assert_private(&parent.path().join("saved"));
    let mut beside: Vec<_> =
        std::fs::read_dir(parent.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["saved", "store"]);
}

/// Each file and folder in turn is moved away and a link to it planted in its place.
#[test]
fn no_planted_link_is_followed() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = work(&path);
    let whole = dump(&store);
    store.close().unwrap();
    let outside = parent.path().join("outside");
    let bytes_of = |root: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let files = below(root).into_iter().filter(|path| path.is_file());
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    };
    let (mut refused, mut healed) = (0, 0);
    for planted in below(&path).into_iter().filter(|planted| *planted != path) {
        let copy = parent.path().join("copy");
        let status = std::process::Command::new("cp").arg("-a").args([&path, &copy]).status();
        assert!(status.unwrap().success());
        let name = planted.strip_prefix(&path).unwrap();
        std::fs::rename(copy.join(name), &outside).unwrap();
        symlink(&outside, copy.join(name)).unwrap();
        let before = bytes_of(&outside);
        let context = name.display().to_string();
        let opened = Store::builder(&copy).options(tiny()).open();
        match opened {
            Err(error) => {
                let kinds = [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Invalid];
                assert!(kinds.contains(&error.kind()), "{context}: {error:?}");
                refused += 1;
            }
            // Only what is derived or soft is done without.
            Ok(store) => {
                let truth = ["wal", "archive", "store.toml", "LOCK"];
                let is_truth = truth.iter().any(|truth| name.starts_with(truth));
                assert!(!is_truth, "{context} was followed");
                assert_eq!(dump(&store).len(), whole.len(), "{context}");
                let notes = store.collection("notes").unwrap();
                notes.put("more", Draft::text("more")).unwrap();
                store.checkpoint().unwrap();
                drop(notes);
                let _ = store.close();
                healed += 1;
            }
        }
        assert!(bytes_of(&outside) == before, "{context}: what the link leads to was changed");
        std::fs::remove_dir_all(&copy).unwrap();
        if outside.is_dir() {
            std::fs::remove_dir_all(&outside).unwrap();
        } else {
            std::fs::remove_file(&outside).unwrap();
        }
    }
    assert!(refused >= 5 && refused + healed >= 10, "{refused} {healed}");
}
