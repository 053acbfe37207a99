//! What pieces say of rows, and which of them are kept.

use super::*;
use crate::pure::quant::{self, Bits};

const DIM: usize = 40;
const MEAN_BYTES: u64 = 4 * DIM as u64;

fn layout() -> RowLayout {
    RowLayout::new(DIM, 0, Bits::Eight).unwrap()
}

fn codes(rows: u32) -> Vec<u8> {
    let mut codes = vec![0; rows as usize * layout().row_bytes()];
    for (n, row) in codes.chunks_exact_mut(layout().row_bytes()).enumerate() {
        let vector: Vec<f32> = (0..DIM).map(|i| ((n * 7 + i * 3) % 11) as f32 - 5.0).collect();
        quant::encode(layout(), &vector, row);
    }
    codes
}

fn mean_of(width: Width) -> &'static [f32] {
    if width == Width::Brief { &[0.01; DIM] } else { &[] }
}

fn piece(width: Width, from: u32, rows: u32) -> Piece {
    Piece::new(width, layout(), from, &codes(rows), &[], mean_of(width))
}

#[test]
fn rows_come_back_with_their_codes_and_the_ids_that_say_all() {
    let from = CHUNK_ROWS as u32;
    // Row 1 of the piece is damaged, row 2 expires, the id of row 4 is too far away.
    let ids = [(0, 70), (2, 72), (3, 90), (4, 70 + u64::from(NONE)), (5, 69)];
    let mut rows: Vec<Row> = ids.iter().map(|(nth, id)| Row::example(from + nth, *id)).collect();
    rows[1].expires = Some(rows[1].at);
    let key = GroupKey { segment: 3, group: 1 };
    for width in [Width::Whole, Width::Brief] {
        let pieces = Pieces::default();
        let piece = Piece::new(width, layout(), from, &codes(6), &rows, mean_of(width));
        assert_eq!(piece.bytes(), width.bytes_of(layout(), 6));
        let table = pieces.add(&key, from, piece, u64::MAX);
        assert!(table.has(from) && !table.has(0) && !table.has(2 * from));
        let found: Vec<_> = (from..from + 7).map(|at| table.row(at).and_then(|r| r.id())).collect();
        let id = |id| Some(EntryId(id));
        assert_eq!(found, [id(70), None, None, id(90), None, None, None]);
        assert!(table.row(from + 6).is_none() && table.bytes_of(from + 6).is_none());
        for (at, whole) in (from..).zip(codes(6).chunks_exact(layout().row_bytes())) {
            let row = table.row(at).unwrap();
            assert_eq!((row.width, table.width_of(at)), (width, Some(width)));
            assert_eq!(row.mean, mean_of(width));
            assert_eq!(table.bytes_of(at).unwrap().len(), row.codes.len() + ID_BYTES);
            let mut brief = vec![0; Width::Brief.code_bytes(layout())];
            BriefMaker::new(BriefLayout::of(layout()), &[0.01; DIM]).make(whole, &mut brief);
            assert_eq!(row.codes, if width == Width::Whole { whole } else { &brief });
        }
    }
}

#[test]
fn a_piece_is_kept_once_while_there_is_room_and_the_least_used_group_goes_first() {
    let pieces = Pieces::default();
    let (a, b) = (GroupKey { segment: 1, group: 0 }, GroupKey { segment: 2, group: 0 });
    let one = Width::Brief.bytes_of(layout(), 8);
    let all = |count: u64| count * one + MEAN_BYTES;
    let rows = CHUNK_ROWS as u32;
    let add = |key, from, most| pieces.add(key, from, piece(Width::Brief, from, 8), most);
    assert!(!add(&a, 0, all(1) - 1).has(0), "there is no room for its mean");
    add(&a, 0, all(3));
    let early = pieces.get(&a);
    add(&a, 0, all(3));
    assert_eq!(pieces.bytes(), all(1), "it is there");
    add(&a, 2 * rows, all(3));
    add(&b, rows, all(3));
    assert!(!add(&b, 0, all(3)).has(0), "there is no room");
    let fits = |bytes, most| pieces.may_have_room(bytes, most, Width::Whole);
    assert!(!fits(1, all(3)) && fits(one, all(4)));
    assert!(early.has(0) && !early.has(2 * rows), "who looked early goes on with that");
    let _ = pieces.get(&a);
    pieces.shrink(all(3) - 1);
    let kept = |key, from| pieces.get(key).has(from);
    assert!(kept(&a, 0) && kept(&a, 2 * rows) && !kept(&b, rows));
    pieces.shrink(all(2) - 1);
    assert!(kept(&a, 0) && !kept(&a, 2 * rows), "the last rows of a group go first");
    assert_eq!(pieces.bytes(), all(1));
    add(&b, rows, all(3));
    pieces.retain(|key| key.segment == 2);
    assert!(!kept(&a, 0) && kept(&b, rows));
    assert_eq!(pieces.bytes(), all(1));
    // One that knows nothing is kept as well.
    assert!(!pieces.add(&a, 0, Piece::default(), all(1)).has(0), "there is no room");
    assert!(pieces.add(&b, 0, Piece::default(), all(2)).has(0));
    assert_eq!(pieces.bytes(), all(1) + MORE_BYTES);
    assert!(pieces.get(&b).row(0).is_none() && pieces.get(&b).bytes_of(0).is_none());
}

