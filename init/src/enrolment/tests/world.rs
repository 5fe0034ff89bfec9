//! A small cluster with its control plane, the machines that join it, and the wire between them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::certificates::{Authority, Unix, profile, sample};
use crate::enrolment::decision::{Found, NodeRecord, Origin, Site, Sought, TokenRecord};
use crate::enrolment::failure::Failure;
use crate::enrolment::joiner::{self, Credential, Enrolled, Joiner, Machine, Step};
use crate::enrolment::message::{Founded, Grant, Key, Message, Versions};
use crate::enrolment::note::{Note, Outcome};
use crate::enrolment::server::{As, Effect, Event, Issue, Server, Setup, Taken};
use crate::enrolment::statement::Statement;
use crate::enrolment::transcript::Exporter;
use crate::enrolment::{Keys, Sign};
use crate::mesh::MeshKey;
use crate::plan::record::Cluster;
use crate::token::{JoinToken, Joiner as Role, SECRET, Seed, SigningKey, fingerprint};

pub const NOW: Unix = 1_800_000_000;
pub const HOUR: Unix = 60 * 60;

/// Any key, by a number.
pub fn key(number: u8) -> SigningKey {
    Seed::new([number; SECRET]).founding_key()
}

/// Any 32 bytes, by a word.
pub fn bytes(word: &str) -> [u8; 32] {
    digest::digest(&digest::SHA256, word.as_bytes()).as_ref().try_into().unwrap()
}

/// The identity key, and a record of what is done with keys.
pub struct Identity {
    key: SigningKey,
    trace: Trace,
}

/// What was done, in order.
pub type Trace = Rc<RefCell<Vec<String>>>;

impl Sign for Identity {
    fn public(&self) -> [u8; 32] {
        self.key.public()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.trace.borrow_mut().push(format!("sign {} bytes", message.len()));
        self.key.sign(message)
    }
}

impl Keys for Identity {
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        self.trace.borrow_mut().push(format!("verify a signature over {} bytes", message.len()));
        crate::certificates::check::ed25519_verifies(key, message, signature)
    }
}

/// The cluster's side: what it knows, and what carries out the server's effects.
pub struct World {
    pub seed: Seed,
    pub cluster: Founded,
    pub trace: Trace,
    pub site: Site,
    pub tokens: Vec<TokenRecord>,
    pub nodes: Vec<NodeRecord>,
    pub removed: Vec<[u8; 32]>,
    pub operators: Vec<Vec<u8>>,
    /// The settings that all nodes share.
    pub settings: String,
    /// How many of the next admissions others get in the way of.
    pub conflicts: u8,
    authorities: BTreeMap<Authority, sample::Signer>,
}

/// What came of an event at the server.
#[derive(Default)]
pub struct Served {
    pub sent: Vec<Vec<u8>>,
    pub notes: Vec<Note>,
}

impl World {
    pub fn new() -> Self {
        let (seed, identity) = (Seed::new([7; SECRET]), key(8));
        let founding = seed.founding_key();
        let founded = NOW - HOUR;
        let record = Cluster::unsigned([1; 16], founded, &founding.public(), &identity.public());
        let cluster = Founded {
            id: [1; 16],
            founded,
            founding_key: founding.public(),
            identity_key: identity.public(),
            certificate: founding.sign(&record.certified()),
        };
        let release = "1.37.2-4".parse().unwrap();
        let ranges = vec!["10.244.0.0/16".parse().unwrap(), "10.96.0.0/12".parse().unwrap()];
        let authority = |which| (which, sample::Signer::new(which, NOW));
        let mut world = World {
            cluster,
            trace: Trace::default(),
            site: Site { founded, oldest: release, newest: release, ranges },
            tokens: Vec::new(),
            nodes: vec![node("cp-1", Role::ControlPlane, 10)],
            removed: Vec::new(),
            operators: Vec::new(),
            settings: "cluster.name = \"c\"\n".into(),
            conflicts: 0,
            authorities: Authority::ALL.into_iter().map(authority).collect(),
            seed,
        };
        for role in [Role::Worker, Role::ControlPlane] {
            let key = world.seed.join_token(role).join_key().public();
            world.tokens.push(TokenRecord::founding(role, key, founded, None));
        }
        world
    }

    /// Makes a token as `kubeboot token create` does.
    pub fn create(&mut self, role: Role, number: u8, expires: Unix, uses_left: Option<u32>) -> JoinToken {
        let token = JoinToken::new(role, [number; SECRET], &self.cluster.identity_key);
        let (key, origin) = (token.join_key().public(), Origin::Created { by: "ada".into() });
        self.tokens.push(TokenRecord { kind: role, key, expires, uses_left, origin });
        token
    }

