//! Tokens and nodes as the cluster keeps them: ConfigMaps that `kubectl` lists and deletes (`docs/enrolment.md`). Public
//! halves only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::decision::{NodeRecord, Origin, TokenRecord};
use super::note::short;
use crate::certificates::Unix;
use crate::release::date::Moment;
use crate::token::{Joiner, SECRET, fingerprint};

/// Where they are.
pub const NAMESPACE: &str = "kubeboot-system";
/// Label: what an object is, [`TOKEN`], [`NODE`] or [`REMOVED`].
pub const KIND: &str = "kubeboot.local/kind";
/// Label of a node: its node key's fingerprint.
pub const KEY: &str = "kubeboot.local/node-key";
/// Label of a node: its address, [`address_label`].
pub const ADDRESS: &str = "kubeboot.local/address";
/// Label of tokens and nodes: `worker` or `control-plane`.
pub const ROLE: &str = "kubeboot.local/role";
/// [`KIND`] of tokens.
pub const TOKEN: &str = "token";
/// [`KIND`] of nodes.
pub const NODE: &str = "node";

/// [`KIND`] of removals.
pub const REMOVED: &str = "removed";
/// What the name of a removal's object begins with; the node key's fingerprint follows.
const REMOVED_PREFIX: &str = "removed-";

/// A token's object.
pub fn token_name(id: &[u8; SECRET]) -> String {
    format!("token-{}", short(id))
}

/// A node's object. Its name is the node's, so no two nodes have one.
pub fn node_name(node: &str) -> String {
    format!("node-{node}")
}

/// The object that says that a node key was removed from the cluster. What is in it does not matter.
pub fn removed_name(key: &[u8; 32]) -> String {
    format!("{REMOVED_PREFIX}{}", key_label(key))
}

/// The object itself, for people too: which node it was, and when it was removed.
pub fn removal(node: &NodeRecord, now: Unix) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": removed_name(&node.key),
            "namespace": NAMESPACE,
            "labels": {KIND: REMOVED, ROLE: role_text(node.role)},
        },
        "data": {"name": node.name, "role": role_text(node.role), "removed": moment(now)},
    })
}

/// A node key as a label's value.
pub fn key_label(key: &[u8; 32]) -> String {
    hex(&fingerprint(key))
}

/// An address as a label's value, which has no colons.
pub fn address_label(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => hex(&v4.octets()),
        IpAddr::V6(v6) => hex(&v6.octets()),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// When an object says that its node was removed, in seconds since 1970; one that was made by hand may not say it.
pub fn removed_at(object: &Value) -> Option<Unix> {
    Data::of(object).text("removed").ok()?.parse::<Moment>().ok().map(|moment| moment.unix())
}

/// Whose node key an object says is removed: its fingerprint. None if its name is not what [`removed_name`] makes.
pub fn removed(object: &Value) -> Option<[u8; SECRET]> {
    Data::of(object).object_name().strip_prefix(REMOVED_PREFIX).and_then(unhex)
}

/// A role as objects and commands write it.
pub fn role_text(role: Joiner) -> &'static str {
    match role {
        Joiner::Worker => "worker",
        Joiner::ControlPlane => "control-plane",
    }
}

/// A moment as objects and commands write it.
pub fn moment(at: Unix) -> String {
    Moment::from_unix(at).map_or_else(|_| "never".to_owned(), |moment| moment.to_string())
}

/// What holds a place among a token's uses: this node key under this name.
pub type Holder = String;

/// The holder that a node is.
pub fn holder(key: &[u8; 32], name: &str) -> Holder {
    format!("{}/{name}", key_label(key))
}

/// A token with its uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenObject {
    /// The record; its `uses_left` is how many there were at first.
    pub record: TokenRecord,
    /// Who has a use, or holds one while it is being taken in; with a mark of the attempt that did it last. Kept only where
    /// uses are counted.
    pub taken: BTreeMap<Holder, String>,
    /// What the server needs back, when the object is replaced.
    pub version: Option<String>,
}

impl TokenObject {
    /// Of a new token.
    pub fn new(record: TokenRecord) -> Self {
        TokenObject { record, taken: BTreeMap::new(), version: None }
    }

