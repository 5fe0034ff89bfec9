//! Users: who they may be, what their certificate says, and what binds them to a role.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::certificates::{Authority, Purpose, Request, Unix};
use crate::enrolment::objects::{KIND, moment};
use crate::facts::rfc1123_problem;

/// Characters of a name at most: what a certificate's common name holds (RFC 5280, `ub-common-name`).
pub const NAME: usize = 64;
/// Groups of a user at most.
const GROUPS: usize = 16;
/// [`KIND`] of what binds users.
pub const USER: &str = "user";
/// What names that Kubernetes and kubeboot give a meaning begin with.
const RESERVED: [&str; 4] = ["system:", "kubeadm:", "kubeboot:", "operator:"];

/// Kubernetes' roles for users (its page "Using RBAC Authorization", user-facing roles).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads most things, no Secrets.
    #[default]
    View,
    /// Reads and writes most things, Secrets among them.
    Edit,
    /// And grants roles.
    Admin,
    /// Everything.
    ClusterAdmin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::View => "view",
            Role::Edit => "edit",
            Role::Admin => "admin",
            Role::ClusterAdmin => "cluster-admin",
        })
    }
}

/// A user that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wanted {
    /// The user's name.
    pub name: String,
    /// The groups.
    pub groups: Vec<String>,
    /// How long the certificate is good, in seconds.
    pub ttl: u64,
    /// What the user may do.
    pub role: Role,
    /// Only in this namespace; none: in all of them, and in the cluster.
    pub namespace: Option<String>,
    /// Although the name or a group is one to which Kubernetes itself gives a meaning.
    pub reserved: bool,
}

/// Whether a text may be a user's or a group's name: it stands in certificates, in objects' names and in paths.
pub fn is_name(text: &str, most: usize) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@:".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && text.len() <= most && text.bytes().all(fits)
}

impl Wanted {
    /// Whether such a user may be.
    ///
    /// # Errors
    /// What is wrong, and the fix.
    pub fn check(&self) -> Result<(), (String, &'static str)> {
        let letters = "letters, digits, -, _, ., @ and :, a letter or a digit first";
        if !is_name(&self.name, NAME) {
            return Err((format!("expected a name of at most {NAME} {letters}"), "give another name."));
        }
        if self.groups.len() > GROUPS || self.groups.iter().any(|group| !is_name(group, NAME)) {
            let why = format!("expected at most {GROUPS} groups of at most {NAME} {letters}");
            return Err((why, "give other groups."));
        }
        if (1..=self.groups.len()).any(|at| self.groups[at..].contains(&self.groups[at - 1])) {
            return Err(("a group stands there twice".to_owned(), "give it once."));
        }
        let is_reserved = |name: &&String| RESERVED.iter().any(|prefix| name.starts_with(prefix));
        if let Some(name) = std::iter::once(&self.name).chain(&self.groups).find(is_reserved)
            && !self.reserved
        {
            let why = format!("to {name} Kubernetes or kubeboot gives rights of its own, which no role limits");
            return Err((why, "give another name or group; or, if that is what you want, --allow-reserved."));
        }
        if !(1..=super::request::LONGEST).contains(&self.ttl) {
            return Err(("expected a life of 1 s to 366 days".to_owned(), "give another --ttl."));
        }
        match &self.namespace {
            Some(namespace) if namespace.contains('.') || rfc1123_problem(namespace).is_some() => {
                Err(("this is no namespace's name".to_owned(), "give another --namespace."))
            }
            _ => Ok(()),
        }
    }

    /// What the certificate says.
    pub fn request(&self) -> Request {
        client(self.name.clone(), self.groups.clone(), self.ttl)
    }

    /// Whether this binds the user as it should.
    pub fn is_bound_by(&self, bound: &Bound) -> bool {
        bound.own && bound.namespace == self.namespace && bound.role == self.role.to_string()
    }

    /// What binds the user to the role.
    pub fn binding(&self) -> Value {
        let mut metadata = json!({"name": binding_name(&self.name), "labels": {KIND: USER}});
        let kind = match &self.namespace {
            None => "ClusterRoleBinding",
            Some(namespace) => {
                metadata["namespace"] = json!(namespace);
                "RoleBinding"
            }
        };
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.role.to_string()},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": self.name}],
        })
    }

    /// What whoever makes such a user has to know of the role; none of those that are what they seem.
    pub fn caution(&self) -> Option<&'static str> {
        match (self.role, &self.namespace) {
            (Role::Edit | Role::Admin, None) => Some(
                "who may edit everything in every namespace can make itself the cluster's administrator; --namespace \
                 limits it to one",
            ),
            _ => None,
        }
    }
}

