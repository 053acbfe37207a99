//! Operations, faults and crashes against a plain map.
//!
//! The input is a list of steps on a store over the simulated disk. Readers must see exactly what was
//! acknowledged. After a crash the store opens and holds one of the states that a crash may leave: what was
//! acknowledged as durable, and of the writes behind it the first few, one after the other; of a write that
//! failed, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use pmll::io::Disk;
use pmll::io::sim::{Fault, Profile, SimDisk};
use pmll::{Batch, Draft, Durability, Error, Policy, Scan, Store};

use crate::base::{self, check};
use crate::edits::Input;

const STEPS_MAX: usize = 24;
const IMAGES: usize = 12;

type State = BTreeMap<Vec<u8>, Vec<u8>>;
type Change = Vec<(Vec<u8>, Option<Vec<u8>>)>;

struct World {
    disk: SimDisk,
    store: Option<Store>,
    /// What readers see.
    live: State,
    /// What a crash may leave.
    possible: Vec<State>,
}

/// Plays the steps.
pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let disk = SimDisk::new(u64::from(input.u8()));
    let mut world = World { disk, store: None, live: State::new(), possible: vec![State::new()] };
    world.open();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.compare();
    world.crash(Profile::Posix, 1);
}

fn changed(state: &State, change: &Change) -> State {
    let mut state = state.clone();
    for (key, value) in change {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
    state
}

fn observe(store: &Store) -> Result<State, Error> {
    let Some(notes) = store.find_collection("notes")? else { return Ok(State::new()) };
    let mut state = State::new();
    let mut scan = Scan::new();
    loop {
        let page = notes.scan(scan)?;
        for entry in page.entries {
            let got = notes.get(entry.key.as_bytes())?;
            assert!(got.is_some_and(|got| got.payload == entry.payload), "get and scan differ");
            state.insert(entry.key.as_bytes().to_vec(), entry.payload.to_vec());
        }
        match page.cursor {
            Some(cursor) => scan = Scan::new().cursor(cursor),
            None => return Ok(state),
        }
    }
}

impl World {
    /// Opens the store; a fault may hinder it, and then it opens once the fault is gone.
    fn open(&mut self) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        self.store = check(base::open(&disk));
        if self.store.is_none() {
            self.disk.clear_faults();
            self.disk = self.disk.fork_now();
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            match base::open(&disk) {
                Ok(store) => self.store = Some(store),
                Err(error) => panic!("a store without faults does not open: {error:?}"),
            }
        }
        self.recovered();
    }

    /// The store was opened anew: what it holds must be possible, and is the truth from now on.
    fn recovered(&mut self) {
        let Some(store) = &self.store else { return };
        // A read may meet a fault that is armed; it is asked again when the faults are gone.
        let Some(found) = check(observe(store)) else { return };
        assert!(self.possible.contains(&found), "found {found:?}, possible {:?}", self.possible);
        self.live = found;
    }

    fn compare(&self) {
        if let Some(found) = self.store.as_ref().and_then(|store| check(observe(store))) {
            assert!(found == self.live, "readers see {found:?} instead of {:?}", self.live);
        }
    }

    fn crash(&mut self, profile: Profile, choice: usize) {
        let images = self.disk.crash_images(profile, IMAGES);
        let chosen = images.len().checked_sub(1).map(|last| choice.min(last));
        if let Some(image) = chosen.and_then(|at| images.into_iter().nth(at)) {
            drop(self.store.take());
            self.disk = image;
            self.open();
            self.possible = vec![self.live.clone()];
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        match what % 16 {
            0..=3 => self.put(input, Durability::Sync),
            4 | 5 => self.put(input, Durability::Buffer),
            6 => {
                let key = vec![b'k', input.u8() % 8];
                self.write(vec![(key, None)], Durability::Sync);
            }
            7 => {
                let mut change = Change::new();
                for _ in 0..=input.u8() % 4 {
                    let key = vec![b'k', input.u8() % 8];
                    let value = (!input.u8().is_multiple_of(3)).then(|| vec![input.u8(); 9]);
                    change.push((key, value));
                }
                self.write(change, Durability::Sync);
            }
            8 => drop(self.store.as_ref().and_then(|store| check(store.checkpoint()))),
            9 => drop(
                self.store.as_ref().and_then(|store| check(store.compress_with(Policy::Paper))),
            ),
            10 => drop(self.store.as_ref().and_then(|store| check(store.vacuum()))),
            11 => {
                if self.store.as_ref().and_then(|store| check(store.sync())).is_some() {
                    self.possible = vec![self.live.clone()];
                }
            }
            12 => {
                if let Some(store) = self.store.take() {
                    let _ = check(store.close());
                }
                self.open();
            }
            13 => {
                let kind = usize::from(input.u8());
                let at = self.disk.op_count() + u64::from(input.u8() % 64);
                let fault = Fault::ALL.get(kind % 5).copied().unwrap_or(Fault::Eio);
                self.disk.fail_at(at, fault, kind >> 4 & 1 == 1);
            }
            14 => self.disk.clear_faults(),
            _ => {
                let profiles = [Profile::Kill, Profile::Prefix, Profile::Ext4, Profile::Posix];
                let profile = profiles.get(usize::from(input.u8() % 4)).copied();
                self.crash(profile.unwrap_or(Profile::Posix), usize::from(input.u8()) % IMAGES);
            }
        }
        self.compare();
    }

    fn put(&mut self, input: &mut Input<'_>, durability: Durability) {
        let key = vec![b'k', input.u8() % 8];
        let len = usize::from(input.u8()) << (input.u8() % 6);
        let value = vec![input.u8(); len];
        self.write(vec![(key, Some(value))], durability);
    }

    fn write(&mut self, change: Change, durability: Durability) {
        let Some(store) = &self.store else { return };
        let next = changed(&self.live, &change);
        let Some(notes) = check(store.collection("notes")) else { return };
        let mut batch = Batch::new().durability(durability);
        for (key, value) in &change {
            batch = match value {
                Some(value) => {
                    let vector = base::vector(value.len(), 4);
                    batch.put(&notes, key, Draft::bytes(value.clone()).vector(vector))
                }
                None => batch.delete(&notes, key),
            };
        }
        match check(store.write(batch)) {
            Some(_) => {
                self.live = next;
                if durability == Durability::Sync {
                    self.possible.clear();
                }
                self.possible.push(self.live.clone());
            }
            None => self.possible.push(next),
        }
    }
}

/// A bit of everything, with and without a fault.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..24_u8 {
        let mut steps = vec![n, 0, 1, 40, n % 6, 7, 4, 2, 9, 1, 3, 7, 2, 1, 1, 5, 3, 0, 8];
        steps.extend([13, n, n * 3, 0, 2, 30, 1, 9, 8, 9, 6, 1, 10, 14, 0, 3, 3, 0, 1]);
        steps.extend([15, n % 4, n, 5, 4, 9, 0, 2, 11, 12, 15, 3, n / 2]);
        seeds.push(steps);
    }
    seeds
}
