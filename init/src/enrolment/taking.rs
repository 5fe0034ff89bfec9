//! How an admission is written down: the node's object made and a use of its token taken, both or neither, although the
//! API changes one object at a time, servers die between two changes, and others write at the same moment.
//!
//! 1. Where uses are counted, the node holds one in the token's object (compared and swapped by its version).
//! 2. The node's object is made, *pending*. Its name is the node's, so the second one of a name is not made.
//! 3. Another object with the same node key or address? Then this one is removed again, and the use given back. Of two
//!    that came at once the later sees the earlier; both may see each other, and then both begin anew.
//! 4. The object becomes *enrolled*, compared and swapped. Only now the node is one.
//!
//! Who dies between leaves a use held and perhaps a pending object. Both belong to that node key under that name: the same
//! machine finds them when it asks again, and takes no second use. Each attempt marks the use that it holds, and gives back
//! only one with its own mark, so that it takes nothing from a later attempt of the same machine.

use serde_json::Value;

use super::decision::Admission;
use super::objects::{self, NodeObject, TokenObject};
use super::server::Taken;
use crate::certificates::Unix;
use crate::token::SECRET;

/// How often an object is tried again that others change meanwhile.
const TRIES: u8 = 8;

/// What is asked of the API.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// The object of that name.
    Get(String),
    /// The objects with this label and value.
    Labelled(&'static str, String),
    /// A new object.
    Create(Value),
    /// An object in place of the one with the version that it names.
    Update(Value),
    /// An object away, if it still has this version.
    Delete {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
}

/// What the API answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`Call::Get`]: the object, if there is one.
    Object(Option<Value>),
    /// To [`Call::Labelled`].
    List(Vec<Value>),
    /// The change is made; with the object as it is now.
    Changed(Value),
    /// Not changed: there is one already, or it is not as it was.
    Conflict,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// This call, and its answer to [`Taking::answer`].
    Call(Call),
    /// The end.
    Ended(Taken),
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// The token was asked for.
    Token([u8; SECRET]),
    /// The use is being marked.
    Holding([u8; SECRET]),
    /// The node's object is being made, or made over.
    Making,
    /// There was one: it was asked for.
    Meeting,
    /// Others with the same key were asked for.
    ByKey(NodeObject),
    /// Others with the same address were asked for.
    ByAddress(NodeObject),
    /// It is becoming enrolled.
    Enrolling,
    /// It is being removed again.
    Undoing,
    /// The token was asked for, to give the use back.
    Returning([u8; SECRET]),
    /// The use is being given back.
    GivingBack([u8; SECRET]),
    /// A node that is one already was asked for.
    Known,
    /// Its address is being changed.
    Moving(NodeObject),
    /// Others with the new address were asked for.
    Moved(Box<(NodeObject, NodeObject)>),
    /// The old address is being put back.
    MovingBack,
    Ended,
}

/// One admission on its way into the cluster's objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Taking {
    admission: Admission,
    /// This attempt's mark.
    mark: String,
    now: Unix,
    state: State,
    tries: u8,
    /// Whether a use is held by this attempt's mark.
    holds: bool,
}

impl Taking {
    /// Begins. `mark` is fresh and random.
    pub fn start(admission: Admission, now: Unix, mark: [u8; 8]) -> (Self, Call) {
        let (state, call) = match admission.takes {
            Some(id) => (State::Token(id), Call::Get(objects::token_name(&id))),
            None => (State::Known, Call::Get(objects::node_name(&admission.node.name))),
        };
        let mark = format!("{:016x}", u64::from_be_bytes(mark));
        (Taking { admission, mark, now, state, tries: 0, holds: false }, call)
    }

