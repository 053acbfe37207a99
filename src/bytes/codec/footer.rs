//! The footer of an archive segment: its directory, and what it says about the store's history.
//!
//! ```text
//! store id (16) | number u64 | covers? u8 | first LSN u64 | last LSN u64 | next entry id u64
//! | next collection u32 | beside u32 | count u32, count x (segment u64, footer CRC u32)
//! | ops? u8, [section] | count u32, count x group
//! group: collection u32 | dim u32 | element u8 | rows u32 | vectors u32 | ids: min u64, max u64
//! | versions: min u64, max u64 | count u8, count x section
//! section: kind u8 | offset u64 | len u64 | items u32 | CRC u32
//! ```
//!
//! The footer's own CRC (in the trailer) says that these are the bytes that were written; `decode`
//! checks all the same that every count and place fits the file, so that nobody allocates or reads
//! by a number that was not looked at. It is the only part of a segment that stays in RAM.

use crate::bytes::codec::body::TABLE_ENTRY_BYTES;
use crate::bytes::codec::codes;
use crate::bytes::codec::cursor::{Put, Reader};
use crate::bytes::codec::row::ROW_BYTES;
use crate::bytes::codec::segment::{ALIGN, Damage, HEADER_BYTES, Section, SectionKind};
use crate::pure::sketch::SketchLayout;
use crate::words::id::{CollectionId, EntryId, Lsn};
use crate::words::limits;
use crate::words::options::{Element, Metric};

const GROUP_FIXED_BYTES: usize = 4 + 4 + 1 + 4 + 4 + 4 * 8 + 1;
const SECTION_BYTES: usize = 1 + 8 + 8 + 4 + 4;

/// The rows of one collection in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which collection.
    pub collection: CollectionId,
    /// Values in a vector; 0 when no row has one.
    pub dim: u32,
    /// How values are stored.
    pub element: Element,
    /// Number of rows.
    pub rows: u32,
    /// Number of rows with a vector. They come first: vector number and row number are the same.
    pub vectors: u32,
    /// Smallest id.
    pub min_id: EntryId,
    /// Largest id.
    pub max_id: EntryId,
    /// Smallest version.
    pub min_version: Lsn,
    /// Largest version.
    pub max_version: Lsn,
    /// Its sections, in file order.
    pub sections: Vec<Section>,
}

impl Group {
    /// The section of this kind, if the group has one.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    /// Bytes of one stored vector.
    #[must_use]
    pub fn stride(&self) -> usize {
        let value = match self.element {
            Element::F32 => 4,
            Element::F16 => 2,
        };
        self.dim as usize * value
    }
}

/// The directory of a segment, and what it says about the store's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The store it belongs to.
    pub store_id: [u8; 16],
    /// Its number.
    pub number: u64,
    /// First and last LSN of the log range it archives; `None` for a segment that vacuum wrote.
    pub covers: Option<(Lsn, Lsn)>,
    /// No entry has this id or a larger one yet.
    pub next_id: u64,
    /// No collection has this number or a larger one yet.
    pub next_collection: u32,
    /// [`digest`] of the segments that counted beside this one when it was sealed. The newest
    /// segment so vouches for all others: one that was lost cannot pass for one that never was.
    pub beside: u32,
    /// Segments this one replaces: number and footer CRC.
    pub supersedes: Vec<(u64, u32)>,
    /// Operations that are not rows.
    pub ops: Option<Section>,
    /// One group per collection, ascending by collection.
    pub groups: Vec<Group>,
}

/// CRC-32 over number and footer CRC of segments, ascending by number.
#[must_use]
pub fn digest(segments: impl IntoIterator<Item = (u64, u32)>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for (number, crc) in segments {
        hasher.update(&number.to_le_bytes());
        hasher.update(&crc.to_le_bytes());
    }
    hasher.finalize()
}

