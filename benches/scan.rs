//! How fast the kernels go through rows.
//!
//! `cargo bench --bench scan [-- WORD]`; WORD names some of them (`int8`, `Avx2`).
//!
//! For each encoding and instruction set, and for what makes codes and scores importance: nanoseconds a
//! row of 384 values with the rows of one chunk over and over, which stay in the second-level cache, and
//! with 64,287 rows, which do not; and the bytes read in a second of the latter. Beside them stands the
//! rate at which this core reads memory, measured in the same run. Medians of many passes. Each kernel is
//! checked before it is timed (`kernels`).

mod kernels;

use std::hint::black_box;
use std::time::Instant;

use kernels::{Data, Outcome, all, kernel_pass};

const FEW: usize = 1024;
const MANY: usize = 64_287;
const PASSES: usize = 41;
/// Words of memory that are read, 256 MiB: more than any cache but the largest has.
const WORDS: usize = 32 << 20;

fn main() -> Outcome<()> {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let words = vec![1_u64; WORDS];
    println!("memory reads {:.1} GB/s", (WORDS * 8) as f64 / median(|| read(&words)));
    drop(words);
    println!("{:<20} {:>11} {:>11} {:>6}", "ns a row", "of 1,024", "of 64,287", "GB/s");
    let data = Data::new(MANY)?;
    for mut kernel in all(&data)? {
        let name = kernel.name();
        if !name.contains(&wanted) {
            continue;
        }
        let mut time = |rows| median(|| kernel_pass(&mut kernel, rows)) / rows as f64;
        let (few, many) = (time(FEW), time(MANY));
        let rate = kernel.row_bytes as f64 / many;
        println!("{name:<20} {few:>11.2} {many:>11.2} {rate:>6.1}");
    }
    Ok(())
}

fn read(words: &[u64]) {
    let mut sums = [0_u64; 16];
    for sixteen in words.as_chunks::<16>().0 {
        sums.iter_mut().zip(sixteen).for_each(|(sum, word)| *sum ^= word);
    }
    black_box(sums);
}

/// Median nanoseconds of a pass.
fn median(mut pass: impl FnMut()) -> f64 {
    let mut times: Vec<u128> = (0..PASSES)
        .map(|_| {
            let begun = Instant::now();
            pass();
            begun.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[PASSES / 2] as f64
}
