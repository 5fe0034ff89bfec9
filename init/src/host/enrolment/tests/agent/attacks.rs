//! Who has no token, lies, relays, reflects, replays, cuts and babbles, each from an address of its own. Each fails, and
//! the agent's log says why to the operator.

use std::net::Ipv4Addr;

use super::machine::TheMachine;
use super::network::{self, Sources};
use super::*;
use crate::enrolment::message::{Ask, Message, Proof, Purpose, prefix};
use crate::enrolment::note::short;
use crate::enrolment::tests::attacks::{changing, requests_of_others, signed_anew, with_ask, with_hello, with_proof};
use crate::enrolment::tests::world::decode;
use crate::enrolment::transcript::{Label, Transcript, hint};

const OTHER_CLUSTER: &str = "it means another cluster, or somebody stands between: its hint fits no fingerprint of this \
                             cluster on this connection";
const NODE_SIGNATURE: &str = "its node key's signature is not for this connection, role and exchange";
const TOKEN_SIGNATURE: &str = "its token's signature is not for this connection and exchange";

pub(super) struct Attackers<'a> {
    machine: &'a TheMachine,
    sources: &'a mut Sources,
}

/// What was said on a connection before a request.
struct Said {
    exporter: Exporter,
    hello: Vec<u8>,
    proof: Vec<u8>,
}

impl Said {
    /// What a side signs that leaves the proof out, or does not.
    fn signed(&self, ask: &[u8], label: Label, with_proof: bool) -> Vec<u8> {
        let mut transcript = Transcript::new();
        transcript.add(&self.hello);
        if with_proof {
            transcript.add(&self.proof);
        }
        transcript.signed(parsed(ask).signed_part(ask), label, &self.exporter)
    }
}

fn parsed(ask: &[u8]) -> Ask {
    let Message::Ask(ask) = decode(ask) else { panic!("no request") };
    ask
}

/// A request that another one takes the place of.
type Change = fn(&Said, &[u8]) -> Vec<u8>;

/// Requests that are not right: what is wrong with each, how it is made, and what the agent says of it.
const REQUESTS: [(&str, Change, &str); 6] = [
    (
        "a token's id, and a signature by another key",
        |said, ask| {
            let signed = said.signed(ask, Label::Token(Role::Worker), true);
            with_ask(ask, |ask| ask.token.as_mut().unwrap().signature = key(66).sign(&signed))
        },
        TOKEN_SIGNATURE,
    ),
    (
        "the server's own signature for the token's",
        |said, ask| {
            let Message::Proof(proof) = decode(&said.proof) else { panic!("no proof") };
            with_ask(ask, |ask| ask.token.as_mut().unwrap().signature = proof.signature)
        },
        TOKEN_SIGNATURE,
    ),
    (
        "the server's own key and signature for the node's",
        |said, ask| {
            let Message::Proof(Proof { cluster, signature, .. }) = decode(&said.proof) else { panic!("no proof") };
            with_ask(ask, |ask| (ask.node_key, ask.node_signature) = (cluster.identity_key, signature))
        },
        NODE_SIGNATURE,
    ),
    (
        "the node's signature and the token's in each other's place",
        |_, ask| {
            with_ask(ask, |ask| std::mem::swap(&mut ask.node_signature, &mut ask.token.as_mut().unwrap().signature))
        },
        NODE_SIGNATURE,
    ),
    (
        "a transcript that leaves the proof out",
        |said, ask| {
            let signed = said.signed(ask, Label::Node(Purpose::Join(Role::Worker)), false);
            with_ask(ask, |ask| ask.node_signature = node_key(NAME).sign(&signed))
        },
        NODE_SIGNATURE,
    ),
    (
        "a transcript that leaves the proof out, signed by the token",
        |said, ask| {
            let signed = said.signed(ask, Label::Token(Role::Worker), false);
            with_ask(ask, |ask| ask.token.as_mut().unwrap().signature = token().join_key().sign(&signed))
        },
        TOKEN_SIGNATURE,
    ),
];

/// A connection of an attacker's.
struct Line {
    from: Ipv4Addr,
    channel: Channel,
}

impl Line {
    /// What the agent answers to a message.
    fn say(&mut self, message: &[u8]) -> Message {
        self.channel.send(message).unwrap();
        decode(&self.channel.receive(most::GRANT).unwrap())
    }

    fn is_refused(&mut self, message: &[u8], expected: Refusal) {
        let answer = self.say(message);
        assert!(matches!(answer, Message::Refusal(refusal) if refusal == expected), "{}", answer.name());
    }
}

