//! Properties of the policies, over random views.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Sight {
    ids: Vec<EntryId>,
    scores: Vec<f32>,
    accessed_us: Vec<i64>,
    pinned: Vec<bool>,
    hit_twice: Vec<bool>,
    standing: Vec<Standing>,
    stuck: Vec<bool>,
    hot: Vec<u32>,
    warm8: Vec<u32>,
    warm4: Vec<u32>,
    other_bytes: u64,
    budget_bytes: u64,
}

impl Sight {
    fn view(&self) -> PolicyView<'_> {
        PolicyView {
            ids: &self.ids,
            scores: &self.scores,
            accessed_us: &self.accessed_us,
            pinned: &self.pinned,
            hit_twice: &self.hit_twice,
            standing: &self.standing,
            stuck: &self.stuck,
            hot_bytes: &self.hot,
            warm8_bytes: &self.warm8,
            warm4_bytes: &self.warm4,
            protected_max: self.protected_max(),
            other_bytes: self.other_bytes,
            budget_bytes: self.budget_bytes,
        }
    }

    fn protected_max(&self) -> usize {
        let unpinned = self.pinned.iter().filter(|pinned| !**pinned).count();
        (unpinned as f64 * 0.2).ceil() as usize
    }

    fn carry_out(&mut self, plan: &Plan) {
        for change in &plan.moves {
            assert_eq!(self.standing[change.at], change.from);
            assert_ne!(change.from, change.to);
            self.standing[change.at] = change.to;
        }
    }

    fn bytes(&self) -> u64 {
        let costs = self.standing.iter().enumerate().map(|(n, standing)| match standing {
            Standing::Hot if self.hot[n] == u32::MAX => 0,
            Standing::Hot => self.hot[n],
            Standing::Warm8 => self.warm8[n],
            Standing::Warm4 => self.warm4[n],
            Standing::Cold => 0,
        });
        self.other_bytes + costs.map(u64::from).sum::<u64>()
    }
}

/// One entry: score in hundredths, pinned, hit twice, has a vector, is large, where it stands.
type Draw = (u8, u8, bool, bool, bool, usize);

fn sight(draws: Vec<Draw>, other_bytes: u64, budget_bytes: u64) -> Sight {
    let mut sight = Sight {
        ids: Vec::new(),
        scores: Vec::new(),
        accessed_us: Vec::new(),
        pinned: Vec::new(),
        hit_twice: Vec::new(),
        standing: Vec::new(),
        stuck: Vec::new(),
        hot: Vec::new(),
        warm8: Vec::new(),
        warm4: Vec::new(),
        other_bytes,
        budget_bytes,
    };
    for (n, (score, kind, twice, vector, large, stands)) in draws.into_iter().enumerate() {
        sight.ids.push(EntryId(n as u64 + 1));
        sight.scores.push(f32::from(score % 101) / 100.0);
        sight.accessed_us.push(i64::from(kind));
        sight.pinned.push(kind % 16 == 0);
        sight.hit_twice.push(twice && kind % 8 == 1);
        sight.stuck.push(score >= 202 && kind % 2 == 0);
        sight.warm8.push(if vector { 112 } else { 0 });
        sight.warm4.push(if vector { 62 } else { 0 });
        let large = large && kind % 4 == 3;
        sight.hot.push(if large { u32::MAX } else { 400 + u32::from(score) });
        // Only places where it may stand, but for a large one that a stale set of ids calls hot.
        let standing =
            match [Standing::Hot, Standing::Warm8, Standing::Warm4, Standing::Cold][stands % 4] {
                Standing::Warm8 | Standing::Warm4 if !vector => Standing::Cold,
                standing => standing,
            };
        sight.standing.push(standing);
    }
    sight
}

fn sights() -> impl Strategy<Value = Sight> {
    let draw = (any::<u8>(), any::<u8>(), any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..4);
    (prop::collection::vec(draw, 0..200), 0_u64..20_000, 1_u64..100_000)
        .prop_map(|(draws, other, budget)| sight(draws, other, budget))
}

