//! Tests of the two tables of keys: against a plain map, by the bytes that commits write, and with a key in both.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::io::memory::MemoryDisk;
use crate::io::sim::{Fault, Limits, Profile, SimDisk};
use crate::io::{Disk, OpenMode};
use crate::organs::catalog::backend::{Health, PagedBackend};
use crate::organs::catalog::keys::Moves;
use crate::organs::catalog::tables::{KEYS, KeyRange, RECENT, Table, key_row, seal_number};
use crate::organs::catalog::{Catalog, FILE, NewEntry, Update};
use crate::words::error::ErrorKind;
use crate::words::id::{CollectionId, EntryId, Lsn, Namespace};
use crate::words::record::Place;

const CACHE: usize = 1 << 20;
/// The least that a store gives its index.
const CACHE_MIN: usize = 128 << 10;
const ONE: CollectionId = CollectionId(1);
const TWO: CollectionId = CollectionId(2);

/// Numbers without order, the same in each run.
struct Mixed(u64);

impl Mixed {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn key(n: u64) -> Vec<u8> {
    format!("{:08x}", (n as u32).wrapping_mul(0x9E37_79B1)).into_bytes()
}

fn entry<'a>(namespace: &'a Namespace, key: &'a [u8], id: u64) -> NewEntry<'a> {
    let place = Some(Place { segment: 1, group: 0, row: id as u32 });
    let located = crate::organs::catalog::Located { collection: ONE, version: Lsn(id), place };
    NewEntry { namespace, key, id: EntryId(id), located }
}

/// Commits these keys, with ids from this one on, and moves them if they are to be; how many came lately then.
fn put_all(catalog: &Catalog, keys: &[Vec<u8>], first: u64) -> u64 {
    let root = Namespace::root();
    let entries = keys.iter().zip(first..).map(|(key, id)| entry(&root, key, id));
    let update = catalog.begin().unwrap();
    update.put_entries(&entries.collect::<Vec<_>>()).unwrap();
    update.commit().unwrap();
    catalog.settle().unwrap();
    catalog.snapshot().unwrap().key_counts().unwrap()[0]
}

type Model = BTreeMap<(CollectionId, Vec<u8>), EntryId>;

/// Some changes of either kind, in the index and in the model.
fn change(update: &Update, model: &mut Model, mixed: &mut Mixed, next_id: &mut u64) {
    let root = Namespace::root();
    for _ in 0..mixed.below(60) {
        let collection = if mixed.below(3) == 0 { TWO } else { ONE };
        let key = key(mixed.below(700));
        let path = (collection, key.clone());
        match mixed.below(8) {
            0 => {
                let named = model.get(&path).copied().unwrap_or(EntryId(1));
                let known = model.remove(&path).is_some();
                assert_eq!(update.del_key(collection, &root, &key, named).unwrap(), known);
            }
            1 => {
                assert!(!update.del_key(collection, &root, &key, EntryId(u64::MAX)).unwrap());
            }
            2 if let Some(named) = model.get(&path) => {
                update.put_key(collection, &root, &key, *named).unwrap();
            }
            _ => {
                *next_id += 1;
                update.put_key(collection, &root, &key, EntryId(*next_id)).unwrap();
                model.insert(path, EntryId(*next_id));
            }
        }
    }
}

/// Whether the index says what the model says; and the rows of its tables.
fn compare(catalog: &Catalog, model: &Model, mixed: &mut Mixed) -> [u64; 2] {
    let (view, root) = (catalog.snapshot().unwrap(), Namespace::root());
    for collection in [ONE, TWO] {
        for n in 0..700 {
            let known = model.get(&(collection, key(n))).copied();
            assert_eq!(view.find(collection, &root, &key(n)).unwrap(), known);
        }
        let (from, until) = (key(mixed.below(700)), key(mixed.below(700)));
        let all = KeyRange::all();
        let part = KeyRange::of_namespace(&root).starting(&root, &from).before(&root, &until);
        for (range, is_all) in [(all, true), (part, false)] {
            let inside = |key: &Vec<u8>| is_all || (*key >= from && *key < until);
            let wanted = model.iter().filter(|((of, key), _)| *of == collection && inside(key));
            let mut wanted: Vec<_> = wanted.map(|((_, key), id)| (key.clone(), *id)).collect();
            for reverse in [false, true] {
                let rows = view.keys(collection, &range, reverse).unwrap().map(|row| {
                    let (path, id) = row.unwrap();
                    assert_eq!((path.collection, &path.namespace), (collection, &root));
                    (path.key.as_bytes().to_vec(), id)
                });
                assert_eq!(rows.collect::<Vec<_>>(), wanted, "{reverse}");
                wanted.reverse();
            }
        }
    }
    assert_eq!(view.key_count().unwrap(), model.len() as u64);
    assert!(catalog.verify().is_empty());
    view.key_counts().unwrap()
}

/// By commits that move all that came lately, and by commits of their own that move some, so that changes fall into the
/// middle of it.
#[test]
fn two_tables_answer_as_one() {
    for moves_some in [false, true] {
        answers_as_one(moves_some);
    }
}

fn answers_as_one(moves_some: bool) {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let mut catalog = Catalog::create(&disk, CACHE).unwrap();
    let (mut model, mut mixed, mut next_id) = (Model::new(), Mixed(20_260), 1);
    let (mut split, mut moved, mut recent_before) = (0, 0, 0);
    for round in 0..120 {
        let (before, update) = (model.clone(), catalog.begin().unwrap());
        change(&update, &mut model, &mut mixed, &mut next_id);
        if round % 40 == 39 {
            let mut told = Vec::new();
            let dropped = update.drop_keys(TWO, &mut |id| told.push(id)).unwrap();
            told.sort_unstable();
            let known = model.iter().filter(|((collection, _), _)| *collection == TWO);
            let mut known: Vec<EntryId> = known.map(|(_, id)| *id).collect();
            known.sort_unstable();
            assert_eq!((dropped, &told), (known.len() as u64, &known));
            model.retain(|(collection, _), _| *collection != TWO);
        }
        if round % 7 == 6 {
            drop(update);
            model = before;
        } else {
            update.commit().unwrap();
        }
        if moves_some && round % 3 == 1 {
            let before = catalog.snapshot().unwrap().key_counts().unwrap()[0];
            let rows = mixed.below(30);
            assert_eq!(catalog.settle_some(rows).unwrap(), before.saturating_sub(rows));
        }
        if round % 11 == 10 {
            catalog.close().unwrap();
            catalog = Catalog::open(&disk, CACHE).unwrap();
        }
        let [recent, keys] = compare(&catalog, &model, &mut mixed);
        split += u32::from(recent > 0 && keys > 0);
        moved += u32::from(recent == 0 && recent_before > 0);
        recent_before = recent;
    }
    let words = format!("{split} rounds with rows in both, {moved} that moved them");
    assert!(split > 50 && moved > 10, "{moves_some}: {words}");
}

#[test]
fn of_two_names_for_a_key_the_later_one_counts() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let (root, known) = (Namespace::root(), b"a".as_slice());
    for ids in [vec![7], vec![8, 7], vec![7, 8], vec![9, 8, 9]] {
        let entries: Vec<_> = ids.iter().map(|id| entry(&root, known, *id)).collect();
        let update = catalog.begin().unwrap();
        update.put_entries(&entries).unwrap();
        update.commit().unwrap();
        let found = catalog.snapshot().unwrap().find(ONE, &root, known).unwrap();
        assert_eq!(found.map(|id| id.0), ids.last().copied());
    }
}

