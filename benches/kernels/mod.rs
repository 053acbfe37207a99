//! The kernels that `scan` times and `counts` counts, each with rows of its own to work on.
//!
//! 1. [`Data`] makes a query and rows that lean towards it more or less, so that scores are spread, in
//!    every encoding.
//! 2. [`all`] makes a [`Kernel`] for each encoding and instruction set of this machine: scores of rows
//!    first, then what makes codes and what scores importance, which have no instruction set to choose.
//! 3. Before it is handed out a kernel goes through all rows once, and what it says is compared: scores
//!    with the cosines computed in f64, each instruction set with the first to the bit, codes with
//!    those of the same rows made otherwise.
//!
//! Never: reads a file or a clock, or makes the same rows twice in two ways.

use std::cell::RefCell;
use std::error::Error;

use pmll::Metric;
use pmll::kernels::quant::brief::{BriefLayout, BriefMaker, BriefQuery};
use pmll::kernels::quant::{self, Bits, CodeQuery, RowLayout};
use pmll::kernels::score::{self, Columns, Frame, Inputs};
use pmll::kernels::sketch::{self, SketchLayout, SketchQuery};
use pmll::kernels::{Simd, Weights, kernel};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Values of a row: those of the usual small embedding models.
const DIM: usize = 384;
const DAY_US: f32 = 86_400e6;
/// The level of what has no instruction set to choose.
const NO_LEVEL: &str = "-";

/// Numbers that look random, the same in every run.
struct Noise(u64);

impl Noise {
    /// From -1 up to 1.
    fn next(&mut self) -> f32 {
        // A step of splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Of a bell, nearly: what sketches estimate well, as they do embeddings. Its square is 4/3.
    fn bell(&mut self) -> f32 {
        (0..4).map(|_| self.next()).sum()
    }
}

/// A query and rows in every encoding.
pub struct Data {
    query: Vec<f32>,
    mean: Vec<f32>,
    vectors: Vec<f32>,
    /// The cosine of each row and the query.
    cosines: Vec<f64>,
    int8: RowLayout,
    eights: Vec<u8>,
    int4: RowLayout,
    fours: Vec<u8>,
    brief: BriefLayout,
    briefs: Vec<u8>,
    signs: SketchLayout,
    blocks: Vec<u8>,
    active_us: Vec<i64>,
    heat: Vec<f32>,
    semantic: Vec<f32>,
}

impl Data {
    /// So many rows.
    pub fn new(rows: usize) -> Outcome<Data> {
        let mut noise = Noise(1);
        let query = unit((0..DIM).map(|_| noise.bell()).collect());
        let mut vectors = Vec::with_capacity(rows * DIM);
        for _ in 0..rows {
            // As long as the noise around it, at most.
            let lean = noise.next() * (DIM as f32 * 4.0 / 3.0).sqrt();
            vectors.extend(unit(query.iter().map(|q| lean * q + noise.bell()).collect()));
        }
        let cosine = |row: &[f32]| -> f64 {
            row.iter().zip(&query).map(|(v, q)| f64::from(*v) * f64::from(*q)).sum()
        };
        let cosines = vectors.chunks_exact(DIM).map(cosine).collect();

        let int8 = RowLayout::new(DIM, 0, Bits::Eight).ok_or("no such layout")?;
        let int4 = int8.with_bits(Bits::Four);
        let brief = BriefLayout::of(int8);
        let signs = SketchLayout::new(DIM, Metric::Cosine).ok_or("no such layout")?;
        let mut eights = vec![0; rows * int8.row_bytes()];
        let mut fours = vec![0; rows * int4.row_bytes()];
        for (n, vector) in vectors.chunks_exact(DIM).enumerate() {
            quant::encode(int8, vector, &mut eights[n * int8.row_bytes()..][..int8.row_bytes()]);
            quant::encode(int4, vector, &mut fours[n * int4.row_bytes()..][..int4.row_bytes()]);
        }
        let (mean, mut briefs) = (vec![0.0; DIM], vec![0; rows * brief.row_bytes()]);
        let mut maker = BriefMaker::new(brief, &mean);
        let all =
            eights.chunks_exact(int8.row_bytes()).zip(briefs.chunks_exact_mut(brief.row_bytes()));
        all.for_each(|(row, brief)| maker.make(row, brief));
        let mut upto = |most: f32| -> Vec<f32> {
            (0..rows).map(|_| (noise.next() + 1.0) / 2.0 * most).collect()
        };
        let active_us = upto(100.0 * DAY_US).into_iter().map(|us| us as i64).collect();
        let (heat, semantic) = (upto(300.0), upto(1.0));
        let mut data = Data {
            query,
            mean,
            vectors,
            cosines,
            int8,
            eights,
            int4,
            fours,
            brief,
            briefs,
            signs,
            blocks: Vec::new(),
            active_us,
            heat,
            semantic,
        };
        let mut blocks = vec![0; signs.blocks_bytes(rows)];
        data.sketch(rows, &mut vec![0; signs.row_bytes()], &mut blocks);
        data.blocks = blocks;
        Ok(data)
    }

