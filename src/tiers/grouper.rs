//! The grouper: sketches of a collection in cells of neighbours, so that a search reads a part of them.
//!
//! Steps of [`group`]:
//! 1. a sample of the living rows, as their codes in the archive say, gives the centroids ([`count_of`] says
//!    how many);
//! 2. every living row goes to the cell of its nearest centroid. Some other rows are asked for
//!    their neighbours on the way, and how far the cells of those lie below the best one gives the
//!    [`margins`]: how far a search has to look for the recall it is asked for, measured on these very rows;
//! 3. cell by cell the codes are read again, and their sketches, less the centroid, written.
//!
//! Memory: the sample (32 rows a cell, 2.3 MB at 64,000 rows), for each of 256 rows that are asked 8.3 KB, at most 6
//! bytes a value and one a cell (2.8 MB at 384 values), and some 16 bytes a row while it runs.
//!
//! What a later segment holds is in no cell, and is searched flat. [`is_due`] says when that is too much.
//! A group one of whose codes is damaged is left out whole, and searched flat as well.
//!
//! Never: decides what is warm, removes a file, or writes where a reader looks.

use crate::bytes::codec::cells::{CellsHeader, Source, Tables};
use crate::bytes::codec::codes;
use crate::io::Disk;
use crate::organs::archive::Segment;
use crate::organs::arena::cells::{Cells, CellsWriter};
use crate::pure::margins::{self, Gaps, Margins};
use crate::pure::quant::cluster::Centroids;
use crate::pure::quant::panel::Panel;
use crate::pure::quant::{self, RowLayout};
use crate::pure::sketch::{self, BLOCK_ROWS, SketchLayout};
use crate::tiers::cold::{Cold, ColdSegment};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::options::Metric;
use crate::words::record::CollectionDef;

/// How many cells so many rows make: 51 of 10,000, 178 of 64,287, 1,111 of a million. The more there are, the
/// fewer rows have to be looked at, but each centroid costs what ten rows do, and each cell what some fifty
/// do: the last of its blocks is half empty. Measured: docs/decisions/0014-cells.md. Whether a machine rounds to one
/// more or less changes no answer.
fn count_of(rows: u64) -> u64 {
    ((rows as f64).powf(2.0 / 3.0) / 9.0) as u64
}

/// Rows of the sample for each cell.
const SAMPLE_ROWS: usize = 32;
/// Rounds of finding centroids.
const ROUNDS: usize = 6;
/// Rows of the sample that are asked for their neighbours.
const ASKED_ROWS: usize = 256;
/// Rows that all of them look at together: 0.1 s of one core with AVX-512, 0.4 s without. Of more than 65,536 rows
/// each sees a part.
const LOOKS_MAX: u64 = 1 << 24;
/// Rows that are read at once.
const ROWS_AT_ONCE: u32 = 512;

/// How much of the living rows cells may miss before they are made anew, which writes 57 bytes a row of 384 values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// A quarter: in a collection that grows that is four times those bytes for each row in the end.
    Much,
    /// A thirty-second: where somebody asked for order. Whoever asks each time a collection has grown by so much
    /// has 1.8 KB written for each new row of 384 values.
    Little,
}

impl Missed {
    /// More than the living rows by this number are missed.
    const fn part(self) -> u64 {
        match self {
            Missed::Much => 4,
            Missed::Little => 32,
        }
    }
}

