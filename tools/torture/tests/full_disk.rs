//! A real file system that is full: tmpfs, and ext4 in a file. Needs root and loop devices; a printed
//! line says what was skipped.
//!
//! A store is filled until it answers `Full`, asked everything, emptied by a quarter with the bytes of its
//! reserve, and filled again; then somebody else's file goes, and writes go on.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pmll::{Depth, Draft, ErrorKind, Options, Scan, Store};
use pmll_torture::script::noise;

const DISK_BYTES: u64 = 24 << 20;
/// What somebody else keeps on the same disk.
const OTHERS_BYTES: usize = 6 << 20;

/// A mounted file system; gone when dropped.
struct Mounted {
    at: PathBuf,
    _home: tempfile::TempDir,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.at).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays", self.at.display());
    }
}

fn run(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn mount(kind: &str) -> Option<Mounted> {
    let home = tempfile::tempdir().unwrap();
    let at = home.path().join("disk");
    std::fs::create_dir(&at).unwrap();
    let place = at.to_str().unwrap();
    let mounted = match kind {
        "tmpfs" => {
            run("mount", &["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "none", place])
        }
        _ => {
            let image = home.path().join("image");
            std::fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
            let image = image.to_str().unwrap();
            run("mkfs.ext4", &["-q", "-m", "0", "-F", image])
                && run("mount", &["-o", "loop", image, place])
        }
    };
    mounted.then_some(Mounted { at, _home: home })
}

fn open(path: &Path) -> Store {
    let options = Options { background: false, budget_bytes: Some(1 << 20), ..Options::default() };
    Store::builder(path).options(options).open().unwrap()
}

type Held = BTreeMap<String, Vec<u8>>;

/// Puts incompressible notes until the disk is full; keeps what was acknowledged.
fn fill(store: &Store, held: &mut Held, from: u64) -> u64 {
    let notes = store.collection("notes").unwrap();
    for n in from..1_000_000 {
        let (key, payload) = (format!("k{n:06}"), noise(n, 2_000));
        match notes.put(&key, Draft::bytes(payload.clone()).vector([n as f32, 1.0])) {
            Ok(_) => drop(held.insert(key, payload)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                return n;
            }
        }
    }
    panic!("the disk has no end");
}

fn check(store: &Store, held: &Held) {
    let notes = store.collection("notes").unwrap();
    let (mut seen, mut scan) = (Held::new(), Scan::new().limit(500));
    loop {
        let page = notes.scan(scan).unwrap();
        let entries = page.entries.into_iter();
        seen.extend(entries.map(|e| (e.key.as_str().unwrap().to_owned(), e.payload)));
        let Some(cursor) = page.cursor else { break };
        scan = Scan::new().limit(500).cursor(cursor);
    }
    assert!(seen == *held, "{} entries are there, {} were acknowledged", seen.len(), held.len());
    assert!(!notes.search([1.0, 1.0].as_slice()).unwrap().is_empty());
}

#[test]
fn a_full_disk_is_survived_and_left() {
    for kind in ["tmpfs", "ext4"] {
        let Some(disk) = mount(kind) else {
            println!("skipped: {kind} cannot be mounted here (root and loop devices)");
            continue;
        };
        let others = disk.at.join("others");
        std::fs::write(&others, vec![7; OTHERS_BYTES]).unwrap();
        let path = disk.at.join("store");
        let store = open(&path);
        let mut held = Held::new();
        let next = fill(&store, &mut held, 0);
        check(&store, &held);
        let notes = store.collection("notes").unwrap();
        let some: Vec<String> = held.keys().take(held.len() / 4).cloned().collect();
        for key in some {
            let deleted = notes.delete(&key).unwrap_or_else(|error| {
                panic!("{kind}: {key}, {next} were put: {error}; {:?}", store.stats().unwrap().disk)
            });
            assert!(deleted, "{kind}: {key}");
            held.remove(&key);
        }
        store.checkpoint().unwrap();
        store.vacuum().unwrap();
        check(&store, &held);
        let after = fill(&store, &mut held, next);
        assert!(after > next + 200, "{kind}: room for {} more", after - next);
        drop((notes, store));
        let store = open(&path);
        check(&store, &held);
        std::fs::remove_file(&others).unwrap();
        let last = fill(&store, &mut held, after);
        assert!(last > after + 500, "{kind}: room for {} more", last - after);
        check(&store, &held);
        assert!(store.verify(Depth::Deep).unwrap().is_whole());
        drop(store);
        let store = open(&path);
        check(&store, &held);
        println!("{kind}: full after {next}, {after} and {last} puts, {} entries kept", held.len());
    }
}
