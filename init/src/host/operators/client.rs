//! Who asks a node: finds out which cluster is meant, makes the node prove itself, proves an ssh key, asks.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::identity::{Identity, Keys};
use super::known;
use super::output::{Halt, Sink};
use crate::enrolment::failure::{Context, Failure};
use crate::enrolment::message::{Purpose, Refusal};
use crate::enrolment::operator::{Event, Operator, Peer, Step};
use crate::enrolment::seeking::Host;
use crate::exit::Exit;
use crate::host::enrolment::channel::{self, Broken, Channel, Times};
use crate::host::enrolment::tls;
use crate::host::{clock, joining, random};
use crate::operators::elsewhere::not_by_a_worker;
use crate::operators::exchange::{self, Asking};
use crate::operators::known::{Meant, fingerprint_text};
use crate::operators::{PATIENCE, Request, SESSION, Trouble};
use crate::plan::record::Cluster;
use crate::token::{SECRET, fingerprint};

/// Messages of one exchange that are sent at most.
const MESSAGES: usize = 4;
/// Bytes of a support bundle, or of logs, at most: they are passed on as they come.
const LARGEST: u64 = 1 << 30;
/// Bytes of every other answer at most: it is kept in memory, and who answers may be a worker in other hands.
const WHOLE: u64 = 16 << 20;
/// Bytes of a list of control planes at most.
const LIST: u64 = 4 << 10;

/// Whom to ask, and as whom.
#[derive(Debug, Clone)]
pub struct Remote {
    /// A node.
    pub host: Host,
    /// The cluster's id, if somebody said it.
    pub cluster: Option<String>,
    /// A fingerprint of the cluster's, if somebody said it.
    pub fingerprint: Option<[u8; SECRET]>,
    /// Where the ssh keys are.
    pub keys: Keys,
    /// The file of known clusters.
    pub known: PathBuf,
}

/// A connection on which an operator was admitted.
pub struct Link {
    channel: Channel,
    server: String,
    /// What is at the other end.
    pub peer: Peer,
    /// The cluster that has proven itself.
    pub cluster: Cluster,
}

const WHAT: &str = "Unable to command the cluster";

fn stopped(exit: Exit, why: impl ToString, fix: &str) -> Trouble {
    Trouble::new(exit, WHAT, why, fix).leaving("Nothing was asked.")
}

impl Remote {
    /// Connects, and is admitted.
    ///
    /// # Errors
    /// Why not, with the fix.
    pub fn open(&self) -> Result<Link, Trouble> {
        let host = self.host.to_string();
        let known = known::load(&self.known).map_err(|why| stopped(Exit::BadInput, why, "mend or remove the file."))?;
        let meant = known.meant(&host, self.cluster.as_deref(), self.fingerprint);
        let meant = meant.map_err(|unknown| {
            let fix = unknown.fix();
            stopped(Exit::BadInput, unknown, fix)
        })?;
        let keys = self.keys.found();
        let keys =
            keys.map_err(|why| stopped(Exit::BadInput, why, "name an ssh key with --identity, or use ssh-add."))?;
        let link = self.admitted(&meant, &keys)?;
        let identity = fingerprint(&link.cluster.identity());
        let who = match &link.peer {
            Peer::ControlPlane => "a control plane".to_owned(),
            Peer::Worker { name } => format!("the worker {name}"),
        };
        match known::learn(&self.known, &host, &link.cluster.id, identity) {
            Ok(true) => eprintln!(
                "{host} is {who} of the cluster {} (fingerprint {}); kept in {}",
                link.cluster.id,
                fingerprint_text(&identity),
                self.known.display()
            ),
            // Which worker answers only its own word says, and that of who has its address: each time somebody should look.
            Ok(false) if link.peer != Peer::ControlPlane => eprintln!("{host} is {who}"),
            Ok(false) => {}
            Err(why) => eprintln!("kubeboot: {why}. The fingerprint has to be given again next time"),
        }
        Ok(link)
    }

