//! `import`: vectors and entries from files, in batches, in bounded memory.
//!
//! 1. A reader thread takes row after row of the entries and the vectors, makes records of them and
//!    fills batches (by number and by bytes).
//! 2. The main thread writes a batch, waits until it is as durable as asked, and then tells its keys
//!    (`--acks`). One batch is being written while the next one is being read; there are never more.
//! 3. Ctrl-C stops the reading: what was read is written and told, then the command ends with 130. A
//!    second Ctrl-C ends it at once; then, too, every key that was told is in the store.
//!
//! An error in a line stops the import there; what stands before it is written and counted.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use clap::{ArgGroup, Args, ValueEnum};
use pmll::{Batch, Collection, CollectionSpec, Durability, Element, Metric, Namespace, Store};
use pmll_cli::embed;
use pmll_cli::lines::Lines;
use pmll_cli::npy::{Kind, NpyReader};
use serde_json::json;

use crate::cmd_store::{ElementArg, MetricArg};
use crate::open::{self, Context};
use crate::output::{Failure, Outcome};
use crate::record::{Mapping, Record, collection_spec};

/// A batch is also full at this many bytes, whatever its number of entries.
const BATCH_BYTES_MAX: u64 = 2 << 20;

/// Import vectors and entries from files
///
/// Makes store and collection if they are missing. Row i of the vectors belongs to line i of the
/// entries. Without --key the key is the row's number, from 0. All fields but the text stay
/// attributes. Files made by `pmll export` are taken back as they were.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("input").args(["vectors", "entries"]).required(true).multiple(true),
    after_help = "Examples:
  pmll import memory passages --vectors passages.npy --entries passages.txt.zst --json
  pmll import memory turns --vectors turns.npy --entries turns.jsonl --key conv,dia_id \\
      --time date_time --time-format '%I:%M %p on %d %B, %Y' --session session
  pmll import memory notes --entries notes.jsonl --embed
  pmll import other notes --entries backup/notes.jsonl --vectors backup/notes.npy"
)]
pub struct ImportArgs {
    /// Directory of the store; left out when --store or PMLL_STORE is given
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Name of the collection
    #[arg(value_name = "NAME")]
    name: String,
    /// Vectors: .npy of f32 or f16, one row an entry
    #[arg(long, value_name = "F.npy")]
    vectors: Option<PathBuf>,
    /// Entries: .jsonl or .txt, also packed as .zst, one line an entry
    #[arg(long, value_name = "F.jsonl|.txt[.zst]")]
    entries: Option<PathBuf>,
    /// Fields that make the key, joined by ':'; the row's number when left out
    #[arg(long, value_name = "FIELD[,FIELD]", value_delimiter = ',')]
    key: Vec<String>,
    /// Field of the payload
    #[arg(long, value_name = "FIELD", default_value = "text")]
    text: String,
    /// Field of the event time
    #[arg(long, value_name = "FIELD")]
    time: Option<String>,
    /// Form of the event time, as strptime; RFC 3339 when left out
    #[arg(long, value_name = "FMT", requires = "time")]
    time_format: Option<String>,
    /// Field of the session
    #[arg(long, value_name = "FIELD")]
    session: Option<String>,
    /// Field of the semantic value, 0 to 1
    #[arg(long, value_name = "FIELD")]
    salience: Option<String>,
    /// Namespace to import into
    #[arg(long, value_name = "PATH")]
    ns: Option<String>,
    /// Entries written at once
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// When a batch counts as written: on disk, or with the operating system
    #[arg(long, value_enum, default_value_t = DurabilityArg::Sync)]
    durability: DurabilityArg,
    /// Print each key once its batch is durable
    #[arg(long)]
    acks: bool,
    /// Give texts without a vector one of hash-384
    #[arg(long, conflicts_with = "vectors")]
    embed: bool,
    /// How vectors are compared, for a new collection [default: cosine]
    #[arg(long)]
    metric: Option<MetricArg>,
    /// How exact values are stored, for a new collection [default: that of the file]
    #[arg(long)]
    element: Option<ElementArg>,
    /// Name of the embedding model
    #[arg(long, conflicts_with = "embed")]
    model: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DurabilityArg {
    /// On disk: survives a power cut
    Sync,
    /// With the operating system: survives the end of the process
    Buffer,
}

pub fn run(args: ImportArgs, context: &Context) -> Outcome {
    let stop = stop_on_ctrl_c()?;
    let mut source = Source::open(&args)?;
    // The first row is read before the store is made: it may say what the collection is, and a
    // wrong file makes no store.
    let first = source.next()?;
    let spec = spec(&args, &source, first.as_ref())?;
    let store = open::create(context, &args.dir)?;
    let collection = open::collection(&store, &args.name, spec, args.metric.is_some())?;

    let total = source.vectors.as_ref().map(NpyReader::rows);
    let bar = context.voice.bar(total, "importing");
    let started = Instant::now();
    let mut done = Report::default();
    let outcome = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Work>(0);
        let (limit, acks, stopped) = (args.batch as usize, args.acks, Arc::clone(&stop));
        let filler = Filler { collection: collection.clone(), limit, acks, sender };
        let durability = match args.durability {
            DurabilityArg::Sync => Durability::Sync,
            DurabilityArg::Buffer => Durability::Buffer,
        };
        let reader = scope.spawn(move || filler.fill(source, first, &stopped));
        let mut written = Ok(());
        for work in receiver {
            written = write(&store, work, durability, &mut done);
            bar.set_position(done.entries);
            if written.is_err() {
                // Dropping the receiver ends the reader at its next batch.
                break;
            }
        }
        let read = reader.join().unwrap_or_else(|_| Err(Failure::bug("the reader panicked")));
        written.and(read)
    });
    bar.finish_and_clear();
    let interrupted = stop.load(Ordering::Acquire);
    let element = open::element_name(collection.spec()?.element);
    drop(collection);
    let closed = store.close().map_err(Failure::from);
    let outcome = outcome.and(closed);
    if let Err(failure) = outcome {
        return Err(Failure {
            message: format!("{} ({} entries were imported before)", failure.message, done.entries),
            ..failure
        });
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = done.entries as f64 / seconds.max(1e-9);
    let object = json!({
        "collection": args.name,
        "entries": done.entries,
        "created": done.created,
        "replaced": done.entries - done.created,
        "vectors": done.vectors,
        "element": element,
        "batches": done.batches,
        "durability": if matches!(args.durability, DurabilityArg::Sync) { "sync" } else { "buffer" },
        "seconds": (seconds * 1e6).round() / 1e6,
        "entries_per_s": rate.round(),
        "interrupted": interrupted,
    });
    let text = format!(
        "imported {} entries ({} new) in {seconds:.2} s ({rate:.0}/s)",
        done.entries, done.created
    );
    if args.acks && !context.voice.json {
        // Stdout holds keys and nothing else.
        context.voice.note(&text);
    } else {
        context.voice.say(&object, || text)?;
    }
    if interrupted {
        return Err(Failure::interrupted(format!(
            "interrupted after {} entries; all of them are in the store",
            done.entries
        )));
    }
    Ok(())
}

