//! The shortest workload that still fails: what a person wants to look at.
//!
//! 1. Leave out stretches of acts, first half of them, then quarters, down to single acts.
//! 2. A stretch stays out when the model still takes what is left and the failure is still there.
//! 3. End when no single act can be left out any more.
//!
//! It knows nothing of crashes: whether a workload fails is the caller's question.

use crate::model::{Act, Model};
use crate::script::START;

/// Whether every act of a workload can be done, going by the model alone.
pub fn is_sound(acts: &[Act]) -> bool {
    let mut model = Model::default();
    acts.iter().all(|act| model.apply(act, START).is_ok())
}

/// Shortens a workload that fails. `fails` is asked for sound workloads only; what is answered failed.
pub fn shrink(acts: &[Act], fails: &mut dyn FnMut(&[Act]) -> bool) -> Vec<Act> {
    let mut left = acts.to_vec();
    let mut stretch = left.len().div_ceil(2);
    while stretch > 0 {
        let mut from = 0;
        let mut shorter = false;
        while from < left.len() {
            let to = (from + stretch).min(left.len());
            let kept = left.iter().enumerate().filter(|(at, _)| !(from..to).contains(at));
            let tried: Vec<Act> = kept.map(|(_, act)| act.clone()).collect();
            if is_sound(&tried) && fails(&tried) {
                left = tried;
                shorter = true;
            } else {
                from = to;
            }
        }
        if stretch == 1 && !shorter {
            break;
        }
        stretch = if stretch == 1 { 1 } else { stretch.div_ceil(2) };
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::generate;

    #[test]
    fn what_the_failure_does_not_need_is_left_out() {
        let acts = generate(11, 80);
        let needs = |acts: &[Act]| {
            let checkpoint = acts.iter().position(|act| matches!(act, Act::Checkpoint));
            let kill = acts.iter().rposition(|act| matches!(act, Act::Kill | Act::Reopen));
            checkpoint.zip(kill).is_some_and(|(checkpoint, kill)| checkpoint < kill)
        };
        assert!(needs(&acts), "another seed");
        let mut asked = 0;
        let short = shrink(&acts, &mut |acts| {
            asked += 1;
            needs(acts)
        });
        assert_eq!(short.len(), 2, "{short:?}");
        assert!(needs(&short) && asked < 400, "{asked}");
    }

    #[test]
    fn what_the_model_refuses_is_never_tried() {
        let acts = generate(3, 40);
        let short = shrink(&acts, &mut |acts| {
            assert!(is_sound(acts));
            acts.iter().any(|act| matches!(act, Act::Put(..)))
        });
        // The collection, and the entry.
        assert_eq!(short.len(), 2, "{short:?}");
    }
}