    /// Tries each address until one answers, and each key until one is admitted.
    fn admitted(&self, meant: &Meant, keys: &[Identity]) -> Result<Link, Trouble> {
        let unreachable = |why: String| stopped(Exit::Failure, why, "check the address, and that TCP 7440 is open.");
        let addresses = joining::resolve(&self.host)
            .map_err(|why| unreachable(format!("the name {} can't be resolved: {why}", self.host.name)))?;
        let mut last = unreachable("it has no address".to_owned());
        for address in addresses {
            for key in keys {
                match exchange(&address, meant, key) {
                    Ok(link) => return Ok(link),
                    // A listed key may come after one that is not.
                    Err(Refused { trouble, next: Next::Key }) => last = trouble,
                    Err(Refused { trouble, next: Next::Address }) => {
                        last = trouble;
                        break;
                    }
                    Err(Refused { trouble, next: Next::Nothing }) => return Err(trouble),
                }
            }
        }
        Err(last)
    }
}

/// What may be tried after a refusal.
enum Next {
    Key,
    Address,
    Nothing,
}

struct Refused {
    trouble: Trouble,
    next: Next,
}

/// One exchange with one server, by one key.
fn exchange(address: &SocketAddr, meant: &Meant, key: &Identity) -> Result<Link, Refused> {
    let server = address.to_string();
    let failed = |why: String, fix: &str, next| Refused { trouble: stopped(Exit::Failure, why, fix), next };
    let unreachable = |broken: Broken| {
        failed(
            format!("no node answers at {server}: {broken}"),
            "check the address, and that TCP 7440 is open.",
            Next::Address,
        )
    };
    let config = tls::client().map_err(|error| failed(error.to_string(), "report this.", Next::Nothing))?;
    let mut channel = Channel::connect(address, config, Times::default()).map_err(unreachable)?;
    let exporter = channel.exporter();
    let (mut operator, mut message) =
        Operator::start(clock::unix(), key.public().to_vec(), meant.fingerprint, exporter, random::bytes());
    for _ in 0..MESSAGES {
        let answer = channel.send(&message).and_then(|()| channel.receive(operator.most()));
        let mut step = match &answer {
            Ok(bytes) => operator.handle(&Event::Message(bytes)),
            Err(Broken::TimedOut) => operator.handle(&Event::TimedOut),
            Err(Broken::Long(malformed)) => Step::Failed(Failure::Nonsense(*malformed)),
            Err(Broken::Closed | Broken::Failed(_)) => operator.handle(&Event::Closed),
        };
        if let Step::Sign(wrapped) = &step {
            let signature = key.sign(wrapped).map_err(|why| failed(why, "see ssh-add -l.", Next::Key))?;
            step = operator.handle(&Event::Signed(&signature));
        }
        match step {
            Step::Send(next) => message = next,
            Step::Sign(_) => break,
            Step::Admitted(cluster, peer) => {
                meant.is(&cluster).map_err(|other| {
                    let why = format!("WARNING: {server} is not what is meant: {other}");
                    let fix = "look for who answers there; if the cluster was founded anew on purpose, remove its line from \
                               the file of known clusters.";
                    Refused { trouble: stopped(Exit::Refused, why, fix), next: Next::Nothing }
                })?;
                channel.prolong(Times { patience: PATIENCE, whole: SESSION });
                return Ok(Link { channel, server, peer, cluster: *cluster });
            }
            Step::Failed(failure) => return Err(refused(&failure, &server, key)),
        }
    }
    Err(failed(format!("{server} does not come to an end"), "use the kubeboot of its release.", Next::Nothing))
}

fn refused(failure: &Failure, server: &str, key: &Identity) -> Refused {
    let release = crate::release::Version { major: 0, minor: 0, patch: 0, build: 0 };
    let block = failure.block(&Context { purpose: Purpose::Operate, server, name: "", release });
    let (exit, next) = match failure {
        Failure::NotAdmitted { refusal: Refusal::NotAccepted, .. } => (Exit::Refused, Next::Key),
        // A worker that can't prove itself now, or somebody who says so before any proof.
        Failure::Unproven(Refusal::Busy) => (Exit::Failure, Next::Address),
        Failure::NotAdmitted { refusal: Refusal::Busy, .. } | Failure::TimedOut { .. } | Failure::Ended { .. } => {
            (Exit::Failure, Next::Address)
        }
        Failure::NotAdmitted { .. } | Failure::Impostor(_) | Failure::Unproven(_) | Failure::Stated { .. } => {
            (Exit::Refused, Next::Nothing)
        }
        _ => (Exit::Failure, Next::Nothing),
    };
    let mut trouble = Trouble::of(exit, block);
    if matches!(next, Next::Key) {
        trouble.why.push(format!("the last key that was tried is {}", key.fingerprint()));
    }
    Refused { trouble, next }
}

