//! The server: a control plane that takes machines and operators in, or a worker that takes operators in.
//!
//! It never looks, writes or issues itself: it says what is to be looked up, written down or issued, and is told what
//! came of it. Whatever the token, the operations are the same up to the refusal: one look, one verification of the node
//! key, one of the token's (by a key that fits nothing where there is no such token).

use zeroize::Zeroizing;

use super::Keys;
use super::decision::{Admission, Found, Site, Sought, decide};
use super::message::{
    Ask, Founded, Grant, Hello, Message, Operator, Proof, Purpose, SIGNATURE, STATEMENTS, Versions, WorkerProof, most,
};
use super::note::{Note, Outcome, Who};
use super::reason::Reason;
use super::ssh;
use super::statement::Statement;
use super::transcript::{Exporter, Label, Transcript, is_meant};
use crate::certificates::expiry::Standing;
use crate::certificates::{Leaf, Request, Unix, signing_request};
use crate::token::fingerprint;

/// How often a request is decided anew because others changed what it was decided on.
const LOOKS: u8 = 4;

/// As what a machine serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum As {
    /// A control plane, which has the cluster's identity key.
    ControlPlane,
    /// A worker, which has its node key and this word of the cluster's about it, if a control plane has given one yet. It
    /// serves operators and nobody else.
    Worker(Option<Box<Statement>>),
}

/// What a server knows when a connection comes.
#[derive(Debug, Clone)]
pub struct Setup {
    /// As what it serves. The key that this takes is [`Keys`]'.
    pub serves: As,
    /// Who the cluster is.
    pub cluster: Founded,
    /// What holds for the whole cluster.
    pub site: Site,
    /// Of this connection.
    pub exporter: Exporter,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
}

/// What comes to a server.
pub enum Event<'a> {
    /// A message, without the length in front.
    Message(&'a [u8]),
    /// What [`Effect::Look`] asked for.
    Found(Box<Found>),
    /// What became of [`Effect::Take`].
    Taken(Taken),
    /// What [`Effect::Issue`] asked for.
    Issued(Box<Grant>),
    /// What [`Effect::Find`] asked for: whether the key is an operator's now.
    Listed(bool),
    /// An effect could not be carried out; with the reason.
    Failed(String),
    /// Nothing came in time, or the stream has ended.
    TimedOut,
}

/// What became of an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is written down.
    Done,
    /// What it was decided on has changed meanwhile: nothing was written.
    Conflict,
}

/// A certificate to be issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Which.
    pub leaf: Leaf,
    /// What it has to say.
    pub request: Request,
    /// For which public key: SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
}

/// What a server wants done, in this order.
pub enum Effect {
    /// This message is sent.
    Send(Zeroizing<Vec<u8>>),
    /// [`Found`] is looked up.
    Look(Sought),
    /// The node is put on record and the token's use taken, both or neither, and only if what was found is still so.
    Take(Admission),
    /// These are issued, in this order, and the grant for a machine of this kind is put together.
    Issue {
        /// For whom.
        admission: Admission,
        /// What.
        certificates: Vec<Issue>,
    },
    /// Whether this ssh public key (wire form) is an operator's is looked up.
    Find(Vec<u8>),
    /// The connection is this operator's from now on.
    Serve {
        /// The key, `SHA256:…`.
        operator: String,
    },
    /// This is logged.
    Log(Note),
    /// The connection is closed.
    Close,
}

/// A request that is being decided.
struct Asked {
    purpose: Purpose,
    ask: Ask,
    /// What the token's signature is over.
    signed: Vec<u8>,
    /// What came of the one verification of it.
    verified: Option<bool>,
    looks: u8,
}

enum State {
    AwaitHello,
    AwaitAsk(Purpose),
    AwaitOperator,
    Looking(Box<Asked>),
    Taking(Box<Asked>, Admission, Vec<Issue>),
    Issuing(Admission),
    Finding(String),
    Ended,
}

impl State {
    fn awaits(&self) -> &'static str {
        match self {
            State::AwaitHello => "hello",
            State::AwaitAsk(_) => "ask",
            State::AwaitOperator => "an operator's key",
            State::Looking(_) => "what was found",
            State::Taking(..) => "what was taken",
            State::Issuing(_) => "what was issued",
            State::Finding(_) => "whether the key is listed",
            State::Ended => "nothing",
        }
    }
}

