//! A node is removed, step by step, for who waits for it.

use std::time::{Duration, Instant};

use super::output::{Halt, Sink};
use crate::exit::Exit;
use crate::host::node_removal::{Removing, Untaken};
use crate::node_removal::{Progress, Step, plan};
use crate::operators::Trouble;

/// Removes a node; its pods have `drain` to move, or end with it. Each step is told as it is taken, and every `sign_of_life`
/// while pods move the sink is asked whether to go on.
///
/// Who goes away before the node is barred stops it there; from then on it is brought to its end, because half a removal is
/// no state to be left in.
///
/// # Errors
/// It is refused, a step fails, or nobody waits for it any more. Asked again, it goes on.
pub fn remove(
    removing: &dyn Removing,
    drain: Option<Duration>,
    sign_of_life: Duration,
    sink: &mut dyn Sink,
) -> Result<u8, Halt> {
    let found = removing.found();
    let steps = plan(found, drain.is_some()).map_err(|block| Trouble::of(Exit::Refused, block))?;
    let mut done: Vec<&'static str> = Vec::new();
    let mut may_stop = true;
    for step in &steps {
        may_stop &= matches!(step, Step::Cordon | Step::Drain);
        let state = || match done.as_slice() {
            [] => "Nothing was changed.".to_owned(),
            done => format!("So far: {}.", done.join("; ")),
        };
        if *step == Step::Drain {
            tell(sink, &Progress::Begins(step.clone()))?;
        }
        let mut told = Instant::now();
        let mut goes_on = || {
            if told.elapsed() < sign_of_life {
                return Ok(());
            }
            told = Instant::now();
            sink.goes_on()
        };
        match removing.take(step, drain.unwrap_or_default(), &mut goes_on) {
            Ok(()) => {}
            Err(Untaken::Halted(Halt::Trouble(trouble))) => return Err(trouble.leaving(state()).into()),
            Err(Untaken::Halted(Halt::Gone)) => return Err(Halt::Gone),
            Err(Untaken::Failed(why)) => return Err(failed(&found.name, &why).leaving(state()).into()),
        }
        done.push(step.done());
        match tell(sink, &Progress::Taken(step.clone())) {
            Err(halt) if may_stop => return Err(halt),
            _ => {}
        }
    }
    Ok(Exit::Success.code())
}

/// That the node was not removed, for a cause that may go away.
pub fn failed(name: &str, why: &str) -> Trouble {
    let fix = "when the cause is gone, ask for it again: it goes on from there.";
    Trouble::new(Exit::Failure, &format!("The node {name} was not removed"), why, fix)
}

fn tell(sink: &mut dyn Sink, progress: &Progress) -> Result<(), Halt> {
    let mut line = serde_json::to_vec(progress).expect("plain data");
    line.push(b'\n');
    sink.part(&line)
}
