//! Two servers write at once, in every order, and die anywhere.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::world::{HOUR, NOW, key};
use crate::enrolment::decision::{Admission, NodeRecord, Origin, TokenRecord};
use crate::enrolment::objects::{self, NodeObject, TokenObject};
use crate::enrolment::server::Taken;
use crate::enrolment::taking::{Answer, Call, Step, Taking};
use crate::token::Joiner as Role;

/// The API's objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Objects {
    objects: BTreeMap<String, Value>,
    versions: u64,
}

impl Objects {
    pub fn new() -> Self {
        Objects { objects: BTreeMap::new(), versions: 0 }
    }

    fn with_token(uses: Option<u32>) -> Self {
        let mut objects = Objects::new();
        objects.call(&Call::Create(TokenObject::new(token(uses)).object()));
        objects
    }

    fn put(&mut self, object: &Value) -> Answer {
        self.versions += 1;
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = json!(self.versions.to_string());
        self.objects.insert(name(&object), object.clone());
        Answer::Changed(object)
    }

    pub fn call(&mut self, call: &Call) -> Answer {
        let version = |name: &str| self.objects.get(name).and_then(objects::version);
        match call {
            Call::Get(name) => Answer::Object(self.objects.get(name).cloned()),
            Call::Labelled(label, value) => {
                let has = |object: &&Value| object["metadata"]["labels"][label] == json!(value);
                Answer::List(self.objects.values().filter(has).cloned().collect())
            }
            Call::Create(object) if self.objects.contains_key(&name(object)) => Answer::Conflict,
            Call::Create(object) => self.put(object),
            Call::Update(object) if version(&name(object)).is_none() => Answer::Conflict,
            Call::Update(object) if version(&name(object)) != objects::version(object) => Answer::Conflict,
            Call::Update(object) => self.put(object),
            Call::Delete { name, version: wanted } if version(name).as_ref() != Some(wanted) => Answer::Conflict,
            Call::Delete { name, .. } => Answer::Changed(self.objects.remove(name).unwrap()),
        }
    }

    pub fn nodes(&self) -> Vec<NodeObject> {
        let nodes = self.objects.iter().filter(|(name, _)| name.starts_with("node-"));
        nodes.map(|(_, object)| NodeObject::read(object).unwrap()).collect()
    }

