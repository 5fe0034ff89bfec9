//! Moves a node's pods elsewhere, for as long as was said and no longer: whatever the API server does, it is asked nothing
//! once the time is up, and no call is waited for longer than what is left.

use std::time::Duration;

use super::Untaken;
use crate::host::api::{Api, ApiError};
use crate::host::operators::output::Halt;
use crate::host::{clock, wait};
use crate::node_removal::{Pod, eviction, to_evict};

/// Between looks at the pods that have to leave.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one call may take: who waits for the removal hears of it between calls.
const CALL: Duration = Duration::from_secs(15);

/// A node's pods, as they are asked to leave; and the time meanwhile, by a clock that is never set.
pub(super) trait Pods {
    /// The node's name.
    fn node(&self) -> &str;
    /// Those that have to leave.
    fn left(&self, within: Duration) -> Result<Vec<Pod>, String>;
    /// Asks one to leave; why it does not, in words.
    fn evict(&self, pod: &Pod, within: Duration) -> Result<(), String>;
    fn now(&self) -> Duration;
    fn pause(&self, pause: Duration);
}

/// By the API.
pub(super) struct PodsOf<'a> {
    pub(super) api: &'a Api,
    pub(super) node: &'a str,
}

impl Pods for PodsOf<'_> {
    fn node(&self) -> &str {
        self.node
    }

    fn left(&self, within: Duration) -> Result<Vec<Pod>, String> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.node);
        let pods = self.api.get_within(&path, within).map_err(|error: ApiError| error.to_string())?;
        Ok(to_evict(&pods))
    }

    fn evict(&self, pod: &Pod, within: Duration) -> Result<(), String> {
        match self.api.post_within(&pod.eviction_path(), &eviction(pod), within) {
            // Gone already, or another of the same name is there.
            Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
            other => other.map(drop).map_err(|error| error.to_string()),
        }
    }

    fn now(&self) -> Duration {
        clock::monotonic()
    }

    fn pause(&self, pause: Duration) {
        wait::pause_for(pause);
    }
}

/// Asks the pods to leave until none is left, for at most `limit`. `goes_on` is asked before each call.
///
/// # Errors
/// [`Untaken`]: some are left, with what was seen last; or it should not go on.
pub(super) fn drain(
    pods: &dyn Pods,
    limit: Duration,
    goes_on: &mut dyn FnMut() -> Result<(), Halt>,
) -> Result<(), Untaken> {
    let start = pods.now();
    let left = || limit.saturating_sub(pods.now().saturating_sub(start));
    let mut seen = "nothing yet".to_owned();
    loop {
        match round(pods, &left, goes_on).map_err(Untaken::Halted)? {
            Round::Moved => return Ok(()),
            Round::Left(now) => seen = now,
            Round::TimeUp(Some(now)) => seen = now,
            Round::TimeUp(None) => {}
        }
        let left = left();
        if left.is_zero() {
            break;
        }
        pods.pause(PAUSE.min(left));
    }
    Err(Untaken::Failed(format!(
        "waited {} s for the node's pods to move; last seen: {seen}. It is cordoned, and its pods that moved stay where \
         they are. To remove it all the same: --without-drain; to give it back to pods: kubectl uncordon {}",
        limit.as_secs(),
        pods.node()
    )))
}

/// What came of asking all once.
enum Round {
    /// None is left.
    Moved,
    /// What was seen.
    Left(String),
    /// The time was up before all were asked; and what was seen by then.
    TimeUp(Option<String>),
}