const POLICIES: [Policy; 3] = [Policy::Watermark, Policy::Paper, Policy::PaperLiteral];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_plan_keeps_to_what_is_possible_and_counts_right(mut sight in sights()) {
        for policy in POLICIES {
            let plan = plan(policy, &sight.view());
            prop_assert_eq!(plan.bytes_before, sight.bytes());
            prop_assert!(plan.moves.is_sorted_by(|a, b| a.at < b.at), "one move an entry");
            for change in &plan.moves {
                let n = change.at;
                prop_assert!(!sight.stuck[n], "damage holds it");
                match change.to {
                    Standing::Hot => prop_assert_ne!(sight.hot[n], u32::MAX),
                    Standing::Warm8 | Standing::Warm4 => prop_assert_ne!(sight.warm8[n], 0),
                    Standing::Cold => {}
                }
                if sight.pinned[n] && sight.warm8[n] > 0 {
                    prop_assert!(change.to <= Standing::Warm8, "a pinned entry keeps 8 bits");
                }
            }
            sight.carry_out(&plan);
            prop_assert_eq!(plan.bytes_after, sight.bytes());
        }
    }

    #[test]
    fn plans_come_to_rest(mut sight in sights()) {
        for policy in POLICIES {
            let first = plan(policy, &sight.view());
            sight.carry_out(&first);
            let second = plan(policy, &sight.view());
            // The last entry that went down may have been large, and others fit where it was.
            let risen = second.moves.iter().all(|m| m.to < m.from);
            prop_assert!(risen, "{policy:?}: {:?}, then {:?}", first.moves, second.moves);
            sight.carry_out(&second);
            let third = plan(policy, &sight.view());
            prop_assert!(third.moves.is_empty(), "{policy:?}: {:?}, then {:?}", second.moves, third.moves);
        }
    }

    #[test]
    fn a_run_meets_the_target_or_nothing_more_can_go(mut sight in sights()) {
        let plan = plan(Policy::Watermark, &sight.view());
        sight.carry_out(&plan);
        let target = (sight.budget_bytes as f64 * TARGET_SHARE) as u64;
        let least = |n: usize| match (sight.pinned[n], sight.warm8[n]) {
            (true, 1..) => Standing::Warm8,
            _ => Standing::Cold,
        };
        // A pinned entry without a vector can stand in RAM or in the archive alone.
        let lowest =
            (0..sight.ids.len()).all(|n| sight.stuck[n] || sight.standing[n] >= least(n));
        prop_assert!(plan.bytes_after <= target || lowest, "{} of {target}", plan.bytes_after);
    }

    #[test]
    fn nothing_moves_down_below_the_target(sight in sights()) {
        let plan = plan(Policy::Watermark, &sight.view());
        // A pinned entry whose codes were lost gets them back, a large one that was called hot gets
        // some, and others may have to make room.
        let stale = |m: &Move| m.from == Standing::Hot && sight.hot[m.at] == u32::MAX;
        let lifted = plan.moves.iter().any(|m| sight.pinned[m.at] || stale(m));
        if !lifted && plan.bytes_before <= (sight.budget_bytes as f64 * TARGET_SHARE) as u64 {
            let risen = plan.moves.iter().filter(|m| m.to < m.from).count();
            let fallen = plan.moves.len() - risen;
            prop_assert!(risen > 0 || fallen == 0 || plan.bytes_after <= plan.bytes_before);
            for change in plan.moves.iter().filter(|m| m.to > m.from) {
                prop_assert_eq!(change.from, Standing::Hot, "only to make room in RAM");
                let score = |n: usize| sight.scores[n];
                let needed = |m: &Move| m.to < m.from && score(m.at) > score(change.at);
                prop_assert!(plan.moves.iter().any(needed), "{:?}", plan.moves);
            }
        }
    }

    #[test]
    fn literal_hides_what_is_not_protected(sight in sights()) {
        let plan = plan(Policy::PaperLiteral, &sight.view());
        let hidden = plan.hidden.unwrap_or_default();
        let unpinned = sight.pinned.iter().filter(|pinned| !**pinned).count();
        prop_assert_eq!(hidden.len() + plan.protected, unpinned);
        prop_assert!(plan.protected == 0 || hidden.iter().all(|n| sight.scores[*n] <= plan.tau));
        for n in 0..sight.ids.len() {
            let seat = seat(&sight.view(), n);
            prop_assert_eq!(seat.rank.is_none(), sight.pinned[n]);
            prop_assert_eq!(seat.protected, !sight.pinned[n] && !hidden.contains(&n));
        }
    }
}

