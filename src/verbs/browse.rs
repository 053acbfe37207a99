//! Browsing: entries in the order of their keys, page by page, and counting.
//!
//! A scan merges three sorted sources: the keys of the active table, of the frozen one, and of the
//! catalog. Of one path the newest source speaks: a tombstone in RAM silences the catalog's row.
//! Only one entry at a time is held besides the page, so memory is bounded by the page. A cursor
//! is the last path of the page, so a scan goes on correctly whatever was written in between:
//! entries that lived throughout are seen exactly once.
//!
//! Counting goes through the rows, not the keys, and decodes only what the filter needs.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::Bound;

use crate::organs::archive::BodyReader;
use crate::organs::catalog::KeyRange;
use crate::pure::filter::Filter;
use crate::tiers::Copy;
use crate::tiers::assemble::{self, Want};
use crate::tiers::cold::ColdRow;
use crate::tiers::hot::MemTable;
use crate::tiers::probe::Scope;
use crate::words::entry::Entry;
use crate::words::error::{Error, Result};
use crate::words::id::{EntryId, Key, KeyPath, Namespace};
use crate::words::record::Place;

/// Entries of one page at most.
const PAGE_MAX: usize = 1000;
/// Payload and vector bytes of one page at most, so that a page of large entries stays small.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Rows read at once by a count.
const ROWS_AT_ONCE: u32 = 1024;

/// What to list.
///
/// ```
/// # use pmll::{Draft, Scan, Store};
/// # let dir = tempfile::tempdir()?;
/// # let notes = Store::open(dir.path().join("memory"))?.collection("notes")?;
/// for key in ["a1", "a2", "b1"] {
///     notes.put(key, Draft::text(key))?;
/// }
/// let page = notes.scan(Scan::new().prefix("a").reverse(true))?;
/// let keys: Vec<_> = page.entries.iter().map(|e| e.key.display()).collect();
/// assert_eq!(keys, ["a2", "a1"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a scan does nothing until it is run"]
pub struct Scan {
    filter: Option<Filter>,
    prefix: Option<Vec<u8>>,
    from: Option<Vec<u8>>,
    until: Option<Vec<u8>>,
    reverse: bool,
    limit: usize,
    cursor: Option<String>,
    want: Want,
}

impl Default for Scan {
    fn default() -> Self {
        Scan {
            filter: None,
            prefix: None,
            from: None,
            until: None,
            reverse: false,
            limit: PAGE_MAX,
            cursor: None,
            want: Want { vector: false, payload: true },
        }
    }
}

impl Scan {
    /// Everything, ascending, without vectors.
    pub fn new() -> Scan {
        Scan::default()
    }

    /// Only entries that match.
    pub fn filter(mut self, filter: Filter) -> Scan {
        self.filter = Some(match self.filter {
            Some(already) => already.and(filter),
            None => filter,
        });
        self
    }

    /// Only keys that start with these bytes.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Scan {
        self.prefix = Some(prefix.as_ref().to_vec());
        self
    }

    /// Only keys from this one on.
    pub fn from(mut self, key: impl AsRef<[u8]>) -> Scan {
        self.from = Some(key.as_ref().to_vec());
        self
    }

    /// Only keys before this one.
    pub fn until(mut self, key: impl AsRef<[u8]>) -> Scan {
        self.until = Some(key.as_ref().to_vec());
        self
    }

    /// Descending instead of ascending.
    pub fn reverse(mut self, reverse: bool) -> Scan {
        self.reverse = reverse;
        self
    }

    /// Entries of the page, at most 1,000; a page ends earlier at 4 MiB.
    pub fn limit(mut self, limit: usize) -> Scan {
        self.limit = limit.min(PAGE_MAX);
        self
    }

    /// Goes on after a page, with the same other settings.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Scan {
        self.cursor = Some(cursor.into());
        self
    }

    /// Whether entries carry their exact vector; not unless set.
    pub fn with_vector(mut self, yes: bool) -> Scan {
        self.want.vector = yes;
        self
    }

    /// Whether entries carry their payload; they do unless set to false.
    pub fn with_payload(mut self, yes: bool) -> Scan {
        self.want.payload = yes;
        self
    }

    /// Whether a key is inside the asked range.
    fn takes(&self, key: &Key) -> bool {
        let key = key.as_bytes();
        self.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
            && self.from.as_ref().is_none_or(|from| key >= from.as_slice())
            && self.until.as_ref().is_none_or(|until| key < until.as_slice())
    }
}