/// What was written so far.
#[derive(Debug, Default)]
struct Report {
    entries: u64,
    created: u64,
    vectors: u64,
    batches: u64,
}

/// A batch on its way from the reader to the writer.
struct Work {
    batch: Batch,
    /// The keys, when they are to be told.
    keys: Vec<Vec<u8>>,
    vectors: u64,
}

fn write(store: &Store, work: Work, durability: Durability, done: &mut Report) -> Outcome {
    let receipts = store.write(work.batch.durability(durability))?;
    done.entries += receipts.len() as u64;
    done.created += receipts.iter().filter(|r| r.created).count() as u64;
    done.vectors += work.vectors;
    done.batches += 1;
    if !work.keys.is_empty() {
        let mut stdout = std::io::stdout().lock();
        let mut text = Vec::with_capacity(work.keys.len() * 16);
        for key in &work.keys {
            text.extend_from_slice(key);
            text.push(b'\n');
        }
        stdout.write_all(&text)?;
        stdout.flush()?;
    }
    Ok(())
}

/// The reader's end: turns records into batches.
struct Filler {
    collection: Collection,
    limit: usize,
    acks: bool,
    sender: SyncSender<Work>,
}

impl Filler {
    /// Reads to the end, to an error or to Ctrl-C; what was read before either is written.
    fn fill(self, mut source: Source, first: Option<Record>, stop: &AtomicBool) -> Outcome {
        let mut work = Work { batch: Batch::new(), keys: Vec::new(), vectors: 0 };
        let mut outcome = Ok(());
        let mut next = first;
        while let Some(record) = next.take() {
            let Record { namespace, key, mut draft, .. } = record;
            if source.embed && draft.vector.is_none() && !draft.payload.is_empty() {
                draft.vector = std::str::from_utf8(&draft.payload).ok().map(embed::embed);
            }
            work.vectors += u64::from(draft.vector.is_some());
            let place = self.collection.in_namespace(namespace);
            work.batch = work.batch.put(&place, &key, draft);
            if self.acks {
                work.keys.push(key);
            }
            let full =
                work.batch.len() >= self.limit || work.batch.approx_bytes() >= BATCH_BYTES_MAX;
            if full && !self.send(&mut work) {
                return Ok(());
            }
            if stop.load(Ordering::Acquire) {
                break;
            }
            match source.next() {
                Ok(record) => next = record,
                Err(failure) => outcome = Err(failure),
            }
        }
        if !work.batch.is_empty() {
            self.send(&mut work);
        }
        outcome
    }

