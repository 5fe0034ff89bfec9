//! Tokens and nodes in the cluster's API: what `enrolment/objects` and `enrolment/taking` say, done.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde_json::{Value, json};

use crate::certificates::Unix;
use crate::enrolment::decision::{Admission, Found, NodeRecord, Sought, TokenRecord};
use crate::enrolment::objects::{self, NAMESPACE, NodeObject, TokenObject};
use crate::enrolment::server::Taken;
use crate::enrolment::taking::{Answer, Call, Step, Taking};
use crate::facts::rfc1123_problem;
use crate::host::api::{Api, ApiError};
use crate::host::random;
use crate::token::SECRET;

/// Calls that one admission makes at most: far more than `Taking` ever does.
const CALLS: usize = 64;

/// Where tokens and nodes are kept, one object at a time.
pub trait Objects: Send + Sync {
    /// Does a call.
    ///
    /// # Errors
    /// It can't be done; in words.
    fn call(&self, call: &Call) -> Result<Answer, String>;
}

/// The objects behind an API server.
pub struct InApi(RwLock<Arc<Api>>);

impl InApi {
    /// Through this client.
    pub fn new(api: Arc<Api>) -> Self {
        InApi(RwLock::new(api))
    }

    /// Another client from now on: a certificate was renewed.
    pub fn renew(&self, api: Arc<Api>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = api;
    }

