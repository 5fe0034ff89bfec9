//! Where a command acts: on this machine, or with `--node` on a node anywhere.

use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::answer::stop;
use super::boot::Stop;
use crate::exit::Exit;
use crate::host::clock;
use crate::host::enrolment::store::InApi;
use crate::host::node::ThisNode;
use crate::host::operators::answers::{Answers as _, Machine};
use crate::host::operators::client::{Link, Remote};
use crate::host::operators::desk::Desk;
use crate::host::operators::identity::Keys;
use crate::host::operators::known;
use crate::host::operators::output::{Halt, Plain, Printed, Programs, Sink};
use crate::host::root::Root;
use crate::operators::known::{is_id, read_fingerprint};
use crate::operators::{Request, Trouble};
use crate::plan::record::Cluster;
use crate::token::SECRET;

/// Whom to ask in place of this machine, and as whom. Of every command; those that are this machine's alone refuse it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct There {
    /// Ask this node: its name or address, with or without a port. Workers show status, logs, a support bundle and members
    #[arg(long, value_name = "ADDR", global = true, help_heading = "On another machine")]
    pub node: Option<String>,
    /// The ssh key, private or public; else ~/.ssh/id_ed25519 and what ssh-agent has
    #[arg(long, value_name = "FILE", global = true, help_heading = "On another machine", requires = "node")]
    identity: Option<PathBuf>,
    /// The cluster's fingerprint, 32 hexadecimal digits: the first time only
    #[arg(long, value_name = "HEX", global = true, help_heading = "On another machine", value_parser = fingerprint, requires = "node")]
    fingerprint: Option<Fingerprint>,
    /// The cluster's id: it must be this one
    #[arg(long, value_name = "ID", global = true, help_heading = "On another machine", value_parser = id, requires = "node")]
    cluster_id: Option<String>,
}

/// A fingerprint that was given.
#[derive(Debug, Clone, Copy)]
struct Fingerprint([u8; SECRET]);

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    read_fingerprint(text)
        .map(Fingerprint)
        .ok_or_else(|| "expected 32 hexadecimal digits; a token has them: kubeboot token inspect".to_owned())
}

fn id(text: &str) -> Result<String, String> {
    is_id(text).then(|| text.to_owned()).ok_or_else(|| "expected 32 hexadecimal digits, in small letters".to_owned())
}

/// What is needed of this machine when it is asked itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// That it is a control plane whose API answers.
    Cluster,
    /// Nothing: what is asked is the machine's own.
    Machine,
}

/// A place that can be asked once.
pub enum Open {
    /// This machine, a node.
    Here(Box<Desk>),
    /// This machine, which is no node, or not yet: its logs are wanted most then.
    Alone,
    /// Another, on which the operator was admitted.
    There(Box<Link>),
}

impl There {
    /// Goes there: this machine, or the node, which has proven itself then.
    pub fn open(&self, needs: Needs) -> Result<Open, Stop> {
        let Some(node) = &self.node else {
            return match here(needs) {
                Ok(desk) => Ok(Open::Here(Box::new(desk))),
                Err(_) if needs == Needs::Machine => Ok(Open::Alone),
                Err(stop) => Err(stop),
            };
        };
        let what = "Unable to command the cluster";
        let known = known::path().map_err(|why| stop(Exit::BadInput, what, why, "set HOME."))?;
        let host = node.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
        let (keys, cluster) = (Keys::of_this_person(self.identity.clone()), self.cluster_id.clone());
        let fingerprint = self.fingerprint.map(|Fingerprint(bytes)| bytes);
        let link = Remote { host, cluster, fingerprint, keys, known }.open()?;
        Ok(Open::There(Box::new(link)))
    }

    /// For a command that is this machine's alone.
    pub fn refuse(&self) -> Result<(), Stop> {
        match &self.node {
            None => Ok(()),
            Some(_) => {
                let why = "this command acts on the machine that it runs on";
                Err(stop(Exit::BadInput, "Nothing was done", why, "leave --node out."))
            }
        }
    }
}

fn here(needs: Needs) -> Result<Desk, Stop> {
    let what = "The cluster can't be commanded from here";
    let refused = |why: String, fix: &str| stop(Exit::Failure, what, why, fix);
    let elsewhere = "run it on a control plane, as root; or name one with --node.";
    let root = Root::system();
    let this = ThisNode::load(&root).map_err(|why| refused(why, elsewhere))?;
    if needs == Needs::Cluster && !this.is_control_plane() {
        return Err(refused("this machine is a worker".to_owned(), elsewhere));
    }
    let api = this.api(&root).map_err(|error| refused(error.to_string(), elsewhere))?;
    let api = Arc::new(InApi::new(Arc::new(api)));
    if needs == Needs::Cluster {
        api.prepare().map_err(|error| refused(error.to_string(), "see how the cluster is: kubeboot status"))?;
    }
    Ok(Desk::new(&root, &this, api))
}

/// What a machine that is no node can be asked.
fn alone(request: &Request, sink: &mut dyn Sink) -> Result<u8, Halt> {
    request.check()?;
    let machine = Machine { root: Root::system(), programs: Programs::default() };
    machine.answer(request, None, clock::unix(), sink).unwrap_or_else(|| {
        Err(Trouble::new(Exit::NoRole, request.refused(), "this machine is no node", "name one with --node.").into())
    })
}

impl Open {
    /// The cluster; none of a machine that is no node.
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Open::Here(desk) => Some(desk.cluster()),
            Open::There(link) => Some(&link.cluster),
            Open::Alone => None,
        }
    }

    /// Asks, and passes the answer on as it comes. Gives how the command ends.
    pub fn ask(self, request: &Request, sink: &mut dyn Sink) -> Result<Exit, Stop> {
        let answered = match self {
            Open::Here(desk) => desk.answer(&desk.here(), request, clock::unix(), sink),
            Open::There(link) => link.ask(request, sink),
            Open::Alone => alone(request, sink),
        };
        match answered {
            Ok(code) => Ok(Exit::of_code(code)),
            Err(Halt::Trouble(trouble)) => Err(trouble.into()),
            Err(Halt::Gone) => Err(Trouble::new(
                Exit::Failure,
                request.refused(),
                "the answer could not be written",
                "see what stands in its way: a full disk, a closed pipe.",
            )
            .into()),
        }
    }

    /// Asks, and prints the answer as it comes: text, of which nothing drives the terminal.
    pub fn print(self, request: &Request) -> Result<Exit, Stop> {
        self.ask(request, &mut Plain::new(Printed::stdout()))
    }

    /// Asks, and prints the answer byte by byte as it is: no text.
    pub fn pass(self, request: &Request) -> Result<Exit, Stop> {
        self.ask(request, &mut Printed::stdout())
    }

    /// Asks for a value.
    pub fn value<T: DeserializeOwned>(self, request: &Request) -> Result<T, Stop> {
        let mut answer = Vec::new();
        self.ask(request, &mut answer)?;
        serde_json::from_slice(&answer).map_err(|error| {
            let why = format!("the answer can't be read: {error}");
            let fix = "use the kubeboot of the node's release; what was done, the lists show.";
            Trouble::new(Exit::Failure, request.refused(), why, fix).leaving("It may have been done.").into()
        })
    }
}
