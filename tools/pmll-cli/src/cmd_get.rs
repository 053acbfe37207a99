//! `get`, `touch`, `pin`, `unpin`: entries by key. A missing key is told and ends with code 1, after
//! all the others were served.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use crate::open::{Context, Place};
use crate::output::{Failure, Outcome, one_line};
use crate::render;

/// Show entries by key
///
/// With --json one object a key, one a line. Reads only: the access is not counted (see touch).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll get memory notes n1
  pmll get memory notes n1 n2 --vector --json
  pmll get memory pages p7 --raw > page.html")]
pub struct GetArgs {
    #[command(flatten)]
    place: Place,
    /// Keys of the entries
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<OsString>,
    /// Show the vectors as well
    #[arg(long)]
    vector: bool,
    /// Write the payload exactly, and nothing else; takes one key
    #[arg(long, conflicts_with_all = ["vector", "json"])]
    raw: bool,
}

pub fn get(args: &GetArgs, context: &Context) -> Outcome {
    if args.raw && args.keys.len() > 1 {
        return Err(Failure::usage("--raw takes one key"));
    }
    let collection = args.place.read(context)?;
    let mut missing = Vec::new();
    let mut stdout = std::io::stdout().lock();
    for key in &args.keys {
        let key = key.as_encoded_bytes();
        let found = if args.vector { collection.get(key)? } else { collection.peek(key)? };
        match found {
            None => missing.push(String::from_utf8_lossy(key).into_owned()),
            Some(entry) if args.raw => stdout.write_all(&entry.payload)?,
            Some(entry) if context.voice.json => {
                writeln!(stdout, "{}", Value::Object(render::entry(&entry, true)))?;
            }
            Some(entry) => writeln!(stdout, "{}\n", render::details(&entry))?,
        }
    }
    stdout.flush()?;
    all_found(&args.place, &missing)
}

fn all_found(place: &Place, missing: &[String]) -> Outcome {
    if missing.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = missing.iter().map(|k| format!("{:?}", one_line(k, 200))).collect();
    Err(Failure::not_found(format!("no entry {} in {}", keys.join(", "), place.name)).hint(
        format!(
            "`pmll list {} {}` shows what there is; --ns names a namespace",
            place.dir.display(),
            place.name
        ),
    ))
}

/// What `touch`, `pin` and `unpin` take.
#[derive(Args, Debug)]
pub struct KeysArgs {
    #[command(flatten)]
    place: Place,
    /// Keys of the entries
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<OsString>,
}

/// Count an access, so that entries stay hot longer
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll touch memory notes n1 n2")]
pub struct TouchArgs {
    #[command(flatten)]
    pub keys: KeysArgs,
}

/// Pin entries: they are never demoted
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll pin memory notes n1")]
pub struct PinArgs {
    #[command(flatten)]
    pub keys: KeysArgs,
}

/// Take the pin of entries away
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll unpin memory notes n1")]
pub struct UnpinArgs {
    #[command(flatten)]
    pub keys: KeysArgs,
}

pub fn touch(args: &KeysArgs, context: &Context) -> Outcome {
    each(args, context, "touched", |collection, key| collection.touch(key))
}

pub fn pin(args: &KeysArgs, pinned: bool, context: &Context) -> Outcome {
    let verb = if pinned { "pinned" } else { "unpinned" };
    each(args, context, verb, |collection, key| collection.pin(key, pinned))
}

fn each(
    args: &KeysArgs,
    context: &Context,
    verb: &str,
    mut act: impl FnMut(&pmll::Collection, &[u8]) -> pmll::Result<bool>,
) -> Outcome {
    let (store, collection) = args.place.write(context)?;
    let mut done = 0u64;
    let mut missing = Vec::new();
    for key in &args.keys {
        if act(&collection, key.as_encoded_bytes())? {
            done += 1;
        } else {
            missing.push(key.to_string_lossy().into_owned());
        }
    }
    store.close()?;
    let object = json!({ verb: done, "missing": missing });
    context.voice.say(&object, || format!("{verb} {done}"))?;
    all_found(&args.place, &missing)
}
