//! Safeguards that a test can switch off, one at a time, to see that the suite notices.
//!
//! Every sync, checksum, LSN check, lock and reserve that the store's promises rest on has a name
//! here and asks at its place whether it is on. With feature `sabotage`, which only the tests of this
//! workspace turn on, the variable `PMLL_SABOTAGE` names the one that is off for the whole process;
//! `tests/it/sabotage.rs` runs the suite once for each and expects it to fail. A safeguard whose
//! absence nothing notices is a weak test or does nothing.
//!
//! Without the feature every question is answered `on` by the compiler, and nothing is left of it.

use std::io;

macro_rules! safeguards {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One safeguard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Safeguard {
            $($(#[$doc])* $name,)*
        }

        impl Safeguard {
            /// All of them.
            #[cfg(feature = "sabotage")]
            pub const ALL: &[Safeguard] = &[$(Safeguard::$name,)*];
        }
    };
}

safeguards! {
    /// A batch is synced before it is acknowledged.
    LogSync,
    /// Header and first zeros of a log segment are synced before it has its name.
    LogCreateSync,
    /// The name of a new log segment is durable before its first batch.
    LogCreateDirSync,
    /// A footer is synced before the next segment is created.
    LogFooterSync,
    /// The end of a log that is closed in order is synced.
    LogCloseSync,
    /// The removal of log segments is durable.
    LogReclaimDirSync,
    /// What recycled log segments held before is gone for good after a vacuum.
    LogForgetSync,
    /// The tail that an interrupted process left is written again and synced.
    MendSync,
    /// The name of the tail written again is durable.
    MendDirSync,
    /// A tail that may be rot is saved and synced before it is cut off.
    TornSync,
    /// The name of the saved tail is durable before it is cut off.
    TornDirSync,
    /// A segment of the archive is synced before it has its name.
    ArchiveSync,
    /// Names in the archive are durable before anything relies on them.
    ArchiveDirSync,
    /// A block of codes is synced before it has its name.
    ArenaSync,
    /// The name of a block of codes is durable before the copies it replaces go.
    ArenaDirSync,
    /// A file of columns is synced before it has its name.
    ColumnsSync,
    /// The name of a file of columns is durable before the files it replaces go.
    ColumnsDirSync,
    /// The pages of the index are synced when redb asks for it.
    CatalogSync,
    /// A new index is durable by name before anything relies on it.
    CatalogCreateDirSync,
    /// A small file is synced before it takes the place of the old one.
    SmallFileSync,
    /// The name of a small file is durable.
    SmallFileDirSync,
    /// The names of the folders are durable before anything stands in them.
    FoldersSync,
    /// The reserve keeps its blocks over a power cut, also when others want them.
    ReserveSync,
    /// And its name.
    ReserveDirSync,

    /// CRC of `store.toml`.
    StoreFileCrc,
    /// CRC of a log segment's header.
    LogHeaderCrc,
    /// CRC of a frame's header in the log.
    LogFrameCrc,
    /// CRC of a frame's payload in the log.
    LogPayloadCrc,
    /// CRC over the frames of a batch, in its commit frame.
    LogBatchCrc,
    /// CRC of an entry's payload inside its operation.
    OpPayloadCrc,
    /// CRC of a large payload that is read from the log.
    LargePayloadCrc,
    /// CRC of an archive segment's header.
    ArchiveHeaderCrc,
    /// CRC of an archive segment's trailer.
    ArchiveTrailerCrc,
    /// CRC of an archive segment's footer.
    ArchiveFooterCrc,
    /// CRC of a row in the archive.
    ArchiveRowCrc,
    /// CRC of a vector in the archive.
    ArchiveVectorCrc,
    /// CRC of a frame's entry in its table.
    ArchiveEntryCrc,
    /// CRC of a frame before it is decompressed.
    ArchiveFrameCrc,
    /// CRC of a body or payload, which says that it is the row's.
    ArchiveSpanCrc,
    /// CRC of a large payload as a whole.
    ArchivePiecesCrc,
    /// CRC of sketches.
    ArchiveSketchCrc,
    /// CRC of an entry's codes in the archive.
    ArchiveCodeCrc,
    /// CRC of an operation in the archive.
    ArchiveOpCrc,
    /// CRC of a section, which a deep verification recounts.
    ArchiveSectionCrc,
    /// CRC of the header of a block of codes.
    ArenaHeaderCrc,
    /// CRC of the table of a block of codes.
    ArenaTableCrc,
    /// CRC of the codes of a block.
    ArenaCodesCrc,
    /// CRC of the header of a file of cells.
    CellsHeaderCrc,
    /// CRC of the tables of a file of cells.
    CellsTablesCrc,
    /// CRC of the sketches of a cell.
    CellsBodyCrc,
    /// CRC of a block of columns.
    ColumnsBlockCrc,
    /// CRC of the list at the end of a file of columns.
    ColumnsTailCrc,
    /// CRC of the set of hot ids.
    HotCrc,
    /// CRC of the list of last moves.
    MovesCrc,
    /// CRC of a page of the index.
    CatalogPageCrc,
    /// CRC of the header of the index.
    CatalogHeaderCrc,
    /// CRC of a value in the index, which binds it to its table and key.
    CatalogValueCrc,

    /// A segment of the log begins where the one before it ended.
    LogGap,
    /// Frames of the log continue LSN and batch.
    LogOrder,
    /// The log begins at or before the record after the last archived one.
    LogStart,
    /// Damage before acknowledged records is refused, not cut off.
    LogVerdict,
    /// A vacuum lets the log forget what its files held before.
    LogForget,
    /// Zeros stand behind what is written to a recycled log segment.
    LogEndZeros,
    /// They are no end when a frame of the segment stands behind them.
    LogEnd,
    /// A log segment is not made of a file that a reader may hold.
    LogSpareHeld,
    /// Records of the log that are archived are not applied again.
    LogApplied,
    /// Rows that are not newer than what the index knows are not applied.
    ArchiveApplied,
    /// Of two versions of an entry the higher one counts.
    ArchiveNewest,
    /// Tombstones older than the entry they name bury nothing.
    TombstoneOrder,
    /// A segment says beside which others it was sealed.
    ArchiveBeside,
    /// The index names the very files that are there.
    CatalogNamesFile,
    /// The index knows of no record beyond the end of the archive.
    CatalogAhead,
    /// A copy in the arena counts when it is of the version that is archived.
    ArenaVersion,

    /// Who writes has the store alone.
    Lock,
    /// Bytes are kept for what makes room on a full disk.
    Reserve,
    /// After a failed sync the log takes no more writes.
    Poison,
}

impl Safeguard {
    /// Whether a test has switched it off.
    #[cfg(not(feature = "sabotage"))]
    #[inline(always)]
    pub const fn is_off(self) -> bool {
        false
    }

    /// Whether a test has switched it off.
    #[cfg(feature = "sabotage")]
    pub fn is_off(self) -> bool {
        static OFF: std::sync::LazyLock<Option<Safeguard>> = std::sync::LazyLock::new(|| {
            let name = std::env::var("PMLL_SABOTAGE").ok()?;
            Safeguard::ALL.iter().copied().find(|safeguard| format!("{safeguard:?}") == name)
        });
        // A build that is optimised for use has no switches, whatever features it was given.
        cfg!(debug_assertions) && *OFF == Some(self)
    }

    /// What the safeguard found, which is nothing while it is off.
    #[inline]
    pub fn finds(self, wrong: bool) -> bool {
        wrong && !self.is_off()
    }

    /// Does what the safeguard is for, or nothing while it is off.
    #[inline]
    pub fn keep(self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.is_off() { Ok(()) } else { work() }
    }
}
