//! Operators and users in the cluster's API, and what binds users to roles.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::enrolment::objects::KIND;
use crate::enrolment::taking::{Answer, Call};
use crate::host::enrolment::store::{InApi, Objects};
use crate::host::reconcile;
use crate::operators::key::OperatorLine;
use crate::operators::objects::{OPERATOR, OperatorObject, UserObject, operator_name, user_name};
use crate::operators::user::{Bound, USER};

/// Times that one object is tried to be changed while others change it.
const TRIES: usize = 8;

/// What is needed of the API besides ConfigMaps.
pub trait Rbac: Send + Sync {
    /// Every ClusterRoleBinding, and every RoleBinding: two lists.
    ///
    /// # Errors
    /// The call, in words.
    fn bindings(&self) -> Result<[Value; 2], String>;
    /// Makes an object what it should be.
    ///
    /// # Errors
    /// The call, in words.
    fn apply(&self, object: &Value) -> Result<(), String>;
    /// Deletes an object, by its path. False if there is none.
    ///
    /// # Errors
    /// The call, in words.
    fn delete(&self, path: &str) -> Result<bool, String>;
    /// The API servers, as they name themselves; none when nobody does.
    ///
    /// # Errors
    /// The call, in words.
    fn servers(&self) -> Result<Vec<SocketAddr>, String>;
    /// What is at a path.
    ///
    /// # Errors
    /// The call, in words.
    fn get(&self, path: &str) -> Result<Value, String>;
}

impl Rbac for InApi {
    fn bindings(&self) -> Result<[Value; 2], String> {
        let list = |kind: &str| self.get(&format!("/apis/rbac.authorization.k8s.io/v1/{kind}"));
        Ok([list("clusterrolebindings")?, list("rolebindings")?])
    }

    fn apply(&self, object: &Value) -> Result<(), String> {
        self.api().apply(object).map(drop).map_err(|error| error.to_string())
    }

    fn delete(&self, path: &str) -> Result<bool, String> {
        self.api().delete(path).map_err(|error| error.to_string())
    }

    fn servers(&self) -> Result<Vec<SocketAddr>, String> {
        match reconcile::api_servers(&self.api()) {
            Ok(found) => Ok(found.map(|record| record.servers).unwrap_or_default()),
            // An API server that has just begun has not said yet where it is.
            Err(error) if error.status() == Some(404) => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        self.api().get(path).map_err(|error| error.to_string())
    }
}

/// Operators and users on record.
pub struct People {
    objects: Arc<dyn Objects>,
}

impl People {
    /// Kept there.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        People { objects }
    }

    /// Every operator on record, those that were removed among them. One whose object is damaged is none, and is said.
    ///
    /// # Errors
    /// The call, in words.
    pub fn operators(&self) -> Result<Vec<OperatorObject>, String> {
        self.all(OPERATOR, OperatorObject::read)
    }

    /// Every user on record.
    ///
    /// # Errors
    /// The call, in words.
    pub fn users(&self) -> Result<Vec<UserObject>, String> {
        self.all(USER, UserObject::read)
    }

    fn all<T>(&self, kind: &str, read: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
        let Answer::List(list) = self.objects.call(&Call::Labelled(KIND, kind.to_owned()))? else {
            return Ok(Vec::new());
        };
        let readable = |object: &Value| {
            let fix = "delete it, and if it said that an operator was removed, remove that one again, by the whole key";
            read(object).inspect_err(|why| eprintln!("kubeboot: {why}. It counts for nothing. Fix: {fix}")).ok()
        };
        Ok(list.iter().filter_map(readable).collect())
    }

    /// The user of that name.
    ///
    /// # Errors
    /// The call, or a damaged object; in words.
    pub fn user(&self, name: &str) -> Result<Option<UserObject>, String> {
        self.get(&user_name(name))?.as_ref().map(UserObject::read).transpose()
    }

    /// The operator with that key.
    ///
    /// # Errors
    /// The call, or a damaged object; in words.
    pub fn operator(&self, key: &[u8]) -> Result<Option<OperatorObject>, String> {
        self.get(&operator_name(key))?.as_ref().map(OperatorObject::read).transpose()
    }

    /// Puts an operator on record as listed whose key is on no record at all. False if it is on one: who was removed stays so.
    ///
    /// # Errors
    /// The calls, in words.
    pub fn adopt_operator(&self, line: &OperatorLine, by: &str, now: u64) -> Result<bool, String> {
        let adopted = OperatorObject { line: line.clone(), listed: true, by: by.to_owned(), since: now, version: None };
        self.change(&operator_name(&line.key), |before| Ok(before.is_none().then(|| adopted.object())))
    }