impl Footer {
    /// Appends the footer's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(&self.store_id);
        out.put_u64(self.number);
        out.put_u8(u8::from(self.covers.is_some()));
        let (first, last) = self.covers.unwrap_or_default();
        out.put_u64(first.0);
        out.put_u64(last.0);
        out.put_u64(self.next_id);
        out.put_u32(self.next_collection);
        out.put_u32(self.beside);
        // Counts fit: the writer refuses more groups or superseded segments than this.
        out.put_u32(u32::try_from(self.supersedes.len()).unwrap_or(u32::MAX));
        for (number, crc) in &self.supersedes {
            out.put_u64(*number);
            out.put_u32(*crc);
        }
        out.put_u8(u8::from(self.ops.is_some()));
        if let Some(section) = &self.ops {
            encode_section(section, out);
        }
        out.put_u32(u32::try_from(self.groups.len()).unwrap_or(u32::MAX));
        for group in &self.groups {
            out.put_u32(group.collection.0);
            out.put_u32(group.dim);
            out.put_u8(match group.element {
                Element::F32 => 1,
                Element::F16 => 2,
            });
            out.put_u32(group.rows);
            out.put_u32(group.vectors);
            out.put_u64(group.min_id.0);
            out.put_u64(group.max_id.0);
            out.put_u64(group.min_version.0);
            out.put_u64(group.max_version.0);
            out.put_u8(u8::try_from(group.sections.len()).unwrap_or(u8::MAX));
            for section in &group.sections {
                encode_section(section, out);
            }
        }
    }

    /// Reads a footer whose CRC was checked, and checks that all it says fits a file whose sections
    /// end before `end`.
    pub fn decode(bytes: &[u8], end: u64) -> Result<Footer, Damage> {
        let mut reader = Reader::new(bytes);
        let store_id = reader.array()?;
        let number = reader.u64()?;
        let covered = flag(&mut reader)?;
        let (first, last) = (Lsn(reader.u64()?), Lsn(reader.u64()?));
        if first > last {
            return Err(Damage::new(format!("covers LSN {first} to {last}")));
        }
        let next_id = reader.u64()?;
        if last.0.max(next_id).max(number) > limits::COUNT_MAX {
            return Err(Damage::new(format!("counts to LSN {last}, id {next_id}: too far")));
        }
        let next_collection = reader.u32()?;
        let beside = reader.u32()?;
        let count = counted(&mut reader, 12)?;
        let mut supersedes = Vec::with_capacity(count);
        for _ in 0..count {
            supersedes.push((reader.u64()?, reader.u32()?));
        }
        let ops = match flag(&mut reader)? {
            true => Some(decode_section(&mut reader)?),
            false => None,
        };
        let count = counted(&mut reader, GROUP_FIXED_BYTES)?;
        if count > usize::from(u16::MAX) {
            return Err(Damage::new(format!("{count} groups are more than a segment may have")));
        }
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            groups.push(decode_group(&mut reader)?);
        }
        if !reader.is_empty() {
            return Err(Damage::new(format!("{} bytes too many in the footer", reader.left())));
        }
        let covers = covered.then_some((first, last));
        let footer = Footer {
            store_id,
            number,
            covers,
            next_id,
            next_collection,
            beside,
            supersedes,
            ops,
            groups,
        };
        footer.check(end)?;
        Ok(footer)
    }

    /// The group of a collection.
    #[must_use]
    pub fn group_of(&self, collection: CollectionId) -> Option<u16> {
        let at = self.groups.binary_search_by_key(&collection, |g| g.collection).ok()?;
        u16::try_from(at).ok()
    }

    /// All sections, in file order, with the group they belong to.
    pub fn sections(&self) -> impl Iterator<Item = (u16, &Section)> {
        let groups = self.groups.iter().zip(0u16..);
        groups
            .flat_map(|(group, number)| group.sections.iter().map(move |s| (number, s)))
            .chain(self.ops.iter().map(|s| (0, s)))
    }

    fn check(&self, end: u64) -> Result<(), Damage> {
        let mut at = HEADER_BYTES as u64;
        for (_, section) in self.sections() {
            if section.offset < at
                || section.offset % ALIGN != 0
                || section.offset - at >= ALIGN
                || section.len == 0
                || section.offset.checked_add(section.len).is_none_or(|e| e > end)
            {
                return Err(Damage::new(format!(
                    "a section of {} bytes at {} cannot lie there",
                    section.len, section.offset
                )));
            }
            at = section.end();
        }
        if at != end {
            return Err(Damage::new(format!("nothing is known about bytes {at} to {end}")));
        }
        if self.ops.is_some_and(|s| s.kind != SectionKind::Ops) {
            return Err(Damage::new("the section of operations is of another kind"));
        }
        if self.groups.windows(2).any(|pair| pair[0].collection >= pair[1].collection) {
            return Err(Damage::new("the groups are not in order"));
        }
        self.groups.iter().try_for_each(check_group)
    }
}

