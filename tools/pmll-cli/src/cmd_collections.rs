//! `collections`, `drop`, `config get|set`.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pmll_cli::time;
use serde_json::{Map, Value, json};

use crate::open::{self, Context};
use crate::output::{Failure, Outcome, size, table};
use crate::{cmd_delete, render};

/// List the collections of a store
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll collections memory
  pmll collections memory --json | jq -r '.collections[].name'")]
pub struct CollectionsArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn collections(args: &CollectionsArgs, context: &Context) -> Outcome {
    let all = open::read(context, &args.dir)?.collections()?;
    let objects: Vec<Value> = all
        .iter()
        .map(|info| {
            let mut object = Map::new();
            object.insert("name".into(), info.name.as_str().into());
            object.insert("entries".into(), info.entries.into());
            if let Value::Object(spec) = open::spec_json(&info.spec) {
                object.extend(spec);
            }
            object.insert("created".into(), render::moment(info.created));
            Value::Object(object)
        })
        .collect();
    context.voice.say(&json!({ "collections": objects }), || {
        let head = ["name", "entries", "dim", "metric", "element", "model"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for info in &all {
            rows.push(vec![
                info.name.clone(),
                info.entries.to_string(),
                info.spec.dim.map_or("-".into(), |dim| dim.to_string()),
                info.spec.metric.name().into(),
                open::element_name(info.spec.element).into(),
                info.spec.model.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
        table(&rows)
    })
}

/// Remove a collection and everything in it
///
/// Asks on a terminal unless --yes.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll drop memory notes --yes")]
pub struct DropArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Name of the collection
    #[arg(value_name = "NAME")]
    name: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn drop(args: &DropArgs, context: &Context) -> Outcome {
    let store = open::write(context, &args.dir)?;
    let missing = || {
        Failure::not_found(format!("there is no collection {:?}", args.name))
            .hint(format!("`pmll collections {}` lists what there is", args.dir.display()))
    };
    let collection = store.find_collection(&args.name)?.ok_or_else(missing)?;
    let entries = collection.count(None)?;
    // The name is spelled out, so a script need not say --yes.
    if !args.yes && std::io::stdin().is_terminal() {
        cmd_delete::confirm(&format!("drop {} with {entries} entries?", args.name))?;
    }
    if !store.drop_collection(&args.name)? {
        return Err(missing());
    }
    store.close()?;
    let object = json!({ "dropped": args.name, "entries": entries });
    context.voice.say(&object, || format!("dropped {} with {entries} entries", args.name))
}

/// Show or change settings of a store
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll config get memory
  pmll config get memory budget
  pmll config set memory budget 64MiB")]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: ConfigAction,
}

#[derive(Subcommand, Debug)]
enum ConfigAction {
    /// Show one setting, or all
    Get {
        /// Directory of the store
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Name of the setting
        #[arg(value_name = "SETTING")]
        name: Option<String>,
    },
    /// Change a setting; null removes it
    Set {
        /// Directory of the store
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Name of the setting, such as budget
        #[arg(value_name = "SETTING")]
        name: String,
        /// JSON, text, or a size for budget
        #[arg(value_name = "VALUE")]
        value: String,
    },
}

/// The setting that takes a size; `budget` is short for it.
const BUDGET: &str = "budget_bytes";

pub fn config(args: &ConfigArgs, context: &Context) -> Outcome {
    match &args.action {
        ConfigAction::Get { dir, name: None } => {
            let all: Map<String, Value> =
                open::read(context, dir)?.settings()?.into_iter().collect();
            let rows: Vec<Vec<String>> =
                all.iter().map(|(n, v)| vec![n.clone(), shown(n, v)]).collect();
            context.voice.say(&json!({ "settings": all }), || table(&rows))
        }
        ConfigAction::Get { dir, name: Some(name) } => {
            let name = full_name(name);
            let value = open::read(context, dir)?.setting(name)?.ok_or_else(|| {
                Failure::not_found(format!("{name} is not set"))
                    .hint(format!("`pmll config get {}` lists what is set", dir.display()))
            })?;
            let object = json!({ "name": name, "value": value });
            context.voice.say(&object, || shown(name, &value))
        }
        ConfigAction::Set { dir, name, value } => {
            let name = full_name(name);
            let value = if name == BUDGET && value != "null" {
                time::parse_size(value).map(Value::from).map_err(Failure::invalid)?
            } else {
                serde_json::from_str(value).unwrap_or_else(|_| Value::from(value.as_str()))
            };
            let store = open::write(context, dir)?;
            store.set_setting(name, value.clone())?;
            store.close()?;
            let object = json!({ "name": name, "value": value });
            context.voice.say(&object, || format!("{name} = {}", shown(name, &value)))
        }
    }
}

fn full_name(name: &str) -> &str {
    if name == "budget" { BUDGET } else { name }
}

fn shown(name: &str, value: &Value) -> String {
    match value.as_u64() {
        Some(bytes) if name == BUDGET => size(bytes),
        _ => value.to_string(),
    }
}
