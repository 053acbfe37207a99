//! Looks and visits at segments that are made frame by frame, also as no writer would make them: what is
//! handed out as a whole batch, and what a damaged place is said to mean.

use super::look::{Meaning, Met, Wound, headers, look, visit};
use super::*;
use crate::bytes::codec::log::{Commit, FRAME_BYTES, Frame, Kind, SegmentHeader};
use crate::bytes::codec::op::encode_op;

/// Bytes that are no frame.
const RUBBISH: [u8; 60] = [0xff; 60];

/// A segment in the making.
struct Made {
    header: SegmentHeader,
    bytes: Vec<u8>,
    batch: u64,
    /// Of the batch that has no commit frame yet.
    commit: Commit,
    crc: crc32fast::Hasher,
    last: Lsn,
}

impl Made {
    fn new(number: u64, first: u64) -> Made {
        let header = SegmentHeader {
            store_id: STORE,
            number,
            first_lsn: Lsn(first),
            first_batch: number,
            salt: 9,
            recycled: false,
        };
        Made::with(header)
    }

    fn with(header: SegmentHeader) -> Made {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let commit = Commit { count: 0, first_lsn: Lsn(0), batch_crc: 0 };
        let (batch, crc) = (header.first_batch, crc32fast::Hasher::new());
        Made { header, bytes, batch, commit, crc, last: header.first_lsn }
    }

    fn frame(&mut self, kind: Kind, lsn: Lsn, payload: &[u8]) -> [u8; FRAME_BYTES] {
        let (seed, at) = (self.header.seed(), self.bytes.len() as u64);
        let payload_crc = seed.crc(at + FRAME_BYTES as u64, payload);
        let len = payload.len() as u32;
        let frame = Frame { kind, len, lag: 1, lsn, batch: self.batch, payload_crc };
        let header = frame.encode(seed, at);
        self.bytes.extend(header);
        self.bytes.extend(payload);
        header
    }

    /// Adds a record, and answers where its frame stands.
    fn put(&mut self, lsn: u64, payload: &[u8]) -> u64 {
        let (at, mut bytes) = (self.bytes.len() as u64, Vec::new());
        encode_op(&op(lsn, 0).0, payload, &mut bytes);
        let header = self.frame(Kind::Op, Lsn(lsn), &bytes);
        self.crc.update(&header);
        if self.commit.count == 0 {
            self.commit.first_lsn = Lsn(lsn);
        }
        self.commit.count += 1;
        self.last = Lsn(lsn);
        at
    }

    /// Ends a batch with a commit frame that says something else.
    fn commit_with(&mut self, change: impl FnOnce(&mut Commit, &mut Lsn)) {
        let mut commit = self.commit;
        commit.batch_crc = std::mem::take(&mut self.crc).finalize();
        let mut lsn = self.last;
        change(&mut commit, &mut lsn);
        let mut payload = Vec::new();
        commit.encode(&mut payload);
        self.frame(Kind::Commit, lsn, &payload);
        self.commit.count = 0;
        self.batch += 1;
    }

    fn commit(&mut self) {
        self.commit_with(|_, _| {});
    }

    /// A frame without payload, behind the last batch.
    fn end(&mut self, kind: Kind) -> u64 {
        let at = self.bytes.len() as u64;
        self.batch -= 1;
        self.frame(kind, self.last, &[]);
        self.batch += 1;
        at
    }

    fn rubbish(&mut self, len: usize) -> u64 {
        let at = self.bytes.len() as u64;
        self.bytes.extend(&RUBBISH[..len]);
        at
    }

    fn damage(&mut self, at: u64) {
        self.bytes[at as usize] ^= 0x40;
    }
}

fn disk_of(segments: &[&Made]) -> MemoryDisk {
    let disk = with_folder(MemoryDisk::new());
    for (made, number) in segments.iter().zip(1..) {
        let file = disk.open(&file_name(number), OpenMode::CreateNew).unwrap();
        file.write_at(&made.bytes, 0).unwrap();
    }
    disk
}

/// A look at the first segment.
fn first_look(disk: &MemoryDisk, applied: u64) -> look::Look {
    look(disk, Lsn(applied)).unwrap().remove(0).1.unwrap()
}

fn meaning(made: &Made) -> Meaning {
    let found = first_look(&disk_of(&[made]), 0);
    assert_eq!(found.wounds.len(), 1);
    found.wounds[0].meaning
}

/// What a visit meets, in words.
fn visited(disk: &MemoryDisk, applied: u64) -> Vec<String> {
    let mut met = Vec::new();
    visit(disk, STORE, Lsn(applied), &mut |what| {
        met.push(match what {
            Met::Batch(ops) => {
                let lsns: Vec<u64> = ops.iter().map(|logged| logged.op.lsn().0).collect();
                format!("batch {lsns:?}")
            }
            Met::Loose(lsn) => format!("loose {lsn}"),
            Met::Damage { offset, meaning, .. } => format!("{} at {offset}", meaning.name()),
            Met::Unreadable(file, _) => format!("unreadable {file}"),
        });
        Ok(())
    })
    .unwrap();
    met
}