    /// The identity key as a server holds it.
    pub fn identity(&self) -> Identity {
        Identity { key: key(8), trace: self.trace.clone() }
    }

    /// How often something was done.
    pub fn count(&self, what: &str) -> usize {
        self.trace.borrow().iter().filter(|one| one.starts_with(what)).count()
    }

    pub fn setup(&self, exporter: Exporter) -> Setup {
        Setup {
            serves: As::ControlPlane,
            cluster: self.cluster.clone(),
            site: self.site.clone(),
            exporter,
            nonce: bytes("server"),
        }
    }

    /// Gives the server an event and carries out what it wants, until it waits for the network.
    pub fn serve(&mut self, server: &mut Server<'_>, event: Event<'_>) -> Served {
        let mut served = Served::default();
        let mut effects = server.handle(NOW, event);
        // Each round answers one look, take or issue, of which there are few.
        for _ in 0..20 {
            let mut next = None;
            for effect in effects.drain(..) {
                self.trace.borrow_mut().push(name(&effect).to_owned());
                next = self.carry_out(effect, &mut served).or(next);
            }
            match next {
                Some(event) => effects = server.handle(NOW, event),
                None => return served,
            }
        }
        panic!("the server does not come to an end: {:?}", self.trace);
    }

    fn carry_out(&mut self, effect: Effect, served: &mut Served) -> Option<Event<'static>> {
        match effect {
            Effect::Send(message) => served.sent.push(message.to_vec()),
            Effect::Log(note) => served.notes.push(note),
            Effect::Close | Effect::Serve { .. } => {}
            Effect::Look(sought) => return Some(Event::Found(Box::new(self.look(&sought)))),
            Effect::Take(_) if self.conflicts > 0 => {
                self.conflicts -= 1;
                return Some(Event::Taken(Taken::Conflict));
            }
            Effect::Take(admission) => {
                if let Some(id) = admission.takes {
                    let token = self.tokens.iter_mut().find(|token| token.id() == id).unwrap();
                    token.uses_left = token.uses_left.map(|uses| uses - 1);
                }
                self.nodes.retain(|node| node.name != admission.node.name);
                self.nodes.push(admission.node);
                return Some(Event::Taken(Taken::Done));
            }
            Effect::Issue { admission, certificates } => {
                return Some(Event::Issued(Box::new(self.grant(&admission.node, &certificates))));
            }
            Effect::Find(key) => return Some(Event::Listed(self.operators.contains(&key))),
        }
        None
    }

    pub fn look(&self, sought: &Sought) -> Found {
        let Sought { token, name, node_key: key, address } = sought;
        let node = |is: &dyn Fn(&NodeRecord) -> bool| self.nodes.iter().find(|node| is(node)).cloned();
        Found {
            token: token.and_then(|id| self.tokens.iter().find(|record| record.id() == id).cloned()),
            named: node(&|node| node.name == *name),
            keyed: node(&|node| node.key == *key),
            removed: self.removed.contains(key),
            address_of: node(&|node| node.address == *address).map(|node| node.name),
        }
    }

    pub fn grant(&self, node: &NodeRecord, certificates: &[Issue]) -> Grant {
        let role = node.role;
        let issue = |issue: &Issue| self.authorities[&issue.request.authority].issue(&issue.request, &issue.spki);
        let certificates: Vec<_> = certificates.iter().map(issue).collect();
        let wanted: &[Authority] = match role {
            Role::ControlPlane => &Authority::ALL,
            Role::Worker => &[Authority::Cluster, Authority::KubeletServing],
        };
        let keys = Key::ALL.into_iter().map(|key| (key, Zeroizing::new(format!("{key:?}").into_bytes())));
        Grant {
            role,
            mesh_key: MeshKey::new(1, Zeroizing::new(bytes("mesh"))),
            endpoints: vec!["192.0.2.10:6443".parse().unwrap()],
            settings: self.settings.clone(),
            authorities: wanted.iter().map(|one| (*one, self.authorities[one].certificate.clone())).collect(),
            certificates: certificates.try_into().unwrap(),
            keys: if role == Role::ControlPlane { keys.collect() } else { Vec::new() },
            statement: (role == Role::Worker).then(|| Statement::of(&self.cluster.id, node, NOW, &key(8))),
        }
    }
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Send(_) => "send",
        Effect::Look(_) => "look",
        Effect::Take(_) => "take",
        Effect::Issue { .. } => "issue",
        Effect::Find(_) => "find",
        Effect::Serve { .. } => "serve",
        Effect::Log(_) => "log",
        Effect::Close => "close",
    }
}

/// A node on record; its key and address come from its number.
pub fn node(name: &str, role: Role, number: u8) -> NodeRecord {
    NodeRecord { name: name.into(), role, key: key(number).public(), address: [192, 0, 2, number].into() }
}