    /// What comes after an answer.
    ///
    /// # Errors
    /// An object that kubeboot did not write so; in words.
    pub fn answer(&mut self, answer: Answer) -> Result<Step, String> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        Ok(match (state, answer) {
            (State::Token(id), Answer::Object(Some(token))) => self.hold(id, &token)?,
            (State::Holding(_), Answer::Changed(_)) => {
                self.holds = true;
                self.make()
            }
            (State::Holding(id), Answer::Conflict) => self.again(State::Token(id), objects::token_name(&id)),
            (State::Making, Answer::Changed(node)) => self.look_by_key(NodeObject::read(&node)?),
            (State::Making | State::Enrolling | State::Undoing, Answer::Conflict) => {
                self.again(State::Meeting, objects::node_name(&self.admission.node.name))
            }
            (State::Meeting, Answer::Object(None)) => self.give_back(),
            (State::Meeting, Answer::Object(Some(node))) => self.meet(NodeObject::read(&node)?),
            (State::ByKey(node), Answer::List(found)) => match self.others(&found) {
                true => self.undo(&node),
                false => {
                    let label = objects::address_label(node.record.address);
                    self.call(State::ByAddress(node), Call::Labelled(objects::ADDRESS, label))
                }
            },
            (State::ByAddress(node), Answer::List(found)) => match self.others(&found) {
                true => self.undo(&node),
                false => {
                    let enrolled = NodeObject { enrolled: true, ..node }.object();
                    self.call(State::Enrolling, Call::Update(enrolled))
                }
            },
            (State::Enrolling, Answer::Changed(_)) => Step::Ended(Taken::Done),
            (State::Undoing, Answer::Changed(_)) => self.give_back(),
            (State::Returning(id), Answer::Object(Some(token))) => self.give_back_to(id, &token)?,
            (State::GivingBack(id), Answer::Conflict) => self.again(State::Returning(id), objects::token_name(&id)),
            (State::Known, Answer::Object(Some(node))) => self.known(NodeObject::read(&node)?),
            (State::Moving(before), Answer::Changed(node)) => {
                let now = NodeObject::read(&node)?;
                let label = objects::address_label(now.record.address);
                self.call(State::Moved(Box::new((before, now))), Call::Labelled(objects::ADDRESS, label))
            }
            (State::Moved(nodes), Answer::List(found)) => match self.others(&found) {
                true => {
                    let (before, now) = *nodes;
                    let back = NodeObject { version: now.version, ..before }.object();
                    self.call(State::MovingBack, Call::Update(back))
                }
                false => Step::Ended(Taken::Done),
            },
            // What it was decided on has changed: it is decided anew.
            _ => Step::Ended(Taken::Conflict),
        })
    }

    fn call(&mut self, state: State, call: Call) -> Step {
        self.state = state;
        Step::Call(call)
    }

    /// Reads an object again that others have changed.
    fn again(&mut self, state: State, name: String) -> Step {
        self.tries += 1;
        if self.tries > TRIES { Step::Ended(Taken::Conflict) } else { self.call(state, Call::Get(name)) }
    }

    fn holder(&self) -> objects::Holder {
        objects::holder(&self.admission.node.key, &self.admission.node.name)
    }

    fn hold(&mut self, id: [u8; SECRET], token: &Value) -> Result<Step, String> {
        let (mut token, holder) = (TokenObject::read(token)?, self.holder());
        if token.record.id() != id {
            return Ok(Step::Ended(Taken::Conflict));
        }
        Ok(match token.uses_left(Some(&holder)) {
            None => self.make(),
            Some(0) => Step::Ended(Taken::Conflict),
            Some(_) => {
                token.taken.insert(holder, self.mark.clone());
                self.call(State::Holding(id), Call::Update(token.object()))
            }
        })
    }

    fn pending(&self, version: Option<String>) -> Value {
        let (record, token) = (self.admission.node.clone(), self.admission.takes);
        NodeObject { record, enrolled: false, token, since: self.now, version }.object()
    }

    fn make(&mut self) -> Step {
        let node = self.pending(None);
        self.call(State::Making, Call::Create(node))
    }

    /// There is an object of this name.
    fn meet(&mut self, found: NodeObject) -> Step {
        let own = &self.admission.node;
        let is_ours = found.record.key == own.key && found.record.role == own.role;
        match (is_ours, found.enrolled) {
            // Another machine's.
            (false, _) => self.give_back(),
            // Another attempt of this machine has done it, and with the same use.
            (true, true) => Step::Ended(Taken::Conflict),
            // One was cut short, or is on its way: this one goes on with it.
            (true, false) if found.record == *own && found.token == self.admission.takes => self.look_by_key(found),
            (true, false) => {
                let node = self.pending(found.version);
                self.call(State::Making, Call::Update(node))
            }
        }
    }

    fn look_by_key(&mut self, node: NodeObject) -> Step {
        let label = objects::key_label(&node.record.key);
        self.call(State::ByKey(node), Call::Labelled(objects::KEY, label))
    }

    /// Whether another than this node is among the found ones.
    fn others(&self, found: &[Value]) -> bool {
        let own = objects::node_name(&self.admission.node.name);
        found.iter().any(|object| object.pointer("/metadata/name").and_then(Value::as_str) != Some(own.as_str()))
    }

    fn undo(&mut self, node: &NodeObject) -> Step {
        let (name, version) = (node.name(), node.version.clone().unwrap_or_default());
        self.call(State::Undoing, Call::Delete { name, version })
    }

    fn give_back(&mut self) -> Step {
        match self.admission.takes.filter(|_| self.holds) {
            Some(id) => self.call(State::Returning(id), Call::Get(objects::token_name(&id))),
            None => Step::Ended(Taken::Conflict),
        }
    }

    fn give_back_to(&mut self, id: [u8; SECRET], token: &Value) -> Result<Step, String> {
        let (mut token, holder) = (TokenObject::read(token)?, self.holder());
        if token.taken.get(&holder) != Some(&self.mark) {
            return Ok(Step::Ended(Taken::Conflict));
        }
        token.taken.remove(&holder);
        Ok(self.call(State::GivingBack(id), Call::Update(token.object())))
    }

    fn known(&mut self, found: NodeObject) -> Step {
        let own = &self.admission.node;
        let is_ours = found.enrolled && found.record.key == own.key && found.record.role == own.role;
        if !is_ours {
            return Step::Ended(Taken::Conflict);
        }
        if found.record.address == own.address {
            return Step::Ended(Taken::Done);
        }
        let moved = NodeObject { record: own.clone(), ..found.clone() }.object();
        self.call(State::Moving(found), Call::Update(moved))
    }
}