/// Keys in no order, 400 of them a commit: 27 MB, where one table for all took 182.
#[test]
fn keys_in_no_order_cost_few_pages() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let mut recent_max = 0;
    let before = catalog.bytes_written();
    for commit in 0..100_u64 {
        let keys: Vec<Vec<u8>> = (0..400).map(|n| key(commit * 400 + n)).collect();
        recent_max = recent_max.max(put_all(&catalog, &keys, commit * 400 + 1));
    }
    let written = catalog.bytes_written() - before;
    assert!(catalog.verify().is_empty());
    assert!(written < 32_000_000, "{written} bytes for 40,000 keys");
    assert!((2000..12_000).contains(&recent_max), "{recent_max}");
}

#[test]
fn keys_that_are_known_cost_no_page_of_theirs() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let root = Namespace::root();
    let keys: Vec<Vec<u8>> = (0..8000).map(key).collect();
    let entries: Vec<_> = keys.iter().zip(1..).map(|(key, id)| entry(&root, key, id)).collect();
    let mut written = Vec::new();
    for _ in 0..3 {
        let before = catalog.bytes_written();
        let update = catalog.begin().unwrap();
        update.put_entries(&entries).unwrap();
        update.commit().unwrap();
        catalog.settle().unwrap();
        written.push(catalog.bytes_written() - before);
        let counts = catalog.snapshot().unwrap().key_counts().unwrap();
        assert_eq!(counts, [0, 8000]);
    }
    assert!(written[1] < written[0] / 2 && written[2] < written[0] / 2, "{written:?}");
}