fn round(
    pods: &dyn Pods,
    left: &dyn Fn() -> Duration,
    goes_on: &mut dyn FnMut() -> Result<(), Halt>,
) -> Result<Round, Halt> {
    goes_on()?;
    let within = left().min(CALL);
    if within.is_zero() {
        return Ok(Round::TimeUp(None));
    }
    let found = match pods.left(within) {
        Ok(found) => found,
        Err(why) => return Ok(Round::Left(why)),
    };
    let Some(first) = found.first() else { return Ok(Round::Moved) };
    let mut refused = None;
    for (asked, pod) in found.iter().enumerate() {
        goes_on()?;
        let within = left().min(CALL);
        if within.is_zero() {
            let why = refused.map(|why| format!("; {why}")).unwrap_or_default();
            let seen = format!("{} still run there, of whom {asked} were asked to leave{why}", found.len());
            return Ok(Round::TimeUp(Some(seen)));
        }
        if let Err(why) = pods.evict(pod, within) {
            refused.get_or_insert_with(|| format!("{}/{}: {why}", pod.namespace, pod.name));
        }
    }
    Ok(Round::Left(match refused {
        Some(why) => format!("{} still run there; {why}", found.len()),
        None => format!("{} still run there, such as {}/{}", found.len(), first.namespace, first.name),
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use proptest::prelude::*;

    use super::*;

    /// Pods of a node, and an API that takes its time.
    struct World {
        now: Cell<Duration>,
        pods: RefCell<Vec<Pod>>,
        /// How long each call takes, in turn, if it is waited for; and whether an eviction is granted.
        takes: Vec<(Duration, bool)>,
        calls: Cell<usize>,
    }

    impl World {
        fn new(pods: usize, takes: Vec<(Duration, bool)>) -> Self {
            let text = |number: usize| format!("pod-{number}");
            let pod = |number| Pod { namespace: "default".into(), name: text(number), uid: text(number) };
            let pods = RefCell::new((0..pods).map(pod).collect());
            World { now: Cell::new(Duration::from_secs(1000)), pods, takes, calls: Cell::new(0) }
        }

        fn passes(&self, time: Duration) {
            self.now.set(self.now.get() + time);
        }

        /// Waits for an answer, at most so long.
        fn call(&self, within: Duration) -> Result<bool, String> {
            let (takes, granted) = self.takes[self.calls.get() % self.takes.len()];
            self.calls.set(self.calls.get() + 1);
            self.passes(takes.min(within));
            if takes > within { Err("timeout".into()) } else { Ok(granted) }
        }
    }

    impl Pods for World {
        fn node(&self) -> &'static str {
            "w-7"
        }

        fn left(&self, within: Duration) -> Result<Vec<Pod>, String> {
            self.call(within)?;
            Ok(self.pods.borrow().clone())
        }

        fn evict(&self, pod: &Pod, within: Duration) -> Result<(), String> {
            match self.call(within)? {
                true => self.pods.borrow_mut().retain(|other| other != pod),
                false => return Err("its disruption budget does not allow it".into()),
            }
            Ok(())
        }

        fn now(&self) -> Duration {
            self.now.get()
        }

        fn pause(&self, pause: Duration) {
            self.passes(pause);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn failed(drained: Result<(), Untaken>) -> String {
        match drained {
            Err(Untaken::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pods_move_and_budgets_are_waited_for() {
        let world = World::new(3, vec![(Duration::from_millis(10), true)]);
        assert!(drain(&world, SECOND * 300, &mut || Ok(())).is_ok());
        let refuses = World::new(2, vec![(Duration::ZERO, false)]);
        let why = failed(drain(&refuses, SECOND * 5, &mut || Ok(())));
        assert!(
            why.starts_with("waited 5 s for the node's pods to move; last seen: 2 still run there; default/pod-0: its"),
            "{why}"
        );
        assert!(why.ends_with("--without-drain; to give it back to pods: kubectl uncordon w-7"), "{why}");
    }

    #[test]
    fn an_api_server_that_hangs_takes_no_more_time_than_was_given() {
        // Pods are listed at once, and no eviction is ever answered.
        let mut takes = vec![(SECOND * 3600, true); 1000];
        takes[0] = (Duration::ZERO, true);
        let world = World::new(200, takes);
        let start = world.now();
        let why = failed(drain(&world, SECOND * 40, &mut || Ok(())));
        assert_eq!(world.now() - start, SECOND * 40);
        assert!(why.contains("200 still run there, of whom 3 were asked to leave; default/pod-0: timeout"), "{why}");
    }

    #[test]
    fn who_waits_is_asked_between_evictions_too() {
        let world = World::new(200, vec![(SECOND, false)]);
        let mut asked = 0;
        let halted = drain(&world, SECOND * 3600, &mut || {
            asked += 1;
            if asked < 10 { Ok(()) } else { Err(Halt::Gone) }
        });
        assert!(matches!(halted, Err(Untaken::Halted(Halt::Gone))));
        assert!(world.calls.get() < 10);
    }

    proptest! {
        #[test]
        fn whatever_the_api_server_does_the_limit_holds(
            pods in 0usize..40,
            limit in 0u64..100,
            takes in proptest::collection::vec((0u64..60_000, any::<bool>()), 1..50),
        ) {
            let takes = takes.into_iter().map(|(millis, granted)| (Duration::from_millis(millis), granted)).collect();
            let world = World::new(pods, takes);
            let (start, limit) = (world.now(), SECOND * u32::try_from(limit).unwrap());
            let mut last = start;
            let drained = drain(&world, limit, &mut || {
                assert!(world.now() - last <= CALL + PAUSE, "who waits hears nothing");
                last = world.now();
                Ok(())
            });
            prop_assert!(world.now() - start <= limit);
            if drained.is_ok() {
                prop_assert!(world.pods.borrow().is_empty());
            }
        }
    }
}