/// The name of what binds a user.
pub fn binding_name(user: &str) -> String {
    format!("kubeboot:user:{user}")
}

/// A binding that names a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The binding's namespace; none for a ClusterRoleBinding.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The role that it gives.
    pub role: String,
    /// Whether kubeboot made it for this user.
    pub own: bool,
}

impl Bound {
    /// Those among the items of a list of ClusterRoleBindings or RoleBindings that name the user.
    pub fn among(list: &Value, user: &str) -> Vec<Bound> {
        let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let items = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let is_user = |subject: &Value| {
            subject.get("kind").and_then(Value::as_str) == Some("User")
                && subject.get("name").and_then(Value::as_str) == Some(user)
        };
        let naming = items(list, "items").into_iter().filter(|item| items(item, "subjects").iter().any(is_user));
        naming
            .filter_map(|item| {
                let name = text(&item, "/metadata/name")?;
                let labelled = item.pointer("/metadata/labels").and_then(|labels| labels.get(KIND));
                let own = name == binding_name(user) && labelled.and_then(Value::as_str) == Some(USER);
                let role = text(&item, "/roleRef/name").unwrap_or_default();
                Some(Bound { namespace: text(&item, "/metadata/namespace"), name, role, own })
            })
            .collect()
    }

    /// Its path in the API.
    pub fn path(&self) -> String {
        const GROUP: &str = "/apis/rbac.authorization.k8s.io/v1";
        match &self.namespace {
            None => format!("{GROUP}/clusterrolebindings/{}", self.name),
            Some(namespace) => format!("{GROUP}/namespaces/{namespace}/rolebindings/{}", self.name),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            None => write!(f, "clusterrolebinding {}", self.name),
            Some(namespace) => write!(f, "-n {namespace} rolebinding {}", self.name),
        }
    }
}

/// A client certificate that was issued, with what a kubeconfig needs besides. No secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Issued {
    /// As whom the API server knows its holder.
    pub user: String,
    /// PEM.
    pub certificate: String,
    /// The cluster's authority, PEM.
    pub authority: String,
    /// The API servers, one of each control plane.
    pub servers: Vec<SocketAddr>,
    /// RFC 3339.
    pub expires: String,
    /// What is to be known of it besides, a sentence each.
    pub notes: Vec<String>,
}

/// What became of a user that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Revoked {
    /// The name.
    pub name: String,
    /// Until when a certificate of the user's is good, RFC 3339; none: there is none.
    pub certificate_until: Option<String>,
    /// Bindings that were deleted.
    pub deleted: Vec<String>,
    /// Bindings of others' that name the user, and stay.
    pub left: Vec<String>,
    /// The groups in the certificate.
    pub groups: Vec<String>,
}

impl Revoked {
    /// As people read it. A certificate can't be taken back, and this says so.
    pub fn text(&self) -> String {
        let mut out = match self.deleted.as_slice() {
            [] => format!("{} was bound to nothing by kubeboot.\n", self.name),
            deleted => format!("Deleted: {}.\n", deleted.join(", ")),
        };
        match &self.certificate_until {
            None => out += "No certificate of this name that kubeboot made is good any more.\n",
            Some(until) => {
                out += &format!(
                    "The certificate itself is good until {until}: Kubernetes can't take it back. Until then its holder is \
                     known as {} and may do what every authenticated user may",
                    self.name
                );
                out += &match self.groups.as_slice() {
                    [] => ".\n".to_owned(),
                    groups => format!(", and what these groups may: {}.\n", groups.join(", ")),
                };
            }
        }
        for left in &self.left {
            out += &format!("Another binding names this user and stays. To delete it: kubectl delete {left}\n");
        }
        out
    }
}

/// The end of a certificate that is issued now.
pub fn expires(now: Unix, ttl: u64) -> String {
    moment(now.saturating_add(ttl))
}

fn client(common_name: String, organizations: Vec<String>, lifetime: u64) -> Request {
    Request {
        authority: Authority::Cluster,
        common_name,
        organizations,
        names: Vec::new(),
        purpose: Purpose::Client,
        lifetime,
        uid: None,
    }
}

/// What an operator's request for a certificate says: whose it becomes, only the control plane knows.
pub fn asked_by_operator() -> Request {
    client("operator".to_owned(), Vec::new(), 0)
}

/// What an operator's certificate says. `who`: the ssh key's fingerprint, `SHA256:…`, or the control plane's name.
pub fn of_operator(who: &str, ttl: u64) -> Request {
    let short = who.strip_prefix("SHA256:").and_then(|digest| digest.get(..12)).unwrap_or(who);
    client(format!("operator:{short}"), vec!["kubeadm:cluster-admins".to_owned()], ttl)
}