    fn token(&self) -> TokenObject {
        let token = self.objects.iter().find(|(name, _)| name.starts_with("token-")).unwrap();
        TokenObject::read(token.1).unwrap()
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn token(uses_left: Option<u32>) -> TokenRecord {
    let origin = Origin::Created { by: "ada".into() };
    TokenRecord { kind: Role::Worker, key: key(90).public(), expires: NOW + HOUR, uses_left, origin }
}

/// A machine with that name, node key and address.
type Who = (&'static str, u8, u8);

fn admission((name, number, address): Who) -> Admission {
    let node = NodeRecord {
        name: name.into(),
        role: Role::Worker,
        key: key(number).public(),
        address: [192, 0, 2, address].into(),
    };
    Admission { node, takes: Some(token(None).id()) }
}

/// An attempt, with the call that it makes next, or its end.
#[derive(Debug, Clone, PartialEq)]
struct Attempt {
    taking: Taking,
    next: Result<Call, Taken>,
}

impl Attempt {
    fn new(who: Who, mark: u8) -> Self {
        let (taking, call) = Taking::start(admission(who), NOW, [mark; 8]);
        Attempt { taking, next: Ok(call) }
    }

    /// One call. False when there is none left.
    fn step(&mut self, objects: &mut Objects) -> bool {
        let Ok(call) = &self.next else { return false };
        let answer = objects.call(call);
        self.next = match self.taking.answer(answer).unwrap() {
            Step::Call(call) => Ok(call),
            Step::Ended(taken) => Err(taken),
        };
        true
    }

    fn run(mut self, objects: &mut Objects) -> Taken {
        for _ in 0..40 {
            if !self.step(objects) {
                return self.next.unwrap_err();
            }
        }
        panic!("it does not come to an end: {self:?}");
    }
}

/// Everything that can become of two attempts, each once.
fn outcomes(objects: Objects, one: Attempt, two: Attempt) -> Vec<(Objects, Taken, Taken)> {
    let (mut seen, mut open, mut ended) = (HashSet::new(), vec![(objects, one, two)], Vec::new());
    while let Some((objects, one, two)) = open.pop() {
        if !seen.insert(format!("{:?}{:?}{:?}{:?}", objects.objects, one, two, objects.versions)) {
            continue;
        }
        if let (Err(one), Err(two)) = (&one.next, &two.next) {
            ended.push((objects, *one, *two));
            continue;
        }
        for first in [true, false] {
            let (mut objects, mut one, mut two) = (objects.clone(), one.clone(), two.clone());
            if if first { one.step(&mut objects) } else { two.step(&mut objects) } {
                open.push((objects, one, two));
            }
        }
    }
    ended
}

/// What holds whenever nobody is at work and nobody has died.
fn at_rest(objects: &Objects, done: usize) {
    let nodes = objects.nodes();
    assert!(nodes.iter().all(|node| node.enrolled), "half an admission was left: {objects:#?}");
    assert_eq!(nodes.len(), done, "{objects:#?}");
    for (at, node) in nodes.iter().enumerate() {
        for other in &nodes[at + 1..] {
            assert!(node.record.key != other.record.key && node.record.address != other.record.address);
        }
    }
    let token = objects.token();
    if token.record.uses_left.is_some() {
        let holders: Vec<_> = nodes.iter().map(|node| objects::holder(&node.record.key, &node.record.name)).collect();
        assert_eq!(token.taken.keys().cloned().collect::<Vec<_>>(), holders, "{objects:#?}");
    }
}

fn race(uses: Option<u32>, one: Who, two: Who) -> Vec<(Objects, Taken, Taken)> {
    let ended = outcomes(Objects::with_token(uses), Attempt::new(one, 1), Attempt::new(two, 2));
    assert!(ended.len() > 1, "they never met");
    ended
}

fn done(taken: &[Taken]) -> usize {
    taken.iter().filter(|taken| **taken == Taken::Done).count()
}

#[test]
fn of_two_machines_that_want_the_last_use_at_once_exactly_one_gets_it() {
    for (objects, one, two) in race(Some(1), ("w-1", 1, 1), ("w-2", 2, 2)) {
        assert_eq!(done(&[one, two]), 1);
        at_rest(&objects, 1);
    }
}

#[test]
fn two_machines_with_a_use_for_each_both_get_in() {
    for (objects, one, two) in race(Some(2), ("w-1", 1, 1), ("w-2", 2, 2)) {
        assert_eq!(done(&[one, two]), 2);
        at_rest(&objects, 2);
    }
}

#[test]
fn one_machine_that_asks_two_servers_at_once_takes_one_use() {
    for (mut objects, one, two) in race(Some(1), ("w-1", 1, 1), ("w-1", 1, 1)) {
        assert!(done(&[one, two]) >= 1, "{objects:#?}");
        at_rest(&objects, 1);
        assert_eq!(Attempt::new(("w-2", 2, 2), 3).run(&mut objects), Taken::Conflict, "no use is left");
    }
}

#[test]
fn two_machines_with_one_name_never_both_get_in_and_the_other_keeps_no_use() {
    for uses in [None, Some(1), Some(2)] {
        for (objects, one, two) in race(uses, ("w-1", 1, 1), ("w-1", 2, 2)) {
            assert_eq!(done(&[one, two]), 1);
            at_rest(&objects, 1);
        }
    }
}

#[test]
fn two_machines_with_one_address_or_one_key_never_both_get_in() {
    for uses in [None, Some(1), Some(2)] {
        for (two, address_or_key) in [(("w-2", 2, 1), "address"), (("w-2", 1, 2), "key")] {
            for (mut objects, one, other) in race(uses, ("w-1", 1, 1), two) {
                let done = done(&[one, other]);
                assert!(done <= 1, "{address_or_key}");
                at_rest(&objects, done);
                if done == 0 {
                    // Both saw each other and gave up: whoever asks first now gets in.
                    assert_eq!(Attempt::new(("w-1", 1, 1), 3).run(&mut objects), Taken::Done);
                    at_rest(&objects, 1);
                }
            }
        }
    }
}

#[test]
fn a_server_that_dies_anywhere_leaves_what_the_same_machine_goes_on_with_and_no_other() {
    for uses in [None, Some(1)] {
        for calls in 0.. {
            let mut objects = Objects::with_token(uses);
            let mut dies = Attempt::new(("w-1", 1, 1), 1);
            let whole = !(0..calls).all(|_| dies.step(&mut objects));
            if whole {
                assert!(calls > 4, "only {calls} calls");
                break;
            }
            if uses.is_some() && !objects.token().taken.is_empty() {
                assert_eq!(Attempt::new(("w-2", 2, 2), 2).run(&mut objects.clone()), Taken::Conflict, "after {calls}");
            }
            let before = objects.nodes().iter().any(|node| node.enrolled);
            let again = Attempt::new(("w-1", 1, 1), 3).run(&mut objects);
            assert_eq!(again == Taken::Done, !before, "after {calls}: it is a node already, or becomes one");
            at_rest(&objects, 1);
        }
    }
}

#[test]
fn a_node_that_moved_is_on_record_at_its_new_address_unless_that_is_anothers() {
    let mut objects = Objects::with_token(None);
    for who in [("w-1", 1, 1), ("w-2", 2, 2)] {
        assert_eq!(Attempt::new(who, 1).run(&mut objects), Taken::Done);
    }
    let mut come_back = |who: Who| {
        let (taking, call) = Taking::start(Admission { takes: None, ..admission(who) }, NOW, [1; 8]);
        let taken = Attempt { taking, next: Ok(call) }.run(&mut objects);
        let addresses = objects.nodes().iter().map(|node| node.record.address.to_string()).collect::<Vec<_>>();
        (taken, addresses.join(" "))
    };
    assert_eq!(come_back(("w-1", 1, 1)), (Taken::Done, "192.0.2.1 192.0.2.2".into()));
    assert_eq!(come_back(("w-1", 1, 7)), (Taken::Done, "192.0.2.7 192.0.2.2".into()));
    assert_eq!(come_back(("w-1", 1, 2)), (Taken::Conflict, "192.0.2.7 192.0.2.2".into()));
    assert_eq!(come_back(("w-1", 3, 7)), (Taken::Conflict, "192.0.2.7 192.0.2.2".into()), "another key");
}

#[test]
fn a_token_that_is_gone_or_damaged_takes_nobody_in() {
    let mut objects = Objects::new();
    assert_eq!(Attempt::new(("w-1", 1, 1), 1).run(&mut objects), Taken::Conflict);
    let mut broken = TokenObject::new(token(Some(1))).object();
    broken["data"]["uses"] = json!("many");
    let (mut taking, call) = Taking::start(admission(("w-1", 1, 1)), NOW, [1; 8]);
    objects.put(&broken);
    assert!(taking.answer(objects.call(&call)).unwrap_err().contains("uses"));
}