/// A page of a scan.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScanPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page goes on; `None` when this was the last.
    pub cursor: Option<String>,
}

/// Runs a scan for one page.
pub fn scan(scope: &Scope<'_>, scan: &Scan) -> Result<ScanPage> {
    let after = scan.cursor.as_deref().map(|c| decode_cursor(scope, c)).transpose()?;
    let mut page = ScanPage::default();
    let mut bytes = 0;
    // In the order of bytes the keys of a namespace itself stand before those of the ones below.
    let mut stretches = [Stretch::Here, Stretch::Below];
    if scan.reverse {
        stretches.reverse();
    }
    for stretch in stretches {
        for item in paths(scope, scan, stretch, after.as_ref())? {
            let (path, id) = item?;
            if !scan.takes(&path.key) {
                continue;
            }
            let Some(copy) = scope.view.copy(id)? else {
                return Err(Error::corrupt(format!(
                    "index.redb: key {} names entry {id}, which is nowhere; delete index.redb to \
                     have it rebuilt",
                    path.key
                )));
            };
            if !scope.admits(&copy, scan.filter.as_ref(), None)? {
                continue;
            }
            if page.entries.len() >= scan.limit || bytes >= PAGE_BYTES_MAX {
                // One more matches: the cursor is the last one that was given out.
                page.cursor = page.entries.last().map(encode_cursor);
                return Ok(page);
            }
            let entry = assemble::entry(scope.view, &copy, scope.def, scope.access, scan.want)?;
            bytes += entry.payload.len() + entry.vector.as_ref().map_or(0, |v| v.len() * 4) + 256;
            page.entries.push(entry);
        }
    }
    Ok(page)
}

/// The two parts a namespace's paths fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stretch {
    /// The namespace itself: here a prefix or an end of the keys bounds what is read.
    Here,
    /// The namespaces below it.
    Below,
}

type Item = Result<(KeyPath, Option<EntryId>)>;
type Source<'a> = Peekable<Box<dyn Iterator<Item = Item> + 'a>>;

/// The live paths of one stretch in order, from all sources, after a given one.
fn paths<'a>(
    scope: &'a Scope<'_>,
    scan: &Scan,
    stretch: Stretch,
    after: Option<&KeyPath>,
) -> Result<impl Iterator<Item = Result<(KeyPath, EntryId)>> + 'a> {
    let (collection, namespace, reverse) = (scope.def.id, scope.namespace, scan.reverse);
    let mut range = match stretch {
        Stretch::Below => KeyRange::below(namespace),
        Stretch::Here => {
            let prefix = scan.prefix.as_deref().unwrap_or_default();
            let mut range = KeyRange::with_prefix(namespace, prefix);
            if let Some(from) = &scan.from {
                range = range.starting(namespace, from);
            }
            if let Some(until) = &scan.until {
                range = range.before(namespace, until);
            }
            range
        }
    };
    if let Some(last) = after {
        let (namespace, key) = (&last.namespace, last.key.as_bytes());
        range = if reverse { range.before(namespace, key) } else { range.after(namespace, key) };
    }
    let cold = scope.view.cold.catalog.keys(collection, &range, reverse)?.map(|item| {
        let (path, id) = item?;
        Ok((path, Some(id)))
    });
    let mut sources: Vec<Source<'a>> = Vec::new();
    let tables = std::iter::once(&scope.view.active).chain(scope.view.frozen.as_deref());
    for memory in tables {
        sources.push(table(memory, scope, stretch, reverse, after).peekable());
    }
    let cold: Box<dyn Iterator<Item = Item> + 'a> = Box::new(cold);
    sources.push(cold.peekable());
    Ok(std::iter::from_fn(move || {
        loop {
            match merge_step(&mut sources, reverse)? {
                Ok((path, Some(id))) => return Some(Ok((path, id))),
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }))
}

/// The paths of one stretch in a table in RAM.
fn table<'a>(
    table: &'a MemTable,
    scope: &'a Scope<'_>,
    stretch: Stretch,
    reverse: bool,
    after: Option<&KeyPath>,
) -> Box<dyn Iterator<Item = Item> + 'a> {
    let (collection, root) = (scope.def.id, scope.namespace);
    let first = KeyPath { collection, namespace: Namespace::root(), key: Key::least() };
    let low = match after {
        Some(last) if !reverse => Bound::Excluded(last.clone()),
        _ => Bound::Included(first),
    };
    let high = match after {
        Some(last) if reverse => Bound::Excluded(last.clone()),
        _ => Bound::Unbounded,
    };
    let inside = move |path: &KeyPath| match stretch {
        Stretch::Here => path.namespace == *root,
        Stretch::Below => path.namespace != *root && path.namespace.is_under(root),
    };
    let range = table.paths((low, high));
    let owned = |(path, id): (&KeyPath, &Option<EntryId>)| Ok((path.clone(), *id));
    if reverse {
        let mine = range.rev().skip_while(move |(p, _)| p.collection > collection);
        Box::new(mine.filter(move |(p, _)| inside(p)).map(owned))
    } else {
        let mine = range.take_while(move |(p, _)| p.collection == collection);
        Box::new(mine.filter(move |(p, _)| inside(p)).map(owned))
    }
}