#[test]
fn a_key_in_both_tables_is_damage() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let (root, row) = (Namespace::root(), key_row(ONE, "", b"k1"));
    let put = |catalog: &Catalog, key: &[u8], id| {
        let update = catalog.begin().unwrap();
        update.put_key(ONE, &root, key, EntryId(id)).unwrap();
        update.commit().unwrap();
        catalog.snapshot().unwrap().key_counts().unwrap()
    };
    let counts = [put(&catalog, b"k0", 6), put(&catalog, b"k1", 7), put(&catalog, b"k2", 8)];
    assert_eq!(counts, [[0, 1], [0, 2], [1, 2]]);
    catalog.close().unwrap();
    let rewrite = |value: [u8; 12]| {
        let file = disk.open(FILE, OpenMode::ReadWrite).unwrap();
        let backend = PagedBackend::new(FILE, file, Arc::new(Health::default())).unwrap();
        let database = redb::Builder::new().create_with_backend(backend).unwrap();
        let transaction = database.begin_write().unwrap();
        let is_known = redb::ReadableTable::get(&transaction.open_table(KEYS).unwrap(), &*row)
            .unwrap()
            .is_some();
        assert!(is_known);
        transaction.open_table(RECENT).unwrap().insert(&*row, value).unwrap();
        transaction.commit().unwrap();
    };
    // A row of one table says nothing in the other.
    rewrite(seal_number(Table::Keys, &row, 7));
    let catalog = Catalog::open(&disk, CACHE).unwrap();
    let found = catalog.snapshot().unwrap().find(ONE, &root, b"k1");
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
    catalog.close().unwrap();

    rewrite(seal_number(Table::Recent, &row, 7));
    let catalog = Catalog::open(&disk, CACHE).unwrap();
    let view = catalog.snapshot().unwrap();
    for reverse in [false, true] {
        let mut rows = view.keys(ONE, &KeyRange::all(), reverse).unwrap();
        let error = rows.find_map(Result::err).unwrap();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("k1"), "{error}");
        assert!(rows.next().is_none(), "it ends there");
    }
    assert!(catalog.verify().iter().any(|error| error.to_string().contains("two tables")));
    // Nor is it moved: one of the two would be lost.
    let update = catalog.begin().unwrap();
    assert_eq!(update.move_recent(u64::MAX).unwrap_err().kind(), ErrorKind::Corrupt);
    // redb has no notion of it: whoever asks is told that the index has to be made anew.
    drop(update);
    assert!(catalog.rot().is_some_and(|error| error.to_string().contains("two tables")));
}

#[test]
fn keys_gather_where_moving_them_together_saves_pages() {
    let moves = |recent, keys, written, bytes_max| Moves {
        counts: [recent, keys],
        written,
        recent_bytes: recent * 64,
        bytes_max,
    };
    // 64 rows a page: 65,536 rows have room, which is two for each page of two million keys.
    let large = |keys| moves(0, keys, 0, 4 << 20).gathers(64);
    assert_eq!([large(0), large(2_000_000), large(2_200_000)], [true, true, false]);
    let small = |keys| moves(0, keys, 0, 64 << 10).gathers(64);
    assert_eq!([small(0), small(32_000), small(34_000)], [true, true, false]);
    // Long ones have less room, and fill more pages.
    assert!(!moves(0, 200_000, 0, 4 << 20).gathers(2048));

    let rows = |recent, keys, written| moves(recent, keys, written, 4 << 20).rows_at_once();
    assert_eq!(rows(0, 0, 0), None, "there are none");
    assert_eq!(rows(100, 1000, 999), None);
    assert_eq!(rows(100, 1000, 1000), Some(32_768 * 100 / 1000));
    assert_eq!(rows(100, 0, 100), Some(32_768), "whatever came first");
    assert_eq!(
        rows(66_000, 1_000_000, 0),
        Some(32_768 * 66_000 / 1_000_000),
        "there is no more room"
    );
    assert_eq!(rows(10, 10_000_000, 10_000_000), Some(64));
}

#[test]
fn long_keys_fill_the_room_sooner() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let catalog = Catalog::create(&disk, CACHE).unwrap();
    let mut recent_max = 0;
    for commit in 0..40_u64 {
        let long = |n: u64| [key(n), vec![b'x'; 800]].concat();
        let keys: Vec<Vec<u8>> = (0..60).map(|n| long(commit * 60 + n)).collect();
        recent_max = recent_max.max(put_all(&catalog, &keys, commit * 60 + 1));
    }
    assert!(catalog.verify().is_empty());
    // Half of the cache of 1 MiB, at 1,100 bytes each.
    assert!((200..=480).contains(&recent_max), "{recent_max}");
}

