//! Tests of the catalog: the model, the pages, crashes, damage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::io::memory::MemoryDisk;
use crate::io::sim::{Profile, SimDisk};
use crate::io::{Disk, File, OpenMode};
use crate::organs::catalog::backend::{Health, PAGE_BYTES, PagedBackend};
use crate::organs::catalog::tables::{
    IDS, KEYS, KeyRange, Located, META, RECENT, Table, key_row, seal_number,
};
use crate::organs::catalog::{Catalog, FILE, NewEntry};
use crate::words::error::{ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Key, KeyPath, Lsn, Namespace};
use crate::words::record::Place;

const CACHE: usize = 1 << 20;
const ONE: CollectionId = CollectionId(1);
const TWO: CollectionId = CollectionId(2);

fn ns(path: &str) -> Namespace {
    Namespace::new(path).unwrap()
}

fn place(n: u64) -> Option<Place> {
    Some(Place { segment: n / 7 + 1, group: (n % 3) as u16, row: n as u32 })
}

fn located(n: u64) -> Located {
    Located { collection: ONE, version: Lsn(n * 3), place: place(n) }
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(MemoryDisk::new())
}

#[test]
fn many_entries_are_put_as_one_by_one() {
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let namespaces = [ns(""), ns("a"), ns("a/b")];
    let keys: Vec<String> = (0..300).map(|n| format!("{:03}", n * 7 % 250)).collect();
    let entries: Vec<NewEntry<'_>> = (0..300)
        .map(|n| NewEntry {
            namespace: &namespaces[n % 3],
            key: keys[n].as_bytes(),
            id: EntryId(300 - n as u64),
            located: located(n as u64),
        })
        .collect();
    let update = catalog.begin().unwrap();
    update.put_entries(&entries).unwrap();
    update.commit().unwrap();
    let view = catalog.snapshot().unwrap();
    let mut model = BTreeMap::new();
    for entry in &entries {
        model.insert((entry.namespace, entry.key), entry.id);
        assert_eq!(view.locate(entry.id).unwrap(), Some(entry.located));
    }
    for ((namespace, key), id) in &model {
        assert_eq!(view.find(ONE, namespace, key).unwrap(), Some(*id));
    }
    assert_eq!(view.key_count().unwrap(), model.len() as u64);
    assert_eq!(view.id_count().unwrap(), 300);
}

/// Commits entries `from..to` with keys `k00000..`.
fn fill(catalog: &Catalog, from: u64, to: u64) -> Result<()> {
    let update = catalog.begin()?;
    for n in from..to {
        update.put_key(ONE, &Namespace::root(), format!("k{n:05}").as_bytes(), EntryId(n + 1))?;
        update.put_id(EntryId(n + 1), &located(n))?;
    }
    update.put_meta("applied_lsn", to)?;
    update.commit()
}

