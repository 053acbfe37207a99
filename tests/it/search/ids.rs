//! Which entries are nearest, without reading them, and one entry by its id.
//!
//! `search_ids` answers what `search` answers, wherever the codes of the entries stand; `get_id` reads as far
//! as the handle it is asked of reaches.

use super::*;

/// Ids and scores of both forms of a search, which are to be the same.
fn both(notes: &Collection, exactness: Exactness) -> Vec<(u64, f32)> {
    let query = Query::vector(question()).exactness(exactness).count_access(CountAccess::None);
    let ids = notes.search_ids(query.clone()).unwrap();
    let near: Vec<_> = ids.iter().map(|near| (near.id.0, near.score)).collect();
    let hits = notes.search(query).unwrap();
    assert!(near.iter().copied().eq(hits.iter().map(|hit| (hit.entry.id.0, hit.score))));
    assert!(ids.iter().zip(&*hits).all(|(a, b)| (a.exact, a.bits) == (b.exact, b.bits)));
    near
}

#[test]
fn ids_are_those_of_the_hits_wherever_the_codes_stand() {
    let disk = patient();
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    let expected = both(&notes, Exactness::Exact);
    let is_right = |when: &str| {
        // The third search goes by the places of codes that the second has found.
        for exactness in [Exactness::Target(0.99), Exactness::Target(0.99), Exactness::Target(0.9)]
        {
            assert_eq!(both(&notes, exactness), expected, "{when}, {exactness:?}");
        }
        let by_codes = both(&notes, Exactness::Codes(0.99));
        let (ids, right): (Vec<_>, Vec<_>) =
            by_codes.iter().zip(&expected).map(|(a, b)| (a.0, b.0)).unzip();
        assert_eq!(ids, right, "{when}, by codes");
    };
    is_right("cold");
    let counted = store.counted_bytes().unwrap();
    store.compress_with(Policy::Paper).unwrap();
    is_right("warm");
    let places = 4 * ENTRIES as u64;
    let stats = store.stats().unwrap();
    assert!(stats.tiers[1].entries > 0, "codes stand in the arena: {:?}", stats.tiers);
    assert!(store.counted_bytes().unwrap() >= counted + places, "places are counted");
    // Other blocks: nobody goes by the places in the old ones.
    store.recompress().unwrap();
    is_right("packed anew");
}

#[test]
fn an_entry_is_read_by_its_id_as_far_as_the_handle_reaches() {
    let disk = SimDisk::new(1);
    let clock = ManualClock::new();
    let options = Options { background: false, ..Options::default() };
    let store = try_open(&disk, &clock, options).unwrap();
    let (notes, others) = (store.collection("notes").unwrap(), store.collection("others").unwrap());
    let mine = notes.in_namespace(Namespace::new("user/7").unwrap());
    let brief = Draft::text("brief").ttl(std::time::Duration::from_secs(60));
    let ids = [
        notes.put("a", Draft::text("at the root")).unwrap().id,
        mine.put("a", Draft::text("below")).unwrap().id,
        mine.put("b", brief).unwrap().id,
    ];
    for archived in [false, true] {
        if archived {
            store.checkpoint().unwrap();
        }
        let texts = |handle: &Collection| {
            ids.map(|id| handle.get_id(id).unwrap().map(|e| e.text().unwrap_or("?").to_owned()))
        };
        let found = |texts: &[Option<String>; 3]| texts.clone().map(|text| text.is_some());
        assert_eq!(found(&texts(&notes)), [true, true, true]);
        assert_eq!(texts(&notes)[1].as_deref(), Some("below"));
        assert_eq!(found(&texts(&mine)), [false, true, true]);
        assert_eq!(found(&texts(&others)), [false; 3]);
    }
    clock.advance(std::time::Duration::from_secs(61));
    assert!(notes.get_id(ids[2]).unwrap().is_none(), "it has expired");
    notes.delete("a").unwrap();
    assert!(notes.get_id(ids[0]).unwrap().is_none(), "it was deleted");
    let counted = || notes.get_id(ids[1]).unwrap().unwrap().access_count;
    assert_eq!(counted() + 1, counted(), "each counts one access");
}