/// The name that attackers want a node to have.
const NAME: &str = "w-66";

/// A worker's token of the seed.
fn token() -> JoinToken {
    Seed::new(real::SEED).join_token(Role::Worker)
}

/// With which words a joiner hears that its token is of no use.
fn not_accepted(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused { refusal: Refusal::NotAccepted, .. })
}

/// Everybody has a try.
pub(super) fn all_fail(machine: &TheMachine, sources: &mut Sources) {
    let mut attackers = Attackers { machine, sources };
    attackers.without_a_token_that_is_good();
    attackers.with_tokens_that_are_over();
    attackers.with_the_key_of_a_machine_that_was_removed();
    attackers.with_certificate_requests_of_others();
    attackers.with_a_session_of_before();
    attackers.with_requests_that_are_not_right();
    attackers.between_a_machine_and_the_agent();
    attackers.with_what_was_recorded();
    attackers.with_what_is_no_message();
}

impl Attackers<'_> {
    fn line(&mut self) -> Line {
        let from = self.sources.next();
        Line { from, channel: network::channel(from).unwrap() }
    }

    fn heard(&self, what: &str, from: Ipv4Addr, words: &str) {
        println!("{what}:\n    {}", self.machine.heard(from, words));
    }

    /// A joiner on whose own connection somebody has the wire, as if TLS were broken. The agent's log has these words.
    fn attempt(&mut self, what: &str, token: JoinToken, wire: Wire<'_>, words: &str) -> Failure {
        let Line { from, channel } = self.line();
        let ended = exchange_by(channel, machine(NAME, [192, 0, 2, 66].into()), token, wire);
        let failure = ended.err().unwrap_or_else(|| panic!("{what}: it joined"));
        self.heard(what, from, words);
        failure
    }

    /// A joiner whose request is replaced on the wire.
    fn request(&mut self, what: &str, change: Change, words: &str) -> Failure {
        let Line { from, channel } = self.line();
        let mut said = Said { exporter: channel.exporter(), hello: Vec::new(), proof: Vec::new() };
        let mut wire = |way, turn, message: Vec<u8>| {
            match (way, turn) {
                (Way::ToServer, 0) => said.hello = message.clone(),
                (Way::ToJoiner, 0) => said.proof = message.clone(),
                (Way::ToServer, _) => return Some(change(&said, &message)),
                _ => {}
            }
            Some(message)
        };
        let ended = exchange_by(channel, machine(NAME, [192, 0, 2, 66].into()), token(), &mut wire);
        self.heard(what, from, words);
        ended.err().unwrap_or_else(|| panic!("{what}: it joined"))
    }

    fn without_a_token_that_is_good(&mut self) {
        let unknown = JoinToken::new(Role::Worker, [66; SECRET], &self.machine.identity());
        let words = "its token is unknown: never made here, revoked, or long expired";
        assert!(not_accepted(&self.attempt("an unknown token", unknown, &mut honest, words)));
        let other = Seed::new([66; SECRET]).join_token(Role::Worker);
        let failure = self.attempt("a token of another cluster", other, &mut honest, OTHER_CLUSTER);
        assert_eq!(failure, Failure::Unproven(Refusal::OtherCluster));
    }

    /// A worker's token that the cluster has on record, and its object's name.
    fn recorded_token(&self, number: u8, expires: u64, uses_left: Option<u32>) -> (JoinToken, String) {
        let token = JoinToken::new(Role::Worker, [number; SECRET], &self.machine.identity());
        let (key, origin) = (token.join_key().public(), Origin::Created { by: "one".into() });
        let record = TokenRecord { kind: Role::Worker, key, expires, uses_left, origin };
        let name = format!("token-{}", short(&record.id()));
        assert!(self.machine.store().create_token(record).unwrap());
        (token, name)
    }

    /// The joiner hears the same of each; only the log says which it was.
    fn with_tokens_that_are_over(&mut self) {
        let now = clock::unix();
        let (expired, _) = self.recorded_token(67, now - 3600, None);
        assert!(not_accepted(&self.attempt("an expired token", expired, &mut honest, "its token expired ")));

        let (once, _) = self.recorded_token(68, now + 3600, Some(1));
        let Line { from, channel } = self.line();
        assert!(exchange(channel, machine("w-8", [192, 0, 2, 18].into()), once.clone()).is_ok());
        self.heard("a token for one machine", from, "admitted worker w-8 (192.0.2.18)");
        assert!(not_accepted(&self.attempt("the same again", once, &mut honest, "its token has no uses left")));

        let (revoked, name) = self.recorded_token(69, now + 3600, None);
        assert!(self.machine.store().delete_token(&name).unwrap());
        let words = "its token is unknown: never made here, revoked, or long expired";
        assert!(not_accepted(&self.attempt("a revoked token", revoked, &mut honest, words)));
    }

    /// Its certificates would be renewed in return for its key.
    fn with_the_key_of_a_machine_that_was_removed(&mut self) {
        let address = IpAddr::from([192, 0, 2, 19]);
        let (token, _) = self.recorded_token(70, clock::unix() + 3600, None);
        let Line { channel, .. } = self.line();
        assert!(exchange(channel, machine("w-9", address), token.clone()).is_ok());
        let by_key = || Credential::Node { fingerprint: *token.fingerprint() };
        let Line { from, channel } = self.line();
        assert!(exchange_with(channel, machine("w-9", address), by_key(), &mut honest).is_ok());
        self.heard("a node's key", from, "w-9 (192.0.2.19)");

        let store = self.machine.store();
        let node = store.node("w-9").unwrap().unwrap().record;
        store.bar(&node, clock::unix()).unwrap();
        assert!(store.forget("w-9").unwrap());
        let words = "its node key was removed from the cluster";
        for (what, credential) in
            [("by its key", by_key()), ("by a token that is good", Credential::Token(token.clone()))]
        {
            let Line { from, channel } = self.line();
            assert!(exchange_with(channel, machine("w-9", address), credential, &mut honest).is_err(), "{what}");
            self.heard(&format!("a machine that was removed, {what}"), from, words);
        }
    }

    fn with_certificate_requests_of_others(&mut self) {
        let address = IpAddr::from([192, 0, 2, 66]);
        for (place, request) in requests_of_others(NAME, address, &node_key(NAME).public()) {
            let mut liar = machine(NAME, address);
            liar.requests[place] = request;
            let Line { from, channel } = self.line();
            assert!(exchange(channel, liar, token()).is_err());
            self.heard("another's certificate", from, "its certificate request is not what it may ask for: ");
        }
    }

    fn with_a_session_of_before(&mut self) {
        let mut from = network::OUTSIDE;
        no_session_is_taken_up_again(|| {
            from = self.sources.next();
            network::dial(from).unwrap()
        });
        self.heard("a session that was to be taken up again", from, "what it sent is no message: ");
    }

    fn with_requests_that_are_not_right(&mut self) {
        for (what, change, words) in REQUESTS {
            let failure = self.request(what, change, words);
            assert!(not_accepted(&failure), "{what}: {failure:?}");
        }
        let turned: [(&str, Change, &str); 2] = [
            ("the server's own proof", |said, _| said.proof.clone(), "expected ask, found proof"),
            ("the hello once more", |said, _| said.hello.clone(), "expected ask, found hello"),
        ];
        for (what, change, words) in turned {
            let failure = self.request(what, change, words);
            assert!(matches!(failure, Failure::Refused { refusal: Refusal::Malformed, .. }), "{what}: {failure:?}");
        }
    }

    fn between_a_machine_and_the_agent(&mut self) {
        let Line { from, channel } = self.line();
        let failed = join(&relay(channel, honest), NAME, 66, token()).err();
        assert_eq!(failed, Some(Failure::Unproven(Refusal::OtherCluster)));
        self.heard("a relay", from, OTHER_CLUSTER);

        // It knows the fingerprint: then the agent proves itself, for another connection than the machine's.
        let Line { from, channel } = self.line();
        let exporter = channel.exporter();
        let meant = move |hello: &[u8]| with_hello(hello, |hello| hello.hint = hint(token().fingerprint(), &exporter));
        let failed = join(&relay(channel, changing(Way::ToServer, 0, meant)), NAME, 66, token()).err();
        assert_eq!(failed, Some(Failure::Impostor(Impostor::Signature)));
        self.heard("a relay that knows the fingerprint", from, "refused worker: nothing came in time");

        let mut another = changing(Way::ToJoiner, 0, |proof| with_proof(proof, |proof| proof.cluster.id[0] ^= 1));
        let failure =
            self.attempt("another cluster's id", token(), &mut another, "refused worker: nothing came in time");
        assert_eq!(failure, Failure::Impostor(Impostor::Certificate));
        let mut role = changing(Way::ToServer, 0, |hello| {
            with_hello(hello, |hello| hello.purpose = Purpose::Join(Role::ControlPlane))
        });
        let words = "refused control plane: nothing came in time";
        let failure = self.attempt("another role in a hello", token(), &mut role, words);
        assert_eq!(failure, Failure::Impostor(Impostor::Signature));
    }

    /// The hello of a recorded exchange, for this line; and what the agent proves itself with.
    fn meant(line: &mut Line, recorded: &[u8], purpose: Purpose) -> Said {
        let exporter = line.channel.exporter();
        let hello = with_hello(recorded, |hello| {
            hello.hint = hint(token().fingerprint(), &exporter);
            hello.purpose = purpose;
        });
        line.channel.send(&hello).unwrap();
        let proof = line.channel.receive(most::TO_HELLO).unwrap().to_vec();
        Said { exporter, hello, proof }
    }

    fn with_what_was_recorded(&mut self) {
        let mut recorded = Vec::new();
        let Line { from, channel } = self.line();
        let mut wire = |_, _, message: Vec<u8>| {
            recorded.push(message.clone());
            Some(message)
        };
        let joined = exchange_by(channel, machine("w-2", [192, 0, 2, 12].into()), token(), &mut wire);
        assert!(joined.is_ok());
        self.heard("who is recorded", from, "admitted worker w-2 (192.0.2.12)");
        let (hello, ask) = (&recorded[0], &recorded[2]);

        let mut line = self.line();
        line.is_refused(hello, Refusal::OtherCluster);
        self.heard("a recorded hello", line.from, OTHER_CLUSTER);

        let mut line = self.line();
        Self::meant(&mut line, hello, Purpose::Join(Role::Worker));
        line.is_refused(ask, Refusal::NotAccepted);
        self.heard("a recorded request", line.from, NODE_SIGNATURE);

        let mut line = self.line();
        let said = Self::meant(&mut line, hello, Purpose::Join(Role::Worker));
        line.is_refused(&signed_anew(ask, &said.hello, &said.proof, &said.exporter), Refusal::NotAccepted);
        self.heard("a recorded token with a node key of the thief's", line.from, TOKEN_SIGNATURE);

        let mut line = self.line();
        let said = Self::meant(&mut line, hello, Purpose::Join(Role::ControlPlane));
        let node = said.signed(ask, Label::Node(Purpose::Join(Role::ControlPlane)), true);
        let by_token = said.signed(ask, Label::Token(Role::ControlPlane), true);
        let risen = with_ask(ask, |ask| {
            ask.node_signature = node_key("w-2").sign(&node);
            ask.token.as_mut().unwrap().signature = token().join_key().sign(&by_token);
        });
        line.is_refused(&risen, Refusal::NotAccepted);
        self.heard("a worker's token that signs as a control plane's", line.from, "its token admits a worker");
    }

    fn with_what_is_no_message(&mut self) {
        let from = self.sources.next();
        network::dial(from).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        self.heard("no TLS", from, "no TLS connection: ");

        let mut line = self.line();
        line.is_refused(&[0xff; most::HELLO], Refusal::Malformed);
        self.heard("garbage", line.from, "what it sent is no message: ");

        let mut line = self.line();
        line.is_refused(&[0; most::HELLO + 1], Refusal::Malformed);
        self.heard("a hello that is too long", line.from, "its message is 54 long, expected at most 53");

        let mut line = self.line();
        let exporter = line.channel.exporter();
        let (_, hello) = Joiner::start(
            machine(NAME, [192, 0, 2, 66].into()),
            Credential::Token(token()),
            &node_key(NAME),
            exporter,
            random::bytes(),
        );
        assert!(matches!(line.say(&hello), Message::Proof(_)));
        line.is_refused(&[0; most::ASK + 1], Refusal::Malformed);
        self.heard("a request that is too long", line.from, "its message is 4390 long, expected at most 4389");

        let mut line = self.line();
        line.is_refused(&hello[..40], Refusal::Malformed);
        self.heard("a hello that was cut", line.from, "what it sent is no message: it ends within its hint");

        let mut line = self.line();
        // Inside of TLS: a whole message in which another one is announced.
        line.is_refused(&[&prefix(&hello)[..], &hello[..20]].concat(), Refusal::Malformed);
        self.heard("a length in a message's place", line.from, "what it sent is no message: ");

        let Line { from, channel } = self.line();
        channel.close();
        self.heard("nothing at all", from, "nothing came in time");
    }
}