fn check_group(group: &Group) -> Result<(), Damage> {
    let wrong = |what: &str| {
        Err(Damage::new(format!("group of collection {}: {what}", group.collection.0)))
    };
    if group.rows == 0
        || group.rows == u32::MAX
        || group.vectors > group.rows
        || group.dim as usize > limits::DIM_MAX
        || (group.vectors > 0) != (group.dim > 0)
        || group.min_id > group.max_id
        || group.min_version > group.max_version
    {
        return wrong("its counts contradict each other");
    }
    let mut seen = [false; 16];
    for section in &group.sections {
        match seen.get_mut(section.kind as usize) {
            Some(seen) if !*seen && section.kind != SectionKind::Ops => *seen = true,
            _ => return wrong("a section it cannot have"),
        }
        let item_bytes = match section.kind {
            SectionKind::Rows => ROW_BYTES,
            SectionKind::BodyTable | SectionKind::PayloadTable => TABLE_ENTRY_BYTES,
            SectionKind::Vectors => group.stride(),
            SectionKind::Codes => codes::stride(group.dim),
            _ => continue,
        };
        let items = u64::from(section.items);
        if items.checked_mul(item_bytes as u64) != Some(section.len) {
            return wrong("a section whose length is not its items'");
        }
    }
    let items = |kind| group.section(kind).map_or(0, |s| s.items);
    if items(SectionKind::Rows) != group.rows
        || items(SectionKind::Vectors) != group.vectors
        || items(SectionKind::Codes) != group.vectors
        || !sketches_fit(group)
        || items(SectionKind::Bodies) != items(SectionKind::BodyTable)
        || items(SectionKind::Bodies) == 0
        || items(SectionKind::Payloads) != items(SectionKind::PayloadTable)
    {
        return wrong("its sections do not hold what it says");
    }
    Ok(())
}

/// Whether the sketches are as long as those of so many vectors are, with norms or without.
fn sketches_fit(group: &Group) -> bool {
    let Some(section) = group.section(SectionKind::Sketches) else { return group.vectors == 0 };
    let fits = |metric| {
        let layout = SketchLayout::new(group.dim as usize, metric);
        layout.map(|layout| codes::sketches_bytes(layout, group.vectors as usize))
            == Some(section.len)
    };
    section.items == group.vectors && (fits(Metric::Cosine) || fits(Metric::Dot))
}

fn encode_section(section: &Section, out: &mut Vec<u8>) {
    out.put_u8(section.kind as u8);
    out.put_u64(section.offset);
    out.put_u64(section.len);
    out.put_u32(section.items);
    out.put_u32(section.crc);
}

fn decode_section(reader: &mut Reader<'_>) -> Result<Section, Damage> {
    let kind = reader.u8()?;
    let kind = SectionKind::from_u8(kind)
        .ok_or_else(|| Damage::new(format!("section kind {kind} is unknown")))?;
    let (offset, len) = (reader.u64()?, reader.u64()?);
    Ok(Section { kind, offset, len, items: reader.u32()?, crc: reader.u32()? })
}

fn decode_group(reader: &mut Reader<'_>) -> Result<Group, Damage> {
    let collection = CollectionId(reader.u32()?);
    let dim = reader.u32()?;
    let element = match reader.u8()? {
        1 => Element::F32,
        2 => Element::F16,
        other => return Err(Damage::new(format!("element type {other} is unknown"))),
    };
    let (rows, vectors) = (reader.u32()?, reader.u32()?);
    let (min_id, max_id) = (EntryId(reader.u64()?), EntryId(reader.u64()?));
    let (min_version, max_version) = (Lsn(reader.u64()?), Lsn(reader.u64()?));
    let count = usize::from(reader.u8()?);
    if count > reader.left() / SECTION_BYTES {
        return Err(Damage::new("a group with more sections than bytes"));
    }
    let mut sections = Vec::with_capacity(count);
    for _ in 0..count {
        sections.push(decode_section(reader)?);
    }
    Ok(Group {
        collection,
        dim,
        element,
        rows,
        vectors,
        min_id,
        max_id,
        min_version,
        max_version,
        sections,
    })
}

