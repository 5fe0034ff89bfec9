//! The operators on record, and what was seen of them last: an API server that is down is when logs are wanted most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::removed;
use super::store::People;
use crate::host::enrolment::store::Objects;
use crate::host::root::Root;
use crate::operators::objects::OperatorObject;

/// The operators on record.
pub struct Roster {
    root: Root,
    people: People,
    /// Looks that have begun.
    looks: AtomicU64,
    last: Mutex<Last>,
}

/// What was seen last.
#[derive(Default)]
struct Last {
    /// The number of the look that saw it.
    look: u64,
    found: Option<Vec<OperatorObject>>,
}

impl Roster {
    /// Nothing was seen yet.
    pub fn new(root: &Root, objects: Arc<dyn Objects>) -> Self {
        Roster {
            root: root.clone(),
            people: People::new(objects),
            looks: AtomicU64::new(0),
            last: Mutex::new(Last::default()),
        }
    }

    /// Looks, and keeps what was seen. What is given was read after the call began: of others who look at the same time an
    /// older answer may come later, and must neither be judged by nor take the place of a newer one.
    ///
    /// # Errors
    /// The API does not answer, in words. What was seen before stays.
    pub fn look(&self) -> Result<Vec<OperatorObject>, String> {
        let look = self.looks.fetch_add(1, Ordering::AcqRel) + 1;
        let found = self.people.operators()?;
        let mut last = self.last();
        if look > last.look {
            *last = Last { look, found: Some(found.clone()) };
        }
        drop(last);
        if let Err(why) = removed::keep(&self.root, &found, || self.people.operators()) {
            eprintln!("kubeboot: {why}");
        }
        Ok(found)
    }

    /// Looks; while the API does not answer, what was seen when it did last.
    ///
    /// # Errors
    /// It does not answer, and never did; in words.
    pub fn look_or_last(&self) -> Result<Vec<OperatorObject>, String> {
        self.look().or_else(|why| self.last().found.clone().ok_or(why))
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
