//! Settings: plain data with defaults. Components (disk, clock) go to the builder instead.

use std::time::Duration;

use crate::words::error::{Error, Result};
use crate::words::limits;

/// What "written" means when a write returns.
///
/// ```
/// assert_eq!(pmll::Durability::default(), pmll::Durability::Sync);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// With the operating system: survives `kill -9`, may lose the tail at a power cut.
    Buffer,
    /// On disk: survives a power cut, as far as the disk's sync is honest.
    #[default]
    Sync,
}

/// How two vectors are compared. Scores are higher-is-better for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// Cosine of the angle, in [-1, 1]. A zero vector scores 0 against everything.
    #[default]
    Cosine,
    /// Dot product.
    Dot,
    /// Negative squared Euclidean distance.
    L2,
}

impl Metric {
    /// `cosine`, `dot` or `l2`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Metric::Cosine => "cosine",
            Metric::Dot => "dot",
            Metric::L2 => "l2",
        }
    }

    /// Reads a name back. Errors with `Invalid` naming the choices.
    pub fn parse(name: &str) -> Result<Metric> {
        match name {
            "cosine" => Ok(Metric::Cosine),
            "dot" => Ok(Metric::Dot),
            "l2" => Ok(Metric::L2),
            other => Err(Error::invalid(format!("metric {other:?}: choose cosine, dot or l2"))),
        }
    }
}

/// How the blocks of Level 1 are brought into memory.
///
/// ```
/// use pmll::{ArenaAccess, Options};
/// let options = Options { arena_access: ArenaAccess::Read, ..Options::default() };
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArenaAccess {
    /// Mapped: shared with the page cache. On network and FUSE file systems, where another machine
    /// could cut a file under the map, the blocks are read all the same.
    #[default]
    Map,
    /// Read into memory of the process.
    Read,
}

/// How the exact values of a collection's vectors are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Element {
    /// Four bytes a value.
    #[default]
    F32,
    /// Two bytes a value: `put` rounds before the log, so all tiers agree.
    F16,
}

/// What a collection holds. Dimension and model may be left open: the first vector sets the
/// dimension.
///
/// ```
/// use pmll::{CollectionSpec, Metric};
/// let spec = CollectionSpec::new().dim(384).metric(Metric::Dot).model("all-MiniLM-L6-v2");
/// assert_eq!(spec.dim, Some(384));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectionSpec {
    /// Number of values in a vector, 1 to 65,536; `None` until known.
    pub dim: Option<u32>,
    /// How vectors are compared.
    pub metric: Metric,
    /// How exact values are stored.
    pub element: Element,
    /// Name of the embedding model; `None` until known.
    pub model: Option<String>,
}

impl CollectionSpec {
    /// Nothing decided but the defaults: cosine, f32.
    #[must_use]
    pub fn new() -> CollectionSpec {
        CollectionSpec::default()
    }

    /// Sets the dimension.
    #[must_use]
    pub fn dim(mut self, dim: u32) -> Self {
        self.dim = Some(dim);
        self
    }

    /// Sets the metric.
    #[must_use]
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// Sets the element type.
    #[must_use]
    pub fn element(mut self, element: Element) -> Self {
        self.element = element;
        self
    }

    /// Sets the model's name.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.dim {
            Some(dim) if dim == 0 || dim as usize > limits::DIM_MAX => {
                Err(Error::invalid(format!("dimension {dim} is outside 1 to {}", limits::DIM_MAX)))
            }
            _ => Ok(()),
        }
    }
}

/// Settings of one opened store.
///
/// ```
/// use pmll::Options;
/// let options = Options { budget_bytes: Some(16 << 20), ..Options::default() };
/// assert!(!options.read_only);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Open without writing anything, also on a read-only mount. Default false.
    pub read_only: bool,
    /// Create the store when the directory is missing or empty. Default true.
    pub create: bool,
    /// Memory that may grow with the data, in bytes; at least 1 MiB. `None` takes what
    /// `config set budget` said, else min(64 MiB, 1/16 of the machine's memory).
    pub budget_bytes: Option<u64>,
    /// Durability of writes that do not say their own. Default `Sync`.
    pub durability: Durability,
    /// Whether a background thread checkpoints and drains promises nobody waits for. Without it
    /// the writing thread does both; results are the same. Default true.
    pub background: bool,
    /// How Level 1 is read. Default `Map`.
    pub arena_access: ArenaAccess,
    /// From how many rows on the sketches of a collection are grouped into cells of neighbours, so
    /// that a search reads a part of them. Default 8,192; collections compared by cosine only.
    pub cells_rows_min: u64,
    /// How long a write may wait for room before it fails with `Full`. Default 10 s.
    pub full_wait_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            read_only: false,
            create: true,
            budget_bytes: None,
            durability: Durability::Sync,
            background: true,
            arena_access: ArenaAccess::Map,
            cells_rows_min: 8192,
            full_wait_max: Duration::from_secs(10),
        }
    }
}