/// The living rows of a collection that has no cells, though it has `rows_min`, or cells that miss so many
/// of them, or stand for as many that are gone.
#[must_use]
pub fn is_due(
    cold: &Cold,
    def: &CollectionDef,
    cells: Option<&Cells>,
    rows_min: u64,
    missed: Missed,
) -> Option<u64> {
    let sources = sources(cold, def);
    let living: u64 = sources.iter().map(Ground::living).sum();
    // One row would leave none to make a centroid of.
    if def.spec.metric != Metric::Cosine || living < rows_min.max(2) {
        return None;
    }
    let Some(cells) = cells else { return Some(living) };
    let known = &cells.tables.sources;
    let has = |ground: &&Ground<'_>| {
        let at = known.binary_search_by_key(&ground.key(), key).ok();
        at.and_then(|at| known.get(at)).is_some_and(|known| known.crc == ground.file().crc())
    };
    let covered: u64 = sources.iter().filter(has).map(Ground::living).sum();
    let too_few = |rows: u64| rows.saturating_sub(covered) * missed.part() > rows;
    (too_few(living) || too_few(u64::from(cells.header.rows))).then_some(living)
}

/// About what the cells of so many rows will keep in RAM.
#[must_use]
pub fn resident_bytes(def: &CollectionDef, rows: u64) -> u64 {
    let centroid = codes::layout(def.spec.dim.unwrap_or(0)).map_or(0, |l| l.row_bytes() as u64);
    rows * 4 + count_of(rows) * (centroid + 28)
}

/// Groups the rows of a collection into a file of this number, and opens it. `None` when there is nothing
/// to group, or when `stop` says so, which is asked every few milliseconds.
pub fn group(
    disk: &dyn Disk,
    store_id: [u8; 16],
    cold: &Cold,
    def: &CollectionDef,
    number: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Cells>> {
    let mut sources = sources(cold, def);
    loop {
        match group_all(disk, store_id, &sources, def, number, stop) {
            Err(Failed::At(at, error)) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, "a group of the archive stays out of the cells");
                sources.remove(at);
            }
            Err(Failed::At(_, error) | Failed::Else(error)) => return Err(error),
            Err(Failed::Stopped) => return Ok(None),
            Ok(grouped) => return Ok(grouped),
        }
    }
}

/// Groups of the archive that hold vectors of a collection, ascending.
fn sources<'a>(cold: &'a Cold, def: &CollectionDef) -> Vec<Ground<'a>> {
    let ground = |(segment, group): (&'a std::sync::Arc<ColdSegment>, u16)| {
        let footer = segment.segment.footer().groups.get(usize::from(group))?;
        let fits = footer.vectors > 0 && Some(footer.dim) == def.spec.dim;
        fits.then_some(Ground { segment, group, vectors: footer.vectors })
    };
    cold.groups(def.id).filter_map(ground).collect()
}

/// A group of the archive.
struct Ground<'a> {
    segment: &'a ColdSegment,
    group: u16,
    vectors: u32,
}

fn key(source: &Source) -> (u64, u16) {
    (source.segment, source.group)
}

impl Ground<'_> {
    fn key(&self) -> (u64, u16) {
        (self.segment.segment.number(), self.group)
    }

    fn living(&self) -> u64 {
        let dead = self.segment.dead.get(usize::from(self.group));
        let dead = dead.map_or(0, |dead| dead.range_cardinality(..self.vectors));
        u64::from(self.vectors).saturating_sub(dead)
    }

    fn is_dead(&self, row: u32) -> bool {
        self.segment.dead.get(usize::from(self.group)).is_some_and(|dead| dead.contains(row))
    }

    fn file(&self) -> &Segment {
        &self.segment.segment
    }
}

enum Failed {
    /// At one of the groups.
    At(usize, Error),
    Else(Error),
    /// Somebody wished it.
    Stopped,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Else(error)
    }
}

