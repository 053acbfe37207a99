//! The probe: asks a copy whether it may be an answer, decoding no more than the question needs.
//!
//! Expiry, times and the pin stand in the row; key, namespace, session and attributes are in a
//! compressed body that is read at most once per probe, and not at all when neither the filter
//! nor the namespace of the caller looks at them.

use std::cell::OnceCell;

use serde_json::{Map, Value};

use crate::bytes::codec::body::Body;
use crate::organs::archive::BodyReader;
use crate::pure::filter::{FieldValue, Fields, Filter, Reserved};
use crate::tiers::assemble::{self, Accesses};
use crate::tiers::caches::{Caches, Shares};
use crate::tiers::{Copy, View};
use crate::words::error::Result;
use crate::words::id::{Namespace, Timestamp};
use crate::words::record::CollectionDef;
use crate::words::tier::Tier;

/// Where and when a reading verb looks.
pub struct Scope<'a> {
    /// The store.
    pub view: &'a View,
    /// The collection.
    pub def: &'a CollectionDef,
    /// Entries of this namespace and below.
    pub namespace: &'a Namespace,
    /// Wall clock, for expiry.
    pub now: Timestamp,
    /// Access counts.
    pub access: Accesses<'a>,
    /// What sealed segments were asked before.
    pub stores: Stores<'a>,
}

/// The caches a search goes by, each with its share of the budget.
#[derive(Clone, Copy)]
pub struct Stores<'a> {
    /// What is kept.
    pub caches: &'a Caches,
    /// Bytes each may take.
    pub shares: Shares,
}

impl Scope<'_> {
    /// Whether a copy may be an answer: not expired, under the namespace, and it passes.
    ///
    /// `bodies` reads the bodies of the copy's segment and group; rows that are asked about in
    /// their order share the decompression of a frame that way (a 4-KiB frame holds about 20).
    pub fn admits(
        &self,
        copy: &Copy,
        filter: Option<&Filter>,
        bodies: Option<&mut BodyReader<'_>>,
    ) -> Result<bool> {
        Ok(!copy.expired(self.now) && self.passes(copy, filter, bodies)?)
    }

    /// The same without asking whether its time has passed.
    pub fn passes(
        &self,
        copy: &Copy,
        filter: Option<&Filter>,
        bodies: Option<&mut BodyReader<'_>>,
    ) -> Result<bool> {
        let needs = filter.map(Filter::needs).unwrap_or_default();
        // Nobody looks at it otherwise.
        let tier = if needs.tier { self.view.tier(self.def.id, copy) } else { Tier::Hot };
        let mut probe = Probe::new(copy, self.access, tier);
        let wants_body =
            needs.attributes || needs.key_or_ns_or_session || !self.namespace.is_root();
        if let (true, Copy::Cold(cold), Some(bodies)) = (wants_body, copy, bodies) {
            let _ = probe.body.set(bodies.body(&cold.row)?);
        }
        if !self.namespace.is_root() && !probe.is_under(self.namespace)? {
            return Ok(false);
        }
        filter.map_or(Ok(true), |filter| probe.matches(filter))
    }
}

/// A copy that is being asked.
pub struct Probe<'a> {
    copy: &'a Copy,
    access: Accesses<'a>,
    tier: Tier,
    body: OnceCell<Body>,
    attributes: OnceCell<Map<String, Value>>,
}

impl<'a> Probe<'a> {
    /// Asks this copy.
    pub fn new(copy: &'a Copy, access: Accesses<'a>, tier: Tier) -> Probe<'a> {
        Probe { copy, access, tier, body: OnceCell::new(), attributes: OnceCell::new() }
    }

    fn load_body(&mut self) -> Result<()> {
        if let (Copy::Cold(cold), None) = (self.copy, self.body.get()) {
            let _ = self.body.set(cold.body()?);
        }
        Ok(())
    }

    fn is_under(&mut self, parent: &Namespace) -> Result<bool> {
        self.load_body()?;
        Ok(match (self.copy, self.body.get()) {
            (Copy::Hot(hot), _) => hot.record.namespace.is_under(parent),
            (Copy::Cold(_), body) => body.is_some_and(|body| body.namespace.is_under(parent)),
        })
    }

    /// Whether the filter lets it pass.
    pub fn matches(&mut self, filter: &Filter) -> Result<bool> {
        let needs = filter.needs();
        if needs.attributes || needs.key_or_ns_or_session {
            self.load_body()?;
        }
        if needs.attributes {
            let text = match (self.copy, self.body.get()) {
                (Copy::Hot(hot), _) => &*hot.record.attributes,
                (Copy::Cold(_), Some(body)) => &*body.attributes,
                (Copy::Cold(_), None) => "{}",
            };
            let _ = self.attributes.set(assemble::attributes(text)?);
        }
        Ok(filter.matches(self))
    }
}

impl Fields for Probe<'_> {
    fn attributes(&self) -> Option<&Map<String, Value>> {
        self.attributes.get()
    }

    fn reserved(&self, field: Reserved) -> Option<FieldValue<'_>> {
        let last_access = |updated| (self.access)(self.copy.id()).last.unwrap_or(updated);
        match self.copy {
            Copy::Hot(hot) => {
                let record = &hot.record;
                Some(match field {
                    Reserved::Key => FieldValue::Bytes(record.key.as_bytes()),
                    Reserved::Namespace => FieldValue::Bytes(record.namespace.as_str().as_bytes()),
                    Reserved::Session => FieldValue::Bytes(record.session.as_ref()?.as_bytes()),
                    Reserved::At => FieldValue::Time(record.at),
                    Reserved::Created => FieldValue::Time(record.created),
                    Reserved::Updated => FieldValue::Time(record.updated),
                    Reserved::LastAccess => FieldValue::Time(last_access(record.updated)),
                    Reserved::Expires => FieldValue::Time(record.expires?),
                    Reserved::Tier => FieldValue::Tier(self.tier),
                    Reserved::Pinned => FieldValue::Flag(record.pinned),
                })
            }
            Copy::Cold(cold) => {
                let (row, body) = (&cold.row, self.body.get());
                Some(match field {
                    Reserved::Key => FieldValue::Bytes(body?.key.as_bytes()),
                    Reserved::Namespace => FieldValue::Bytes(body?.namespace.as_str().as_bytes()),
                    Reserved::Session => FieldValue::Bytes(body?.session.as_ref()?.as_bytes()),
                    Reserved::At => FieldValue::Time(row.at),
                    Reserved::Created => FieldValue::Time(row.created),
                    Reserved::Updated => FieldValue::Time(row.updated),
                    Reserved::LastAccess => FieldValue::Time(last_access(row.updated)),
                    Reserved::Expires => FieldValue::Time(row.expires?),
                    Reserved::Tier => FieldValue::Tier(self.tier),
                    Reserved::Pinned => FieldValue::Flag(row.pinned),
                })
            }
        }
    }
}
