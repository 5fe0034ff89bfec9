//! The joiner: a machine that wants to be a node, or that is one and comes back.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::Sign;
use super::failure::Failure;
use super::message::{Ask, Grant, Message, Presented, Purpose, SIGNATURE, Versions, most};
use super::objects;
use super::proven::{Opened, Proven};
use super::transcript::{Exporter, Label};
use crate::certificates::{Unix, check, profile, signing_request};
use crate::plan::record::Cluster;
use crate::release::Version;
use crate::token::{JoinToken, Joiner as Role, SECRET, Token, fingerprint};

/// By what a machine is admitted.
pub enum Credential {
    /// A join token: of a machine that is no node yet. It says the role, too.
    Token(JoinToken),
    /// Its node key alone: of a machine that is a node.
    Node {
        /// Of the cluster's identity key, as it was remembered.
        fingerprint: [u8; SECRET],
    },
}

impl Credential {
    /// A token for a machine that is to have this role.
    ///
    /// # Errors
    /// [`Failure::TokenKind`]: it admits another role, or is a seed. Nothing is sent then.
    pub fn of(role: Role, token: Token) -> Result<Self, Failure> {
        match token {
            Token::Join(token) if token.joiner() == role => Ok(Credential::Token(token)),
            other => Err(Failure::TokenKind { role, found: other.kind() }),
        }
    }

    fn purpose(&self) -> Purpose {
        match self {
            Credential::Token(token) => Purpose::Join(token.joiner()),
            Credential::Node { .. } => Purpose::Return,
        }
    }

    fn fingerprint(&self) -> [u8; SECRET] {
        match self {
            Credential::Token(token) => *token.fingerprint(),
            Credential::Node { fingerprint } => *fingerprint,
        }
    }
}

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// The address by which other machines reach it.
    pub address: IpAddr,
    /// Its release.
    pub release: Version,
    /// Requests (PKCS #10, DER) for the certificates of [`profile::of_every_node`].
    pub requests: [Vec<u8>; 4],
}

/// What comes to a joiner.
pub enum Event<'a> {
    /// A message, without the length in front. It may hold secrets: its buffer is wiped after use.
    Message(&'a [u8]),
    /// The stream has ended.
    Closed,
    /// Nothing came in time.
    TimedOut,
}

/// What a joiner does about an event.
pub enum Step {
    /// This message is sent.
    Send(Zeroizing<Vec<u8>>),
    /// The machine is a node.
    Enrolled(Box<Enrolled>),
    /// The exchange has failed, and the connection is closed.
    Failed(Failure),
}

/// What a new node has learned. Holds secrets: no Debug.
pub struct Enrolled {
    /// The cluster's record, as every node keeps it.
    pub cluster: Cluster,
    /// What it was given.
    pub grant: Grant,
}

enum State {
    /// The hello is sent.
    AwaitProof(Opened),
    /// The request is sent, to a server that has proven itself.
    AwaitGrant(Box<Proven>),
    Ended,
}

/// One attempt to join over one TLS connection.
pub struct Joiner<'a> {
    machine: Machine,
    credential: Credential,
    node: &'a dyn Sign,
    state: State,
}

impl<'a> Joiner<'a> {
    /// Begins the exchange. `nonce` is fresh and random. Returns the joiner and its first message.
    pub fn start(
        machine: Machine,
        credential: Credential,
        node: &'a dyn Sign,
        exporter: Exporter,
        nonce: [u8; 32],
    ) -> (Self, Vec<u8>) {
        Joiner::speaking(Versions::SPOKEN, machine, credential, node, exporter, nonce)
    }

    pub(super) fn speaking(
        versions: Versions,
        machine: Machine,
        credential: Credential,
        node: &'a dyn Sign,
        exporter: Exporter,
        nonce: [u8; 32],
    ) -> (Self, Vec<u8>) {
        let (opened, hello) = Opened::new(versions, credential.purpose(), credential.fingerprint(), exporter, nonce);
        (Joiner { machine, credential, node, state: State::AwaitProof(opened) }, hello)
    }

    /// The longest message that is read now, in bytes.
    pub fn most(&self) -> usize {
        match self.state {
            State::AwaitProof(_) => most::TO_HELLO,
            State::AwaitGrant(_) => most::TO_ASK,
            State::Ended => 0,
        }
    }