    /// How many uses are left for somebody; who holds one already has it left.
    pub fn uses_left(&self, somebody: Option<&Holder>) -> Option<u32> {
        let others = self.taken.keys().filter(|holder| Some(*holder) != somebody).count();
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        self.record.uses_left.map(|uses| uses.saturating_sub(others))
    }

    /// The record as it is for somebody.
    pub fn record_for(&self, somebody: Option<&Holder>) -> TokenRecord {
        TokenRecord { uses_left: self.uses_left(somebody), ..self.record.clone() }
    }

    /// The object's name.
    pub fn name(&self) -> String {
        token_name(&self.record.id())
    }

    /// The object.
    pub fn object(&self) -> Value {
        let TokenRecord { kind, key, expires, uses_left, origin } = &self.record;
        let (origin, by) = match origin {
            Origin::Founding => ("founding", ""),
            Origin::Created { by } => ("created", by.as_str()),
        };
        let uses = uses_left.map_or("any".to_owned(), |uses| uses.to_string());
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name(), "namespace": NAMESPACE,
                "labels": {KIND: TOKEN, ROLE: role_text(*kind)}},
            "data": {
                "role": role_text(*kind),
                "key": STANDARD.encode(key),
                "expires": moment(*expires),
                "uses": uses,
                "taken": serde_json::to_string(&self.taken).expect("texts"),
                "origin": origin,
                "by": by,
            },
        });
        set_version(&mut object, self.version.as_ref());
        object
    }

    /// Reads an object.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn read(object: &Value) -> Result<Self, String> {
        let data = Data::of(object);
        let uses_left = match data.text("uses")? {
            "any" => None,
            uses => Some(uses.parse().map_err(|_| data.wrong("uses"))?),
        };
        let origin = match data.text("origin")? {
            "founding" => Origin::Founding,
            "created" => Origin::Created { by: data.text("by")?.to_owned() },
            _ => return Err(data.wrong("origin")),
        };
        let expires = data.moment("expires")?;
        let record = TokenRecord { kind: data.role()?, key: data.key()?, expires, uses_left, origin };
        let taken = serde_json::from_str(data.text("taken")?).map_err(|_| data.wrong("taken"))?;
        Ok(TokenObject { record, taken, version: version(object) })
    }
}

/// A node on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeObject {
    /// Who it is.
    pub record: NodeRecord,
    /// Whether it is taken in. Until then its name is only kept for it.
    pub enrolled: bool,
    /// The token that it came with.
    pub token: Option<[u8; SECRET]>,
    /// When it came.
    pub since: Unix,
    /// What the server needs back, when the object is replaced.
    pub version: Option<String>,
}

impl NodeObject {
    /// The object's name.
    pub fn name(&self) -> String {
        node_name(&self.record.name)
    }

    /// The object.
    pub fn object(&self) -> Value {
        let NodeRecord { name, role, key, address } = &self.record;
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name(), "namespace": NAMESPACE,
                "labels": {
                    KIND: NODE,
                    ROLE: role_text(*role),
                    KEY: key_label(key),
                    ADDRESS: address_label(*address),
                }},
            "data": {
                "name": name,
                "role": role_text(*role),
                "key": STANDARD.encode(key),
                "address": address.to_string(),
                "state": if self.enrolled { "enrolled" } else { "pending" },
                "token": self.token.map(|id| short(&id)).unwrap_or_default(),
                "token-id": self.token.map(|id| hex(&id)).unwrap_or_default(),
                "since": moment(self.since),
            },
        });
        set_version(&mut object, self.version.as_ref());
        object
    }

    /// Reads an object.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn read(object: &Value) -> Result<Self, String> {
        let data = Data::of(object);
        let name = data.text("name")?.to_owned();
        if data.object_name() != node_name(&name) {
            return Err(data.wrong("name"));
        }
        let address = data.text("address")?.parse().map_err(|_| data.wrong("address"))?;
        let enrolled = match data.text("state")? {
            "enrolled" => true,
            "pending" => false,
            _ => return Err(data.wrong("state")),
        };
        let token = match data.text("token-id")? {
            "" => None,
            text => Some(unhex(text).ok_or_else(|| data.wrong("token-id"))?),
        };
        let since = data.moment("since")?;
        let record = NodeRecord { name, role: data.role()?, key: data.key()?, address };
        Ok(NodeObject { record, enrolled, token, since, version: version(object) })
    }
}