    /// Puts an operator on record as listed or removed. False if it is so already.
    ///
    /// # Errors
    /// The calls, or a damaged object; in words.
    pub fn set_operator(&self, line: &OperatorLine, listed: bool, by: &str, now: u64) -> Result<bool, String> {
        let set = |before: Option<&Value>| -> Result<Option<Value>, String> {
            let before = before.map(OperatorObject::read).transpose()?;
            if before.as_ref().is_some_and(|before| before.listed == listed) {
                return Ok(None);
            }
            let version = before.and_then(|before| before.version);
            Ok(Some(OperatorObject { line: line.clone(), listed, by: by.to_owned(), since: now, version }.object()))
        };
        self.change(&operator_name(&line.key), set)
    }

    /// Puts a user on record as `set` says, which gets who had the name before.
    ///
    /// # Errors
    /// The calls, or a damaged object; in words.
    pub fn set_user(&self, name: &str, set: impl Fn(Option<&UserObject>) -> UserObject) -> Result<(), String> {
        let set = |before: Option<&Value>| -> Result<Option<Value>, String> {
            let before = before.map(UserObject::read).transpose()?;
            Ok(Some(set(before.as_ref()).object()))
        };
        self.change(&user_name(name), set).map(drop)
    }

    /// Changes one object, again while others do. `set` gets what is there, and says what is to be; none: nothing is
    /// changed.
    fn change(
        &self,
        name: &str,
        set: impl Fn(Option<&Value>) -> Result<Option<Value>, String>,
    ) -> Result<bool, String> {
        for _ in 0..TRIES {
            let before = self.get(name)?;
            let Some(wanted) = set(before.as_ref())? else { return Ok(false) };
            let call = if before.is_some() { Call::Update(wanted) } else { Call::Create(wanted) };
            if let Answer::Changed(_) = self.objects.call(&call)? {
                return Ok(true);
            }
        }
        Err(format!("{name} is being changed again and again"))
    }

    fn get(&self, name: &str) -> Result<Option<Value>, String> {
        match self.objects.call(&Call::Get(name.to_owned()))? {
            Answer::Object(object) => Ok(object),
            _ => Ok(None),
        }
    }
}

/// The bindings that name a user.
///
/// # Errors
/// The call, in words.
pub fn bound(rbac: &dyn Rbac, user: &str) -> Result<Vec<Bound>, String> {
    Ok(rbac.bindings()?.iter().flat_map(|list| Bound::among(list, user)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host::api::fake::{authority, client, serve};
    use crate::operators::user::{Role, Wanted};

    #[test]
    fn what_binds_a_user_is_asked_for_where_the_api_has_it() {
        let authority = authority();
        let (name, groups) = ("bob@example.org".to_owned(), Vec::new());
        let user = Wanted { name, groups, ttl: 60, role: Role::View, namespace: None, reserved: false };
        let kinds = json!({"resources": [
            {"name": "clusterrolebindings", "namespaced": false, "kind": "ClusterRoleBinding"},
            {"name": "rolebindings", "namespaced": true, "kind": "RoleBinding"},
        ]});
        let in_shop = Wanted { namespace: Some("shop".into()), ..user.clone() };
        let script = vec![
            (200, json!({"items": [user.binding()]})),
            (200, json!({"items": []})),
            (200, kinds),
            (200, user.binding()),
            (200, in_shop.binding()),
            (200, json!({"status": "Success"})),
            (404, json!({"message": "not found"})),
            (403, json!({"message": "forbidden"})),
        ];
        let (address, server) = serve(&authority, script);
        let api = InApi::new(Arc::new(client(&authority, &address)));
        let found = bound(&api, "bob@example.org").unwrap();
        assert!(found.len() == 1 && user.is_bound_by(&found[0]) && !in_shop.is_bound_by(&found[0]));
        api.apply(&user.binding()).unwrap();
        api.apply(&in_shop.binding()).unwrap();
        assert_eq!([api.delete(&found[0].path()), api.delete(&found[0].path())], [Ok(true), Ok(false)]);
        assert!(api.servers().unwrap_err().contains("403"));
        let asked: Vec<String> =
            server.join().unwrap().iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
        insta::assert_snapshot!(asked.join("\n"));
    }
}