    /// Hands a batch over; false when the writer has given up, which says why itself.
    fn send(&self, work: &mut Work) -> bool {
        let fresh = Work { batch: Batch::new(), keys: Vec::new(), vectors: 0 };
        self.sender.send(std::mem::replace(work, fresh)).is_ok()
    }
}

/// The files, row by row.
struct Source {
    entries: Option<Lines>,
    vectors: Option<NpyReader>,
    mapping: Mapping,
    embed: bool,
    row: u64,
    /// Whether a line without `_pmll` was seen: then lines and rows must be equally many.
    own_lines: bool,
}

impl Source {
    fn open(args: &ImportArgs) -> Result<Source, Failure> {
        let namespace = args.ns.as_deref().map(Namespace::new).transpose()?.unwrap_or_default();
        Ok(Source {
            entries: args.entries.as_deref().map(Lines::open).transpose()?,
            vectors: args.vectors.as_deref().map(NpyReader::open).transpose()?,
            mapping: Mapping {
                key: args.key.clone(),
                text: args.text.clone(),
                time: args.time.clone(),
                time_format: args.time_format.clone(),
                session: args.session.clone(),
                salience: args.salience.clone(),
                namespace,
            },
            embed: args.embed,
            row: 0,
            own_lines: false,
        })
    }

    fn next(&mut self) -> Result<Option<Record>, Failure> {
        let Some(lines) = &mut self.entries else { return self.next_vector() };
        let Some((row, line)) = lines.next_row()? else {
            return match &self.vectors {
                Some(vectors) if self.own_lines && vectors.rows() != lines.rows() => {
                    Err(unequal(vectors, &format!("only {} entries", lines.rows())))
                }
                _ => Ok(None),
            };
        };
        let exported = matches!(&line, pmll_cli::lines::Line::Object(o) if o.contains_key("_pmll"));
        self.own_lines |= !exported;
        let mut record = self.mapping.record(row, line).map_err(|what| lines.wrong(what))?;
        if let (Some(vectors), Some(row)) = (&mut self.vectors, record.row) {
            if row >= vectors.rows() && !exported {
                return Err(unequal(vectors, "more entries"));
            }
            record.draft.vector = Some(vectors.row(row).map_err(|e| lines.wrong(e))?);
        }
        Ok(Some(record))
    }

    fn next_vector(&mut self) -> Result<Option<Record>, Failure> {
        let Some(vectors) = &mut self.vectors else { return Ok(None) };
        if self.row >= vectors.rows() {
            return Ok(None);
        }
        let mut record = self.mapping.vector_only(self.row);
        record.draft.vector = Some(vectors.row(self.row)?);
        self.row += 1;
        Ok(Some(record))
    }
}

fn unequal(vectors: &NpyReader, what: &str) -> Failure {
    let (file, rows) = (vectors.path().display(), vectors.rows());
    Failure::invalid(format!("{file} has {rows} rows, but there are {what}"))
}

/// What a new collection is: what was asked expressly, else what an export says, else what the
/// vectors are.
fn spec(
    args: &ImportArgs,
    source: &Source,
    first: Option<&Record>,
) -> Result<CollectionSpec, Failure> {
    let told = first.and_then(|record| record.collection.as_ref());
    let mut spec = match told {
        Some(told) => collection_spec(told).map_err(Failure::invalid)?,
        None => CollectionSpec::new(),
    };
    if let Some(vectors) = &source.vectors {
        if vectors.dim() > 0 {
            let dim = u32::try_from(vectors.dim()).unwrap_or(u32::MAX);
            spec.dim = Some(dim);
        }
        if told.is_none() && vectors.kind() == Kind::F16 {
            spec.element = Element::F16;
        }
    }
    if args.embed {
        spec.dim = Some(embed::DIM as u32);
        spec.model = Some(embed::MODEL.to_owned());
    }
    if let Some(metric) = args.metric {
        spec.metric = Metric::from(metric);
    }
    if let Some(element) = args.element {
        spec.element = Element::from(element);
    }
    if args.model.is_some() {
        spec.model.clone_from(&args.model);
    }
    Ok(spec)
}

/// The first Ctrl-C sets the flag, the second ends the process.
fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::AcqRel) {
            std::process::exit(i32::from(crate::output::code::INTERRUPTED));
        }
    })
    .map_err(|e| Failure::bug(format!("cannot listen for Ctrl-C: {e}")))?;
    Ok(stop)
}