/// A fingerprint or a token's id from what [`hex`] makes of it.
pub fn unhex(text: &str) -> Option<[u8; SECRET]> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.len() == 2 * SECRET;
    u128::from_str_radix(text, 16).ok().filter(|_| digits).map(u128::to_be_bytes)
}

/// An object's data, with words for what is wrong with it.
pub(crate) struct Data<'a>(&'a Value);

impl<'a> Data<'a> {
    /// Of an object.
    pub(crate) fn of(object: &'a Value) -> Self {
        Data(object)
    }

    /// The object's name.
    pub(crate) fn object_name(&self) -> &'a str {
        self.0.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// A field's text.
    pub(crate) fn text(&self, field: &str) -> Result<&'a str, String> {
        let value = self.0.get("data").and_then(|data| data.get(field));
        value.and_then(Value::as_str).ok_or_else(|| self.wrong(field))
    }

    /// What is said of a field that is not what it should be.
    pub(crate) fn wrong(&self, field: &str) -> String {
        format!("ConfigMap {NAMESPACE}/{} is damaged: its {field} is not what kubeboot wrote", self.object_name())
    }

    /// A field that is a moment.
    pub(crate) fn moment(&self, field: &str) -> Result<Unix, String> {
        self.text(field)?.parse().map(|moment: Moment| moment.unix()).map_err(|_| self.wrong(field))
    }

    fn role(&self) -> Result<Joiner, String> {
        match self.text("role")? {
            "worker" => Ok(Joiner::Worker),
            "control-plane" => Ok(Joiner::ControlPlane),
            _ => Err(self.wrong("role")),
        }
    }

    fn key(&self) -> Result<[u8; 32], String> {
        let key = STANDARD.decode(self.text("key")?).ok().and_then(|bytes| bytes.try_into().ok());
        key.ok_or_else(|| self.wrong("key"))
    }
}

/// An object's version, which says whether it is still the one that was read.
pub fn version(object: &Value) -> Option<String> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned)
}

/// Says in an object which version it replaces.
pub(crate) fn set_version(object: &mut Value, version: Option<&String>) {
    if let Some(version) = version {
        object["metadata"]["resourceVersion"] = json!(version);
    }
}

/// The object that the tokens of the founding window become, and whether they are of this cluster: what the founder left
/// in `founding-tokens.json`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FoundingTokens {
    /// 1.
    pub format: u32,
    /// The founding key's public half, base64: whose seed they come from.
    pub founding_key: String,
    /// The public half of the worker's join key, base64.
    pub worker: String,
    /// The public half of the control plane's join key, base64.
    pub control_plane: String,
}

impl FoundingTokens {
    /// Of a seed.
    pub fn of(seed: &crate::token::Seed) -> Self {
        let key = |role| STANDARD.encode(seed.join_token(role).join_key().public());
        FoundingTokens {
            format: 1,
            founding_key: STANDARD.encode(seed.founding_key().public()),
            worker: key(Joiner::Worker),
            control_plane: key(Joiner::ControlPlane),
        }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and a number") + "\n"
    }