/// Bytes of an answer at most.
fn most(request: &Request) -> u64 {
    match request {
        Request::Logs { .. } | Request::SupportBundle {} => LARGEST,
        _ => WHOLE,
    }
}

impl Link {
    /// Asks, and passes the answer on as it comes. Gives the code that the command ends with. A worker gets nothing of what
    /// workers do not do: it is asked where control planes are instead.
    ///
    /// # Errors
    /// [`Halt`]: the node's own words, or that the answer is of no use.
    pub fn ask(self, request: &Request, sink: &mut dyn Sink) -> Result<u8, Halt> {
        request.check()?;
        match &self.peer {
            Peer::Worker { name } if !request.is_for_workers() => {
                let name = name.clone();
                Err(not_by_a_worker(&name, request, &self.control_planes()).into())
            }
            _ => self.send(request, most(request), sink),
        }
    }

    /// Where control planes are by the word of who is at the other end; nowhere if it does not say so. It is advice: who is
    /// there proves itself again.
    fn control_planes(self) -> Vec<IpAddr> {
        let mut answer = Vec::new();
        match self.send(&Request::ControlPlanes {}, LIST, &mut answer) {
            Ok(0) => serde_json::from_slice(&answer).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    fn send(mut self, request: &Request, most: u64, sink: &mut dyn Sink) -> Result<u8, Halt> {
        let (server, what) = (self.server.clone(), request.refused());
        let broken = |why: String| {
            let fix = "ask again; what was done by then, the lists show. kubeboot-agent's journal there says more.";
            Trouble::new(Exit::Failure, what, format!("{server}: {why}"), fix).leaving("It may have been done.")
        };
        let (mut asking, frame) = Asking::start(request, most).map_err(|malformed| broken(malformed.to_string()))?;
        self.channel.prolong(Times { patience: PATIENCE, whole: request.session() });
        self.channel.send(&frame).map_err(|why| broken(why.to_string()))?;
        loop {
            let answer = self.channel.receive(asking.most());
            let step = match &answer {
                Ok(bytes) => asking.handle(&exchange::Event::Message(bytes)),
                Err(channel::Broken::TimedOut) => asking.handle(&exchange::Event::TimedOut),
                Err(channel::Broken::Long(malformed)) => exchange::Step::Broken((*malformed).into()),
                Err(channel::Broken::Closed | channel::Broken::Failed(_)) => asking.handle(&exchange::Event::Closed),
            };
            match step {
                exchange::Step::Part(part) if part.is_empty() => sink.goes_on()?,
                exchange::Step::Part(part) => sink.part(&part)?,
                exchange::Step::Done(code) => {
                    self.channel.close();
                    return Ok(code);
                }
                exchange::Step::Failed(trouble) => return Err(trouble.into()),
                exchange::Step::Broken(why) => return Err(broken(why.to_string()).into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::frame::Frame;

    /// How many bytes of an answer that has no end are taken.
    fn taken(request: &Request) -> u64 {
        let (mut asking, _) = Asking::start(request, most(request)).unwrap();
        let part = Frame::Data(vec![b' '; crate::operators::frame::most::DATA_BODY]).encode().unwrap();
        let mut taken = 0;
        while let exchange::Step::Part(part) = asking.handle(&exchange::Event::Message(&part)) {
            taken += part.len() as u64;
            if taken > 2 * WHOLE {
                break;
            }
        }
        taken
    }

    #[test]
    fn an_answer_that_is_kept_in_memory_has_a_smaller_bound() {
        for request in [Request::Members {}, Request::TokenList {}, Request::Status { why: false, json: true }] {
            assert!((WHOLE / 2..=WHOLE).contains(&taken(&request)), "{request}");
        }
        assert!(taken(&Request::SupportBundle {}) > WHOLE);
        assert!(taken(&Request::Logs { unit: None, follow: true, lines: 1 }) > WHOLE);
    }
}