/// A segment of five records with a footer, and the one behind it.
fn two_segments() -> (Made, u64, Made) {
    let mut first = Made::new(1, 1);
    for lsn in 1..=5 {
        first.put(lsn, b"first");
    }
    first.commit();
    let footer = first.end(Kind::Footer);
    let mut second = Made::new(2, 6);
    second.put(6, b"second");
    second.commit();
    (first, footer, second)
}

#[test]
fn what_a_segment_says_of_itself_and_how_it_ends() {
    let (first, footer, second) = two_segments();
    let disk = disk_of(&[&first, &second]);
    let found = first_look(&disk, 0);
    assert_eq!((found.header, found.last), (Some(first.header), Some("footer")));
    assert_eq!((found.used_bytes, found.wounds_total), (footer + FRAME_BYTES as u64, 0));
    let heads = headers(&disk).unwrap();
    assert_eq!(heads, [(file_name(1), Some(first.header)), (file_name(2), Some(second.header))]);
    // What lacks its commit frame.
    let mut loose = Made::new(1, 1);
    loose.put(1, b"a");
    loose.commit();
    loose.put(2, b"b");
    let disk = disk_of(&[&loose]);
    let found = first_look(&disk, 0);
    assert_eq!((found.last, found.loose, found.whole.count()), (Some("operation"), 1, 1));
    assert_eq!(visited(&disk, 0), ["batch [1]", "loose 2"]);
}

#[test]
fn a_damaged_end_mark_costs_nothing_when_the_next_segment_goes_on() {
    let (mut first, footer, mut second) = two_segments();
    first.damage(footer + 20);
    let disk = disk_of(&[&first, &second]);
    for (applied, meaning) in [(0, Meaning::Footer), (4, Meaning::Footer), (5, Meaning::Archived)] {
        let wound = Wound { offset: footer, resumes: None, meaning };
        assert_eq!(first_look(&disk, applied).wounds, [wound], "{applied} applied");
        let said = format!("{} at {footer}", meaning.name());
        let met = ["batch [1, 2, 3, 4, 5]", &said, "batch [6]"];
        assert_eq!(visited(&disk, applied), met, "{applied} applied");
    }
    // Whose segment that is, nobody can say when its header is damaged, and it may be another store's.
    let mut foreign = Made::with(SegmentHeader { store_id: [3; 16], ..second.header });
    foreign.put(6, b"foreign");
    foreign.commit();
    let rotten = format!("rotten at {footer}");
    let met = ["batch [1, 2, 3, 4, 5]", &rotten, "unreadable wal/0000000002.wal"];
    assert_eq!(visited(&disk_of(&[&first, &foreign]), 0), met);
    second.damage(30);
    let disk = disk_of(&[&first, &second]);
    assert_eq!(headers(&disk).unwrap()[1], (file_name(2), None));
    for applied in [0, 5] {
        assert_eq!(first_look(&disk, applied).wounds[0].meaning, Meaning::Rotten);
        let met = ["batch [1, 2, 3, 4, 5]", &rotten, "rotten at 0"];
        assert_eq!(visited(&disk, applied), met, "{applied} applied");
    }
}

#[test]
fn what_the_last_damaged_place_may_have_been() {
    // All of the last batch is there, up to the end of the file. A zeroed sector says that a batch was
    // cut short, wherever in it; one of the batch before says nothing.
    for (first, third, wanted) in
        [(0, 1, Meaning::TornOrRotten), (1, 0, Meaning::Torn), (1, 1, Meaning::TornOrRotten)]
    {
        let mut made = Made::new(1, 1);
        made.put(1, b"a");
        made.put(2, &[first; 1500]);
        made.commit();
        made.put(3, &[third; 1500]);
        let at = made.put(4, b"d");
        made.commit();
        made.damage(at + 9);
        assert_eq!(meaning(&made), wanted, "{first} and {third}");
    }
    // The file ends before any batch could, or goes on; behind a mark nothing was acknowledged.
    for (mark, len, wanted) in [
        (false, 10, Meaning::Torn),
        (false, 47, Meaning::Torn),
        (false, 48, Meaning::TornOrRotten),
        (true, 10, Meaning::Torn),
        (true, 60, Meaning::Torn),
    ] {
        let mut made = Made::new(1, 1);
        made.put(1, b"a");
        made.commit();
        if mark {
            made.end(Kind::AckMark);
        }
        made.rubbish(len);
        assert_eq!(meaning(&made), wanted, "{len} bytes, mark {mark}");
    }
    // Inside of a batch it is no end mark, whatever the next segment says.
    let mut made = Made::new(1, 1);
    made.put(1, b"a");
    made.commit();
    made.put(2, b"b");
    made.rubbish(60);
    let disk = disk_of(&[&made, &Made::new(2, 2)]);
    assert_eq!(first_look(&disk, 0).wounds[0].meaning, Meaning::Rotten);
}