    /// The client.
    pub fn api(&self) -> Arc<Api> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the namespace, if there is none. It is never applied as an add-on: what forgets an add-on removes it, and
    /// with this one every node and token.
    ///
    /// # Errors
    /// The call.
    pub fn prepare(&self) -> Result<(), ApiError> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        if self.api().get_optional(&format!("/api/v1/namespaces/{NAMESPACE}"))?.is_none() {
            match self.api().post("/api/v1/namespaces", &namespace) {
                Err(error) if error.status() != Some(409) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Objects for InApi {
    fn call(&self, call: &Call) -> Result<Answer, String> {
        let api = self.api();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let changed = match call {
            Call::Get(name) => {
                return api.get_optional(&path(name)).map(Answer::Object).map_err(|error| error.to_string());
            }
            Call::Labelled(label, value) => {
                let selector = format!("{}%3D{value}", label.replace('/', "%2F"));
                let list = api.get(&format!("{COLLECTION}?labelSelector={selector}"));
                let list = list.map_err(|error| error.to_string())?;
                return Ok(Answer::List(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default()));
            }
            Call::Create(object) => api.post(COLLECTION, object),
            Call::Update(object) => api.put(&path(&name(object)), object),
            Call::Delete { name, version } => api.delete_version(&path(name), version),
        };
        match changed {
            Ok(object) => Ok(Answer::Changed(object)),
            Err(error) if error.status() == Some(409) => Ok(Answer::Conflict),
            Err(error) if error.status() == Some(404) && !matches!(call, Call::Create(_)) => Ok(Answer::Conflict),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The cluster's tokens and nodes.
pub struct Store {
    objects: Arc<dyn Objects>,
    /// Held from reading a token to marking a use of it: connections of one server need not get in each other's way.
    marking: Mutex<()>,
}

impl Store {
    /// Kept there.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Store { objects, marking: Mutex::new(()) }
    }

    /// What the cluster knows that matters to a request.
    ///
    /// # Errors
    /// A call, or an object that is damaged; in words.
    pub fn look(&self, sought: &Sought) -> Result<Found, String> {
        let Sought { token, name, node_key, address } = sought;
        // The name comes from a stranger, and becomes part of a path only if it is one that a node may have.
        let named = if rfc1123_problem(name).is_none() { self.node(name)? } else { None };
        let keyed = self.nodes_labelled(objects::KEY, &objects::key_label(node_key))?;
        let there = self.nodes_labelled(objects::ADDRESS, &objects::address_label(*address))?;
        let removed = self.object(&objects::removed_name(node_key))?.is_some();
        let holder = objects::holder(node_key, name);
        let token = match token {
            Some(id) => self.token(id)?.map(|token| token.record_for(Some(&holder))),
            None => None,
        };
        // Of its own admission that was cut short the machine knows nothing: it goes on with it.
        let own_half = |node: &NodeObject| !node.enrolled && node.record.key == *node_key && node.record.name == *name;
        let keyed = keyed.into_iter().filter(|node| node.record.key == *node_key && !own_half(node));
        Ok(Found {
            token,
            named: named.filter(|node| !own_half(node)).map(|node| node.record),
            keyed: keyed.max_by_key(|node| node.enrolled).map(|node| node.record),
            removed,
            address_of: there.into_iter().map(|node| node.record.name).max_by_key(|other| other != name),
        })
    }

    /// Puts the node on record and takes a use of its token: both or neither.
    ///
    /// # Errors
    /// A call, or an object that is damaged; in words. What was done by then, the same machine goes on with.
    pub fn take(&self, admission: &Admission, now: Unix) -> Result<Taken, String> {
        let (mut taking, mut call) = Taking::start(admission.clone(), now, random::bytes());
        let mut marking: Option<MutexGuard<'_, ()>> = Some(self.marking.lock().unwrap_or_else(PoisonError::into_inner));
        for _ in 0..CALLS {
            if matches!(call, Call::Create(_)) {
                marking = None;
            }
            match taking.answer(self.objects.call(&call)?)? {
                Step::Call(next) => call = next,
                Step::Ended(taken) => return Ok(taken),
            }
        }
        drop(marking);
        Err("putting a node on record came to no end".to_owned())
    }

    /// The node of that name, taken in or not.
    ///
    /// # Errors
    /// A call, or a damaged object; in words.
    pub fn node(&self, name: &str) -> Result<Option<NodeObject>, String> {
        self.object(&objects::node_name(name))?.as_ref().map(NodeObject::read).transpose()
    }

    /// Puts a node on record that came without a token: the founder.
    ///
    /// # Errors
    /// A call; or another machine is on record under the name.
    pub fn record(&self, record: &NodeRecord, now: Unix) -> Result<(), String> {
        let own = NodeObject { record: record.clone(), enrolled: true, token: None, since: now, version: None };
        match self.node(&record.name)? {
            Some(node) if node.record == *record && node.enrolled => Ok(()),
            Some(node) if node.record.key == record.key => {
                let own = NodeObject { version: node.version, ..own };
                self.objects.call(&Call::Update(own.object())).map(drop)
            }
            Some(_) => Err(format!(
                "another machine is on record as {name}: this one's node key is not the one in ConfigMap \
                 {NAMESPACE}/{}. Fix, if that record is an old one: kubectl -n {NAMESPACE} delete configmap {}",
                own.name(),
                own.name(),
                name = record.name,
            )),
            None => self.objects.call(&Call::Create(own.object())).map(drop),
        }
    }

    /// Makes a token's object. False if there is one of its name.
    ///
    /// # Errors
    /// The call, in words.
    pub fn create_token(&self, record: TokenRecord) -> Result<bool, String> {
        let answer = self.objects.call(&Call::Create(TokenObject::new(record).object()))?;
        Ok(answer != Answer::Conflict)
    }

    /// The token of that id. One whose object is damaged takes nobody in, and is said.
    fn token(&self, id: &[u8; SECRET]) -> Result<Option<TokenObject>, String> {
        let object = self.object(&objects::token_name(id))?;
        Ok(object.and_then(|object| match TokenObject::read(&object) {
            Ok(token) => Some(token),
            Err(why) => {
                eprintln!("kubeboot: {why}. It admits nobody. Fix: delete it, and make a new token");
                None
            }
        }))
    }

    /// Every token that can be read; of each that can't, what is wrong is added to `damaged`.
    ///
    /// # Errors
    /// The call, in words.
    pub fn tokens(&self, damaged: &mut Vec<String>) -> Result<Vec<TokenObject>, String> {
        let tokens = self.labelled(objects::KIND, objects::TOKEN)?;
        Ok(tokens.iter().filter_map(|object| TokenObject::read(object).map_err(|why| damaged.push(why)).ok()).collect())
    }

    /// Every node that can be read; of each that can't, what is wrong is added to `damaged`.
    ///
    /// # Errors
    /// The call, in words.
    pub fn nodes(&self, damaged: &mut Vec<String>) -> Result<Vec<NodeObject>, String> {
        let nodes = self.labelled(objects::KIND, objects::NODE)?;
        Ok(nodes.iter().filter_map(|object| NodeObject::read(object).map_err(|why| damaged.push(why)).ok()).collect())
    }

    /// Says for good that a node key is removed. Its machine is taken in no more, and comes back by nothing.
    ///
    /// # Errors
    /// The call, in words.
    pub fn bar(&self, node: &NodeRecord, now: Unix) -> Result<(), String> {
        // One that is there already says the same.
        self.objects.call(&Call::Create(objects::removal(node, now))).map(drop)
    }

    /// Deletes a node's record: its name is free. False if there is none.
    ///
    /// # Errors
    /// A call, in words; others change it again and again.
    pub fn forget(&self, node: &str) -> Result<bool, String> {
        self.delete(&objects::node_name(node))
    }

    /// Deletes a token, by its object's name. False if there is none.
    ///
    /// # Errors
    /// A call, in words; others change it again and again.
    pub fn delete_token(&self, name: &str) -> Result<bool, String> {
        self.delete(name)
    }

    fn delete(&self, name: &str) -> Result<bool, String> {
        for _ in 0..CALLS {
            let Some(object) = self.object(name)? else { return Ok(false) };
            let version = objects::version(&object).unwrap_or_default();
            if let Answer::Changed(_) = self.objects.call(&Call::Delete { name: name.to_owned(), version })? {
                return Ok(true);
            }
        }
        Err(format!("{NAMESPACE}/{name} is being changed again and again"))
    }

    fn nodes_labelled(&self, label: &'static str, value: &str) -> Result<Vec<NodeObject>, String> {
        self.labelled(label, value)?.iter().map(NodeObject::read).collect()
    }

    fn labelled(&self, label: &'static str, value: &str) -> Result<Vec<Value>, String> {
        match self.objects.call(&Call::Labelled(label, value.to_owned()))? {
            Answer::List(list) => Ok(list),
            _ => Ok(Vec::new()),
        }
    }

    fn object(&self, name: &str) -> Result<Option<Value>, String> {
        match self.objects.call(&Call::Get(name.to_owned()))? {
            Answer::Object(object) => Ok(object),
            _ => Ok(None),
        }
    }
}

const COLLECTION: &str = "/api/v1/namespaces/kubeboot-system/configmaps";

fn path(name: &str) -> String {
    format!("{COLLECTION}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::api::fake::{authority, client, serve};

    #[test]
    fn calls_are_what_the_api_takes_and_its_refusals_are_conflicts() {
        let authority = authority();
        let object = json!({"metadata": {"name": "token-00", "resourceVersion": "7"}});
        let refused = || json!({"message": "no"});
        let script = vec![
            (200, object.clone()),
            (404, refused()),
            (200, json!({"items": [object]})),
            (201, object.clone()),
            (409, refused()),
            (200, object.clone()),
            (409, refused()),
            (404, refused()),
            (200, json!({"status": "Success"})),
            (409, refused()),
            (404, refused()),
            (403, refused()),
        ];
        let (address, server) = serve(&authority, script);
        let objects = InApi::new(Arc::new(client(&authority, &address)));
        let call = |call: Call| objects.call(&call);
        let delete = || Call::Delete { name: "token-00".into(), version: "7".into() };
        let changed = Ok(Answer::Changed(object.clone()));
        let (get, create, update) =
            (Call::Get("token-00".into()), Call::Create(object.clone()), Call::Update(object.clone()));
        assert_eq!(call(get.clone()), Ok(Answer::Object(Some(object.clone()))));
        assert_eq!(call(get), Ok(Answer::Object(None)));
        assert_eq!(call(Call::Labelled(objects::KEY, "ab".into())), Ok(Answer::List(vec![object])));
        assert_eq!(call(create.clone()), changed);
        assert_eq!(call(create.clone()), Ok(Answer::Conflict));
        assert_eq!(call(update.clone()), changed);
        assert_eq!([call(update.clone()), call(update)], [Ok(Answer::Conflict), Ok(Answer::Conflict)]);
        assert!(matches!(call(delete()), Ok(Answer::Changed(_))));
        assert_eq!([call(delete()), call(delete())], [Ok(Answer::Conflict), Ok(Answer::Conflict)]);
        assert!(call(create).unwrap_err().contains("403"));
        let asked = server.join().unwrap();
        let distinct: Vec<&str> = [0, 2, 3, 5, 8].map(|at: usize| asked[at].as_str()).into();
        insta::assert_snapshot!(distinct.join("\n"));
    }
}