#[test]
fn everything_put_is_found_again_after_a_reopen() {
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    fill(&catalog, 0, 500).unwrap();
    let update = catalog.begin().unwrap();
    update.put_segment(4, b"rows").unwrap();
    update.put_collection(TWO, b"definition").unwrap();
    update.put_setting("budget_bytes", b"1").unwrap();
    update.put_request(77, 5).unwrap();
    update.put_expiring(EntryId(9), 1234).unwrap();
    update.put_id(EntryId(3), &Located { place: None, ..located(2) }).unwrap();
    assert_eq!(update.get_segment(4).unwrap().unwrap(), b"rows");
    assert_eq!(update.get_id(EntryId(3)).unwrap().unwrap().place, None);
    assert_eq!(update.get_meta("applied_lsn").unwrap(), Some(500));
    update.commit().unwrap();
    catalog.close().unwrap();

    for read_only in [true, false] {
        let catalog = if read_only {
            Catalog::open_read_only(&disk, CACHE).unwrap()
        } else {
            Catalog::open(&disk, CACHE).unwrap()
        };
        let view = catalog.snapshot().unwrap();
        for n in 0..500u64 {
            let key = format!("k{n:05}");
            let id = view.find(ONE, &Namespace::root(), key.as_bytes()).unwrap();
            assert_eq!(id, Some(EntryId(n + 1)));
            if n != 2 {
                assert_eq!(view.locate(EntryId(n + 1)).unwrap(), Some(located(n)));
            }
        }
        assert_eq!(view.find(TWO, &Namespace::root(), b"k00001").unwrap(), None);
        assert_eq!(view.find(ONE, &ns("a"), b"k00001").unwrap(), None);
        assert_eq!(view.locate(EntryId(3)).unwrap().unwrap().place, None);
        assert_eq!(view.locate(EntryId(501)).unwrap(), None);
        assert_eq!(view.meta("applied_lsn").unwrap(), Some(500));
        assert_eq!(view.meta("nothing").unwrap(), None);
        assert_eq!(view.segment(4).unwrap().unwrap(), b"rows");
        assert_eq!(view.segment(5).unwrap(), None);
        assert_eq!(view.segments().unwrap().next().unwrap().unwrap(), (4, b"rows".to_vec()));
        assert_eq!(view.collections().unwrap(), [(TWO, b"definition".to_vec())]);
        assert_eq!(view.settings().unwrap(), [("budget_bytes".to_owned(), b"1".to_vec())]);
        assert_eq!(view.setting("budget_bytes").unwrap().unwrap(), b"1");
        assert_eq!(view.request(77).unwrap(), Some(5));
        assert_eq!(view.requests().unwrap().next().unwrap().unwrap(), (77, 5));
        assert_eq!(view.expiring().unwrap().next().unwrap().unwrap(), (9, 1234));
        assert_eq!((view.key_count().unwrap(), view.id_count().unwrap()), (500, 500));
        assert_eq!(view.ids(EntryId(499)).unwrap().count(), 2);
        assert!(catalog.verify().is_empty());
        assert!(catalog.failure().is_none());
    }
}

#[test]
fn a_key_is_only_removed_for_the_id_it_names() {
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let root = Namespace::root();
    let update = catalog.begin().unwrap();
    update.put_key(ONE, &root, b"a", EntryId(1)).unwrap();
    update.put_key(ONE, &root, b"a", EntryId(2)).unwrap();
    assert!(!update.del_key(ONE, &root, b"a", EntryId(1)).unwrap());
    assert_eq!(update.get_key(ONE, &root, b"a").unwrap(), Some(EntryId(2)));
    assert!(update.del_key(ONE, &root, b"a", EntryId(2)).unwrap());
    assert!(!update.del_key(ONE, &root, b"a", EntryId(2)).unwrap());
    assert_eq!(update.get_key(ONE, &root, b"a").unwrap(), None);
    assert!(!update.del_id(EntryId(1)).unwrap());
    assert!(!update.del_segment(1).unwrap());
}

#[test]
fn an_update_is_seen_at_its_commit_and_not_before() {
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let before = catalog.snapshot().unwrap();
    let update = catalog.begin().unwrap();
    update.put_meta("x", 1).unwrap();
    let during = catalog.snapshot().unwrap();
    update.commit().unwrap();
    let after = catalog.snapshot().unwrap();
    let seen = [&before, &during, &after].map(|view| view.meta("x").unwrap());
    assert_eq!(seen, [None, None, Some(1)]);
    let dropped = catalog.begin().unwrap();
    dropped.put_meta("x", 2).unwrap();
    drop(dropped);
    assert_eq!(catalog.snapshot().unwrap().meta("x").unwrap(), Some(1));
}

#[test]
fn snapshots_are_shared_between_threads_and_end_with_the_catalog() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    fill(&catalog, 0, 10).unwrap();
    shared(&catalog);
    let view = catalog.snapshot().unwrap();
    shared(&view);
    catalog.close().unwrap();
    // Pages in the cache may still answer; what has to be read says so.
    match view.locate(EntryId(5)) {
        Ok(found) => assert_eq!(found, Some(located(4))),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
    }
}

