//! `pmll-fuzz`: many inputs in one process, without looking at coverage.
//!
//! ```text
//! pmll-fuzz parsers [--runs N] [--seed N] [--threads N] [--only NAME]
//! pmll-fuzz stores  [--runs N] [--seed N] [--threads N] [--only NAME]
//! ```
//!
//! `parsers` runs the decoders (`pmll_fuzz::parsers`), `stores` the targets that open whole stores. Valid
//! inputs are changed at random, half of them with checksums set right again; some inputs are random bytes.
//! An input that was read may be changed further. Of `parsers`, the same seed and number of threads make the
//! same inputs; the store that `stores` changes has random numbers of its own in each process. cargo-fuzz
//! has the coverage, this has the numbers.
//!
//! Held against the contract: no panic, no broken rule, memory, and time (on the processor, where the system
//! tells it). What fails is printed, saved under `corpus`, and the exit code is 1.

use std::cell::RefCell;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use pmll_fuzz::chance::{Chance, mutated};
use pmll_fuzz::parsers::{self, BYTES_A_BYTE, Parser};
use pmll_fuzz::{BYTES_MAX, TARGETS, TIME_MAX, Target};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs of one parser before the next has its turn.
const TURN: u64 = 20_000;
/// Failures of one parser that are printed and saved.
const SHOWN: u64 = 10;

/// What takes longer is timed again, by the processor.
const SLOW: Duration = Duration::from_millis(5);

struct Asked {
    runs: u64,
    seed: u64,
    threads: u64,
    only: Option<String>,
}

/// What was seen of one parser or target.
#[derive(Default)]
struct Seen {
    name: &'static str,
    runs: u64,
    read: u64,
    failed: u64,
    busy: Duration,
    slowest: Duration,
    most: usize,
}

thread_local! {
    /// What the last panic of this thread said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    // The store turns panics of redb into errors. One that leaves a body is told with its input.
    std::panic::set_hook(Box::new(|panic| {
        PANIC.with(|place| *place.borrow_mut() = format!("panics: {panic}").replace('\n', " "));
    }));
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    let mut asked = Asked { runs: 1_000_000, seed: 1, threads: 1, only: None };
    while let Some(name) = words.next() {
        let value = words.next().unwrap_or_default();
        let number = value.replace('_', "").parse();
        match (name.as_str(), number) {
            ("--runs", Ok(number)) => asked.runs = number,
            ("--seed", Ok(number)) => asked.seed = number,
            ("--threads", Ok(number)) => asked.threads = u64::max(number, 1),
            ("--only", _) => asked.only = Some(value),
            _ => return usage(),
        }
    }
    let begun = Instant::now();
    let run: fn(&Asked, u64) -> Vec<Seen> = match what.as_str() {
        "parsers" => run_parsers,
        "stores" => run_stores,
        _ => return usage(),
    };
    let seen = std::thread::scope(|scope| {
        let asked = &asked;
        let threads: Vec<_> =
            (0..asked.threads).map(|thread| scope.spawn(move || run(asked, thread))).collect();
        let all = threads.into_iter().map(|thread| thread.join().unwrap_or_default());
        all.reduce(merged).unwrap_or_default()
    });
    report(&what, &asked, &seen, begun.elapsed())
}

fn usage() -> ExitCode {
    eprintln!("pmll-fuzz parsers|stores [--runs N] [--seed N] [--threads N] [--only NAME]");
    ExitCode::from(2)
}

fn merged(mut all: Vec<Seen>, more: Vec<Seen>) -> Vec<Seen> {
    for (one, other) in all.iter_mut().zip(more) {
        one.runs += other.runs;
        one.read += other.read;
        one.failed += other.failed;
        one.busy += other.busy;
        one.slowest = one.slowest.max(other.slowest);
        one.most = one.most.max(other.most);
    }
    all
}

