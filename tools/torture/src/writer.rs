//! The process that is killed: it plays the workload on a real directory and says what is done.
//!
//! It prints `ack N sync` when N steps are done and on disk, `ack N buffer` when they are done and
//! only the operating system has the last of them, `error N: ...` when the store refused something,
//! and `end` when it has done all it was to do. The first line says where it began.
//!
//! Told a number, it dies of its own hand before that call that would change something on disk, or
//! in the middle of it if it is a write.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pmll::io::{Bytes, Disk, File, FileDisk, OpenMode};
use pmll::{
    Batch, Collection, CollectionSpec, Draft, Durability, Error, ErrorKind, Options, Patch, Policy,
    Store,
};

use crate::workload::{COLLECTION, Change, DIM, Step, name, step, text, vector};

/// What a writer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterArgs {
    /// Directory of the store.
    pub dir: PathBuf,
    /// Seed of the workload.
    pub seed: u64,
    /// Steps that are in the store already.
    pub from: u64,
    /// Steps after which it ends by itself.
    pub until: u64,
    /// Changing call of the disk at which it dies, counted from 1; 0 for none.
    pub die_at: u64,
}

impl WriterArgs {
    /// As words of a command line.
    #[must_use]
    pub fn words(&self) -> Vec<std::ffi::OsString> {
        let numbers = [self.seed, self.from, self.until, self.die_at];
        let mut words = vec![self.dir.clone().into_os_string()];
        words.extend(numbers.map(|number| number.to_string().into()));
        words
    }

    /// Reads what [`words`](WriterArgs::words) wrote.
    #[must_use]
    pub fn parse(words: &[std::ffi::OsString]) -> Option<WriterArgs> {
        let [dir, numbers @ ..] = words else { return None };
        let number = |at: usize| numbers.get(at)?.to_str()?.parse().ok();
        let (seed, from, until, die_at) = (number(0)?, number(1)?, number(2)?, number(3)?);
        Some(WriterArgs { dir: dir.into(), seed, from, until, die_at })
    }
}

/// Opens the store of a writer, or of who checks it.
///
/// # Errors
/// Those of opening a store and making a collection.
pub fn open(dir: &Path, disk: Option<Arc<dyn Disk>>) -> Result<(Store, Collection), Error> {
    let options = Options { budget_bytes: Some(1 << 20), ..Options::default() };
    let builder = Store::builder(dir).options(options);
    let builder = match disk {
        Some(disk) => builder.disk(disk),
        None => builder,
    };
    let store = builder.open()?;
    let dim = u32::try_from(DIM).unwrap_or(u32::MAX);
    let collection = store.collection_with(COLLECTION, CollectionSpec::new().dim(dim))?;
    Ok((store, collection))
}

/// Plays steps until it is done or dead. False when the store refused one.
///
/// # Errors
/// Its stdout is gone.
pub fn run(args: &WriterArgs) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let opened = match args.die_at {
        0 => open(&args.dir, None),
        die_at => dying(&args.dir, die_at).and_then(|disk| open(&args.dir, Some(disk))),
    };
    let (store, collection) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            writeln!(out, "error {}: open: {error:?}", args.from)?;
            return Ok(false);
        }
    };
    writeln!(out, "ack {} sync", args.from)?;
    out.flush()?;
    for n in args.from + 1..=args.until {
        let step = step(args.seed, n);
        if let Err(error) = play(&store, &collection, n, &step) {
            writeln!(out, "error {n}: {step:?}: {error:?}")?;
            return Ok(false);
        }
        let durability = if step.is_durable() { "sync" } else { "buffer" };
        writeln!(out, "ack {n} {durability}")?;
        out.flush()?;
    }
    if let Err(error) = store.close() {
        writeln!(out, "error {}: close: {error:?}", args.until)?;
        return Ok(false);
    }
    writeln!(out, "end")?;
    Ok(true)
}

fn play(store: &Store, collection: &Collection, n: u64, step: &Step) -> Result<(), Error> {
    match step {
        Step::Write(changes) => write(store, collection, n, changes, Durability::Sync)?,
        Step::Buffer(key) => {
            write(store, collection, n, &[Change::Put(*key)], Durability::Buffer)?;
        }
        Step::Touch(key) => drop(collection.touch(name(*key))?),
        Step::Sync => store.sync()?,
        Step::Checkpoint => drop(store.checkpoint()?),
        Step::Compress(policy) => drop(store.compress_with(*policy)?),
        Step::Recompress => drop(store.recompress()?),
        Step::Vacuum => drop(store.vacuum()?),
        Step::Budget(bytes) => store.set_budget(*bytes)?,
    }
    Ok(())
}

/// One batch. A full store is compressed first, as its error advises.
fn write(
    store: &Store,
    collection: &Collection,
    n: u64,
    changes: &[Change],
    durability: Durability,
) -> Result<(), Error> {
    let batch = || {
        let mut batch = Batch::new().durability(durability);
        for change in changes {
            batch = match change {
                Change::Put(key) => {
                    let draft = Draft::text(text(*key, n)).vector(vector(*key, n)).attr("put", n);
                    batch.put(collection, name(*key), draft)
                }
                Change::Update(key) if collection.contains(name(*key))? => {
                    batch.update(collection, name(*key), Patch::default().attr("seen", n))
                }
                Change::Update(_) => batch,
                Change::Delete(key) => batch.delete(collection, name(*key)),
            };
        }
        Ok::<Batch, Error>(batch)
    };
    match store.write(batch()?) {
        Err(error) if error.kind() == ErrorKind::Full => {
            store.compress_with(Policy::Watermark)?;
            store.write(batch()?).map(drop)
        }
        written => written.map(drop),
    }
}

fn dying(dir: &Path, die_at: u64) -> Result<Arc<dyn Disk>, Error> {
    let disk = match FileDisk::open(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => FileDisk::create(dir),
        opened => opened,
    };
    let below = disk.map_err(|e| Error::new(ErrorKind::Io, format!("open the directory: {e}")))?;
    let left = Arc::new(Countdown(AtomicU64::new(die_at)));
    Ok(Arc::new(DyingDisk { below: Arc::new(below), left }))
}

/// Calls that are left.
#[derive(Debug)]
struct Countdown(AtomicU64);

impl Countdown {
    /// One more call; true when it is the last.
    fn is_last(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn pass(&self) {
        if self.is_last() {
            std::process::abort();
        }
    }
}

/// A disk that ends the process at the n-th call that would change something.
#[derive(Debug)]
struct DyingDisk {
    below: Arc<dyn Disk>,
    left: Arc<Countdown>,
}

impl Disk for DyingDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode == OpenMode::CreateNew {
            self.left.pass();
        }
        let below = self.below.open(name, mode)?;
        Ok(Arc::new(DyingFile { below, left: Arc::clone(&self.left) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.left.pass();
        self.below.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.left.pass();
        self.below.remove(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.below.list(folder)
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.left.pass();
        self.below.create_dir(folder)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.left.pass();
        self.below.sync_dir(folder)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.below.free_bytes()
    }
}

#[derive(Debug)]
struct DyingFile {
    below: Arc<dyn File>,
    left: Arc<Countdown>,
}

impl File for DyingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.left.is_last() {
            // In the middle of it: half of the bytes are written.
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            let _ = self.below.write_at(half, offset);
            std::process::abort();
        }
        self.below.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.left.pass();
        self.below.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.left.pass();
        self.below.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.below.try_lock()
    }

    fn map(&self) -> io::Result<Bytes> {
        self.below.map()
    }
}