#[test]
fn damage_of_a_payload_costs_that_record_and_only_so_many_are_judged() {
    let mut made = Made::new(1, 1);
    for lsn in 1..=18 {
        let at = made.put(lsn, b"some");
        let end = made.bytes.len() as u64;
        made.commit();
        made.damage(end - 1);
        if lsn == 1 {
            let found = first_look(&disk_of(&[&made]), 0);
            assert_eq!((found.wounds[0].offset, found.wounds[0].resumes), (at, Some(end)));
        }
    }
    let found = first_look(&disk_of(&[&made]), 0);
    assert_eq!((found.wounds.len(), found.wounds_total), (16, 18));
    assert_eq!(found.behind.ops, [("damaged", 18)].into());
}

#[test]
fn a_commit_frame_must_fit_its_batch() {
    type Change = fn(&mut Commit, &mut Lsn);
    let (fits, loose) = ("batch [1, 2]", "loose 2");
    let cases: [(Change, &str, bool); 6] = [
        (|_, _| {}, fits, true),
        (|commit, _| commit.count += 1, loose, false),
        (|commit, _| commit.count -= 1, loose, false),
        (|commit, _| commit.first_lsn = Lsn(2), loose, false),
        (|commit, _| commit.batch_crc ^= 1, loose, true),
        (|_, lsn| *lsn = Lsn(3), "loose 3", true),
    ];
    for (change, met, counts) in cases {
        let mut made = Made::new(1, 1);
        made.put(1, b"a");
        made.put(2, b"b");
        made.commit_with(change);
        let disk = disk_of(&[&made]);
        assert_eq!(visited(&disk, 0), [met]);
        let found = first_look(&disk, 0);
        assert_eq!((found.whole.count() == 2, found.loose == 2), (counts, !counts), "{met}");
    }
    // Records that do not follow each other, and bytes between a record and the commit frame that fits it.
    let mut made = Made::new(1, 1);
    made.put(1, b"a");
    made.put(3, b"c");
    made.commit();
    assert_eq!(visited(&disk_of(&[&made]), 0), ["loose 3"]);
    let mut made = Made::new(1, 1);
    made.put(1, b"a");
    let at = made.rubbish(60);
    made.commit();
    made.put(2, b"b");
    made.commit();
    let met = ["loose 1", &format!("rotten at {at}"), "loose 1", "batch [2]"];
    assert_eq!(visited(&disk_of(&[&made]), 0), met);
}

#[test]
fn a_visit_says_where_the_bytes_stand() {
    let large = vec![7; limits::PAYLOAD_RESIDENT_BYTES_MAX + 1];
    let mut made = Made::new(1, 1);
    let at = [made.put(1, b"small"), made.put(2, &large)];
    made.commit();
    let mut found = Vec::new();
    visit(&disk_of(&[&made]), STORE, Lsn(0), &mut |met| {
        if let Met::Batch(ops) = met {
            found.extend(ops);
        }
        Ok(())
    })
    .unwrap();
    for (logged, at) in found.iter().zip(at) {
        assert_eq!((logged.segment, logged.offset), (1, at + FRAME_BYTES as u64));
    }
    let Op::Put(Record { payload: Payload::InLog(place), .. }) = &found[1].op else {
        panic!("{:?} stays in the log", found[1].op);
    };
    let bytes = &made.bytes[place.offset as usize..][..place.len as usize];
    assert!(bytes == large);
}

#[test]
fn a_segment_that_is_not_ours_is_named_and_left_alone() {
    let ours = Made::new(1, 1).header;
    for header in [
        SegmentHeader { store_id: [3; 16], ..ours },
        SegmentHeader { number: 2, ..ours },
        SegmentHeader { first_lsn: Lsn(0), ..ours },
        SegmentHeader { first_batch: 0, ..ours },
    ] {
        let mut made = Made::with(header);
        made.put(1, b"a");
        made.commit();
        let met = visited(&disk_of(&[&made]), 0);
        assert_eq!(met, ["unreadable wal/0000000001.wal"], "{header:?}");
    }
    let mut made = Made::new(1, 1);
    made.damage(3);
    assert_eq!(visited(&disk_of(&[&made]), 0), ["rotten at 0"]);
    made.bytes = vec![0; 4096];
    assert_eq!(visited(&disk_of(&[&made]), 0), [""; 0]);
    // A newer build's segment ends the visit, and so does whoever takes what it meets.
    let mut made = Made::new(1, 1);
    made.put(1, b"a");
    made.commit();
    let refuse = &mut |_: Met<'_>| Err(Error::internal("no more"));
    let error = visit(&disk_of(&[&made]), STORE, Lsn(0), refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    made.bytes[8] ^= 1;
    let crc = crc32fast::hash(&made.bytes[..60]);
    made.bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let error = visit(&disk_of(&[&made]), STORE, Lsn(0), &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Version);
}

#[test]
fn every_meaning_has_its_name() {
    for (meaning, name) in [
        (Meaning::Archived, "archived"),
        (Meaning::Footer, "footer"),
        (Meaning::Torn, "torn"),
        (Meaning::TornOrRotten, "torn or rotten"),
        (Meaning::Rotten, "rotten"),
    ] {
        assert_eq!(meaning.name(), name);
    }
}
