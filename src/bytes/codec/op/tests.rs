//! Operations come back as they were; anything else is a typed error.

use std::sync::Arc;

use proptest::prelude::*;

use super::decode::DecodeError;
use super::*;
use crate::words::id::{CollectionId, EntryId, Lsn, Timestamp};
use crate::words::limits;
use crate::words::options::CollectionSpec;
use crate::words::record::{CollectionDef, Payload, Tombstone};

fn record() -> Record {
    Record {
        collection: CollectionId(3),
        id: EntryId(41),
        version: Lsn(9),
        namespace: Namespace::new("user/7").unwrap(),
        key: Key::new("conv:1").unwrap(),
        vector: Some(Arc::from([1.0, -0.25, 3.5])),
        half: false,
        payload: Payload::Inline(Arc::from(&b"hello"[..])),
        attributes: Arc::from(r#"{"a":1}"#),
        at: Timestamp(-5),
        created: Timestamp(6),
        updated: Timestamp(7),
        expires: Some(Timestamp(8)),
        session: Some(Arc::from("s1")),
        sequence: Some(12),
        salience: Some(0.5),
        pinned: true,
    }
}

fn define() -> Op {
    let spec = CollectionSpec::new().dim(384).metric(Metric::L2).element(Element::F16).model("m");
    Op::Define(CollectionDef {
        id: CollectionId(2),
        name: Arc::from("notes"),
        spec,
        version: Lsn(9),
        created: Timestamp(77),
    })
}

fn one_of_each() -> Vec<(Op, Vec<u8>)> {
    let mut bare = record();
    bare.namespace = Namespace::root();
    bare.vector = None;
    bare.payload = Payload::Inline(Arc::from([]));
    bare.expires = None;
    bare.session = None;
    bare.sequence = None;
    bare.salience = None;
    bare.pinned = false;
    let mut half = record();
    half.half = true;
    vec![
        (Op::Put(record()), b"hello".to_vec()),
        (Op::Put(bare), Vec::new()),
        (Op::Put(half), b"hello".to_vec()),
        (
            Op::Delete(Tombstone {
                collection: CollectionId(1),
                id: EntryId(2),
                version: Lsn(9),
                namespace: Namespace::new("a").unwrap(),
                key: Key::new([0, 255]).unwrap(),
                removal: Removal::Expired,
            }),
            Vec::new(),
        ),
        (define(), Vec::new()),
        (Op::DropCollection { collection: CollectionId(4), version: Lsn(9) }, Vec::new()),
        (
            Op::Setting {
                name: Arc::from("budget_bytes"),
                value: Arc::from("16"),
                version: Lsn(9),
            },
            Vec::new(),
        ),
        (Op::Request { client: u64::MAX, sequence: 5, version: Lsn(9) }, Vec::new()),
    ]
}

fn encode(op: &Op, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_op(op, payload, &mut out);
    assert_eq!(out.len(), encoded_len(op, payload), "{op:?}");
    out
}

#[test]
fn every_kind_comes_back() {
    for (op, payload) in one_of_each() {
        let bytes = encode(&op, &payload);
        assert_eq!(decode_op(Lsn(9), &bytes, None), Ok(op.clone()));
        assert_eq!(decode_op(Lsn(9), &bytes, Some((1, 64))), Ok(op));
    }
}

#[test]
fn every_truncation_and_every_byte_more_is_an_error() {
    for (op, payload) in one_of_each() {
        let mut bytes = encode(&op, &payload);
        for len in 0..bytes.len() {
            assert!(decode_op(Lsn(9), &bytes[..len], None).is_err(), "{op:?} cut to {len}");
        }
        bytes.push(0);
        assert_eq!(decode_op(Lsn(9), &bytes, None), Err(DecodeError::Trailing(1)));
    }
}

#[test]
fn unknown_kind_version_and_flags_mean_a_newer_build() {
    for (op, payload) in one_of_each() {
        let bytes = encode(&op, &payload);
        for (at, value) in [(0, 7), (0, 0), (1, 2), (3, 0x80)] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let error = decode_op(Lsn(9), &changed, None).unwrap_err();
            assert!(error.is_newer(), "{op:?} byte {at}: {error}");
        }
    }
    let short = decode_op(Lsn(9), &[KIND_PUT], None).unwrap_err();
    assert!(!short.is_newer());
}

#[test]
fn values_outside_the_limits_are_refused() {
    let mut salience = record();
    salience.salience = Some(f32::NAN);
    let mut vector = record();
    vector.vector = Some(Arc::from([1.0, f32::INFINITY]));
    let mut empty = record();
    empty.vector = Some(Arc::from([]));
    let mut session = record();
    session.session = Some("x".repeat(256).into());
    for bad in [salience, vector, empty, session] {
        let bytes = encode(&Op::Put(bad), b"");
        assert!(matches!(decode_op(Lsn(9), &bytes, None), Err(DecodeError::Value(_))));
    }
    let mut bytes = encode(&Op::Put(record()), b"hello");
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(decode_op(Lsn(9), &bytes, None), Err(DecodeError::PayloadCrc));
}

#[test]
fn a_large_payload_stays_where_it_is() {
    let payload = vec![7; limits::PAYLOAD_RESIDENT_BYTES_MAX + 1];
    let bytes = encode(&Op::Put(record()), &payload);
    let Op::Put(inline) = decode_op(Lsn(9), &bytes, None).unwrap() else { panic!() };
    assert_eq!(inline.payload, Payload::Inline(Arc::from(&payload[..])));
    let Op::Put(placed) = decode_op(Lsn(9), &bytes, Some((5, 1000))).unwrap() else { panic!() };
    let Payload::InLog(place) = placed.payload else { panic!("{:?}", placed.payload) };
    let start = place.offset as usize - 1000;
    assert_eq!((place.segment, place.len as usize), (5, payload.len()));
    assert_eq!(&bytes[start..], &payload[..]);
    assert_eq!(place.crc, crc32fast::hash(&payload));
    assert!(decode_op(Lsn(9), &bytes, Some((5, u64::MAX))).is_err());
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_op(Lsn(1), &bytes, Some((1, 1)));
    }

    #[test]
    fn a_changed_put_gives_an_answer(at in 0usize..120, value: u8) {
        let mut bytes = encode(&Op::Put(record()), b"hello");
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = decode_op(Lsn(1), &bytes, Some((1, 1)));
    }

    #[test]
    fn half_values_come_back_exactly(bits in proptest::collection::vec(any::<u16>(), 1..50)) {
        let values: Vec<f32> = bits
            .iter()
            .map(|b| half::f16::from_bits(*b).to_f32())
            .filter(|v| v.is_finite())
            .collect();
        prop_assume!(!values.is_empty());
        let mut op = record();
        op.half = true;
        op.vector = Some(values.into());
        let op = Op::Put(op);
        prop_assert_eq!(decode_op(Lsn(9), &encode(&op, b"hello"), None), Ok(op));
    }
}