    /// What to do about an event at `now`. Every event but a good message ends the exchange.
    pub fn handle(&mut self, now: Unix, event: &Event<'_>) -> Step {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let step = match (state, event) {
            (State::AwaitProof(opened), Event::Message(bytes)) => opened.answered(bytes).and_then(|p| self.ask(now, p)),
            (State::AwaitGrant(proven), Event::Message(bytes)) => self.granted(now, *proven, bytes),
            (State::Ended, _) => Err(Failure::Ended { proven: false }),
            (state, Event::Closed) => Err(Failure::Ended { proven: matches!(state, State::AwaitGrant(_)) }),
            (state, Event::TimedOut) => Err(Failure::TimedOut { proven: matches!(state, State::AwaitGrant(_)) }),
        };
        step.unwrap_or_else(Step::Failed)
    }

    /// The request, to a server that has proven itself.
    fn ask(&mut self, now: Unix, proven: Proven) -> Result<Step, Failure> {
        let token = match &self.credential {
            Credential::Token(token) => Some((token.join_key(), Label::Token(token.joiner()))),
            Credential::Node { .. } => None,
        };
        let unsigned = [0; SIGNATURE];
        let mut ask = Ask {
            time: now,
            name: self.machine.name.clone(),
            address: self.machine.address,
            release: self.machine.release,
            node_key: self.node.public(),
            requests: self.machine.requests.clone(),
            node_signature: unsigned,
            token: token.as_ref().map(|(key, _)| Presented { id: fingerprint(&key.public()), signature: unsigned }),
        };
        let draft = Message::Ask(ask.clone()).encode().map_err(Failure::Own)?;
        let part = ask.signed_part(&draft);
        ask.node_signature = self.node.sign(&proven.signed(part, Label::Node(self.credential.purpose())));
        ask.token = token.map(|(key, label)| Presented {
            id: fingerprint(&key.public()),
            signature: key.sign(&proven.signed(part, label)),
        });
        let message = Message::Ask(ask).encode().map_err(Failure::Own)?;
        self.state = State::AwaitGrant(Box::new(proven));
        Ok(Step::Send(message))
    }

    /// The answer to the request. It needs no signature of its own: it comes from the other end of the connection, whose
    /// exporter the server has signed.
    fn granted(&self, now: Unix, proven: Proven, bytes: &[u8]) -> Result<Step, Failure> {
        let grant = match Message::decode(bytes).map_err(Failure::Nonsense)? {
            Message::Grant(grant) => grant,
            Message::Refusal(refusal) => {
                return Err(Failure::Refused { refusal, ours: now, theirs: proven.time });
            }
            other => return Err(Failure::Unexpected { expected: "grant", found: other.name() }),
        };
        let wanted = match &self.credential {
            Credential::Token(token) => Some(token.joiner()),
            Credential::Node { .. } => None,
        };
        if !grant.fits() || wanted.is_some_and(|role| role != grant.role) {
            return Err(Failure::BadGrant("it is not what a machine of this role gets".to_owned()));
        }
        self.certificates(now, &grant).map_err(Failure::BadGrant)?;
        if let Some(statement) = &grant.statement {
            let (id, identity) = (objects::unhex(&proven.cluster.id).unwrap_or_default(), proven.cluster.identity());
            let judged = statement.verify(&id, &identity, now).map_err(|fault| fault.to_string());
            judged.map_err(Failure::BadGrant)?;
            if !statement.is_of(grant.role, &self.machine.name, &self.node.public()) {
                return Err(Failure::BadGrant("its statement is about another machine".to_owned()));
            }
        }
        Ok(Step::Enrolled(Box::new(Enrolled { cluster: proven.cluster, grant })))
    }

    /// Whether the certificates are for this machine's keys, say what they should, and come from the given authorities.
    fn certificates(&self, now: Unix, grant: &Grant) -> Result<(), String> {
        let expected = profile::of_every_node(&self.machine.name, self.machine.address, &self.node.public());
        for (((leaf, request), pem), asked) in expected.into_iter().zip(&grant.certificates).zip(&self.machine.requests)
        {
            let wrong = |why: String| format!("{leaf}: {why}");
            let authority = grant.authorities.iter().find(|(one, _)| *one == request.authority);
            let (_, authority) = authority.ok_or_else(|| wrong("its authority was not sent".to_owned()))?;
            let inspect = |pem: &str| check::inspect(pem.as_bytes()).map_err(|fault| wrong(fault.to_string()));
            let (certificate, authority) = (inspect(pem)?, inspect(authority)?);
            let key = signing_request::check(asked, &request).map_err(wrong)?;
            if !key.ends_with(&certificate.public_key) {
                return Err(wrong("it is for another key".to_owned()));
            }
            check::leaf(&certificate, &authority, &request, now).map_err(|fault| wrong(fault.to_string()))?;
        }
        Ok(())
    }
}
