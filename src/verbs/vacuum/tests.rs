//! Vacuum, step by step: which segments it chooses, what the new one has to know still, and who is ripe.

use super::*;
use crate::io::{Disk, MemoryDisk};
use crate::verbs::recovery::tests::{
    Archive, STORE, define, delete, delete_in, encoded, request, row, setting,
};
use crate::verbs::recovery::{Recovered, Shares, recover};

fn opened(archive: &Archive) -> Recovered {
    let shares =
        Shares { budget: &|_| 1 << 30, cache_bytes: |_| 1 << 20, freeze_bytes: |budget| budget };
    recover(&archive.disk, STORE, false, &shares).unwrap()
}

fn new_archive() -> Archive {
    let disk = MemoryDisk::new();
    disk.create_dir("wal").unwrap();
    Archive::on(Arc::new(disk))
}

/// Bytes that do not get shorter.
fn noise(len: usize, mut seed: u64) -> Arc<[u8]> {
    let step = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..len).map(step).collect::<Vec<u8>>().into()
}

fn rows(ids: std::ops::Range<u64>, payload: impl Fn(u64) -> Arc<[u8]>) -> Vec<Record> {
    ids.map(|id| Record { payload: Payload::Inline(payload(id)), ..row(id, id) }).collect()
}

fn zeros(len: usize) -> impl Fn(u64) -> Arc<[u8]> {
    move |_| vec![0; len].into()
}

/// So many rows of a segment are dead.
fn kill(cold: &mut Cold, number: u64, rows: u32) {
    let dead = vec![(0..rows).collect()];
    let segment = Arc::new(cold.segments[&number].with_dead(dead));
    cold.segments.insert(number, segment);
}

fn numbers(victims: &[Arc<ColdSegment>]) -> Vec<u64> {
    victims.iter().map(|victim| victim.segment.number()).collect()
}

#[test]
fn on_a_full_disk_the_segment_with_the_least_to_write_goes_first() {
    let mut archive = new_archive();
    archive.add(Some((1, 100)), &rows(1..101, |id| noise(1000, id)), &[]);
    archive.add(Some((101, 104)), &rows(101..105, |id| noise(20_000, id)), &[]);
    archive.add(Some((105, 105)), &rows(105..106, |id| noise(9, id)), &[]);
    let Recovered { view, catalog, .. } = opened(&archive);
    let segments = view.cold.segments.clone();
    let mut cold = Cold { catalog: catalog.snapshot().unwrap(), segments };
    assert_eq!(numbers(&thrifty(&cold, &mut Damaged::new())), [0; 0], "nothing is dead");
    // A tenth of 100 kB is less than half of 80 kB, six tenths of it are more than a quarter of that.
    for (dead, first) in [((90, 2), 1), ((40, 3), 2)] {
        kill(&mut cold, 1, dead.0);
        kill(&mut cold, 2, dead.1);
        assert_eq!(numbers(&thrifty(&cold, &mut Damaged::new())), [first]);
        let mut damaged = Damaged::from([(first, Error::internal("damaged"))]);
        assert_eq!(numbers(&thrifty(&cold, &mut damaged)), [3 - first], "{first} is damaged");
    }
}

#[test]
fn a_run_of_small_segments_ends_where_a_step_is_full() {
    let mut archive = new_archive();
    archive.add(Some((1, 1)), &rows(1..2, zeros(9)), &[]);
    archive.add(Some((2, 2)), &rows(2..3, zeros(9)), &[]);
    archive.add(Some((3, 99)), &rows(3..100, zeros(60_000)), &[]);
    archive.add(Some((100, 199)), &rows(100..200, zeros(60_000)), &[]);
    let cold = opened(&archive).view.cold;
    for (at_least, run) in [(3, vec![1, 2, 3]), (4, vec![])] {
        assert_eq!(numbers(&small(&cold, at_least, &mut Damaged::new())), run);
    }
}

#[test]
fn a_vector_counts_with_four_bytes_a_value() {
    let mut archive = new_archive();
    archive.add(Some((1, 1)), &[row(1, 1)], &[]);
    let cold = opened(&archive).view.cold;
    let segment = &cold.segments[&1].segment;
    let (mut group, mut found) = (segment.footer().groups[0].clone(), Vec::new());
    segment.rows(0, 0, 1, &mut found).unwrap();
    let mut row = found.remove(0);
    let without = row_scratch(&group, &row);
    (group.dim, row.vector_index) = (1000, Some(0));
    assert_eq!(row_scratch(&group, &row) - without, 4000);
}

/// Operations that the merge of these segments keeps.
fn kept(victims: &[u64]) -> Vec<u64> {
    let mut archive = new_archive();
    archive.add(Some((1, 3)), &[row(10, 1), row(11, 2), row(12, 3)], &[]);
    let ops = [define("a", 4), setting("1", 5), request(1, 6)].map(|op| encoded(&op));
    // Of an older row; of an id that no segment has; of another collection.
    let gone = [delete(10, 7), delete(50, 8), delete_in(CollectionId(2), 11, 9)];
    archive.add(Some((4, 12)), &[row(30, 12)], &[ops, gone].concat());
    let ops = [define("b", 13), setting("2", 14), request(2, 15)].map(|op| encoded(&op));
    archive.add(Some((13, 16)), &[row(31, 16)], &ops);
    let Recovered { view, catalog, .. } = opened(&archive);
    let ground = Ground { disk: &*archive.disk, store_id: STORE, catalog: &catalog };
    let victims: Vec<_> =
        victims.iter().map(|number| Arc::clone(&view.cold.segments[number])).collect();
    let Ran::Merged(cold, step) = run(&ground, &view, &victims).unwrap() else {
        panic!("nothing is damaged");
    };
    assert_eq!(step.superseded, numbers(&victims));
    let ops = cold.segments[&4].segment.ops().unwrap();
    ops.into_iter().map(|(lsn, _)| lsn.0).collect()
}

#[test]
fn an_operation_is_kept_while_it_matters_and_no_longer() {
    assert_eq!(kept(&[2]), [7], "newer words stand in the third segment");
    assert_eq!(kept(&[2, 3]), [7, 13, 14, 15]);
    assert_eq!(kept(&[1, 2]), [0; 0], "the older row goes as well");
}

#[test]
fn only_a_row_that_counts_gets_ripe() {
    let mut archive = new_archive();
    let expiring = |id: u64, at: i64| Record { expires: Some(Timestamp(at)), ..row(id, id) };
    let first = [expiring(1, 5), expiring(2, 5), expiring(3, 5), expiring(4, 50)];
    archive.add(Some((1, 4)), &first, &[encoded(&define("notes", 4))]);
    archive.add(Some((5, 5)), &[row(1, 5)], &[]);
    let Recovered { mut view, catalog, .. } = opened(&archive);
    view.apply(Op::Put(row(2, 6)), None);
    let ground = Ground { disk: &*archive.disk, store_id: STORE, catalog: &catalog };
    let grace = u64::try_from(EXPIRY_GRACE.as_millis()).unwrap();
    assert_eq!(ripe(&ground, &view, Timestamp(10), 0).unwrap().len(), 0, "seen first");
    let found = ripe(&ground, &view, Timestamp(10), grace).unwrap();
    let keys: Vec<&[u8]> = found.iter().map(|(path, _)| path.key.as_bytes()).collect();
    assert_eq!(keys, [b"k3"]);
}
