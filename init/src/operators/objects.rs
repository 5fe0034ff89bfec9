//! Operators and users as the cluster keeps them: ConfigMaps beside those of tokens and nodes (`docs/operators.md`). Public
//! halves only.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::key::OperatorLine;
use super::user::{Role, USER, Wanted};
use crate::certificates::Unix;
use crate::enrolment::objects::{Data, KIND, NAMESPACE, hex, moment, set_version, version};

/// [`KIND`] of operators.
pub const OPERATOR: &str = "operator";

/// An operator on record, or one who was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorObject {
    /// The key.
    pub line: OperatorLine,
    /// Whether it may command the cluster. One that was removed stays on record, so that a control plane whose settings
    /// name it refuses it too.
    pub listed: bool,
    /// Who added or removed it.
    pub by: String,
    /// When.
    pub since: Unix,
    /// What the server needs back, when the object is replaced.
    pub version: Option<String>,
}

/// An operator's object.
pub fn operator_name(key: &[u8]) -> String {
    format!("operator-{}", short_digest(key))
}

/// A user's object. A user's name has characters that an object's has not.
pub fn user_name(user: &str) -> String {
    format!("user-{}", short_digest(user.as_bytes()))
}

fn short_digest(bytes: &[u8]) -> String {
    hex(&digest::digest(&digest::SHA256, bytes).as_ref()[..16])
}

fn config_map(name: &str, kind: &str, data: Value, version: Option<&String>) -> Value {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {KIND: kind}},
        "data": data,
    });
    set_version(&mut object, version);
    object
}

impl OperatorObject {
    /// The object.
    pub fn object(&self) -> Value {
        let data = json!({
            "key": self.line.text(),
            "fingerprint": self.line.fingerprint(),
            "state": if self.listed { "listed" } else { "removed" },
            "by": self.by,
            "since": moment(self.since),
        });
        config_map(&operator_name(&self.line.key), OPERATOR, data, self.version.as_ref())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn read(object: &Value) -> Result<Self, String> {
        let data = Data::of(object);
        let line = OperatorLine::parse(data.text("key")?).map_err(|_| data.wrong("key"))?;
        if data.object_name() != operator_name(&line.key) {
            return Err(data.wrong("key"));
        }
        let listed = match data.text("state")? {
            "listed" => true,
            "removed" => false,
            _ => return Err(data.wrong("state")),
        };
        let (by, since) = (data.text("by")?.to_owned(), data.moment("since")?);
        Ok(OperatorObject { line, listed, by, since, version: version(object) })
    }
}

/// Where an operator comes from whom the settings of the asked control plane name and who is on no record.
pub const SETTINGS: &str = "settings";

/// A row of the list of operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// `SHA256:…`
    pub fingerprint: String,
    /// `ssh-ed25519` and its like.
    pub kind: String,
    /// The key's comment.
    pub comment: String,
    /// [`SETTINGS`] of the control plane that was asked, or `cluster`.
    pub from: String,
    /// Who added it; empty for one of the settings.
    pub by: String,
    /// Since when, RFC 3339; empty for one of the settings.
    pub since: String,
}

/// The operators: those of the control plane's settings and those on record, but for those that were removed.
pub fn operators(settings: &[String], objects: &[OperatorObject]) -> Vec<(OperatorLine, Listed)> {
    let row = |line: &OperatorLine, from: &str, by: &str, since: &str| {
        let listed = Listed {
            fingerprint: line.fingerprint(),
            kind: line.kind.to_owned(),
            comment: line.comment.clone(),
            from: from.to_owned(),
            by: by.to_owned(),
            since: since.to_owned(),
        };
        (line.clone(), listed)
    };
    let on_record = |line: &OperatorLine| objects.iter().any(|object| object.line.key == line.key);
    let mut rows: Vec<(OperatorLine, Listed)> = Vec::new();
    for line in settings.iter().filter_map(|line| OperatorLine::parse(line).ok()) {
        if !on_record(&line) && !rows.iter().any(|(other, _)| other.key == line.key) {
            rows.push(row(&line, SETTINGS, "", ""));
        }
    }
    let listed = objects.iter().filter(|object| object.listed);
    rows.extend(listed.map(|object| row(&object.line, "cluster", &object.by, &moment(object.since))));
    rows
}

