//! The operator's side: a person with an ssh key, anywhere, who proves it to a node whose cluster has proven itself.
//!
//! The key may be in an agent or on a FIDO token, so a signature is asked for and comes back as an event.

use super::failure::Failure;
use super::message::{Message, Operator as Proof, Purpose, Versions, most};
pub use super::proven::Peer;
use super::proven::{Opened, Proven};
use super::ssh;
use super::transcript::{Exporter, Label};
use crate::certificates::Unix;
use crate::plan::record::Cluster;
use crate::token::SECRET;

/// What comes to an operator.
pub enum Event<'a> {
    /// A message, without the length in front.
    Message(&'a [u8]),
    /// The key's signature (ssh wire form) over what was to be signed.
    Signed(&'a [u8]),
    /// The stream has ended.
    Closed,
    /// Nothing came in time.
    TimedOut,
}

/// What an operator does about an event.
pub enum Step {
    /// The key signs this (an agent's `SSH_AGENTC_SIGN_REQUEST`, without flags), and the signature comes back.
    Sign(Vec<u8>),
    /// This message is sent.
    Send(Vec<u8>),
    /// The server, a node of this cluster, takes commands on this connection from now on.
    Admitted(Box<Cluster>, Peer),
    /// The exchange has failed, and the connection is closed.
    Failed(Failure),
}

enum State {
    AwaitProof(Opened),
    AwaitSignature(Box<Proven>),
    AwaitAnswer(Box<Proven>),
    Ended,
}

/// One connection of an operator.
pub struct Operator {
    now: Unix,
    key: Vec<u8>,
    state: State,
}

impl Operator {
    /// Begins the exchange, at `now`. `key` is the ssh public key (wire form), `fingerprint` that of the cluster's identity
    /// or founding key, `nonce` fresh and random. Returns the operator and the first message.
    pub fn start(
        now: Unix,
        key: Vec<u8>,
        fingerprint: [u8; SECRET],
        exporter: Exporter,
        nonce: [u8; 32],
    ) -> (Self, Vec<u8>) {
        let (opened, hello) = Opened::new(Versions::SPOKEN, Purpose::Operate, fingerprint, exporter, nonce);
        (Operator { now, key, state: State::AwaitProof(opened) }, hello)
    }

    /// The longest message that is read now, in bytes.
    pub fn most(&self) -> usize {
        match self.state {
            State::AwaitProof(_) => most::TO_OPERATOR,
            State::AwaitAnswer(_) => most::REFUSAL,
            State::AwaitSignature(_) | State::Ended => 0,
        }
    }

    /// What to do about an event.
    pub fn handle(&mut self, event: &Event<'_>) -> Step {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let step = match (state, event) {
            (State::AwaitProof(opened), Event::Message(bytes)) => {
                opened.answered_by_any(self.now, bytes).and_then(|proven| self.prepare(proven))
            }
            (State::AwaitSignature(proven), Event::Signed(signature)) => self.signed(proven, signature),
            (State::AwaitAnswer(proven), Event::Message(bytes)) => answer(*proven, bytes),
            (state, Event::TimedOut) => Err(Failure::TimedOut { proven: state.is_proven() }),
            (state, _) => Err(Failure::Ended { proven: state.is_proven() }),
        };
        step.unwrap_or_else(Step::Failed)
    }

    fn message(&self, signature: &[u8]) -> Proof {
        Proof { key: self.key.clone(), signature: signature.to_vec() }
    }

    fn prepare(&mut self, proven: Proven) -> Result<Step, Failure> {
        let part = self.message(&[]).signed_part().map_err(Failure::Own)?;
        let label = match proven.peer {
            Peer::ControlPlane => Label::Operator,
            Peer::Worker { .. } => Label::OperatorOfWorker,
        };
        let wrapped = ssh::wrapped(&proven.signed(&part, label));
        self.state = State::AwaitSignature(Box::new(proven));
        Ok(Step::Sign(wrapped))
    }

    fn signed(&mut self, proven: Box<Proven>, signature: &[u8]) -> Result<Step, Failure> {
        let message = Message::Operator(self.message(signature)).encode().map_err(Failure::Own)?;
        self.state = State::AwaitAnswer(proven);
        Ok(Step::Send(message.to_vec()))
    }
}

impl State {
    fn is_proven(&self) -> bool {
        matches!(self, State::AwaitSignature(_) | State::AwaitAnswer(_))
    }
}

fn answer(proven: Proven, bytes: &[u8]) -> Result<Step, Failure> {
    match Message::decode(bytes).map_err(Failure::Nonsense)? {
        Message::Admitted => Ok(Step::Admitted(Box::new(proven.cluster), proven.peer)),
        Message::Refusal(refusal) => Err(Failure::NotAdmitted { refusal, by: proven.peer }),
        other => Err(Failure::Unexpected { expected: "admitted", found: other.name() }),
    }
}
