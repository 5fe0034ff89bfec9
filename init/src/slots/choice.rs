//! Which seat to boot, in which order the others stand behind it, and why.

use super::{Seat, Slot, Slots, State, TRIES};

/// Seats in the order to try them, each with its reason; the last is always the factory release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What the table has to record: a try, before the trial's release is mounted, or a trial that used its tries up.
    pub record: Option<(Slot, Record)>,
    /// What to mount; the first that verifies wins.
    pub order: Vec<(Seat, String)>,
}

/// What a choice changes in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// [`super::Transition::Try`]
    Try,
    /// [`super::Transition::Condemn`], because no try is left.
    Exhausted,
}

/// Decides. Trial with tries left → last committed → other committed → factory.
pub fn choose(slots: &Slots) -> Choice {
    let mut order = Vec::new();
    let mut record = None;
    let mut failed = None;
    for slot in Slot::ALL {
        if let Some(State::Trial { tries }) = slots.state(slot) {
            if *tries < TRIES {
                record = Some((slot, Record::Try));
                order.push((Seat::Slot(slot), format!("on trial, try {} of {TRIES}", tries + 1)));
            } else {
                record = Some((slot, Record::Exhausted));
                failed = Some(slot);
            }
        }
    }
    let after = failed.map(|slot| format!(", after the trial of slot {slot} failed {TRIES} times")).unwrap_or_default();
    let committed = |slot: &Slot| slots.state(*slot) == Some(&State::Committed);
    let last = slots.current.filter(committed);
    if let Some(slot) = last {
        order.push((Seat::Slot(slot), format!("committed last{after}")));
    }
    for slot in Slot::ALL.into_iter().filter(|slot| committed(slot) && Some(*slot) != last) {
        order.push((Seat::Slot(slot), format!("committed earlier{after}")));
    }
    let why = match order.is_empty() {
        true if failed.is_some() => format!("no release on /var is committed{after}"),
        true => "no release on /var is committed".to_owned(),
        false => "no release on /var could be used".to_owned(),
    };
    order.push((Seat::Factory, why));
    Choice { record, order }
}
