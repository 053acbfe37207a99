//! `put`: one entry from the command line, a file or stdin.
//!
//! A text without a vector is embedded with `hash-384` where that fits the collection: a new one,
//! an empty one of 384 dimensions, or one that was filled by it before. Vectors of another model
//! are never mixed with it; there the text is stored without a vector, and a remark says so.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use pmll::{Collection, CollectionSpec, Draft, Store, Timestamp};
use pmll_cli::embed;
use pmll_cli::npy::vector_argument;
use pmll_cli::time;
use serde_json::{Map, Value, json};

use crate::open::{self, Context, Place};
use crate::output::{Failure, Outcome};

/// Put an entry: insert it, or replace the one under its key
///
/// Makes store and collection if they are missing. Without KEY a new key is made and printed.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("payload").args(["text", "file"]),
    after_help = "Examples:
  pmll put memory notes --text 'Caroline plays the violin'
  pmll put memory notes n1 --text 'Lunch with Ann' --attr place=Rome --attr people=2 --at 2026-11-21
  pmll put memory pages p7 --file page.html --ttl 7d --pin
  echo 'from a pipe' | pmll put memory notes n2 -
  pmll put memory images i1 --file cat.png --vector vectors.npy:17"
)]
pub struct PutArgs {
    #[command(flatten)]
    place: Place,
    /// Key of the entry; made when left out
    #[arg(value_name = "KEY")]
    key: Option<OsString>,
    /// A single - reads the payload from stdin
    #[arg(value_name = "-", conflicts_with_all = ["text", "file"])]
    stdin: Option<OsString>,
    /// The payload
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// File whose contents are the payload
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Vector as a JSON array or FILE.npy:ROW
    #[arg(long, value_name = "JSON|F.npy:ROW")]
    vector: Option<String>,
    /// Attribute; the value is JSON where it parses as such, else text
    #[arg(long = "attr", value_name = "NAME=VALUE")]
    attributes: Vec<String>,
    /// Event time; now when left out
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Hide the entry this long from now
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    ttl: Option<Duration>,
    /// Never demote it
    #[arg(long)]
    pin: bool,
    /// Semantic value, 0 to 1
    #[arg(long, value_name = "X")]
    salience: Option<f32>,
    /// Session it belongs to
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Do not embed the text when there is no --vector
    #[arg(long)]
    no_embed: bool,
}

pub fn run(args: &PutArgs, context: &Context) -> Outcome {
    let (key, stdin) = key_and_stdin(args)?;
    let payload = payload(args, stdin)?;
    let mut draft = Draft::bytes(payload);
    draft.attributes = attributes(&args.attributes)?;
    if let Some(at) = &args.at {
        draft.at = Some(Timestamp(time::parse(at).map_err(|e| Failure::from(e).at("--at"))?));
    }
    draft.ttl = args.ttl;
    draft.salience = args.salience;
    draft.session.clone_from(&args.session);
    draft.pinned = args.pin.then_some(true);
    if let Some(vector) = &args.vector {
        draft.vector = Some(vector_argument(vector)?);
    }
    // Whatever needs no store was checked; now one may be made.
    let store = open::create(context, &args.place.dir)?;
    let mut embedder = Value::Null;
    let text = match draft.vector {
        None if !args.no_embed => {
            std::str::from_utf8(&draft.payload).ok().filter(|t| !t.is_empty())
        }
        _ => None,
    };
    let collection = match text {
        None => store.collection(&args.place.name)?,
        Some(text) => {
            let (collection, fits) = for_hash(&store, &args.place.name)?;
            if fits {
                draft.vector = Some(embed::embed(text));
                embedder = embed::MODEL.into();
            } else {
                context.voice.note(&format!(
                    "note: collection {} holds vectors of another model; the text was stored \
                     without one (give --vector)",
                    args.place.name
                ));
            }
            collection
        }
    };
    let collection = args.place.namespaced(collection)?;
    let (key, receipt) = match key {
        Some(key) => {
            let receipt = collection.put(key.as_encoded_bytes(), draft)?;
            (pmll::Key::new(key.as_encoded_bytes())?, receipt)
        }
        None => collection.add(draft)?,
    };
    store.close()?;
    let object = json!({
        "key": key.display(),
        "id": receipt.id.0,
        "version": receipt.version.0,
        "created": receipt.created,
        "embedder": embedder,
    });
    context.voice.say(&object, || {
        let verb = if receipt.created { "put" } else { "replaced" };
        let with = embedder.as_str().map_or(String::new(), |e| format!(" (embedder: {e})"));
        format!("{verb} {}{with}", crate::output::one_line(&key.display(), 200))
    })
}

/// `KEY -`, `-` alone, or neither.
fn key_and_stdin(args: &PutArgs) -> Result<(Option<&OsString>, bool), Failure> {
    let given = args.text.is_some() || args.file.is_some();
    match (&args.key, &args.stdin) {
        (key, Some(dash)) if dash == "-" => Ok((key.as_ref(), true)),
        (_, Some(other)) => Err(Failure::usage(format!(
            "{} is one argument too many; a payload is given by --text, --file or -",
            other.display()
        ))),
        (Some(dash), None) if dash == "-" && !given => Ok((None, true)),
        (key, None) if given => Ok((key.as_ref(), false)),
        // A vector alone is an entry as well.
        (key, None) if args.vector.is_some() => Ok((key.as_ref(), false)),
        _ => Err(Failure::usage("nothing to put: give --text TEXT, --file FILE or - for stdin")
            .hint("pmll put --help")),
    }
}

fn payload(args: &PutArgs, stdin: bool) -> Result<Vec<u8>, Failure> {
    // One byte more than a payload may have, so that a longer one is refused, not cut.
    let limit = (16 << 20) + 1;
    let mut bytes = Vec::new();
    if stdin {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::io("read stdin", &e))?;
    } else if let Some(path) = &args.file {
        std::fs::File::open(path)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|e| Failure::io(&format!("read {}", path.display()), &e))?;
    } else if let Some(text) = &args.text {
        bytes = text.clone().into_bytes();
    }
    Ok(bytes)
}

fn attributes(given: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut out = Map::new();
    for item in given {
        let (name, value) = item.split_once('=').ok_or_else(|| {
            Failure::usage(format!("--attr {item:?} has no ="))
                .hint("write it like --attr place=Rome")
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        out.insert(name.to_owned(), value);
    }
    Ok(out)
}

/// The collection, made if it is missing, and whether vectors of `hash-384` belong into it.
pub fn for_hash(store: &Store, name: &str) -> Result<(Collection, bool), Failure> {
    let spec = CollectionSpec::new().dim(embed::DIM as u32).model(embed::MODEL);
    let Some(existing) = store.find_collection(name)? else {
        return Ok((store.collection_with(name, spec)?, true));
    };
    let has = existing.spec()?;
    let fits = match (has.model.as_deref(), has.dim) {
        (Some(model), _) => model == embed::MODEL,
        (None, None) => true,
        // Vectors of an unknown model may be there already.
        (None, Some(dim)) => dim as usize == embed::DIM && existing.count(None)? == 0,
    };
    if fits && has.model.is_none() {
        existing.set_model(embed::MODEL)?;
    }
    Ok((existing, fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_values_are_json_or_text() {
        let got = attributes(&["a=1".into(), "b=x=y".into(), "c=[1,2]".into(), "d=\"1\"".into()]);
        assert_eq!(Value::Object(got.unwrap()), json!({"a": 1, "b": "x=y", "c": [1, 2], "d": "1"}));
        assert!(attributes(&["a".into()]).is_err());
    }
}