/// An index of 1,200 keys and 600 that came lately, which take two stretches to be moved.
fn with_stretches(disk: &Arc<dyn Disk>) -> Catalog {
    let catalog = Catalog::create(disk, CACHE_MIN).unwrap();
    let root = Namespace::root();
    for ids in [0..1200, 1200..1400, 1400..1600, 1600..1800_u64] {
        let keys: Vec<Vec<u8>> = ids.clone().map(key).collect();
        let entries: Vec<_> =
            keys.iter().zip(ids.clone()).map(|(key, id)| entry(&root, key, id + 1)).collect();
        let update = catalog.begin().unwrap();
        update.put_entries(&entries).unwrap();
        update.commit().unwrap();
        if ids.start == 0 {
            assert_eq!(catalog.snapshot().unwrap().key_counts().unwrap(), [1200, 0]);
            catalog.settle().unwrap();
        }
    }
    assert_eq!(catalog.snapshot().unwrap().key_counts().unwrap(), [600, 1200]);
    catalog
}

/// Opens an index that was cut off while keys were moved. Answers how many were not moved yet.
fn check_stretches(disk: &Arc<dyn Disk>, context: &str) -> u64 {
    let catalog = Catalog::open(disk, CACHE_MIN).unwrap_or_else(|e| panic!("{context}: {e}"));
    assert!(catalog.verify().is_empty(), "{context}: {:?}", catalog.verify());
    let view = catalog.snapshot().unwrap();
    assert_eq!(view.key_count().unwrap(), 1800, "{context}");
    let rows = view.keys(ONE, &KeyRange::all(), false).unwrap();
    let named: BTreeMap<Vec<u8>, u64> = rows
        .map(|row| row.map(|(path, id)| (path.key.as_bytes().to_vec(), id.0)).unwrap())
        .collect();
    assert_eq!(named, (0..1800).map(|n| (key(n), n + 1)).collect(), "{context}");
    view.key_counts().unwrap()[0]
}

#[test]
fn a_crash_among_stretches_loses_no_key() {
    let sim = SimDisk::new(5);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let catalog = with_stretches(&disk);
    sim.record();
    catalog.settle().unwrap();
    let recording = sim.recording().unwrap();
    let (mut seen, mut left) = (HashSet::new(), BTreeSet::new());
    for profile in [Profile::Kill, Profile::Prefix, Profile::Posix] {
        let limits = Limits { images: 6, random: 2, torn: 2, ..Limits::default() };
        for op in recording.first_op()..=recording.end_op() {
            for image in recording.distinct_images_at(op, profile, &limits, &mut seen) {
                let context = image.label().to_owned();
                left.insert(check_stretches(&(Arc::new(image) as Arc<dyn Disk>), &context));
            }
        }
    }
    assert!(seen.len() > 60, "{}", seen.len());
    assert_eq!(left, BTreeSet::from([600, 228, 0]));
}

#[test]
fn a_call_that_fails_among_stretches_loses_no_key() {
    let calls = {
        let sim = SimDisk::new(5);
        let catalog = with_stretches(&(Arc::new(sim.clone()) as Arc<dyn Disk>));
        let before = sim.op_count();
        catalog.settle().unwrap();
        before..sim.op_count()
    };
    for fault in Fault::ALL {
        for op in calls.clone().step_by(3) {
            let sim = SimDisk::new(5);
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let catalog = with_stretches(&disk);
            sim.fail_at(op, fault, true);
            let settled = catalog.settle();
            sim.clear_faults();
            drop(catalog);
            for image in sim.crash_images(Profile::Posix, 2) {
                let context = format!("{fault:?} at {op}");
                check_stretches(&(Arc::new(image) as Arc<dyn Disk>), &context);
            }
            let left = check_stretches(&disk, &format!("{fault:?} at {op}"));
            assert!(left == 0 || settled.is_err(), "{fault:?} at {op}");
            // What was left is moved by who comes next, however much it is.
            let catalog = Catalog::open(&disk, CACHE_MIN).unwrap();
            catalog.settle().unwrap();
            let counts = catalog.snapshot().unwrap().key_counts().unwrap();
            assert_eq!(counts, [0, 1800], "{fault:?} at {op}");
            assert!(catalog.verify().is_empty(), "{fault:?} at {op}");
        }
    }
}
