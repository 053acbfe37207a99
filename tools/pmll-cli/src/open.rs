//! Opening stores and collections the way each command needs them.
//!
//! Reads open read-only and never create; writes need an existing store, except `init`, `put` and
//! `import`, which make what is missing. A missing store or collection is `not_found` with a hint.

use std::path::{Path, PathBuf};

use clap::Args;
use pmll::{Collection, CollectionSpec, Filter, Namespace, Options, Store};
use serde_json::{Value, json};

use crate::output::{Failure, Voice};

/// What the global options decided.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub voice: Voice,
    pub budget: Option<u64>,
}

/// Which store and collection, and where in it.
#[derive(Args, Debug)]
pub struct Place {
    /// Directory of the store; left out when --store or PMLL_STORE is given
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Name of the collection
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Namespace, such as user/7/notes
    #[arg(long, value_name = "PATH")]
    pub ns: Option<String>,
}

/// Which entries.
#[derive(Args, Debug)]
pub struct Choice {
    /// Condition such as 'conv=c26', 'session>=3', 'speaker in A,B', '!draft'; all must hold
    #[arg(long = "where", value_name = "COND")]
    pub conditions: Vec<String>,
    /// Filter as a JSON object, such as '{"session":{"$gte":3}}'
    #[arg(long, value_name = "JSON")]
    pub filter: Option<String>,
}

impl Choice {
    /// Whether anything was asked.
    pub fn is_given(&self) -> bool {
        !self.conditions.is_empty() || self.filter.is_some()
    }

    /// The filter, if any was asked.
    pub fn filter(&self) -> Result<Option<Filter>, Failure> {
        if !self.is_given() {
            return Ok(None);
        }
        let mut filter = Filter::from_where(&self.conditions)?;
        if let Some(text) = &self.filter {
            filter = filter.and(Filter::parse(text)?);
        }
        Ok(Some(filter))
    }
}

impl Place {
    /// A collection that must exist, in a store opened for reading.
    pub fn read(&self, context: &Context) -> Result<Collection, Failure> {
        self.find(&read(context, &self.dir)?)
    }

    /// A store opened for writing, and a collection of it; both must exist.
    pub fn write(&self, context: &Context) -> Result<(Store, Collection), Failure> {
        let store = write(context, &self.dir)?;
        let collection = self.find(&store)?;
        Ok((store, collection))
    }

    /// The collection in an open store; it must exist.
    pub fn find(&self, store: &Store) -> Result<Collection, Failure> {
        let collection = store.find_collection(&self.name)?.ok_or_else(|| self.no_collection())?;
        self.namespaced(collection)
    }

    /// The handle on the namespace asked for.
    pub fn namespaced(&self, collection: Collection) -> Result<Collection, Failure> {
        Ok(match &self.ns {
            Some(ns) => collection.in_namespace(Namespace::new(ns)?),
            None => collection,
        })
    }

    /// The error that there is no such collection.
    pub fn no_collection(&self) -> Failure {
        let message = format!("there is no collection {:?} in {}", self.name, self.dir.display());
        Failure::not_found(message)
            .hint(format!("`pmll collections {}` lists what there is", self.dir.display()))
    }
}

/// Opens for reading; writes nothing, also on a read-only mount.
pub fn read(context: &Context, dir: &Path) -> Result<Store, Failure> {
    must_exist(dir)?;
    open(dir, Options { read_only: true, create: false, ..options(context) })
}

/// Opens an existing store for writing.
pub fn write(context: &Context, dir: &Path) -> Result<Store, Failure> {
    must_exist(dir)?;
    open(dir, Options { create: false, ..options(context) })
}

/// Opens for writing, making the store if it is missing.
pub fn create(context: &Context, dir: &Path) -> Result<Store, Failure> {
    open(dir, options(context))
}

fn options(context: &Context) -> Options {
    Options { budget_bytes: context.budget, ..Options::default() }
}

fn open(dir: &Path, options: Options) -> Result<Store, Failure> {
    let read_only = options.read_only;
    tracing::debug!(dir = %dir.display(), read_only, "opening");
    let store = Store::builder(dir).options(options).open()?;
    Ok(store)
}

/// Whether there is something at `dir` that could be a store.
pub fn exists(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut items) => items.next().is_some(),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    }
}

fn must_exist(dir: &Path) -> Result<(), Failure> {
    if exists(dir) {
        return Ok(());
    }
    Err(Failure::not_found(format!("there is no store at {}", dir.display())).hint(format!(
        "`pmll init {0}` makes one; `pmll put {0} ...` and `pmll import {0} ...` make it as needed",
        dir.display()
    )))
}

/// Gets or makes a collection; an existing one must not contradict what was asked expressly.
pub fn collection(
    store: &Store,
    name: &str,
    spec: CollectionSpec,
    metric_asked: bool,
) -> Result<Collection, Failure> {
    if let Some(existing) = store.find_collection(name)? {
        let has = existing.spec()?;
        if metric_asked && has.metric != spec.metric {
            return Err(Failure::invalid(format!(
                "collection {name} has metric {}, not {}",
                has.metric.name(),
                spec.metric.name()
            )));
        }
    }
    Ok(store.collection_with(name, spec)?)
}

/// A collection's definition as an object.
pub fn spec_json(spec: &CollectionSpec) -> Value {
    json!({
        "dim": spec.dim,
        "metric": spec.metric.name(),
        "element": element_name(spec.element),
        "model": spec.model,
    })
}

/// `f32` or `f16`.
pub fn element_name(element: pmll::Element) -> &'static str {
    match element {
        pmll::Element::F32 => "f32",
        pmll::Element::F16 => "f16",
    }
}

/// Visits every entry of a scan, page by page; stops when `visit` answers false.
pub fn for_each(
    collection: &Collection,
    scan: pmll::Scan,
    mut visit: impl FnMut(pmll::Entry) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut cursor: Option<String> = None;
    loop {
        let page = match &cursor {
            None => collection.scan(scan.clone())?,
            Some(cursor) => collection.scan(scan.clone().cursor(cursor.as_str()))?,
        };
        for entry in page.entries {
            if !visit(entry)? {
                return Ok(());
            }
        }
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}