impl Event<'_> {
    fn name(&self) -> &'static str {
        match self {
            Event::Message(bytes) => Message::decode(bytes).map_or("no message", |message| message.name()),
            Event::Found(_) => "found",
            Event::Taken(_) => "taken",
            Event::Issued(_) => "issued",
            Event::Listed(_) => "listed",
            Event::Failed(_) => "failed",
            Event::TimedOut => "timed out",
        }
    }
}

/// The server's side of one TLS connection.
pub struct Server<'a> {
    setup: Setup,
    versions: Versions,
    keys: &'a dyn Keys,
    transcript: Transcript,
    /// The version that both sides speak.
    agreed: u8,
    who: Who,
    state: State,
}

type Effects = Result<Vec<Effect>, Reason>;

impl<'a> Server<'a> {
    /// A server for a connection on which nothing was said yet. `keys` holds the identity key, a worker's its node key.
    pub fn new(setup: Setup, keys: &'a dyn Keys) -> Self {
        let versions = match setup.serves {
            As::ControlPlane => Versions::SPOKEN,
            As::Worker(_) => Versions::OF_A_WORKER,
        };
        Server::speaking(versions, setup, keys)
    }

    pub(super) fn speaking(versions: Versions, setup: Setup, keys: &'a dyn Keys) -> Self {
        let (transcript, who) = (Transcript::new(), Who::default());
        Server { setup, versions, keys, transcript, agreed: versions.oldest, who, state: State::AwaitHello }
    }

    /// The longest message that is read now, in bytes; 0: none is.
    pub fn most(&self) -> usize {
        match self.state {
            State::AwaitHello => most::HELLO,
            State::AwaitAsk(_) => most::ASK,
            State::AwaitOperator => most::OPERATOR,
            _ => 0,
        }
    }

