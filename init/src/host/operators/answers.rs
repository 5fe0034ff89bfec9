//! What a node does for operators, whatever it is: who asks, whether that is an operator, how many at once, and what every
//! node answers about itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::bundle;
use super::output::{self, Halt, Programs, Sink};
use super::store::Rbac;
use crate::certificates::Unix;
use crate::exit::Exit;
use crate::host::mesh::members;
use crate::host::process;
use crate::host::root::Root;
use crate::operators::{AT_ONCE, Request, Trouble};

/// How long `kubeboot status` may take: its gates ask every service of the node.
const STATUS: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For records and logs: an ssh key's fingerprint, or this control plane's name.
    pub name: String,
    /// The ssh key (wire form); none: root on this machine.
    pub key: Option<Vec<u8>>,
}

/// A node that does what operators ask.
pub trait Answers: Send + Sync {
    /// Whether this ssh public key (wire form) is an operator's now, as far as this node can know.
    ///
    /// # Errors
    /// It can't know, in words.
    fn is_operator(&self, key: &[u8]) -> Result<bool, String>;

    /// A place to work, if there is one.
    fn enter(&self) -> Option<Place<'_>>;

    /// Does what is asked, and gives the code that the command ends with.
    ///
    /// # Errors
    /// [`Halt`]: why it was not done, and what state was left.
    fn answer(&self, who: &Caller, request: &Request, now: Unix, sink: &mut dyn Sink) -> Result<u8, Halt>;

    /// Whether who asks is an operator still.
    ///
    /// # Errors
    /// Not any more, or nobody can tell.
    fn still(&self, who: &Caller) -> Result<(), Halt> {
        let what = "The cluster takes no more of this operator";
        match who.key.as_ref().map_or(Ok(true), |key| self.is_operator(key)) {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Trouble::new(Exit::Refused, what, "it was removed", "ask another operator to add the key.").into())
            }
            Err(why) => Err(Trouble::new(Exit::Failure, what, why, "see how the cluster is: kubeboot status").into()),
        }
    }
}

/// Places for what is worked on at once.
#[derive(Debug, Default)]
pub struct Places(AtomicUsize);

/// One of them.
pub struct Place<'a>(&'a AtomicUsize);

impl Places {
    /// Takes one, if there is one.
    pub fn enter(&self) -> Option<Place<'_>> {
        let place = self.0.fetch_add(1, Ordering::AcqRel);
        let entered = Place(&self.0);
        (place < AT_ONCE).then_some(entered)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a machine tells of itself.
pub struct Machine {
    /// Where its files are.
    pub root: Root,
    /// Its programs.
    pub programs: Programs,
}

impl Machine {
    /// Answers what every node answers; none: this is not about the machine alone. `rbac`: the cluster, where the machine may
    /// ask it about everything.
    pub fn answer(
        &self,
        request: &Request,
        rbac: Option<&dyn Rbac>,
        now: Unix,
        sink: &mut dyn Sink,
    ) -> Option<Result<u8, Halt>> {
        Some(match request {
            Request::Status { why, json } => self.status(*why, *json, sink),
            Request::Logs { unit, follow, lines } => {
                output::logs(&self.programs, unit.as_deref(), *follow, *lines, sink)
            }
            Request::SupportBundle {} => bundle::write(&self.root, &self.programs, rbac, now, sink),
            Request::Members {} => {
                members::view(&self.root).map_err(Halt::from).and_then(|view| output::value(sink, &view))
            }
            _ => return None,
        })
    }

    fn status(&self, why: bool, json: bool, sink: &mut dyn Sink) -> Result<u8, Halt> {
        let mut arguments = vec!["status"];
        arguments.extend(why.then_some("--why"));
        arguments.extend(json.then_some("--output=json"));
        // A process of its own: what the agent may not look at, it is told as everybody is.
        let said = process::output(&self.programs.kubeboot.to_string_lossy(), &arguments, STATUS);
        let said = said.map_err(|error| {
            Trouble::new(Exit::Failure, "The machine's status can't be shown", error, "try again in a moment.")
        })?;
        sink.part(said.stdout.as_bytes())?;
        Ok(said.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(Exit::Failure.code()))
    }
}
