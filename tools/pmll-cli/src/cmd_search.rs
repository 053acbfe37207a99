//! `search`: the entries nearest to a text or a vector.

use clap::Args;
use pmll::{Collection, Exactness, Query};
use pmll_cli::embed;
use pmll_cli::npy::vector_argument;
use serde_json::{Value, json};

use crate::open::{Choice, Context, Place};
use crate::output::{Failure, Outcome};
use crate::render;

/// Find the entries nearest to a text or a vector
///
/// A text goes through the embedder hash-384, which needs no model; it finds what `put --text`
/// stored without a vector. Collections filled with vectors of a model are searched by --vector.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll search memory notes 'who plays violins?'
  pmll search memory notes 'lunch' -k 3 --where 'place=Rome' --json
  pmll search memory passages --vector queries.npy:0 --min-score 0.3")]
pub struct SearchArgs {
    #[command(flatten)]
    place: Place,
    /// What to look for
    #[arg(value_name = "TEXT", required_unless_present = "vector", conflicts_with = "vector")]
    text: Option<String>,
    /// Vector as a JSON array or FILE.npy:ROW
    #[arg(long, value_name = "JSON|F.npy:ROW")]
    vector: Option<String>,
    /// Entries to find
    #[arg(short, default_value_t = 10)]
    k: usize,
    #[command(flatten)]
    choice: Choice,
    /// Least score of an answer
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    min_score: Option<f32>,
    /// How sure to be: a share such as 0.95 or 0.99 reads some exact vectors, `codes:0.95` none and answers with
    /// scores of codes (`codes` is `codes:0.99`), `exact` reads all
    #[arg(long, value_name = "SHARE|codes[:SHARE]|exact", default_value = "0.99", value_parser = exactness)]
    exactness: Exactness,
}

/// A recall in (0, 1], `codes` with one or without, or `exact`.
pub fn exactness(text: &str) -> Result<Exactness, String> {
    let recall = |share: &str| match share.parse::<f32>() {
        Ok(recall) if recall > 0.0 && recall <= 1.0 => Ok(recall),
        _ => Err("takes a share above 0 up to 1, codes, codes:SHARE, or exact".to_owned()),
    };
    match (text, text.strip_prefix("codes:")) {
        ("codes", _) => Ok(Exactness::Codes(0.99)),
        ("exact", _) => Ok(Exactness::Exact),
        (_, Some(share)) => recall(share).map(Exactness::Codes),
        (share, None) => recall(share).map(Exactness::Target),
    }
}

pub fn run(args: &SearchArgs, context: &Context) -> Outcome {
    let filter = args.choice.filter()?;
    let (vector, embedder) = match (&args.text, &args.vector) {
        (_, Some(vector)) => (vector_argument(vector)?, None),
        (Some(text), None) => (embed::embed(text), Some(embed::MODEL)),
        (None, None) => return Err(Failure::usage("give a text or --vector")),
    };
    let collection = args.place.read(context)?;
    if embedder.is_some() {
        must_be_hashed(&collection)?;
    }
    let mut query = Query::vector(vector).k(args.k).exactness(args.exactness);
    if let Some(filter) = filter {
        query = query.filter(filter);
    }
    if let Some(score) = args.min_score {
        query = query.min_score(score);
    }
    let hits = collection.search(query)?;
    let objects: Vec<Value> = hits
        .iter()
        .map(|hit| {
            let mut object = serde_json::Map::new();
            object.insert("score".into(), render::number(hit.score));
            object.insert("exact".into(), hit.exact.into());
            object.insert("bits".into(), hit.bits.into());
            object.extend(render::entry(&hit.entry, true));
            Value::Object(object)
        })
        .collect();
    let damaged: Vec<String> = hits.damaged().iter().map(ToString::to_string).collect();
    if let (true, Some(first)) = (hits.is_empty(), damaged.first()) {
        return Err(Failure::corrupt(format!("nothing found that can be read: {first}"))
            .hint("run `pmll verify` on the store to see every damaged place"));
    }
    for error in &damaged {
        context.voice.warn(&format!("an entry is left out: {error}"));
    }
    let object = json!({
        "collection": collection.name(),
        "embedder": embedder,
        "k": args.k,
        "hits": objects,
        "damaged": damaged,
    });
    context.voice.say(&object, || {
        let mut text = embedder.map_or(String::new(), |e| format!("embedder: {e}\n"));
        for (at, hit) in hits.iter().enumerate() {
            let (path, preview) = (render::path(&hit.entry), render::preview(&hit.entry, 100));
            text += &format!("{:>3}  {:.3}  {path}  {preview}\n", at + 1, hit.score);
        }
        if hits.is_empty() {
            text += "nothing found\n";
        }
        text
    })
}

/// A hashed text compared with vectors of a model would give numbers without meaning.
fn must_be_hashed(collection: &Collection) -> Outcome {
    let spec = collection.spec()?;
    let model = match (spec.model, spec.dim) {
        (Some(model), _) if model == embed::MODEL => return Ok(()),
        (Some(model), _) => format!("of model {model}"),
        // Nothing to compare with: nothing will be found, which is true.
        (None, _) if collection.count(None)? == 0 => return Ok(()),
        (None, None) => return Ok(()),
        (None, Some(dim)) => format!("of an unknown model with {dim} values"),
    };
    Err(Failure::invalid(format!(
        "collection {} holds vectors {model}; a text goes through {}",
        collection.name(),
        embed::MODEL
    ))
    .hint("give the query's own vector: --vector queries.npy:0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_sure_to_be_is_said_in_four_ways() {
        let said = [
            ("codes", Exactness::Codes(0.99)),
            ("codes:0.95", Exactness::Codes(0.95)),
            ("0.9", Exactness::Target(0.9)),
            ("1", Exactness::Target(1.0)),
            ("exact", Exactness::Exact),
        ];
        said.into_iter().for_each(|(text, meant)| assert_eq!(exactness(text), Ok(meant)));
        for text in ["", "codes:", "codes:0", "codes:1.1", "codes:exact", "0", "NaN", "-1", "Exact"]
        {
            assert!(exactness(text).unwrap_err().contains("codes:SHARE"), "{text}");
        }
    }
}
