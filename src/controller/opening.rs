//! Opening: Levels 0 and 1 as the last owner left them.
//!
//! Steps of [`open_levels`]: the set of hot ids; files of cells, the newest of each collection; blocks of
//! codes; then what writers that were cut off left behind goes. All of it is derived: what is damaged is
//! left out with a warning, and made again by a later run or checkpoint.
//!
//! Never: reads an entry, or keeps a store from opening because a copy is damaged.

use std::sync::Arc;

use crate::controller::grouping::fit;
use crate::io::Disk;
use crate::organs::arena::cells::{self, Cells};
use crate::organs::arena::{self, Block};
use crate::organs::columns;
use crate::tiers::View;
use crate::tiers::levels::{Levels, WarmBlock};
use crate::words::error::Result;
use crate::words::options::{Metric, Options};
use crate::words::record::CollectionDef;

/// The levels as the last owner left them: blocks that are whole, and which entries were hot. Level
/// 0 is empty; it is filled again in the background. Also answers a number no block has had.
pub fn open_levels(
    disk: &dyn Disk,
    store_id: [u8; 16],
    options: &Options,
    view: &View,
    budget_bytes: u64,
    warnings: &mut Vec<String>,
) -> Result<(Levels, u64)> {
    let mut levels = Levels::default();
    levels.hot = Arc::new(columns::hot::load(disk, store_id));
    let last_cells =
        open_cells(disk, store_id, options, view, budget_bytes, &mut levels, warnings)?;
    let numbers = arena::list(disk)?;
    for number in &numbers {
        match Block::open(disk, *number, store_id, options.arena_access) {
            Ok(block) => {
                if let Some(block) = WarmBlock::new(block) {
                    levels.blocks.insert(*number, Arc::new(block));
                }
            }
            // Its entries answer from the archive; the next pass packs them again. That holds for a
            // bad sector, and for a layout of another build as well: whether the store is for this
            // one, store.toml says.
            Err(error) => {
                warnings.push(format!("left out of Level 1: {error}"));
                if !options.read_only
                    && let Err(error) = arena::remove(disk, *number)
                {
                    warnings.push(format!("and still there: {error}"));
                }
            }
        }
    }
    if !options.read_only {
        arena::remove_strays(disk)?;
        columns::hot::remove_strays(disk)?;
    }
    let last = numbers.last().copied().unwrap_or(0).max(last_cells);
    Ok((levels, last.saturating_add(1)))
}

/// The cells of each collection, of several the newest that is whole. Also answers their last number.
fn open_cells(
    disk: &dyn Disk,
    store_id: [u8; 16],
    options: &Options,
    view: &View,
    budget_bytes: u64,
    levels: &mut Levels,
    warnings: &mut Vec<String>,
) -> Result<u64> {
    let numbers = cells::list(disk)?;
    for number in numbers.iter().rev() {
        match Cells::open(disk, *number, store_id) {
            Ok(cells)
                if fits(view, levels, &cells) && fit(cells.resident_bytes(), budget_bytes) =>
            {
                levels.cells.insert(cells.header.collection, Arc::new(cells));
                continue;
            }
            Ok(_) => {}
            // Its rows are searched flat; the next checkpoint groups them again.
            Err(error) => warnings.push(format!("left out of a search: {error}")),
        }
        if !options.read_only
            && let Err(error) = cells::remove(disk, *number)
        {
            warnings.push(format!("and still there: {error}"));
        }
    }
    Ok(numbers.last().copied().unwrap_or(0))
}

/// Whether a collection is there, has no cells yet, and compares as cells do.
fn fits(view: &View, levels: &Levels, cells: &Cells) -> bool {
    let collection = cells.header.collection;
    let def = view.collections.get(&collection);
    let fits = |def: &Arc<CollectionDef>| {
        def.spec.dim == Some(cells.header.dim) && def.spec.metric == Metric::Cosine
    };
    !levels.cells.contains_key(&collection) && def.is_some_and(fits)
}
