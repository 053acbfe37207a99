//! Where the sections of a segment of the archive are, as docs/FORMAT.md lays them out.

use pmll::io::sim::SimDisk;

/// Where a section of the only group of a segment begins, and its length.
pub(crate) fn of(disk: &SimDisk, segment: &str, kind: u8) -> (u64, u64) {
    let bytes = disk.durable_bytes(segment).unwrap();
    let number = |at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    let footer = number(bytes.len() - 32, 8) as usize;
    let superseded = number(footer + 57, 4) as usize;
    let flag = footer + 61 + 12 * superseded;
    let groups = flag + 1 + if bytes[flag] == 1 { 25 } else { 0 };
    assert_eq!(number(groups, 4), 1, "one group");
    let group = groups + 4;
    let sections = (0..usize::from(bytes[group + 49])).map(|n| group + 50 + 25 * n);
    let found = sections.into_iter().find(|at| bytes[*at] == kind).unwrap();
    (number(found + 1, 8), number(found + 9, 8))
}