    /// Writes the sketches of the first rows into blocks.
    fn sketch(&self, rows: usize, row: &mut [u8], blocks: &mut [u8]) {
        let signs = self.signs;
        for n in 0..rows {
            sketch::encode(signs, &self.mean, self.vector(n), row);
            let block = &mut blocks[n / sketch::BLOCK_ROWS * signs.block_bytes()..];
            sketch::place(signs, row, &mut block[..signs.block_bytes()], n % sketch::BLOCK_ROWS);
        }
    }

    fn vector(&self, row: usize) -> &[f32] {
        &self.vectors[row * DIM..][..DIM]
    }
}

/// Scaled to length 1.
fn unit(vector: Vec<f32>) -> Vec<f32> {
    let norm = kernel::norm(&vector);
    vector.into_iter().map(|v| v / norm).collect()
}

/// Something that goes through rows.
pub struct Kernel<'a> {
    /// Encoding of the rows, or what is made of them.
    pub what: &'static str,
    /// The instruction set; `-` where there is none to choose.
    pub level: String,
    /// Bytes of a row that it reads.
    #[allow(dead_code)] // `counts` counts no bytes.
    pub row_bytes: usize,
    run: Box<dyn FnMut(usize) + 'a>,
}

impl Kernel<'_> {
    /// What it is called in lists.
    pub fn name(&self) -> String {
        format!("{} {}", self.what, self.level)
    }
}

/// Sends a kernel through its first rows. A function of its own in the program, so that what runs in it
/// can be told from all else.
#[inline(never)]
pub fn kernel_pass(kernel: &mut Kernel<'_>, rows: usize) {
    (kernel.run)(rows);
}

type Score<'a> = Box<dyn Fn(&mut [f32]) + 'a>;

/// All kernels, each checked.
pub fn all(data: &Data) -> Outcome<Vec<Kernel<'_>>> {
    let mut kernels = scans(data, "f32", DIM * 4, 1e-6, |simd| {
        Box::new(move |scores| {
            for (score, vector) in scores.iter_mut().zip(data.vectors.chunks_exact(DIM)) {
                *score = kernel::dot_with(simd, &data.query, vector);
            }
        })
    })?;
    let codes = [("int8", data.int8, &data.eights, 0.001), ("int4", data.int4, &data.fours, 0.01)];
    for (what, layout, rows, off_max) in codes {
        kernels.extend(scans(data, what, layout.row_bytes(), off_max, |simd| {
            let query = CodeQuery::with_simd(layout, Metric::Cosine, &data.query, simd);
            Box::new(move |scores| {
                query.score_rows(&rows[..scores.len() * layout.row_bytes()], scores);
            })
        })?);
    }
    kernels.extend(scans(data, "brief", data.brief.row_bytes(), 0.02, |simd| {
        let query = CodeQuery::with_simd(data.int8, Metric::Cosine, &data.query, simd);
        let query = BriefQuery::of(&query);
        Box::new(move |scores| {
            for (score, row) in
                scores.iter_mut().zip(data.briefs.chunks_exact(data.brief.row_bytes()))
            {
                *score = query.score(row, 0.0).0;
            }
        })
    })?);
    kernels.extend(scans(data, "sketch", data.signs.row_bytes(), 0.05, |simd| {
        let query = SketchQuery::with_simd(data.signs, &data.mean, &data.query, simd);
        Box::new(move |scores| {
            let blocks = &data.blocks[..data.signs.blocks_bytes(scores.len())];
            query.score_blocks(blocks, &[], scores);
        })
    })?);

    let (int8, int4) = (data.int8, data.int4);
    kernels.push(coding("encode int8", DIM * 4, &data.eights, int8.row_bytes(), move |n, row| {
        quant::encode(int8, data.vector(n), row);
    })?);
    kernels.push(coding("encode int4", DIM * 4, &data.fours, int4.row_bytes(), move |n, row| {
        quant::encode(int4, data.vector(n), row);
    })?);
    let eight = int8.row_bytes();
    kernels.push(coding("int8 to int4", eight, &data.fours, int4.row_bytes(), move |n, row| {
        quant::narrow(int8, &data.eights[n * eight..][..eight], row);
    })?);
    let maker = RefCell::new(BriefMaker::new(data.brief, &data.mean));
    kernels.push(coding(
        "int8 to brief",
        eight,
        &data.briefs,
        data.brief.row_bytes(),
        move |n, row| {
            maker.borrow_mut().make(&data.eights[n * eight..][..eight], row);
        },
    )?);
    kernels.push(sketching(data));
    kernels.push(importance(data)?);
    Ok(kernels)
}