/// Keys of several namespaces and collections, scanned by every kind of range both ways.
#[test]
fn ranges_agree_with_a_sorted_list() {
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let paths = ["", "a", "a!", "a/b", "a/b/c", "a0", "b", "\u{7f}"];
    let keys: [&[u8]; 7] = [b"x", b"x\0", b"xa", b"y", b"\xff", b"\xff\xff", b"\0"];
    let mut model = BTreeMap::new();
    for is_late in [false, true] {
        let update = catalog.begin().unwrap();
        let mut id = 0;
        for collection in [CollectionId(0), ONE, TWO, CollectionId(u32::MAX)] {
            for path in paths {
                for key in keys {
                    id += 1;
                    if (id % 4 == 0) == is_late {
                        update.put_key(collection, &ns(path), key, EntryId(id)).unwrap();
                        let key = Key::new(key).unwrap();
                        let path = KeyPath { collection, namespace: ns(path), key };
                        model.insert(path, EntryId(id));
                    }
                }
            }
        }
        update.commit().unwrap();
    }
    let view = catalog.snapshot().unwrap();
    assert_eq!(view.key_counts().unwrap(), [56, 168], "some stand in either table");
    let check = |collection, range: KeyRange, keep: &dyn Fn(&Namespace, &[u8]) -> bool| {
        let mut wanted: Vec<_> = model
            .iter()
            .filter(|(p, _)| p.collection == collection && keep(&p.namespace, p.key.as_bytes()))
            .map(|(path, id)| (path.clone(), *id))
            .collect();
        let found: Result<Vec<_>> = view.keys(collection, &range, false).unwrap().collect();
        assert_eq!(found.unwrap(), wanted, "{range:?}");
        wanted.reverse();
        let found: Result<Vec<_>> = view.keys(collection, &range, true).unwrap().collect();
        assert_eq!(found.unwrap(), wanted, "{range:?} reversed");
    };
    for collection in [CollectionId(0), ONE, CollectionId(u32::MAX)] {
        check(collection, KeyRange::all(), &|_, _| true);
        for path in paths {
            let path = ns(path);
            check(collection, KeyRange::of_namespace(&path), &|n, _| *n == path);
            let below = |n: &Namespace| *n != path && n.is_under(&path);
            check(collection, KeyRange::below(&path), &|n, _| below(n));
            for key in keys {
                let place = |n: &Namespace, k: &[u8]| (n.as_str().to_owned(), k.to_vec());
                let end = place(&path, key);
                check(collection, KeyRange::with_prefix(&path, key), &|n, k| {
                    *n == path && k.starts_with(key)
                });
                check(collection, KeyRange::all().after(&path, key), &|n, k| place(n, k) > end);
                check(collection, KeyRange::all().starting(&path, key), &|n, k| place(n, k) >= end);
                check(collection, KeyRange::below(&ns("a")).before(&path, key), &|n, k| {
                    n.as_str().starts_with("a/") && place(n, k) < end
                });
                let narrow =
                    KeyRange::of_namespace(&ns("a")).after(&path, key).before(&ns("a"), b"y");
                check(collection, narrow, &|n, k| {
                    *n == ns("a") && place(n, k) > end && k < b"y".as_slice()
                });
            }
        }
    }
    let update = catalog.begin().unwrap();
    let mut told = Vec::new();
    let dropped = update.drop_keys(ONE, &mut |id| told.push(id)).unwrap();
    update.commit().unwrap();
    assert_eq!((dropped, told.len()), (56, 56));
    let view = catalog.snapshot().unwrap();
    assert_eq!(view.keys(ONE, &KeyRange::all(), false).unwrap().count(), 0);
    assert_eq!(view.key_count().unwrap(), 3 * 56);
}

