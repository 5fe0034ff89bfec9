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
use crate::mesh::publish::Operators;
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
    /// when it did last, and nobody who was removed according to this machine's disk or to the mesh: others may have seen
    /// more since.
    ///
    /// # Errors
    /// It does not answer, and what was kept can't be read; in words.
    pub fn is_operator(&self, settings: &Settings, key: &[u8]) -> Result<bool, String> {
        let is_one = |objects: &[OperatorObject]| {
            operators(&of_settings(settings), objects).iter().any(|(line, _)| line.key == key)
        };
        if let Some(objects) = self.look_in_time() {
            return Ok(is_one(&objects));
        }
        let last = self.last().found.clone();
        match last {
            Some(objects) => Ok(is_one(&objects)
                && !kept::is_removed(&self.root, key)?
                && !self.by_the_mesh().is_some_and(|known| known.roll.has_removed(key))),
            None => self.is_kept(settings, key),
        }
    }

    /// The operators by the mesh's records that have force, if there is one to ask.
    fn by_the_mesh(&self) -> Option<Arc<Operators>> {
        self.mesh.as_ref().and_then(|mesh| mesh.operators(|| None))
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
        let known = self.by_the_mesh();
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::enrolment::taking::{Answer, Call};
    use crate::host::files;
    use crate::mesh::Roll;
    use crate::operators::key::OperatorLine;
    use crate::operators::tests::public_line;
    use crate::paths;

    const ADA: u8 = 1;
    const BOB: u8 = 2;
    const CARL: u8 = 3;

    /// An API that has nobody on record, and may be down.
    #[derive(Default)]
    struct Api(AtomicBool);

    impl Objects for Api {
        fn call(&self, _: &Call) -> Result<Answer, String> {
            if self.0.load(Ordering::Acquire) {
                Err("no API server answers".into())
            } else {
                Ok(Answer::List(Vec::new()))
            }
        }
    }

    fn line(key: u8) -> OperatorLine {
        OperatorLine::parse(&public_line(key, "somebody")).unwrap()
    }

    fn mesh(removed: &[u8]) -> Watch {
        let object =
            |key: &u8| OperatorObject { line: line(*key), listed: false, by: "test".into(), since: 1, version: None };
        let removed: Vec<OperatorObject> = removed.iter().map(object).collect();
        Watch::saying(Operators { roll: Roll::on_record(&removed), until: clock::unix() + 3600 })
    }

    #[test]
    fn who_was_removed_since_the_api_was_seen_last_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::create_dir_all(root.path(paths::STATE)).unwrap();
        let api = Arc::new(Api::default());
        let roster = Roster::new(&root, api.clone()).beside(mesh(&[BOB]));
        let operator = [ADA, BOB, CARL].map(|key| public_line(key, "somebody")).into();
        let settings = Settings { operator, ..Settings::default() };
        let is = |key: u8| roster.is_operator(&settings, &line(key).key);
        assert_eq!([ADA, BOB, CARL].map(is), [Ok(true), Ok(true), Ok(true)], "while it answers, the API alone says");
        api.0.store(true, Ordering::Release);
        assert_eq!([ADA, BOB, CARL].map(is), [Ok(true), Ok(false), Ok(true)], "whom the mesh calls removed");
        // A command on this machine saw more than the agent did.
        let gone = line(CARL).fingerprint() + "\n";
        files::write_atomic(&root.path(paths::REMOVED_OPERATORS), gone.as_bytes(), 0o600).unwrap();
        assert_eq!([ADA, BOB, CARL].map(is), [Ok(true), Ok(false), Ok(false)]);
    }
}