#[test]
fn whole_codes_make_room_for_brief_ones_and_take_their_place() {
    let (pieces, key) = (Pieces::default(), GroupKey { segment: 1, group: 0 });
    let rows = CHUNK_ROWS as u32;
    let (whole, brief) = (Width::Whole.bytes_of(layout(), 8), Width::Brief.bytes_of(layout(), 8));
    for nth in 0..3 {
        pieces.add(&key, nth * rows, piece(Width::Whole, nth * rows, 8), u64::MAX);
    }
    pieces.add(&key, 3 * rows, piece(Width::Brief, 3 * rows, 8), u64::MAX);
    assert_eq!(pieces.bytes(), 3 * whole + brief + MEAN_BYTES);
    // One of them is enough.
    let most = 3 * whole + brief + MEAN_BYTES;
    assert!(!pieces.make_room(1, most, Width::Whole), "eight bits make none go");
    assert!(pieces.make_room(brief, most, Width::Brief));
    let kept = |nth| pieces.get(&key).width_of(nth * rows);
    assert_eq!((kept(0), kept(1), kept(3)), (None, Some(Width::Whole), Some(Width::Brief)));
    assert_eq!(pieces.bytes(), 2 * whole + brief + MEAN_BYTES);
    assert!(!pieces.make_room(brief, brief + MEAN_BYTES, Width::Brief), "all of them are not");
    assert_eq!(kept(1), Some(Width::Whole), "so none went");
    assert!(pieces.make_room(brief, 2 * brief + MEAN_BYTES, Width::Brief));
    assert_eq!((kept(1), kept(2), kept(3)), (None, None, Some(Width::Brief)));
    assert_eq!(pieces.bytes(), brief + MEAN_BYTES);
    // Where there is room again, eight bits come back, and three never.
    let add = |width, most| pieces.add(&key, 3 * rows, piece(width, 3 * rows, 8), most);
    assert_eq!(add(Width::Whole, whole + MEAN_BYTES - 1).width_of(3 * rows), Some(Width::Brief));
    assert_eq!(add(Width::Whole, whole + MEAN_BYTES).width_of(3 * rows), Some(Width::Whole));
    assert_eq!(add(Width::Brief, u64::MAX).width_of(3 * rows), Some(Width::Whole));
    assert_eq!(pieces.bytes(), whole);
    assert!(pieces.may_have_room(whole, whole, Width::Brief));
    pieces.add(&key, 0, piece(Width::Brief, 0, 8), u64::MAX);
    pieces.shrink(brief + MEAN_BYTES);
    let has_room = pieces.may_have_room(1, brief + MEAN_BYTES, Width::Brief);
    assert!(!has_room, "the one of eight bits is gone");
    pieces.add(&key, rows, piece(Width::Whole, rows, 8), u64::MAX);
    // That there are no codes of 8 bits to be had is known of a brief one, and no more of a whole one.
    pieces.add(&key, 0, piece(Width::Brief, 0, 8), u64::MAX);
    pieces.add(&key, rows, Piece::default(), u64::MAX);
    let table = pieces.add(&key, 0, Piece::default(), u64::MAX);
    assert!(table.has(0) && table.width_of(0).is_none());
    assert_eq!(table.width_of(rows), Some(Width::Whole));
    assert_eq!(pieces.bytes(), whole + MORE_BYTES);
    pieces.retain(|_| false);
    assert!(pieces.bytes() == 0 && !pieces.may_have_room(1, 0, Width::Brief));
}

#[test]
fn equal_means_are_one_and_take_their_bytes_once() {
    let pieces = Pieces::default();
    let keys = [1, 2, 3].map(|segment| GroupKey { segment, group: 0 });
    let add = |key: &GroupKey, mean: &[f32]| {
        let piece = Piece::new(Width::Brief, layout(), 0, &codes(8), &[], mean);
        pieces.add(key, 0, piece, u64::MAX)
    };
    let one = Width::Brief.bytes_of(layout(), 8);
    let means = [[0.01; DIM], [0.01; DIM], [0.02; DIM]];
    let tables: Vec<_> = keys.iter().zip(&means).map(|(key, mean)| add(key, mean)).collect();
    let mean = |nth: usize| tables[nth].row(0).unwrap().mean;
    assert!(std::ptr::eq(mean(0), mean(1)) && !std::ptr::eq(mean(0), mean(2)));
    assert_eq!((mean(0), mean(2)), (means[0].as_slice(), means[2].as_slice()));
    assert_eq!(pieces.bytes(), 3 * one + 2 * MEAN_BYTES);
    drop(tables);
    pieces.retain(|key| key.segment == 2);
    assert_eq!(pieces.bytes(), one + MEAN_BYTES, "the mean that nobody has is gone");
    assert!(pieces.add(&keys[0], 0, piece(Width::Whole, 0, 8), u64::MAX).has(0));
    assert_eq!(pieces.bytes(), one + MEAN_BYTES + Width::Whole.bytes_of(layout(), 8));
    pieces.shrink(0);
    assert_eq!(pieces.bytes(), 0);
}