/// A count, refused when that many items of at least `item_bytes` cannot follow.
fn counted(reader: &mut Reader<'_>, item_bytes: usize) -> Result<usize, Damage> {
    let count = reader.u32()? as usize;
    if count > reader.left() / item_bytes {
        return Err(Damage::new(format!("a list of {count} is longer than its bytes")));
    }
    Ok(count)
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Damage> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Damage::new(format!("flag byte {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        let section = |kind, offset, len, items| Section { kind, offset, len, items, crc: 9 };
        let signs = SketchLayout::new(4, Metric::Dot).unwrap();
        Footer {
            store_id: [3; 16],
            number: 7,
            covers: Some((Lsn(1), Lsn(8))),
            next_id: 40,
            next_collection: 3,
            beside: 8,
            supersedes: vec![(5, 6), (6, 7)],
            ops: Some(section(SectionKind::Ops, 1152, 40, 2)),
            groups: vec![Group {
                collection: CollectionId(2),
                dim: 4,
                element: Element::F16,
                rows: 3,
                vectors: 2,
                min_id: EntryId(1),
                max_id: EntryId(30),
                min_version: Lsn(2),
                max_version: Lsn(8),
                sections: vec![
                    section(SectionKind::Vectors, 64, 16, 2),
                    section(SectionKind::Bodies, 128, 60, 1),
                    section(SectionKind::BodyTable, 192, 24, 1),
                    section(SectionKind::Rows, 256, 384, 3),
                    section(SectionKind::Codes, 640, 2 * codes::stride(4) as u64, 2),
                    section(SectionKind::Sketches, 704, codes::sketches_bytes(signs, 2), 2),
                ],
            }],
        }
    }

    const END: u64 = 1192;

    #[test]
    fn a_footer_comes_back() {
        let mut bytes = Vec::new();
        footer().encode(&mut bytes);
        assert_eq!(Footer::decode(&bytes, END), Ok(footer()));
        assert_eq!(footer().group_of(CollectionId(2)), Some(0));
        assert_eq!(footer().group_of(CollectionId(1)), None);
    }

    #[test]
    fn numbers_that_do_not_fit_the_file_are_refused() {
        let refused = |change: &dyn Fn(&mut Footer), end| {
            let mut footer = footer();
            change(&mut footer);
            let mut bytes = Vec::new();
            footer.encode(&mut bytes);
            assert!(Footer::decode(&bytes, end).is_err(), "{footer:?}");
        };
        refused(&|_| (), END - 1);
        refused(&|_| (), END + 64);
        refused(&|f| f.covers = Some((Lsn(2), Lsn(1))), END);
        refused(&|f| f.groups[0].rows = 4, END);
        refused(&|f| f.groups[0].vectors = 1, END);
        refused(&|f| f.groups[0].dim = 8, END);
        refused(&|f| f.groups[0].element = Element::F32, END);
        refused(&|f| f.groups[0].sections[1].offset = 127, END);
        refused(&|f| f.groups[0].sections[1].len = u64::MAX, END);
        refused(&|f| f.groups[0].sections[1].kind = SectionKind::Rows, END);
        refused(&|f| f.groups[0].min_id = EntryId(31), END);
        refused(&|f| f.groups.push(footer().groups[0].clone()), END);
        refused(&|f| f.ops = None, END);
        refused(&|f| f.next_id = u64::MAX, END);
        refused(&|f| f.covers = Some((Lsn(1), Lsn(u64::MAX))), END);
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic() {
        let mut bytes = Vec::new();
        footer().encode(&mut bytes);
        for len in 0..bytes.len() {
            assert!(Footer::decode(&bytes[..len], END).is_err(), "cut to {len}");
        }
        for at in 0..bytes.len() {
            let was = bytes[at];
            for byte in [0, 1, 0x7f, 0xff, was ^ 1] {
                bytes[at] = byte;
                let _ = Footer::decode(&bytes, END);
                let _ = Footer::decode(&bytes, u64::MAX);
            }
            bytes[at] = was;
        }
    }
}