#[test]
fn the_best_stay_and_the_widths_follow_the_score() {
    let draws = (0..100_u8).map(|n| (n, 1, false, true, false, 0)).collect();
    let sight = sight(draws, 0, 200_000);
    let plan = plan(Policy::Paper, &sight.view());
    assert_eq!((plan.protected, plan.tau, plan.score_max), (20, 0.80, 0.99));
    let to = |n: usize| plan.moves.iter().find(|m| m.at == n).map_or(Standing::Hot, |m| m.to);
    // r = score / 0.99: 0.8 is 0.792, 0.4 is 0.396.
    assert_eq!([to(99), to(80), to(79)], [Standing::Hot, Standing::Hot, Standing::Warm4]);
    assert_eq!([to(40), to(39), to(0)], [Standing::Warm4, Standing::Cold, Standing::Cold]);
}

#[test]
fn equal_scores_of_nothing_keep_eight_bits() {
    let draws = (0..10).map(|_| (0, 1, false, true, false, 0)).collect();
    let plan = plan(Policy::Paper, &sight(draws, 0, 200_000).view());
    assert!(plan.moves.iter().all(|m| m.to == Standing::Warm8), "r is 1 when no score is above 0");
    assert_eq!(plan.moves.len(), 8);
}

/// One hot entry of score 0.1, one cold one of `score` that takes `bytes` in RAM, and a cold one of 0.3
/// that takes 400; all hit twice but the first.
fn three(score: u8, bytes: u32, budget_bytes: u64) -> Sight {
    let draws = vec![
        (10, 2, false, true, false, 0),
        (score, 9, true, true, false, 3),
        (30, 9, true, true, false, 3),
    ];
    let mut sight = sight(draws, 0, budget_bytes);
    sight.hot = vec![410, bytes, 400];
    sight
}

#[test]
fn room_that_does_not_suffice_is_not_made_and_the_next_is_looked_at() {
    // The target is 1,000: 100,000 bytes never fit, 400 do without anybody going down.
    let sight = three(90, 100_000, 1_667);
    let up = Move { at: 2, from: Standing::Cold, to: Standing::Hot };
    assert_eq!(plan(Policy::Watermark, &sight.view()).moves, [up]);
    // 800 fit when the one of lowest rank makes room; nothing is left for the third then.
    let sight = three(90, 800, 1_667);
    let down = Move { at: 0, from: Standing::Hot, to: Standing::Warm8 };
    let up = Move { at: 1, ..up };
    assert_eq!(plan(Policy::Watermark, &sight.view()).moves, [down, up]);
}

#[test]
fn a_large_payload_rises_to_eight_bits_and_costs_nothing_in_ram() {
    let mut sight = three(90, u32::MAX, 10_000);
    let risen = plan(Policy::Watermark, &sight.view());
    assert!(risen.moves.contains(&Move { at: 1, from: Standing::Cold, to: Standing::Warm8 }));
    sight.standing[1] = Standing::Hot;
    let stale = plan(Policy::Watermark, &sight.view());
    assert_eq!(stale.bytes_before, 410, "an id that is called hot by mistake");
    assert!(stale.moves.contains(&Move { at: 1, from: Standing::Hot, to: Standing::Warm8 }));
}

#[test]
fn a_pinned_entry_without_codes_leaves_ram_last_and_comes_back_first() {
    // Kind 0 is pinned: one with a vector, one without.
    let draws = vec![(50, 0, false, true, false, 0), (60, 0, false, false, false, 0)];
    let mut sight = sight(draws, 0, 1_200);
    sight.hot = vec![500, 600];
    let first = plan(Policy::Watermark, &sight.view());
    assert_eq!(first.moves, [Move { at: 0, from: Standing::Hot, to: Standing::Warm8 }]);
    sight.budget_bytes = 800;
    let second = plan(Policy::Watermark, &sight.view());
    assert_eq!(second.moves.len(), 2, "nothing else is possible: {:?}", second.moves);
    sight.carry_out(&second);
    sight.budget_bytes = 1_200;
    let third = plan(Policy::Watermark, &sight.view());
    assert_eq!(third.moves, [Move { at: 1, from: Standing::Cold, to: Standing::Hot }]);
}