fn group_all(
    disk: &dyn Disk,
    store_id: [u8; 16],
    sources: &[Ground<'_>],
    def: &CollectionDef,
    number: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Cells>, Failed> {
    let dim = def.spec.dim.unwrap_or(0);
    let living: u64 = sources.iter().map(Ground::living).sum();
    let vectors: u64 = sources.iter().map(|source| u64::from(source.vectors)).sum();
    let layouts = (codes::layout(dim), SketchLayout::new(dim as usize, Metric::Cosine));
    let (Some(layout), Some(sketches)) = layouts else { return Ok(None) };
    if living == 0 || vectors > u64::from(u32::MAX) {
        return Ok(None);
    }
    // 1. Centroids.
    let count = count_of(living).clamp(1, 1 << 15) as usize;
    let mut sample = sample(sources, living, count * SAMPLE_ROWS + ASKED_ROWS)?;
    let mut asked = Asked::of(layout, &mut sample, living);
    let centroids = Centroids::find(layout, &sample.rows, count, ROUNDS);
    drop(sample);
    asked.meet(&centroids);
    // 2. Cells of all rows, and neighbours of some.
    let assigned = assign(sources, layout, &centroids, &mut asked, stop)?;
    let margins = asked.margins();
    let packed = pack(layout, centroids.means());
    let cells = packed.len() / layout.row_bytes();
    let (rows, refs) = by_cell(&assigned, cells);
    drop(assigned);
    let source = |g: &Ground<'_>| {
        let (segment, crc) = (g.key().0, g.file().crc());
        Source { segment, group: g.group, vectors: g.vectors, crc }
    };
    let sources_of = sources.iter().map(source).collect();
    let tables = Tables { sources: sources_of, rows, centroids: packed, refs, margins };
    // 3. Sketches, cell by cell.
    let header = CellsHeader {
        store_id,
        number,
        collection: def.id,
        dim,
        cells: cells as u32,
        rows: tables.refs.len() as u32,
        sources: sources.len() as u32,
    };
    let mut writer = CellsWriter::create(disk, header, &tables)?;
    let mut refs = tables.refs.as_slice();
    let mut maker = Maker::new(layout, sketches);
    for (cell, rows) in tables.rows.iter().enumerate() {
        let (own, rest) = refs.split_at((*rows as usize).min(refs.len()));
        refs = rest;
        if stop() {
            return Err(Failed::Stopped);
        }
        let centroid = tables.centroids.chunks_exact(layout.row_bytes()).nth(cell);
        let blocks = maker.blocks(sources, centroid.unwrap_or_default(), own)?;
        writer.add(cell as u32, blocks)?;
    }
    writer.finish()?;
    Ok(Some(Cells::open(disk, number, store_id)?))
}

/// Some rows as packed codes, and their references.
struct Sample {
    rows: Vec<u8>,
    refs: Vec<u32>,
}

/// About so many living rows, at even distances.
fn sample(sources: &[Ground<'_>], living: u64, count: usize) -> Result<Sample, Failed> {
    let mut sample = Sample { rows: Vec::new(), refs: Vec::new() };
    let mut row = Vec::new();
    let (mut seen, mut base) = (0_u64, 0);
    for (at, source) in sources.iter().enumerate() {
        for number in (0..source.vectors).filter(|number| !source.is_dead(*number)) {
            // The n-th row is taken when n * count passes a multiple of all there are.
            let before = seen * count as u64 / living;
            seen += 1;
            if before == seen * count as u64 / living {
                continue;
            }
            let read = source.file().code(source.group, number, &mut row);
            read.map_err(|error| Failed::At(at, error))?;
            sample.rows.extend_from_slice(&row);
            sample.refs.push(base + number);
        }
        base += source.vectors;
    }
    Ok(sample)
}

/// The reference and the cell of each living row, ascending by reference.
fn assign(
    sources: &[Ground<'_>],
    layout: RowLayout,
    centroids: &Centroids,
    asked: &mut Asked,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<(u32, u16)>, Failed> {
    let living: u64 = sources.iter().map(Ground::living).sum();
    let mut assigned = Vec::with_capacity(living as usize);
    let mut rows = Vec::new();
    let mut base = 0;
    for (at, source) in sources.iter().enumerate() {
        for from in (0..source.vectors).step_by(ROWS_AT_ONCE as usize) {
            if stop() {
                return Err(Failed::Stopped);
            }
            let count = ROWS_AT_ONCE.min(source.vectors - from);
            let read = source.file().codes(source.group, from, count, &mut rows);
            read.map_err(|error| Failed::At(at, error))?;
            let numbers: Vec<u32> =
                (from..from + count).filter(|number| !source.is_dead(*number)).collect();
            // The dead leave: the living move up to the front.
            for (to, number) in numbers.iter().enumerate() {
                let row = (number - from) as usize * layout.row_bytes();
                rows.copy_within(row..row + layout.row_bytes(), to * layout.row_bytes());
            }
            rows.truncate(numbers.len() * layout.row_bytes());
            let cells = centroids.nearest(&rows);
            let new = numbers.iter().map(|number| base + number).zip(cells);
            let first = assigned.len();
            assigned.extend(new);
            asked.look_at(&rows, assigned.get(first..).unwrap_or_default());
        }
        base += source.vectors;
    }
    Ok(assigned)
}

/// Rows of each cell, and all references cell by cell.
fn by_cell(assigned: &[(u32, u16)], cells: usize) -> (Vec<u32>, Vec<u32>) {
    let mut rows = vec![0_u32; cells];
    for (_, cell) in assigned {
        if let Some(rows) = rows.get_mut(usize::from(*cell)) {
            *rows += 1;
        }
    }
    let mut next: Vec<usize> = Vec::with_capacity(cells);
    let mut start = 0;
    for rows in &rows {
        next.push(start);
        start += *rows as usize;
    }
    let mut refs = vec![0; start];
    for (reference, cell) in assigned {
        let Some(next) = next.get_mut(usize::from(*cell)) else { continue };
        if let Some(slot) = refs.get_mut(*next) {
            *slot = *reference;
        }
        *next += 1;
    }
    (rows, refs)
}

/// Means as packed rows.
fn pack(layout: RowLayout, means: &[f32]) -> Vec<u8> {
    let means = means.chunks_exact(layout.dim());
    let mut packed = vec![0; means.len() * layout.row_bytes()];
    for (mean, row) in means.zip(packed.chunks_exact_mut(layout.row_bytes())) {
        quant::encode(layout, mean, row);
    }
    packed
}

/// Rows that are asked for their neighbours.
struct Asked {
    queries: Vec<Query>,
    /// Each looks at one piece of as many as there are panels: those of one panel together.
    panels: Vec<Panel>,
    scores: Vec<f32>,
    pieces: usize,
}

/// Rows that the asked look at together, so that all scores stay in the second-level cache: 64 KB.
const LOOKED_AT_ONCE: usize = 64;

struct Query {
    reference: u32,
    vector: Vec<f32>,
    /// For each cell the bin of its gap.
    bins: Vec<u8>,
    gaps: Gaps,
}

impl Asked {
    /// Takes them out of the sample: a row that a centroid was made of lies nearer to it than a query
    /// will.
    fn of(layout: RowLayout, sample: &mut Sample, living: u64) -> Asked {
        let step = sample.refs.len().div_ceil(ASKED_ROWS).max(2);
        let rows = sample.rows.chunks_exact(layout.row_bytes()).zip(&sample.refs).step_by(step);
        let query = |(row, reference): (&[u8], &u32)| {
            let mut vector = vec![0.0; layout.dim()];
            quant::decode(layout, row, &mut vector);
            let (reference, bins, gaps) = (*reference, Vec::new(), Gaps::default());
            Query { reference, vector, bins, gaps }
        };
        let queries: Vec<Query> = rows.map(query).collect();
        let all = sample.rows.chunks_exact(layout.row_bytes()).enumerate();
        let others = all.filter(|(n, _)| n % step != 0).flat_map(|(_, row)| row.iter().copied());
        sample.rows = others.collect();
        let looks = queries.len() as u64 * living;
        let every = usize::try_from(looks.div_ceil(LOOKS_MAX)).unwrap_or(usize::MAX).max(1);
        let panel = |turn| {
            let vectors = queries.iter().skip(turn).step_by(every).map(|query| &query.vector[..]);
            Panel::new(layout, &vectors.collect::<Vec<_>>().concat())
        };
        let panels = (0..every).map(panel).collect();
        Asked { queries, panels, scores: Vec::new(), pieces: 0 }
    }

    /// Tells them where the cells are.
    fn meet(&mut self, centroids: &Centroids) {
        for query in &mut self.queries {
            let cosines = centroids.cosines(&query.vector);
            let best = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            query.bins = cosines.into_iter().map(|cosine| Gaps::bin(best - cosine)).collect();
        }
    }

    /// Shows them a piece of packed rows, with their references and cells.
    fn look_at(&mut self, rows: &[u8], assigned: &[(u32, u16)]) {
        let every = self.panels.len();
        let turn = self.pieces % every;
        self.pieces += 1;
        let Some(panel) = self.panels.get(turn).filter(|panel| panel.count() > 0) else { return };
        let row_bytes = rows.len() / assigned.len().max(1);
        let stretches = assigned.chunks(LOOKED_AT_ONCE);
        for (rows, assigned) in rows.chunks(LOOKED_AT_ONCE * row_bytes.max(1)).zip(stretches) {
            self.scores.resize(assigned.len() * panel.stride(), 0.0);
            panel.score_rows(rows, &mut self.scores);
            for (n, query) in self.queries.iter_mut().skip(turn).step_by(every).enumerate() {
                let scores = self.scores.iter().skip(n).step_by(panel.stride());
                for (score, (reference, cell)) in scores.zip(assigned) {
                    if *reference != query.reference
                        && let Some(bin) = query.bins.get(usize::from(*cell))
                    {
                        query.gaps.note(*score, *bin);
                    }
                }
            }
        }
    }

    fn margins(self) -> Margins {
        let gaps: Vec<Gaps> = self.queries.into_iter().map(|query| query.gaps).collect();
        margins::measure(&gaps)
    }
}

/// Makes the sketches of cells.
struct Maker {
    layout: RowLayout,
    sketches: SketchLayout,
    mean: Vec<f32>,
    vector: Vec<f32>,
    code: Vec<u8>,
    sketch: Vec<u8>,
}

impl Maker {
    fn new(layout: RowLayout, sketches: SketchLayout) -> Maker {
        let zeros = vec![0.0; layout.dim()];
        let sketch = vec![0; sketches.row_bytes()];
        Maker { layout, sketches, mean: zeros.clone(), vector: zeros, code: Vec::new(), sketch }
    }

    /// The blocks of a cell, less its packed centroid.
    fn blocks(
        &mut self,
        sources: &[Ground<'_>],
        centroid: &[u8],
        refs: &[u32],
    ) -> Result<Vec<u8>, Failed> {
        let mut blocks = vec![0; self.sketches.blocks_bytes(refs.len())];
        if refs.is_empty() {
            return Ok(blocks);
        }
        quant::decode(self.layout, centroid, &mut self.mean);
        let (mut at, mut base) = (0, 0);
        for (place, reference) in refs.iter().enumerate() {
            // References are ascending, and so are sources.
            while let Some(source) = sources.get(at)
                && reference - base >= source.vectors
            {
                base += source.vectors;
                at += 1;
            }
            let Some(source) = sources.get(at) else { break };
            let read = source.file().code(source.group, reference - base, &mut self.code);
            read.map_err(|error| Failed::At(at, error))?;
            quant::decode(self.layout, &self.code, &mut self.vector);
            sketch::encode(self.sketches, &self.mean, &self.vector, &mut self.sketch);
            let block = place / BLOCK_ROWS * self.sketches.block_bytes();
            if let Some(block) = blocks.get_mut(block..block + self.sketches.block_bytes()) {
                sketch::place(self.sketches, &self.sketch, block, place % BLOCK_ROWS);
            }
        }
        Ok(blocks)
    }
}
