//! Sabotage: each safeguard of the store is switched off in turn, and the suite must fail.
//!
//! The switch is `PMLL_SABOTAGE` (`src/words/safeguard.rs`). For each safeguard this program runs itself
//! again, or the unit tests, with the test that is to notice, and expects a panic of it. That the same tests
//! pass with all safeguards on is what the rest of the suite shows. A safeguard that no test misses is
//! needless or untested, so an entry is never taken out of the list: the compiler checks that all are there.
//!
//! It needs the unit tests as they are now: `cargo test --lib --test it sabotage::`, or `cargo test`.
//! `PMLL_SABOTAGES=LogSync,MendSync` tries some of them.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pmll::Safeguard;

const THREADS: usize = 2;
/// A crash sweep that finds nothing takes a few minutes.
const PATIENCE: Duration = Duration::from_secs(900);

/// Which tests miss a safeguard.
#[derive(Clone, Copy, Debug)]
enum Witness {
    /// Of this program.
    It(&'static str),
    /// Of the units beside the code.
    Unit(&'static str),
}

use Witness::{It, Unit};

fn witness(safeguard: Safeguard) -> Witness {
    use Safeguard::*;
    const CRASH: Witness = It("crash::");
    match safeguard {
        LogSync | LogCreateSync | LogCreateDirSync | MendSync | MendDirSync | ArchiveSync
        | ArchiveDirSync | ArenaSync | ArenaDirSync | ColumnsSync | ColumnsDirSync
        | CatalogSync | SmallFileSync | SmallFileDirSync => CRASH,
        TornSync | TornDirSync | LogCloseSync => It("cuts::"),
        LogForget => It("vacuum::"),
        FoldersSync => Unit("layout::tests"),
        StoreFileCrc => It("flips::"),
        LogHeaderCrc => Unit("bytes::codec::log"),
        LogFrameCrc | LogPayloadCrc | LogBatchCrc | LogVerdict | LogGap | LogStart | LogOrder => {
            Unit("wal::tests::damage")
        }
        LogApplied | LogFooterSync | LogReclaimDirSync | LogForgetSync | LogEndZeros | LogEnd
        | LogSpareHeld => Unit("wal::tests"),
        OpPayloadCrc => Unit("codec::op"),
        LargePayloadCrc => It("cuts::"),
        ArchiveHeaderCrc | ArchiveTrailerCrc | ArchiveFooterCrc | ArchiveRowCrc
        | ArchiveVectorCrc | ArchiveEntryCrc | ArchiveFrameCrc | ArchiveSpanCrc
        | ArchivePiecesCrc | ArchiveSketchCrc | ArchiveCodeCrc | ArchiveOpCrc
        | ArchiveSectionCrc => Unit("archive::tests"),
        ArenaHeaderCrc | ArenaTableCrc | ArenaCodesCrc => Unit("arena::tests"),
        CellsHeaderCrc | CellsTablesCrc | CellsBodyCrc => Unit("codec::cells"),
        ColumnsBlockCrc | ColumnsTailCrc | HotCrc | MovesCrc => Unit("columns::"),
        CatalogCreateDirSync | CatalogPageCrc | CatalogHeaderCrc | CatalogValueCrc => {
            Unit("catalog::")
        }
        ArchiveBeside | CatalogNamesFile => It("mixtures::"),
        ArchiveApplied | ArchiveNewest | TombstoneOrder | CatalogAhead => Unit("recovery::tests"),
        ArenaVersion => Unit("levels::tests"),
        Lock => It("owners::"),
        Reserve | ReserveSync | ReserveDirSync => It("full::"),
        Poison => Unit("wal::tests"),
    }
}

/// The program of the unit tests: of those beside this one the newest, as a build leaves older ones.
fn units() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("no path to this program: {e}"))?;
    let folder = own.parent().ok_or("this program lies nowhere")?;
    let files = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let named = files.filter_map(Result::ok).map(|file| file.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let suffix = name.strip_prefix("pmll-").unwrap_or("-");
        suffix.chars().all(|c| c.is_ascii_hexdigit())
    });
    // The command has the name of the library, and other tests.
    let has_units = |path: &PathBuf| {
        let list = Command::new(path).args(["--list", "wal::tests"]).output();
        list.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("wal::tests"))
    };
    let written = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    let newest = named.filter(has_units).max_by_key(written);
    newest.ok_or_else(|| "build the unit tests first: cargo test --lib --no-run".to_owned())
}

/// Runs a program to its end, or to the end of our patience: without a safeguard it may wait for ever.
fn run_until(command: &mut Command) -> Result<Output, String> {
    let fail = |e: std::io::Error| format!("it does not run: {e}");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(fail)?;
    let mut out = child.stdout.take().ok_or("no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        out.read_to_end(&mut text).map(|_| text)
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(fail)? {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                child.kill().and_then(|()| child.wait()).map_err(fail)?;
                return Err(format!("is not done after {PATIENCE:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let stdout = reader.join().map_err(|_| "the reader panicked")?.map_err(fail)?;
    Ok(Output { status, stdout, stderr: Vec::new() })
}

/// Runs the witnesses without the safeguard; the failure it must end in, in one line.
fn run(safeguard: Safeguard) -> Result<String, String> {
    let own = || std::env::current_exe().map_err(|e| format!("no path to this program: {e}"));
    let (program, filter) = match witness(safeguard) {
        It(filter) => (own()?, filter),
        Unit(filter) => (units()?, filter),
    };
    let output = run_until(
        Command::new(program)
            .args([filter, "--test-threads=1"])
            .env("PMLL_SABOTAGE", format!("{safeguard:?}"))
            .env("PMLL_CRASH_EFFORT", "1"),
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        let counts = text.lines().rfind(|line| line.starts_with("test result"));
        return Err(format!("nothing missed it ({})", counts.unwrap_or("no result")));
    }
    // A test must have failed: not the program that could not start, or found no test.
    if output.status.code() != Some(101) || !text.contains("test result: FAILED") {
        return Err(format!("ended with {}", output.status));
    }
    let why = text.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    Ok(why.map(str::trim).find(|line| !line.is_empty()).unwrap_or("").chars().take(160).collect())
}

#[test]
#[cfg_attr(
    not(debug_assertions),
    ignore = "optimised builds have no switches: cargo test --lib --test it sabotage::"
)]
fn every_sabotage_is_caught() {
    let begun = Instant::now();
    let only = std::env::var("PMLL_SABOTAGES").ok();
    let is_wanted =
        |s: &&Safeguard| only.as_ref().is_none_or(|only| only.contains(&format!("{s:?}")));
    let chosen: Vec<Safeguard> = Safeguard::ALL.iter().filter(is_wanted).copied().collect();
    assert!(!chosen.is_empty(), "no safeguard is called {only:?}");
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(&safeguard) = chosen.get(next.fetch_add(1, Ordering::AcqRel)) {
                    let started = Instant::now();
                    let outcome = run(safeguard);
                    let took: Duration = started.elapsed();
                    match outcome {
                        Ok(why) => println!("{safeguard:?} off, {took:.1?}: {why}"),
                        Err(why) => {
                            println!("{safeguard:?} off, {took:.1?}: NOT CAUGHT: {why}");
                            missed.lock().unwrap().push(format!("{safeguard:?}: {why}"));
                        }
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    println!(
        "sabotage: {} of {} caught in {:.0} s",
        chosen.len() - missed.len(),
        chosen.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(missed.is_empty(), "\n{}\n", missed.join("\n"));
}
