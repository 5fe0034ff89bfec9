//! The operators on record, and what was seen of them last: an API server that is down is when logs are wanted most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::kept;
use super::store::People;
use crate::host::clock;
use crate::host::enrolment::store::Objects;
use crate::host::mesh::Watch;
use crate::host::root::Root;
use crate::operators::key::of_settings;
use crate::operators::objects::{OperatorObject, operators};
use crate::settings::Settings;

/// A call of the API that has not succeeded by then hangs.
const LONG: Duration = Duration::from_secs(2);
/// How long it is not asked again then.
const HUNG: Duration = Duration::from_secs(30);

/// The operators on record.
pub struct Roster {
    root: Root,
    people: People,
    /// Looks that have begun.
    looks: AtomicU64,
    last: Mutex<Last>,
    /// Until when nobody asks the API who is an operator: it kept the last who asked waiting and did not answer.
    hung: Mutex<Duration>,
    mesh: Option<Watch>,
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
            hung: Mutex::default(),
            mesh: None,
        }
    }

    /// That can ask the mesh.
    pub fn beside(self, mesh: Watch) -> Self {
        Roster { mesh: Some(mesh), ..self }
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
        if let Err(why) = kept::keep(&self.root, &found, || self.people.operators()) {
            eprintln!("kubeboot: {why}");
        }
        Ok(found)
    }

    /// Whether a key is an operator's, which these settings may name. Looks; while the API does not answer, by what was seen
    /// when it did last.
    ///
    /// # Errors
    /// It does not answer, and what was kept can't be read; in words.
    pub fn is_operator(&self, settings: &Settings, key: &[u8]) -> Result<bool, String> {
        let seen = self.look_in_time().or_else(|| self.last().found.clone());
        match seen {
            Some(objects) => Ok(operators(&of_settings(settings), &objects).iter().any(|(line, _)| line.key == key)),
            None => self.is_kept(settings, key),
        }
    }

    /// Looks, unless the API has just been found to hang: an operator waits 10 s for an answer, a call three times as long.
    fn look_in_time(&self) -> Option<Vec<OperatorObject>> {
        let begun = clock::monotonic();
        if begun < *self.hung.lock().unwrap_or_else(PoisonError::into_inner) {
            return None;
        }
        let seen = self.look().ok();
        let now = clock::monotonic();
        if seen.is_none() && now.saturating_sub(begun) >= LONG {
            *self.hung.lock().unwrap_or_else(PoisonError::into_inner) = now + HUNG;
        }
        seen
    }

    /// By what processes before this one saw, and by what the mesh says. Who was removed according to one of the two is
    /// refused: which of them is newer nobody can tell.
    fn is_kept(&self, settings: &Settings, key: &[u8]) -> Result<bool, String> {
        let kept = kept::is_operator(&self.root, settings, key)?;
        let known = self.mesh.as_ref().and_then(|mesh| mesh.operators(|| None));
        Ok(match known.as_ref().map(|known| &known.roll) {
            Some(roll) if roll.has_removed(key) => false,
            Some(roll) => kept || roll.listed.contains(key) && !kept::is_removed(&self.root, key)?,
            None => kept,
        })
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