/// The least head of all sources; equal heads of later sources are older and fall away.
fn merge_step(sources: &mut [Source<'_>], reverse: bool) -> Option<Item> {
    let mut best: Option<(usize, KeyPath)> = None;
    for (index, source) in sources.iter_mut().enumerate() {
        match source.peek() {
            None => {}
            Some(Err(_)) => return source.next(),
            Some(Ok((path, _))) => {
                let wins = best.as_ref().is_none_or(|(_, least)| {
                    let order = path.cmp(least);
                    order == if reverse { Ordering::Greater } else { Ordering::Less }
                });
                if wins {
                    best = Some((index, path.clone()));
                }
            }
        }
    }
    let (winner, path) = best?;
    for (index, source) in sources.iter_mut().enumerate() {
        if index != winner && matches!(source.peek(), Some(Ok((other, _))) if *other == path) {
            source.next();
        }
    }
    sources.get_mut(winner)?.next()
}

fn encode_cursor(entry: &Entry) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("{}.{}", hex(entry.namespace.as_str().as_bytes()), hex(entry.key.as_bytes()))
}

fn decode_cursor(scope: &Scope<'_>, cursor: &str) -> Result<KeyPath> {
    let bad = || Error::invalid(format!("{cursor:?} is no cursor of a scan; use one as it came"));
    let unhex = |text: &str| -> Option<Vec<u8>> {
        if !text.len().is_multiple_of(2) || !text.is_ascii() {
            return None;
        }
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok())
            .collect()
    };
    let (namespace, key) = cursor.split_once('.').ok_or_else(bad)?;
    let namespace = String::from_utf8(unhex(namespace).ok_or_else(bad)?).map_err(|_| bad())?;
    Ok(KeyPath {
        collection: scope.def.id,
        namespace: Namespace::new(&namespace)?,
        key: Key::new(unhex(key).ok_or_else(bad)?)?,
    })
}

/// Number of live, unexpired entries that match.
pub fn count(scope: &Scope<'_>, filter: Option<&Filter>) -> Result<u64> {
    let mut count = 0;
    for hot in scope.view.hot(scope.def.id) {
        count += u64::from(scope.admits(&Copy::Hot(hot.clone()), filter, None)?);
    }
    for (segment, group) in scope.view.cold.groups(scope.def.id) {
        let Some(dead) = segment.dead.get(usize::from(group)) else { continue };
        let groups = &segment.segment.footer().groups;
        let rows_total = groups.get(usize::from(group)).map_or(0, |g| g.rows);
        let mut bodies = BodyReader::new(&segment.segment, group);
        let mut from = 0;
        while from < rows_total {
            let take = ROWS_AT_ONCE.min(rows_total - from);
            let mut rows = Vec::new();
            segment.segment.rows(group, from, take, &mut rows)?;
            for (row, at) in rows.into_iter().zip(from..) {
                if dead.contains(at) || scope.view.shadows(row.id) {
                    continue;
                }
                let place = Place { segment: segment.segment.number(), group, row: at };
                let copy = Copy::Cold(ColdRow { segment: segment.clone(), place, row });
                count += u64::from(scope.admits(&copy, filter, Some(&mut bodies))?);
            }
            from += take;
        }
    }
    Ok(count)
}
