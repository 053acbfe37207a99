//! Replays: a log that is archived while it is read, on disks that are full or fail at that moment, and
//! with an index whose pages rotted.

use std::io::ErrorKind as Kind;

use super::super::replay::{Recovered, Shares, check, recover};
use super::*;
use crate::organs::reserve;
use crate::organs::wal::{self, Wal, WalOptions};
use crate::tiers::View;
use crate::words::options::Element;

/// Rows of the archive; the log behind them changes some of these.
const ROWS: u64 = 400;
/// The last record of the log.
const LAST: Lsn = Lsn(ROWS + 10);

/// A segment of many rows, which the index knows.
fn archived(disk: Arc<dyn Disk>) -> Archive {
    let mut archive = Archive::on(disk);
    let rows: Vec<Record> = (2..=ROWS).map(|id| row(id, id)).collect();
    archive.add(Some((1, ROWS)), &rows, &[encoded(&define("notes", 1))]);
    // An index that nobody closed is read through when it is opened, and rot found there.
    archive.recovered().catalog.close().unwrap();
    archive
}

/// What comes after it.
fn changes() -> Vec<Record> {
    (ROWS + 1..=LAST.0).zip((10..).step_by(37)).map(|(version, id)| row(id, version)).collect()
}

fn write_log(disk: &Arc<dyn Disk>) {
    disk.create_dir(wal::FOLDER).unwrap();
    let scan = wal::replay(&**disk, STORE, Lsn(ROWS), &mut |_| Ok(())).unwrap();
    let options = WalOptions { segment_bytes: 1 << 20, zero_bytes: 4096, salt: 5 };
    let mut wal = Wal::open(Arc::clone(disk), STORE, scan, options).unwrap();
    let ops = changes().into_iter().map(|record| match record.payload.clone() {
        Payload::Inline(bytes) => (Op::Put(record), bytes),
        other => panic!("{other:?} is not inline"),
    });
    wal.append(&ops.collect::<Vec<_>>()).unwrap();
    wal.sync().unwrap();
}

/// Archive and log; a store that is opened archives its log when it has read all of it.
fn logged(told: &Told) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(told.clone());
    archived(Arc::clone(&disk));
    write_log(&disk);
    told.disk.open(reserve::FILE, OpenMode::CreateNew).unwrap();
    disk
}

fn open(disk: &Arc<dyn Disk>, read_only: bool) -> Result<Recovered> {
    open_with(disk, read_only, |_| CACHE_BYTES)
}

fn open_with(
    disk: &Arc<dyn Disk>,
    read_only: bool,
    cache_bytes: fn(u64) -> usize,
) -> Result<Recovered> {
    let budget = |view: Option<&View>| match view {
        Some(view) if view.lsn == LAST => 0,
        _ => u64::MAX,
    };
    let shares = Shares { budget: &budget, cache_bytes, freeze_bytes: |budget| budget };
    recover(disk, STORE, read_only, &shares)
}

fn segments(disk: &Arc<dyn Disk>) -> usize {
    archive::list(&**disk).unwrap().len()
}

fn has_reserve(told: &Told) -> bool {
    told.disk.open(reserve::FILE, OpenMode::Read).is_ok()
}

#[test]
fn a_log_is_archived_when_its_share_is_full_and_by_an_owner() {
    let told = Told::new();
    let disk = logged(&told);
    let read = open(&disk, true).unwrap();
    assert_eq!((segments(&disk), read.view.active.len()), (1, changes().len()), "a reader");
    assert!(read.view.frozen.is_none());
    drop(read);
    let opened = open(&disk, false).unwrap();
    assert_eq!(segments(&disk), 2);
    assert!(opened.view.frozen.is_none() && opened.view.active.is_empty());
    for record in changes() {
        assert_eq!(version_in(&opened.view.cold, record.id.0), Some(record.version.0));
    }
    assert_eq!(opened.warnings, [""; 0]);
}

#[test]
fn a_full_disk_gets_the_reserve_and_then_the_log_stays_in_ram() {
    let told = Told::new();
    let disk = logged(&told);
    told.fail("archive/", &[Kind::PermissionDenied]);
    assert_eq!(open(&disk, false).err().expect("no archive").kind(), ErrorKind::Io);
    assert!(has_reserve(&told), "nothing is full");
    told.fail("archive/", &[Kind::StorageFull; 2]);
    let opened = open(&disk, false).unwrap();
    assert_eq!((segments(&disk), has_reserve(&told)), (1, false));
    assert_eq!(opened.view.frozen.as_ref().map(|table| table.len()), Some(changes().len()));
    assert!(opened.warnings[0].contains("stays in RAM"), "{:?}", opened.warnings);
    drop(opened);
    told.fail("archive/", &[Kind::StorageFull]);
    let opened = open(&disk, false).unwrap();
    assert!(opened.view.frozen.is_none());
    assert_eq!((segments(&disk), opened.warnings), (2, vec![]));
}