    /// The tokens' records, for a cluster founded at that moment by that key (base64). `expect` is how many control planes
    /// the cluster is to have, its founder among them.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn records(
        bytes: &[u8],
        founding_key: &str,
        founded: Unix,
        expect: Option<u32>,
    ) -> Result<[TokenRecord; 2], String> {
        let tokens: FoundingTokens = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if tokens.format != 1 {
            return Err(format!("expected format 1, found {}", tokens.format));
        }
        if tokens.founding_key != founding_key {
            return Err("its tokens come from another seed than this cluster".to_owned());
        }
        let key = |text: &str| -> Result<[u8; 32], String> {
            let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
            bytes.try_into().map_err(|_| "expected keys of 32 bytes".to_owned())
        };
        let further = expect.map(|all| all.saturating_sub(1));
        Ok([
            TokenRecord::founding(Joiner::Worker, key(&tokens.worker)?, founded, None),
            TokenRecord::founding(Joiner::ControlPlane, key(&tokens.control_plane)?, founded, further),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::yaml;
    use crate::token::Seed;

    fn token(uses_left: Option<u32>) -> TokenObject {
        let origin = Origin::Created { by: "cp-1".into() };
        TokenObject::new(TokenRecord { kind: Joiner::Worker, key: [3; 32], expires: 1_800_000_000, uses_left, origin })
    }

    fn node(address: &str) -> NodeObject {
        let record =
            NodeRecord { name: "w-1".into(), role: Joiner::Worker, key: [5; 32], address: address.parse().unwrap() };
        NodeObject { record, enrolled: true, token: Some([9; SECRET]), since: 1_800_000_000, version: None }
    }

    #[test]
    fn what_kubectl_shows() {
        let mut token = token(Some(2));
        token.taken.insert(holder(&[5; 32], "w-1"), "00".into());
        let texts = [token.object(), node("2001:db8::7").object()].map(|object| yaml::text(&object));
        insta::assert_snapshot!(texts.join("---\n"));
    }

    #[test]
    fn objects_read_back_and_changed_ones_are_named() {
        let mut held = token(Some(2));
        held.taken.insert(holder(&[5; 32], "w-1"), "00".into());
        held.version = Some("7".into());
        for object in [token(None), held, TokenObject { record: token(Some(1)).record, ..token(None) }] {
            assert_eq!(TokenObject::read(&object.object()), Ok(object));
        }
        for object in [node("192.0.2.7"), NodeObject { enrolled: false, token: None, ..node("2001:db8::7") }] {
            assert_eq!(NodeObject::read(&object.object()), Ok(object));
        }
        for field in ["role", "key", "expires", "uses", "taken", "origin"] {
            let mut changed = token(None).object();
            changed["data"][field] = json!("?");
            let why = TokenObject::read(&changed).unwrap_err();
            assert!(why.contains(field) && why.contains("kubeboot-system/token-"), "{why}");
        }
        for field in ["name", "role", "key", "address", "state", "token-id", "since"] {
            let mut changed = node("192.0.2.7").object();
            changed["data"][field] = json!("?");
            assert!(NodeObject::read(&changed).unwrap_err().contains(field), "{field}");
        }
    }

    #[test]
    fn labels_are_what_kubernetes_takes() {
        let values = [key_label(&[255; 32]), address_label([192, 0, 2, 7].into()), address_label([0xffff; 8].into())];
        for value in values {
            assert!(value.len() <= 63 && value.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{value}");
        }
        assert_ne!(address_label([0, 0, 0, 1].into()), address_label([0, 0, 0, 0, 0, 0, 0, 1].into()));
    }

    #[test]
    fn who_holds_a_use_has_it_left_and_others_do_not() {
        let (mut token, own, other) = (token(Some(1)), holder(&[1; 32], "a"), holder(&[1; 32], "b"));
        assert_eq!(token.uses_left(Some(&own)), Some(1));
        token.taken.insert(own.clone(), "00".into());
        assert_eq!(token.uses_left(Some(&own)), Some(1));
        assert_eq!(token.uses_left(Some(&other)), Some(0), "the same key under another name");
        assert_eq!(token.uses_left(None), Some(0));
        assert_eq!(
            super::TokenObject { record: TokenRecord { uses_left: None, ..token.record }, ..token }.uses_left(None),
            None
        );
    }

    #[test]
    fn founding_tokens_are_of_their_seed_and_hold_no_secret() {
        let seed = Seed::new([7; SECRET]);
        let text = FoundingTokens::of(&seed).text();
        let key = STANDARD.encode(seed.founding_key().public());
        let [worker, control_plane] = FoundingTokens::records(text.as_bytes(), &key, 1_800_000_000, Some(3)).unwrap();
        assert_eq!((worker.uses_left, control_plane.uses_left), (None, Some(2)), "the founder is one of three");
        assert_eq!(worker.key, seed.join_token(Joiner::Worker).join_key().public());
        assert_eq!(control_plane.key, seed.join_token(Joiner::ControlPlane).join_key().public());
        assert_eq!((worker.kind, worker.expires), (Joiner::Worker, 1_800_000_000 + crate::certificates::DAY));
        let other = STANDARD.encode(Seed::new([8; SECRET]).founding_key().public());
        assert!(FoundingTokens::records(text.as_bytes(), &other, 0, None).unwrap_err().contains("another seed"));
        for length in 0..text.len() - 2 {
            assert!(FoundingTokens::records(&text.as_bytes()[..length], &key, 0, None).is_err(), "{length}");
        }
    }
}