/// A user that kubeboot made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserObject {
    /// The name.
    pub name: String,
    /// The groups in the newest certificate.
    pub groups: Vec<String>,
    /// The role.
    pub role: Role,
    /// The namespace that it is limited to.
    pub namespace: Option<String>,
    /// Whether it is bound to nothing any more.
    pub revoked: bool,
    /// When the last of its certificates ends.
    pub expires: Unix,
    /// Who made it.
    pub by: String,
    /// When it was made, or revoked.
    pub since: Unix,
    /// What the server needs back, when the object is replaced.
    pub version: Option<String>,
}

impl UserObject {
    /// Of a user that is made now; `before`: who had the name.
    pub fn of(wanted: &Wanted, by: &str, now: Unix, before: Option<&UserObject>) -> Self {
        let mut groups = wanted.groups.clone();
        let alive = before.filter(|before| before.expires > now);
        // What an older certificate says is good as long as that is.
        for group in alive.map(|before| before.groups.as_slice()).unwrap_or_default() {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        UserObject {
            name: wanted.name.clone(),
            groups,
            role: wanted.role,
            namespace: wanted.namespace.clone(),
            revoked: false,
            expires: now.saturating_add(wanted.ttl).max(alive.map(|before| before.expires).unwrap_or_default()),
            by: by.to_owned(),
            since: now,
            version: before.and_then(|before| before.version.clone()),
        }
    }

    /// The object.
    pub fn object(&self) -> Value {
        let data = json!({
            "name": self.name,
            "groups": serde_json::to_string(&self.groups).expect("texts"),
            "role": self.role.to_string(),
            "namespace": self.namespace.as_deref().unwrap_or_default(),
            "state": if self.revoked { "revoked" } else { "bound" },
            "expires": moment(self.expires),
            "by": self.by,
            "since": moment(self.since),
        });
        config_map(&user_name(&self.name), USER, data, self.version.as_ref())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn read(object: &Value) -> Result<Self, String> {
        let data = Data::of(object);
        let name = data.text("name")?.to_owned();
        if data.object_name() != user_name(&name) {
            return Err(data.wrong("name"));
        }
        let revoked = match data.text("state")? {
            "bound" => false,
            "revoked" => true,
            _ => return Err(data.wrong("state")),
        };
        let role = serde_json::from_value(json!(data.text("role")?)).map_err(|_| data.wrong("role"))?;
        Ok(UserObject {
            groups: serde_json::from_str(data.text("groups")?).map_err(|_| data.wrong("groups"))?,
            role,
            namespace: Some(data.text("namespace")?.to_owned()).filter(|namespace| !namespace.is_empty()),
            revoked,
            expires: data.moment("expires")?,
            by: data.text("by")?.to_owned(),
            since: data.moment("since")?,
            version: version(object),
            name,
        })
    }
}

/// A row of the list of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserListed {
    /// The name.
    pub name: String,
    /// The groups.
    pub groups: Vec<String>,
    /// The role.
    pub role: Role,
    /// The namespace that it is limited to.
    pub namespace: Option<String>,
    /// Whether it is bound to nothing any more.
    pub revoked: bool,
    /// When the last certificate ends, RFC 3339.
    pub expires: String,
    /// Whether it has ended.
    pub expired: bool,
    /// Who made it.
    pub by: String,
}

/// The rows for these users, by name. One that was revoked and whose certificates have ended is nobody any more.
pub fn users(objects: &[UserObject], now: Unix) -> Vec<UserListed> {
    let mut rows: Vec<UserListed> = objects
        .iter()
        .filter(|user| !user.revoked || user.expires > now)
        .map(|user| UserListed {
            name: user.name.clone(),
            groups: user.groups.clone(),
            role: user.role,
            namespace: user.namespace.clone(),
            revoked: user.revoked,
            expires: moment(user.expires),
            expired: user.expires <= now,
            by: user.by.clone(),
        })
        .collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}