    /// What to do about an event at `now`. An event that does not belong to the state ends the exchange.
    pub fn handle(&mut self, now: Unix, event: Event<'_>) -> Vec<Effect> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let effects = match (state, event) {
            (State::Ended, _) => return Vec::new(),
            (_, Event::TimedOut) => Err(Reason::TimedOut),
            (_, Event::Failed(why)) => Err(Reason::Host(why)),
            (State::AwaitHello, Event::Message(bytes)) => self.hello(now, bytes),
            (State::AwaitAsk(purpose), Event::Message(bytes)) => self.ask(purpose, bytes),
            (State::AwaitOperator, Event::Message(bytes)) => self.operator(bytes),
            (State::Looking(asked), Event::Found(found)) => self.found(now, asked, &found),
            (State::Taking(asked, admission, issues), Event::Taken(taken)) => {
                self.taken(asked, admission, issues, taken)
            }
            (State::Issuing(admission), Event::Issued(grant)) => self.issued(&admission, *grant),
            (State::Finding(operator), Event::Listed(listed)) => self.listed(operator, listed),
            (state, event) => Err(Reason::Unexpected { expected: state.awaits(), found: event.name() }),
        };
        effects.unwrap_or_else(|reason| self.refuse(reason))
    }

    fn log(&self, outcome: Outcome) -> Effect {
        Effect::Log(Note { who: self.who.clone(), outcome })
    }

    fn refuse(&mut self, reason: Reason) -> Vec<Effect> {
        self.state = State::Ended;
        let answer = reason.public().and_then(|refusal| Message::Refusal(refusal).encode().ok());
        let mut effects = vec![self.log(Outcome::Refused(reason))];
        effects.extend(answer.map(Effect::Send));
        effects.push(Effect::Close);
        effects
    }

    fn hello(&mut self, now: Unix, bytes: &[u8]) -> Effects {
        let hello = match Message::decode(bytes).map_err(Reason::Message)? {
            Message::Hello(hello) => hello,
            other => return Err(Reason::Unexpected { expected: "hello", found: other.name() }),
        };
        self.who.purpose = Some(hello.purpose);
        self.agreed = self.admissible(&hello)?;
        self.transcript.add(bytes);
        let proof = self.proof(now)?;
        self.transcript.add(&proof);
        self.state = match hello.purpose {
            Purpose::Operate => State::AwaitOperator,
            purpose => State::AwaitAsk(purpose),
        };
        Ok(vec![Effect::Send(proof)])
    }

    /// Whether the hello means this cluster, and what this machine serves: then the version that both speak. Who means no
    /// fingerprint of this cluster is shown none of it.
    fn admissible(&self, hello: &Hello) -> Result<u8, Reason> {
        let cluster = &self.setup.cluster;
        let fingerprints = [fingerprint(&cluster.identity_key), fingerprint(&cluster.founding_key)];
        if !is_meant(&hello.hint, &fingerprints, &self.setup.exporter) {
            return Err(Reason::OtherCluster);
        }
        // Before the versions: a machine of any release that wants to join hears the same.
        if self.setup.serves != As::ControlPlane && hello.purpose != Purpose::Operate {
            return Err(Reason::Worker);
        }
        let versions = Reason::Versions { ours: self.versions, theirs: hello.versions };
        self.versions.agreed(hello.versions).ok_or(versions)
    }

    fn proof(&self, now: Unix) -> Result<Zeroizing<Vec<u8>>, Reason> {
        match &self.setup.serves {
            As::ControlPlane => self.proof_of_the_cluster(now),
            As::Worker(Some(statement)) if matches!(statement.standing(now), Standing::Good | Standing::Due) => {
                self.proof_of_a_worker(now, statement)
            }
            As::Worker(_) => Err(Reason::NoStatement),
        }
    }

    fn proof_of_a_worker(&self, now: Unix, statement: &Statement) -> Result<Zeroizing<Vec<u8>>, Reason> {
        let mut proof = WorkerProof {
            versions: self.versions,
            nonce: self.setup.nonce,
            time: now,
            cluster: self.setup.cluster.clone(),
            statement: statement.clone(),
            signature: [0; SIGNATURE],
        };
        let draft = Message::WorkerProof(proof.clone()).encode().map_err(Reason::Message)?;
        let part = Proof::signed_part(&draft);
        proof.signature = self.keys.sign(&self.transcript.signed(part, Label::Worker, &self.setup.exporter));
        Message::WorkerProof(proof).encode().map_err(Reason::Message)
    }

    fn proof_of_the_cluster(&self, now: Unix) -> Result<Zeroizing<Vec<u8>>, Reason> {
        let mut proof = Proof {
            versions: self.versions,
            nonce: self.setup.nonce,
            time: now,
            cluster: self.setup.cluster.clone(),
            signature: [0; SIGNATURE],
        };
        let draft = Message::Proof(proof.clone()).encode().map_err(Reason::Message)?;
        let part = Proof::signed_part(&draft);
        proof.signature = self.keys.sign(&self.transcript.signed(part, Label::Server, &self.setup.exporter));
        Message::Proof(proof).encode().map_err(Reason::Message)
    }

    fn ask(&mut self, purpose: Purpose, bytes: &[u8]) -> Effects {
        let ask = match Message::decode(bytes).map_err(Reason::Message)? {
            Message::Ask(ask) => ask,
            other => return Err(Reason::Unexpected { expected: "ask", found: other.name() }),
        };
        self.who.node = Some((ask.name.clone(), ask.address));
        self.who.token = ask.token.as_ref().map(|token| token.id);
        let token = match (purpose, &ask.token) {
            (Purpose::Join(joiner), Some(_)) => Label::Token(joiner),
            (Purpose::Return, None) => Label::Node(purpose),
            _ => return Err(Reason::Form),
        };
        let part = ask.signed_part(bytes);
        let signed = |label| self.transcript.signed(part, label, &self.setup.exporter);
        if !self.keys.verify(&ask.node_key, &signed(Label::Node(purpose)), &ask.node_signature) {
            return Err(Reason::NodeSignature);
        }
        let asked = Asked { purpose, signed: signed(token), ask, verified: None, looks: 0 };
        Ok(self.look(Box::new(asked)))
    }

    fn look(&mut self, asked: Box<Asked>) -> Vec<Effect> {
        let ask = &asked.ask;
        let look = Effect::Look(Sought {
            token: ask.token.as_ref().map(|token| token.id),
            name: ask.name.clone(),
            node_key: ask.node_key,
            address: ask.address,
        });
        self.state = State::Looking(asked);
        vec![look]
    }

    fn found(&mut self, now: Unix, mut asked: Box<Asked>, found: &Found) -> Effects {
        asked.looks += 1;
        let mut found = found.clone();
        // A record is what its key says, whatever the look-up made of it.
        found.token = found.token.filter(|record| Some(record.id()) == asked.ask.token.as_ref().map(|one| one.id));
        found.keyed = found.keyed.filter(|record| record.key == asked.ask.node_key);
        let verified = match (asked.verified, &asked.ask.token) {
            (Some(verified), _) => verified,
            (None, None) => false,
            (None, Some(presented)) => {
                // Where there is no such token the identity's key stands in: only this cluster could sign by it, and it
                // signs nothing under a token's label. So the work is the same, and the result is always no.
                let key = found.token.as_ref().map_or(self.setup.cluster.identity_key, |record| record.key);
                self.keys.verify(&key, &asked.signed, &presented.signature) && found.token.is_some()
            }
        };
        asked.verified = Some(verified);
        let admission = decide(&self.setup.site, now, asked.purpose, &asked.ask, verified, &found)?;
        let ask = &asked.ask;
        let issues = signing_request::check_node(&ask.requests, &ask.name, ask.address, &ask.node_key)
            .map_err(Reason::Request)?
            .into_iter()
            .map(|(leaf, request, spki)| Issue { leaf, request, spki })
            .collect();
        let effects = vec![Effect::Take(admission.clone())];
        self.state = State::Taking(asked, admission, issues);
        Ok(effects)
    }

    fn taken(&mut self, asked: Box<Asked>, admission: Admission, issues: Vec<Issue>, taken: Taken) -> Effects {
        match taken {
            Taken::Conflict if asked.looks >= LOOKS => Err(Reason::Contended),
            Taken::Conflict => Ok(self.look(asked)),
            Taken::Done => {
                self.state = State::Issuing(admission.clone());
                Ok(vec![Effect::Issue { admission, certificates: issues }])
            }
        }
    }

    /// The last door: no worker is ever sent what only a control plane may have, and none a word about another.
    fn issued(&mut self, admission: &Admission, mut grant: Grant) -> Effects {
        let node = &admission.node;
        let is_its = |statement: &Statement| statement.is_of(node.role, &node.name, &node.key);
        if grant.role != node.role || !grant.fits() || !grant.statement.as_ref().is_none_or(is_its) {
            return Err(Reason::Host("what was put together is not what a machine of this role gets".to_owned()));
        }
        if self.agreed < STATEMENTS {
            grant.statement = None;
        }
        let message = Message::Grant(grant).encode();
        let message = message.map_err(|why| Reason::Host(format!("what was put together is too much: {why}")))?;
        Ok(vec![Effect::Send(message), self.log(Outcome::Admitted), Effect::Close])
    }

    fn operator(&mut self, bytes: &[u8]) -> Effects {
        let Operator { key, signature } = match Message::decode(bytes).map_err(Reason::Message)? {
            Message::Operator(operator) => operator,
            other => return Err(Reason::Unexpected { expected: "an operator's key", found: other.name() }),
        };
        let operator = ssh::fingerprint(&key);
        self.who.operator = Some(operator.clone());
        let proof = Operator { key: key.clone(), signature };
        let part = proof.signed_part().map_err(Reason::Message)?;
        let label = match self.setup.serves {
            As::ControlPlane => Label::Operator,
            As::Worker(_) => Label::OperatorOfWorker,
        };
        let signed = self.transcript.signed(&part, label, &self.setup.exporter);
        ssh::verify(&key, &signed, &proof.signature).map_err(Reason::OperatorSignature)?;
        self.state = State::Finding(operator);
        Ok(vec![Effect::Find(key)])
    }

    fn listed(&mut self, operator: String, listed: bool) -> Effects {
        if !listed {
            return Err(Reason::NotAnOperator);
        }
        let message = Message::Admitted.encode().map_err(Reason::Message)?;
        Ok(vec![Effect::Send(message), self.log(Outcome::Admitted), Effect::Serve { operator }])
    }
}