/// Scores of rows, by each instruction set. `off_max` is how far they may lie from the cosines on
/// average: scores that have nothing to do with the rows are off by a third.
fn scans<'a>(
    data: &Data,
    what: &'static str,
    row_bytes: usize,
    off_max: f64,
    prepare: impl Fn(Simd) -> Score<'a>,
) -> Outcome<Vec<Kernel<'a>>> {
    let mut first: Option<Vec<f32>> = None;
    let mut kernels = Vec::new();
    for simd in Simd::all() {
        let (level, score) = (format!("{:?}", simd.level()), prepare(simd));
        let mut scores = vec![0.0; data.cosines.len()];
        score(&mut scores);
        let off = scores.iter().zip(&data.cosines).map(|(s, c)| (f64::from(*s) - c).abs());
        let off = off.sum::<f64>() / scores.len() as f64;
        if off.is_nan() || off > off_max {
            return Err(format!("{what} {level}: scores are off by {off} on average").into());
        }
        if *first.get_or_insert_with(|| scores.clone()) != scores {
            return Err(format!("{what} {level}: not the scores of the first set").into());
        }
        let run = Box::new(move |rows: usize| score(&mut scores[..rows]));
        kernels.push(Kernel { what, level, row_bytes, run });
    }
    Ok(kernels)
}

/// Making of codes, a row at a time. What it makes must be `expected`, of which the scores have shown
/// that they are the codes of the rows.
fn coding<'a>(
    what: &'static str,
    row_bytes: usize,
    expected: &[u8],
    made_bytes: usize,
    code: impl Fn(usize, &mut [u8]) + 'a,
) -> Outcome<Kernel<'a>> {
    let mut made = vec![0; expected.len()];
    let run = move |rows: usize, made: &mut [u8]| {
        made.chunks_exact_mut(made_bytes).take(rows).enumerate().for_each(|(n, row)| code(n, row));
    };
    run(expected.len() / made_bytes, &mut made);
    if made != expected {
        return Err(format!("{what}: other codes than those of the rows").into());
    }
    let run = Box::new(move |rows: usize| run(rows, &mut made));
    Ok(Kernel { what, level: NO_LEVEL.to_owned(), row_bytes, run })
}

/// Making of sketches and putting them into blocks: the way those of [`Data`] were made, which the scores
/// have shown to be right.
fn sketching(data: &Data) -> Kernel<'_> {
    let mut blocks = vec![0; data.blocks.len()];
    let mut row = vec![0; data.signs.row_bytes()];
    let run = Box::new(move |rows: usize| data.sketch(rows, &mut row, &mut blocks));
    Kernel { what: "sketches", level: NO_LEVEL.to_owned(), row_bytes: DIM * 4, run }
}

/// Scores of importance over columns, which must be those of single rows.
fn importance(data: &Data) -> Outcome<Kernel<'_>> {
    let newest_us = data.active_us.iter().copied().max().unwrap_or_default();
    let half_life_us = (7.0 * DAY_US) as i64;
    let frame = Frame { weights: Weights::default(), newest_us, half_life_us };
    let mut scores = vec![0.0; data.active_us.len()];
    let run = move |rows: usize, scores: &mut [f32]| {
        let (active_us, heat) = (&data.active_us[..rows], &data.heat[..rows]);
        let columns = Columns { active_us, heat, semantic: &data.semantic[..rows] };
        score::scores(&frame, &columns, &mut scores[..rows]);
    };
    run(scores.len(), &mut scores);
    for (n, found) in scores.iter().enumerate() {
        let (active_us, heat) = (data.active_us[n], data.heat[n]);
        let inputs = Inputs { active_us, heat, semantic: data.semantic[n] };
        if score::terms(&frame, inputs).total != *found {
            return Err(format!("importance: row {n} has another score by itself").into());
        }
    }
    let run = Box::new(move |rows: usize| run(rows, &mut scores));
    Ok(Kernel { what: "importance", level: NO_LEVEL.to_owned(), row_bytes: 16, run })
}