fn report(what: &str, asked: &Asked, seen: &[Seen], took: Duration) -> ExitCode {
    println!("| {what} | executions | read | a second | slowest | most memory | failed |");
    println!("|---|---|---|---|---|---|---|");
    for one in seen {
        let rate = one.runs as f64 / one.busy.as_secs_f64().max(1e-9);
        println!(
            "| {} | {} | {} | {rate:.0} | {:?} | {} KiB | {} |",
            one.name,
            one.runs,
            one.read,
            one.slowest,
            one.most >> 10,
            one.failed
        );
    }
    let runs: u64 = seen.iter().map(|one| one.runs).sum();
    let failed: u64 = seen.iter().map(|one| one.failed).sum();
    println!(
        "{runs} executions in {:.0} s, {:.0} a second, {} threads, seed {}, {failed} failed",
        took.as_secs_f64(),
        runs as f64 / took.as_secs_f64(),
        asked.threads,
        asked.seed
    );
    if failed > 0 || runs == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Time that this thread has had on a processor. Where nobody says, time as such.
fn on_processor() -> Duration {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat");
    let told = told.ok().and_then(|text| text.split(' ').next()?.parse().ok());
    told.map_or_else(|| BEGUN.elapsed(), Duration::from_nanos)
}

/// Runs one input and notes what it took. What is wrong with it, if anything is.
fn run(
    seen: &mut Seen,
    input: &[u8],
    room: usize,
    read: &dyn Fn(&[u8]) -> Result<bool, String>,
) -> (bool, Option<String>) {
    MEMORY.reset_peak_usage();
    let (before, begun) = (MEMORY.current_usage(), Instant::now());
    let outcome = catch_unwind(AssertUnwindSafe(|| read(input)));
    let (mut took, peak) = (begun.elapsed(), MEMORY.peak_usage());
    let bytes = peak.saturating_sub(before);
    seen.runs += 1;
    seen.busy += took;
    seen.most = seen.most.max(bytes);
    if took > SLOW {
        // Others use the machine as well: again, and only what this thread is given counts.
        let begun = on_processor();
        drop(catch_unwind(AssertUnwindSafe(|| read(input))));
        took = on_processor().saturating_sub(begun);
    }
    seen.slowest = seen.slowest.max(took);
    let (was_read, wrong) = match outcome {
        Ok(Ok(was_read)) => (was_read, None),
        Ok(Err(rule)) => (true, Some(rule)),
        Err(_) => (false, Some(PANIC.with(RefCell::take))),
    };
    seen.read += u64::from(was_read);
    let wrong = wrong.or_else(|| (bytes > room).then(|| format!("takes {bytes} bytes of memory")));
    (was_read, wrong.or_else(|| (took > TIME_MAX).then(|| format!("takes {took:?}"))))
}

fn failed(seen: &mut Seen, folder: &str, input: &[u8], what: &str) {
    seen.failed += 1;
    if seen.failed > SHOWN {
        return;
    }
    let digits = input.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    println!("FAILED {}: {what}: {digits}", seen.name);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder).join(seen.name);
    let name = format!("found-{:08x}", crc32fast::hash(input));
    if let Err(error) =
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(name), input))
    {
        println!("it is not saved: {error}");
    }
}

fn run_parsers(asked: &Asked, thread: u64) -> Vec<Seen> {
    let wanted = |parser: &Parser| asked.only.as_deref().is_none_or(|name| name == parser.name);
    let mut parsers: Vec<Parser> = parsers::all().into_iter().filter(wanted).collect();
    let mut all: Vec<Seen> =
        parsers.iter().map(|p| Seen { name: p.name, ..Seen::default() }).collect();
    let mut left = asked.runs / asked.threads;
    let share = (left / (8 * parsers.len().max(1) as u64)).clamp(1, TURN);
    let mut turn = 0;
    while left > 0 && !parsers.is_empty() {
        for (number, (parser, seen)) in parsers.iter_mut().zip(&mut all).enumerate() {
            let stream = [asked.seed, thread, turn, number as u64];
            let mut chance = Chance::new(stream.iter().fold(7, |all, part| {
                Chance::new(all ^ part.wrapping_mul(0x1000_0000_01b3)).number()
            }));
            let runs = (share / parser.every).max(1).min(left);
            left -= runs;
            for _ in 0..runs {
                parse(parser, seen, &mut chance);
            }
        }
        turn += 1;
        if turn % 20 == 0 {
            println!("{} of {} to go", left, asked.runs / asked.threads);
        }
    }
    all
}

fn parse(parser: &mut Parser, seen: &mut Seen, chance: &mut Chance) {
    let input = parsers::next(parser, chance);
    let room = parser.room + BYTES_A_BYTE * input.len();
    let (was_read, wrong) = run(seen, &input, room, &|bytes| (parser.read)(bytes));
    match wrong {
        Some(what) => failed(seen, "parsers", &input, &what),
        None if was_read && chance.below(64) == 0 => parsers::keep(parser, input, chance),
        None => {}
    }
}

fn run_stores(asked: &Asked, thread: u64) -> Vec<Seen> {
    let wanted = |target: &&Target| asked.only.as_deref().is_none_or(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    let seeds: Vec<Vec<Vec<u8>>> = targets.iter().map(|target| (target.seeds)()).collect();
    let mut all: Vec<Seen> =
        targets.iter().map(|t| Seen { name: t.name, ..Seen::default() }).collect();
    let runs = asked.runs / asked.threads;
    for number in 0..runs {
        let Some(at) = (number as usize).checked_rem(targets.len()) else { break };
        let (Some(target), Some(seeds)) = (targets.get(at), seeds.get(at)) else { break };
        let Some(seen) = all.get_mut(at) else { break };
        let stream = asked.seed.wrapping_mul(0x1000_0000_01b3) ^ thread << 48 ^ number;
        let mut chance = Chance::new(Chance::new(stream).number());
        let pick = |at: usize| seeds.get(at).cloned().unwrap_or_default();
        let (input, other) = (pick(chance.below(seeds.len())), pick(chance.below(seeds.len())));
        let input = mutated(input, &other, &mut chance);
        let body = |bytes: &[u8]| {
            (target.body)(bytes);
            Ok(true)
        };
        if let (_, Some(what)) = run(seen, &input, BYTES_MAX, &body) {
            failed(seen, "", &input, &what);
        }
        if (number + 1).is_multiple_of(2_000) {
            println!("{} of {runs}", number + 1);
        }
    }
    all
}
