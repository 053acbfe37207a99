//! Derived files: what a store makes anew from its log and archive, so that a crash image without them
//! must recover to the same state.

use pmll::io::Disk;
use pmll::io::sim::SimDisk;

/// Name of the index.
pub const INDEX: &str = "index.redb";

/// Files that are made anew from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derived {
    /// `index.redb`.
    Index,
    /// `arena/`.
    Arena,
    /// `columns/`.
    Columns,
    /// All of them.
    All,
}

impl Derived {
    /// Every choice there is.
    pub const ALL: [Derived; 4] = [Derived::Index, Derived::Arena, Derived::Columns, Derived::All];

    /// Removes them from a disk.
    pub fn remove(self, disk: &SimDisk) -> std::io::Result<()> {
        let prefixes: &[&str] = match self {
            Derived::Index => &[INDEX],
            Derived::Arena => &["arena/"],
            Derived::Columns => &["columns/"],
            Derived::All => &[INDEX, "arena/", "columns/"],
        };
        for name in disk.file_names() {
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                disk.remove(&name)?;
            }
        }
        Ok(())
    }
}
