//! The table of scenarios: what must be true of kubeboot on real machines.

use crate::scenario::Scenario;

mod attacks;
mod bad_input;
mod control_planes;
mod damage;
mod discovery;
mod founder;
mod join;
mod operators;
mod power_cut;
mod preflight;
mod prompt;
mod reboot;
mod refusals;
mod releases;
mod reset;
mod secrets;
mod var;
mod workload;

pub use power_cut::POWER_CUT;
pub use workload::on_node;

/// Every scenario, those that take longest first, so that a parallel run ends early.
#[must_use]
pub fn all() -> Vec<&'static Scenario> {
    [
        // The first to need a founded machine makes it, and others wait: better while others have something else to do.
        reboot::SCENARIOS,
        founder::SCENARIOS,
        control_planes::SCENARIOS,
        join::SCENARIOS,
        discovery::SCENARIOS,
        refusals::SCENARIOS,
        operators::SCENARIOS,
        attacks::SCENARIOS,
        releases::SCENARIOS,
        power_cut::SCENARIOS,
        reset::SCENARIOS,
        damage::SCENARIOS,
        var::SCENARIOS,
        prompt::SCENARIOS,
        preflight::SCENARIOS,
        bad_input::SCENARIOS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_sentences() {
        let mut names: Vec<_> = all().iter().map(|scenario| scenario.name).collect();
        assert!(names.iter().all(|name| name.starts_with(char::is_uppercase) && !name.contains('\'')), "{names:?}");
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
