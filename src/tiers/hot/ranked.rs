//! Paths as the log's tables order them: each with its first bytes beside it.
//!
//! A look-up among ten thousand keys compares a dozen of them, and each lies somewhere else in RAM: the
//! waiting for them was half the work of a batch of puts. The first bytes of a path, in the order of paths,
//! stand in the node of the map instead, and the path itself is read only where they are equal.
//!
//! Never: orders otherwise than [`KeyPath`] does.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::words::id::KeyPath;

/// Collection and first bytes of namespace, NUL and key, as numbers that order like them.
type Rank = [u64; 3];

/// Bytes of a rank behind those of the collection.
const TEXT_BYTES: usize = size_of::<Rank>() - 4;

fn rank(path: &KeyPath) -> Rank {
    let mut bytes = [0; size_of::<Rank>()];
    // A namespace holds no NUL, so a path that goes on with one is the lesser; a rank that ends early
    // goes on with zeros, which makes it no greater than a longer one.
    let namespace = path.namespace.as_str().as_bytes();
    let text = namespace.iter().chain(&[0]).chain(path.key.as_bytes());
    let all = path.collection.0.to_be_bytes().into_iter().chain(text.copied().take(TEXT_BYTES));
    bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    let [a, b, c] = bytemuck::cast::<_, [[u8; 8]; 3]>(bytes);
    [a, b, c].map(u64::from_be_bytes)
}

/// A path with its rank, as a key of a map.
#[derive(Clone, Debug)]
pub struct Ranked {
    rank: Rank,
    /// The path, shared: a node that a change copies holds up to 16 of them.
    pub path: Arc<KeyPath>,
}

impl Ranked {
    /// Ranks a path.
    pub fn new(path: KeyPath) -> Ranked {
        Ranked { rank: rank(&path), path: Arc::new(path) }
    }
}

/// A path that is looked for, with its rank.
#[derive(Debug)]
pub struct Sought<'a> {
    rank: Rank,
    path: &'a KeyPath,
}

impl<'a> Sought<'a> {
    /// Ranks a path.
    pub fn new(path: &'a KeyPath) -> Sought<'a> {
        Sought { rank: rank(path), path }
    }
}

/// What a key and a path that is looked for have in common, so that no path is copied to be found.
pub trait Place {
    /// Rank and path.
    fn place(&self) -> (&Rank, &KeyPath);
}

impl Place for Ranked {
    fn place(&self) -> (&Rank, &KeyPath) {
        (&self.rank, &*self.path)
    }
}

impl Place for Sought<'_> {
    fn place(&self) -> (&Rank, &KeyPath) {
        (&self.rank, self.path)
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Place + '_ {}

impl<'a> Borrow<dyn Place + 'a> for Ranked {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words::id::{CollectionId, Key, Namespace};

    fn path(collection: u32, namespace: &str, key: &[u8]) -> KeyPath {
        let (namespace, key) = (Namespace::new(namespace).unwrap(), Key::new(key).unwrap());
        KeyPath { collection: CollectionId(collection), namespace, key }
    }

    /// Few letters and lengths around that of a rank, so that equal beginnings are common.
    fn any_path() -> impl Strategy<Value = KeyPath> {
        let key = prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xff]), 1..24);
        (0_u32..3, "(a{1,3}(/b{1,20})?)?", key).prop_map(|(c, ns, key)| path(c, &ns, &key))
    }

    proptest! {
        #[test]
        fn ranks_order_as_paths_do(a in any_path(), b in any_path()) {
            let expected = a.cmp(&b);
            prop_assert_eq!(Ranked::new(a.clone()).cmp(&Ranked::new(b.clone())), expected);
            let (one, other): (&dyn Place, &dyn Place) = (&Sought::new(&a), &Ranked::new(b.clone()));
            prop_assert_eq!(one.cmp(other), expected);
        }
    }

    #[test]
    fn what_differs_only_behind_the_rank_is_told_apart() {
        let long = |end: &[u8]| Ranked::new(path(1, "", &[&[b'k'; 40][..], end].concat()));
        assert!(long(b"a") < long(b"b"));
        assert!(Ranked::new(path(1, "", b"k")) < Ranked::new(path(1, "", b"k\0")));
        assert_ne!(Ranked::new(path(1, "a", b"b")), Ranked::new(path(1, "", b"a\0b")));
    }
}