/// A machine that asks under this name; its address comes from its number.
pub fn machine(name: &str, number: u8) -> Machine {
    let address = [192, 0, 2, number].into();
    let requests = profile::of_every_node(name, address, &key(number).public())
        .map(|(_, request)| sample::signing_request(&request, |_| {}));
    Machine { name: name.into(), address, release: "1.37.2-4".parse().unwrap(), requests }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToJoiner,
}

/// Who controls the wire: gets each message, with its number in its direction, and says what arrives instead.
pub type Wire<'a> = &'a mut dyn FnMut(Way, usize, Vec<u8>) -> Option<Vec<u8>>;

/// A wire that carries what it is given.
pub fn honest(_: Way, _: usize, message: Vec<u8>) -> Option<Vec<u8>> {
    Some(message)
}

/// How one attempt ended on both sides.
pub struct Ended {
    pub joiner: Result<Box<Enrolled>, Failure>,
    pub notes: Vec<Note>,
    /// Every message as its sender sent it, in order.
    pub sent: Vec<(Way, Vec<u8>)>,
}

impl Ended {
    /// The server's one log line.
    pub fn logged(&self) -> String {
        self.notes.iter().map(Note::to_string).collect::<Vec<_>>().join("\n")
    }

    pub fn admitted(&self) -> bool {
        self.notes.iter().any(|note| note.outcome == Outcome::Admitted)
    }

    pub fn failure(&self) -> &Failure {
        match &self.joiner {
            Ok(_) => panic!("it joined"),
            Err(failure) => failure,
        }
    }
}

/// One attempt: the joiner's exporter, the server's, and who controls the wire.
pub struct Attempt<'a> {
    pub machine: Machine,
    pub credential: Credential,
    pub node: SigningKey,
    pub exporters: (Exporter, Exporter),
    pub versions: (Versions, Versions),
    pub nonce: [u8; 32],
    pub wire: Wire<'a>,
}

impl<'a> Attempt<'a> {
    /// By an honest wire: one TLS connection.
    pub fn new(machine: Machine, credential: Credential, node: SigningKey, wire: Wire<'a>) -> Self {
        let (exporters, versions) = ((bytes("tls"), bytes("tls")), (Versions::SPOKEN, Versions::SPOKEN));
        Attempt { machine, credential, node, exporters, versions, nonce: bytes("joiner"), wire }
    }

    pub fn run(self, world: &mut World) -> Ended {
        let (to_joiner, to_server) = self.exporters;
        let identity = world.identity();
        let mut server = Server::speaking(self.versions.1, world.setup(to_server), &identity);
        let (mut joiner, hello) =
            Joiner::speaking(self.versions.0, self.machine, self.credential, &self.node, to_joiner, self.nonce);
        let (mut ended, mut up) =
            (Ended { joiner: Err(Failure::Ended { proven: false }), notes: Vec::new(), sent: Vec::new() }, hello);
        for turn in 0..4 {
            ended.sent.push((Way::ToServer, up.clone()));
            let served = match (self.wire)(Way::ToServer, turn, up) {
                Some(message) => world.serve(&mut server, Event::Message(&message)),
                None => world.serve(&mut server, Event::TimedOut),
            };
            ended.notes.extend(served.notes);
            assert!(served.sent.len() <= 1, "one answer to a message");
            let down = served.sent.into_iter().next().inspect(|sent| ended.sent.push((Way::ToJoiner, sent.clone())));
            let down = down.and_then(|message| (self.wire)(Way::ToJoiner, turn, message));
            let step = match &down {
                Some(message) => joiner.handle(NOW, &joiner::Event::Message(message)),
                None => joiner.handle(NOW, &joiner::Event::Closed),
            };
            match step {
                Step::Send(message) => up = message.to_vec(),
                Step::Enrolled(enrolled) => {
                    ended.joiner = Ok(enrolled);
                    return ended;
                }
                Step::Failed(failure) => {
                    ended.joiner = Err(failure);
                    return ended;
                }
            }
        }
        panic!("more round trips than there may be");
    }
}

/// A fresh machine `w-1` with its number, and that token, by an honest wire.
pub fn join(world: &mut World, name: &str, number: u8, token: JoinToken) -> Ended {
    Attempt::new(machine(name, number), Credential::Token(token), key(number), &mut honest).run(world)
}

/// A node that comes back by its key.
pub fn come_back(world: &mut World, name: &str, number: u8) -> Ended {
    let fingerprint = fingerprint(&world.cluster.identity_key);
    Attempt::new(machine(name, number), Credential::Node { fingerprint }, key(number), &mut honest).run(world)
}

/// A message as what it says.
pub fn decode(bytes: &[u8]) -> Message {
    Message::decode(bytes).map_err(|malformed| malformed.to_string()).unwrap()
}