#[test]
fn a_missing_empty_or_foreign_file_is_told_apart() {
    let disk = disk();
    assert_eq!(Catalog::open(&disk, CACHE).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Catalog::open_read_only(&disk, CACHE).unwrap_err().kind(), ErrorKind::NotFound);
    let file = disk.open(FILE, OpenMode::CreateNew).unwrap();
    for content in [&b""[..], b"x", &[0; 8192], &[7; 3 * PAGE_BYTES]] {
        file.set_len(0).unwrap();
        file.write_at(content, 0).unwrap();
        assert_eq!(Catalog::open(&disk, CACHE).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(file.len().unwrap(), content.len() as u64, "a refused file is left alone");
    }
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    assert!(catalog.verify().is_empty());
}

fn bytes_of(file: &Arc<dyn File>) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_read_only_catalog_changes_no_byte_even_after_a_crash() {
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    fill(&catalog, 0, 300).unwrap();
    let file = disk.open(FILE, OpenMode::Read).unwrap();
    // The bytes while it is open are those a crash would leave.
    let crashed = bytes_of(&file);
    let other: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let copy = other.open(FILE, OpenMode::CreateNew).unwrap();
    copy.write_at(&crashed, 0).unwrap();
    let reader = Catalog::open_read_only(&other, CACHE).unwrap();
    fill(&reader, 300, 2000).unwrap();
    let view = reader.snapshot().unwrap();
    assert_eq!(view.locate(EntryId(1999)).unwrap(), Some(located(1998)));
    drop(view);
    reader.close().unwrap();
    assert_eq!(bytes_of(&copy), crashed);
    let owner = Catalog::open(&other, CACHE).unwrap();
    assert_eq!(owner.snapshot().unwrap().key_count().unwrap(), 300);
}

#[test]
fn an_empty_index_is_small_and_grows_with_its_content() {
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    assert!(catalog.file_bytes().unwrap() < 2 << 20, "{}", catalog.file_bytes().unwrap());
    assert!(catalog.bytes_written() < 256 << 10, "{}", catalog.bytes_written());
    assert!(catalog.resident_bytes() < 256 << 10, "{}", catalog.resident_bytes());
    fill(&catalog, 0, 20_000).unwrap();
    assert_eq!(catalog.resident_bytes(), CACHE as u64 + PAGE_BYTES as u64);
    let filled = catalog.file_bytes().unwrap();
    assert!(filled > 1_500_000, "{filled}");
    // More than one group of checksums.
    fill(&catalog, 20_000, 120_000).unwrap();
    assert!(catalog.file_bytes().unwrap() > 5 << 20);
    assert!(catalog.verify().is_empty());
    catalog.close().unwrap();
    let catalog = Catalog::open(&disk, CACHE).unwrap();
    assert!(catalog.verify().is_empty());
    assert_eq!(catalog.snapshot().unwrap().key_count().unwrap(), 120_000);
}

/// The backend against a plain vector: any offset, any length, growing and shrinking.
#[test]
fn the_backend_stores_any_piece_of_any_page() {
    use redb::StorageBackend;
    let disk = disk();
    let file = disk.open(FILE, OpenMode::CreateNew).unwrap();
    let health = Arc::new(Health::default());
    let mut backend = PagedBackend::new(FILE, file.clone(), health.clone()).unwrap();
    let page = PAGE_BYTES as u64;
    // As redb does: a length, then the header.
    backend.set_len(page).unwrap();
    backend.write(0, &[3; 320]).unwrap();
    let mut model: Vec<u8> = vec![0; PAGE_BYTES];
    model[..320].fill(3);
    let mut written = std::collections::BTreeSet::from([0]);
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    for step in 0..600 {
        match random(12) {
            0 => {
                let pages = 1 + random(2600);
                backend.set_len(pages * page).unwrap();
                model.resize((pages * page) as usize, 0);
                written.retain(|p| *p < pages);
            }
            1 => {
                backend.sync_data().unwrap();
                backend = PagedBackend::new(FILE, file.clone(), health.clone()).unwrap();
            }
            2..7 if !model.is_empty() => {
                let pages = model.len() as u64 / page;
                let (at, len) = if random(3) == 0 || pages < 2 {
                    (random(200), 1 + random(200))
                } else {
                    let first = 1 + random(pages - 1);
                    let within = if random(2) == 0 { 0 } else { random(page) };
                    let left = pages * page - first * page - within;
                    (first * page + within, (1 + random(3 * page)).min(left))
                };
                let bytes: Vec<u8> = (0..len).map(|_| random(256) as u8).collect();
                backend.write(at, &bytes).unwrap();
                model[at as usize..(at + len) as usize].copy_from_slice(&bytes);
                written.extend(at / page..=(at + len - 1) / page);
            }
            _ if !model.is_empty() => {
                let pages = model.len() as u64 / page;
                let first = random(pages);
                let count = (1 + random(3)).min(pages - first);
                let mut out = vec![1; (count * page) as usize];
                let read = backend.read(first * page, &mut out);
                if (first..first + count).all(|p| written.contains(&p)) {
                    read.unwrap();
                    let at = (first * page) as usize;
                    assert!(out == model[at..at + out.len()], "step {step}");
                } else {
                    assert!(read.is_err(), "step {step}: an unwritten page was read");
                }
            }
            _ => {}
        }
        assert_eq!(backend.len().unwrap(), model.len() as u64);
    }
    assert!(backend.read(model.len() as u64, &mut [0]).is_err());
    assert!(backend.write(u64::MAX, &[0]).is_err());
    assert!(backend.set_len(5).is_err());
    assert!(health.written.load(Ordering::Relaxed) > 1 << 20);
}

/// Whatever moved a value, a page read from elsewhere or a mistake in a tree: it says whose it is.
#[test]
fn a_value_answers_for_its_own_row_alone() {
    let disk = disk();
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let update = catalog.begin().unwrap();
    for n in 1..=2u64 {
        update.put_key(ONE, &ns(""), format!("k{n}").as_bytes(), EntryId(n)).unwrap();
        update.put_id(EntryId(n), &located(n)).unwrap();
    }
    update.commit().unwrap();
    drop(catalog);
    let file = disk.open(FILE, OpenMode::ReadWrite).unwrap();
    let backend = PagedBackend::new(FILE, file, Arc::new(Health::default())).unwrap();
    let database = redb::Builder::new().create_with_backend(backend).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        use redb::ReadableTable;
        let mut ids = transaction.open_table(IDS).unwrap();
        let first = ids.get(1).unwrap().unwrap().value();
        ids.insert(2, first).unwrap();
        let mut keys = transaction.open_table(KEYS).unwrap();
        let (first, second) = (key_row(ONE, "", b"k1"), key_row(ONE, "", b"k2"));
        let id = keys.get(&*first).unwrap().unwrap().value();
        keys.insert(&*second, id).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let view = Catalog::open(&disk, CACHE).unwrap().snapshot().unwrap();
    assert_eq!(view.locate(EntryId(1)).unwrap(), Some(located(1)));
    assert_eq!(view.locate(EntryId(2)).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(view.find(ONE, &ns(""), b"k1").unwrap(), Some(EntryId(1)));
    assert_eq!(view.find(ONE, &ns(""), b"k2").unwrap_err().kind(), ErrorKind::Corrupt);
}

/// One that a build before wrote, which lacks a table, is named as what it is.
#[test]
fn an_index_of_another_layout_is_named() {
    let disk = disk();
    Catalog::create(&disk, CACHE).unwrap().close().unwrap();
    let file = disk.open(FILE, OpenMode::ReadWrite).unwrap();
    let backend = PagedBackend::new(FILE, file, Arc::new(Health::default())).unwrap();
    let database = redb::Builder::new().create_with_backend(backend).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(RECENT).unwrap();
    let format = seal_number(Table::Meta, b"format", 1);
    transaction.open_table(META).unwrap().insert("format", format).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for opened in [Catalog::open(&disk, CACHE), Catalog::open_read_only(&disk, CACHE)] {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("its layout is Some(1)"), "{error}");
    }
}

#[test]
fn an_index_is_durable_by_name_when_it_is_made() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    drop(Catalog::create(&shared, CACHE).unwrap());
    for image in disk.crash_images(Profile::Posix, 64) {
        let image: Arc<dyn Disk> = Arc::new(image);
        Catalog::open(&image, CACHE).unwrap();
    }
}