/// The log says how large the page cache may be, and stays in RAM: the index is opened again under it.
#[test]
fn what_stays_in_ram_is_kept_when_the_index_is_opened_again() {
    let told = Told::new();
    let disk = logged(&told);
    told.fail("archive/", &[Kind::StorageFull; 2]);
    let cache_bytes = |budget: u64| if budget == 0 { CACHE_BYTES / 2 } else { CACHE_BYTES };
    let opened = open_with(&disk, false, cache_bytes).unwrap();
    assert_eq!(opened.catalog.cache_bytes(), CACHE_BYTES / 2);
    assert_eq!(opened.view.frozen.as_ref().map(|table| table.len()), Some(changes().len()));
}

#[test]
fn a_stand_in_is_opened_on_a_full_disk_alone() {
    let full = Kind::StorageFull;
    for (fails, wanted) in [
        (vec![full], Ok(false)),
        (vec![full, full], Ok(true)),
        (vec![Kind::PermissionDenied], Err(ErrorKind::Io)),
        (vec![full, Kind::PermissionDenied], Err(ErrorKind::Io)),
    ] {
        let told = Told::new();
        let disk = logged(&told);
        disk.remove(catalog::FILE).unwrap();
        told.fail("names", &fails);
        let opened = open(&disk, false);
        let stood_in = opened.as_ref().map(|opened| opened.is_stand_in).map_err(Error::kind);
        assert_eq!(stood_in, wanted, "{fails:?}");
        assert_eq!(has_reserve(&told), fails[0] != full, "{fails:?}");
        if let Ok(opened) = opened {
            let said = opened.warnings.iter().any(|told| told.contains("only read until"));
            assert_eq!(said, opened.is_stand_in);
            assert_eq!(segments(&disk), if opened.is_stand_in { 1 } else { 2 });
        }
    }
}

#[test]
fn a_rotten_page_of_the_index_costs_nothing_whoever_meets_it() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut archive = archived(Arc::clone(&shared));
    let pages = disk.fork_now().durable_bytes(catalog::FILE).unwrap();
    let logged = disk.fork_now();
    write_log(&(Arc::new(logged.clone()) as Arc<dyn Disk>));
    // The same records in a segment that the index does not know.
    archive.add(Some((ROWS + 1, LAST.0)), &changes(), &[]);
    let mut damaged = 0;
    for (page, bytes) in pages.chunks(4096).enumerate() {
        let Some(at) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
        damaged += 1;
        for image in [logged.fork_now(), disk.fork_now()] {
            image.flip_bit(catalog::FILE, (page * 4096 + at) as u64, 3).unwrap();
            let image: Arc<dyn Disk> = Arc::new(image);
            image.create_dir(wal::FOLDER).unwrap();
            let opened = open(&image, false).unwrap_or_else(|error| panic!("{page}: {error}"));
            assert!(opened.view.frozen.is_none() && opened.view.active.is_empty());
            assert_eq!(segments(&image), 2, "page {page}");
            let cold = &opened.view.cold;
            for record in changes() {
                assert_eq!(version_in(cold, record.id.0), Some(record.version.0), "page {page}");
            }
            assert_eq!((version_in(cold, 2), version_in(cold, 300)), (Some(2), Some(300)));
        }
    }
    assert!(damaged > 10, "{damaged} pages");
}

#[test]
fn a_record_with_a_vector_that_its_collection_cannot_have_is_refused() {
    let told = Told::new();
    let disk: Arc<dyn Disk> = Arc::new(told);
    archived(Arc::clone(&disk));
    let mut view = open(&disk, false).unwrap().view;
    let put = |values: usize, half: bool| {
        Op::Put(Record { vector: Some(vec![1.0; values].into()), half, ..row(9, 900) })
    };
    check(&view, &Op::Put(row(9, 900))).unwrap();
    assert!(check(&view, &put(3, false)).is_err(), "no dimension");
    for (element, exact) in [(Element::F32, true), (Element::F16, false)] {
        let Op::Define(mut def) = define("notes", 901) else { panic!("no definition") };
        def.spec = CollectionSpec::new().dim(3).element(element);
        view.apply_ledger(&Op::Define(def));
        for (values, half, wanted) in
            [(3, true, true), (3, false, exact), (2, true, false), (2, false, false)]
        {
            let taken = check(&view, &put(values, half)).is_ok();
            assert_eq!(taken, wanted, "{values} values, half {half}, {element:?}");
        }
    }
}
