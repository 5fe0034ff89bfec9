//! What an operator can ask for.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::frame::Trouble;
use super::key::OperatorLine;
use super::{SESSION, user};
use crate::certificates::DAY;
use crate::exit::Exit;
use crate::facts::rfc1123_problem;
use crate::token::Joiner;
use crate::words::one_line;

/// Bytes of a certificate request at most.
pub const SIGNING_REQUEST: usize = 1024;
/// How long an operator's certificate for `kubectl` is good at most, in seconds.
pub const LONGEST_OPERATOR: u64 = 30 * DAY;
/// How long a token or a user's certificate is good at most, in seconds.
pub const LONGEST: u64 = 366 * DAY;
/// How long a node's pods may take to move at most, in seconds.
pub const LONGEST_DRAIN: u64 = DAY;
/// Lines of a log that are asked for at most.
pub const LINES: u32 = 1_000_000;

/// How long an operator's certificate is good unless asked otherwise, in seconds.
pub const TTL_OPERATOR: u64 = 7 * DAY;
/// How long a token is good unless asked otherwise, in seconds.
pub const TTL_TOKEN: u64 = DAY;
/// How long a user's certificate is good unless asked otherwise, in seconds.
pub const TTL_USER: u64 = 30 * DAY;
/// Lines of a log that are shown unless asked otherwise.
pub const LINES_UNASKED: u32 = 200;

/// Bytes, as base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub Vec<u8>);

impl TryFrom<String> for Bytes {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Bytes)
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> String {
        STANDARD.encode(bytes.0)
    }
}

/// What a token admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Admits {
    /// Workers.
    #[default]
    Worker,
    /// One control plane.
    ControlPlane,
}

impl From<Admits> for Joiner {
    fn from(admits: Admits) -> Joiner {
        match admits {
            Admits::Worker => Joiner::Worker,
            Admits::ControlPlane => Joiner::ControlPlane,
        }
    }
}

/// One request. JSON, `{"request": NAME, …}`; a field that is not known is an error, because what it meant would be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// A client certificate of the operator's own. Answer: [`super::user::Issued`].
    Kubeconfig {
        /// PKCS #10, DER, without names: the control plane says whose it becomes.
        certificate_request: Bytes,
        /// Seconds.
        ttl: u64,
    },
    /// What `kubeboot status` says there. Answer: its output, and its exit code.
    Status {
        /// With the origin of each setting.
        why: bool,
        /// As JSON.
        json: bool,
    },
    /// The journal. Answer: its lines.
    Logs {
        /// Of this unit alone.
        unit: Option<String>,
        /// Go on with what is written from now on.
        follow: bool,
        /// The last so many.
        lines: u32,
    },
    /// What is needed to find a fault, without secrets. Answer: a tar archive, gzipped.
    SupportBundle {},
    /// Puts a token's public half on record. Answer: `{"expires": …}`.
    TokenCreate {
        /// Whom it admits.
        role: Admits,
        /// The join key's public half, 32 bytes.
        key: Bytes,
        /// Seconds.
        ttl: u64,
        /// How many machines; none: any number.
        uses: Option<u32>,
    },
    /// Answer: a list of `words::tokens::Listed`.
    TokenList {},
    /// Answer: `{}`.
    TokenRevoke {
        /// Ten hexadecimal digits.
        id: String,
    },
    /// Answer: `{"fingerprint": …, "added": …}`.
    OperatorAdd {
        /// A line of `authorized_keys`, without options.
        key: String,
    },
    /// Answer: `{"fingerprint": …, "left": …}`.
    OperatorRemove {
        /// `SHA256:…`, or the key.
        key: String,
        /// Although it is the last.
        last: bool,
    },
    /// Answer: a list of [`super::objects::Listed`].
    OperatorList {},
    /// A client certificate for somebody, and what they may do. Answer: [`super::user::Issued`].
    UserCreate {
        /// Who and what.
        user: user::Wanted,
        /// PKCS #10, DER, as [`user::Wanted::request`] has it.
        certificate_request: Bytes,
    },
    /// Answer: a list of [`super::objects::UserListed`].
    UserList {},
    /// Answer: [`super::user::Revoked`].
    UserRevoke {
        /// The name.
        name: String,
    },
    /// Who is in the mesh, as the node's agent sees it. Answer: [`crate::mesh::view::View`].
    Members {},
    /// Removes a node. Answer: [`crate::node_removal::Progress`], one a line, each as it happens.
    NodeRemove {
        /// The node's name.
        name: String,
        /// How many seconds its pods may take to move; none: they end with it.
        drain: Option<u64>,
    },
    /// Where control planes are. What is asked of a worker in place of what it does not do, of which it gets nothing. Answer:
    /// a list of addresses.
    ControlPlanes {},
}

impl Request {
    /// Whether a worker does it too. What it is sent is no secret and of no use elsewhere: nothing else may be sent to one.
    pub fn is_for_workers(&self) -> bool {
        match self {
            Request::Status { .. }
            | Request::Logs { .. }
            | Request::SupportBundle {}
            | Request::Members {}
            | Request::ControlPlanes {} => true,
            Request::Kubeconfig { .. }
            | Request::TokenCreate { .. }
            | Request::TokenList {}
            | Request::TokenRevoke { .. }
            | Request::OperatorAdd { .. }
            | Request::OperatorRemove { .. }
            | Request::OperatorList {}
            | Request::UserCreate { .. }
            | Request::UserList {}
            | Request::UserRevoke { .. }
            | Request::NodeRemove { .. } => false,
        }
    }

    /// The words of the command that asks for the same, but for where it is asked and what is of the terminal's alone. What is
    /// not as the command has it unasked is said: to leave out a bound would ask for more than was asked for.
    pub fn command(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut say = |word: &str| words.push(word.to_owned());
        let flag = |name: &'static str, given: bool| if given { name } else { "" };
        match self {
            Request::Kubeconfig { ttl, certificate_request: _ } => {
                say("kubeconfig");
                say(&option("--ttl", &lifetime(*ttl), &lifetime(TTL_OPERATOR)));
            }
            Request::Status { why, json } => {
                say("status");
                say(flag("--why", *why));
                say(flag("--output json", *json));
            }
            Request::Logs { unit, follow, lines } => {
                say("logs");
                say(&unit.as_deref().map(word).unwrap_or_default());
                say(flag("--follow", *follow));
                say(&option("--lines", &lines.to_string(), &LINES_UNASKED.to_string()));
            }
            Request::SupportBundle {} => say("support-bundle"),
            Request::TokenCreate { role, ttl, uses, key: _ } => {
                say("token create");
                match (role, uses) {
                    (Admits::Worker, Some(uses)) => say(&format!("--uses {uses}")),
                    (Admits::Worker, None) => {}
                    // It admits one, and the command says so unasked.
                    (Admits::ControlPlane, _) => say("--role control-plane"),
                }
                say(&option("--ttl", &lifetime(*ttl), &lifetime(TTL_TOKEN)));
            }
            Request::TokenList {} => say("token list"),
            Request::TokenRevoke { id } => say(&format!("token revoke {}", word(id))),
            Request::OperatorAdd { key } => say(&format!("operator add {}", word(key))),
            Request::OperatorRemove { key, last } => {
                say(&format!("operator remove {}", word(key)));
                say(flag("--yes-remove-the-last", *last));
            }
            Request::OperatorList {} => say("operator list"),
            Request::UserCreate { user, certificate_request: _ } => {
                let user::Wanted { name, groups, ttl, role, namespace, reserved } = user;
                say(&format!("user create {} --role {role}", word(name)));
                groups.iter().for_each(|group| say(&format!("--group {}", word(group))));
                if let Some(namespace) = namespace {
                    say(&format!("--namespace {}", word(namespace)));
                }
                say(&option("--ttl", &lifetime(*ttl), &lifetime(TTL_USER)));
                say(flag("--allow-reserved", *reserved));
            }
            Request::UserList {} => say("user list"),
            Request::UserRevoke { name } => say(&format!("user revoke {}", word(name))),
            Request::Members {} | Request::ControlPlanes {} => say("members"),
            Request::NodeRemove { name, drain } => {
                say(&format!("node remove {}", word(name)));
                match drain {
                    Some(seconds) => say(&format!("--drain-timeout {seconds}")),
                    None => say("--without-drain"),
                }
            }
        }
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }

    /// How long the connection lasts that carries it, at most. A removal's is longer by the time that its pods have.
    pub fn session(&self) -> Duration {
        match self {
            Request::NodeRemove { drain: Some(seconds), .. } => SESSION + Duration::from_secs(*seconds),
            _ => SESSION,
        }
    }

    /// As it is sent.
    pub fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers")
    }

    /// Reads what [`Request::text`] wrote.
    ///
    /// # Errors
    /// In words, without what stood there.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| {
            use serde_json::error::Category;
            match error.classify() {
                Category::Data => "it asks for something, or in a way, that this release does not know".to_owned(),
                _ => "it is no JSON".to_owned(),
            }
        })
    }

    /// Whether it is within its bounds. Who sends it and who gets it both ask.
    ///
    /// # Errors
    /// What is wrong, with the fix.
    pub fn check(&self) -> Result<(), Trouble> {
        let bad = |why: String, fix: &str| Err(Trouble::new(Exit::BadInput, self.refused(), why, fix));
        let seconds = |ttl: u64, most: u64| match ttl {
            1.. if ttl <= most => Ok(()),
            _ => bad(format!("expected a life of 1 s to {} days, found {ttl} s", most / DAY), "give another --ttl."),
        };
        let signing_request = |bytes: &Bytes| match bytes.0.len() {
            1..=SIGNING_REQUEST => Ok(()),
            found => {
                bad(format!("its certificate request has {found} bytes, of at most {SIGNING_REQUEST}"), "report this.")
            }
        };
        match self {
            Request::Kubeconfig { certificate_request, ttl } => {
                signing_request(certificate_request)?;
                seconds(*ttl, LONGEST_OPERATOR)
            }
            Request::Logs { unit, lines, .. } => match unit {
                Some(unit) if !is_unit(unit) => {
                    bad("this is no unit's name".to_owned(), "give a name such as kubelet or kubeboot-agent.service.")
                }
                _ if *lines > LINES => bad(format!("at most {LINES} lines are sent"), "ask for fewer."),
                _ => Ok(()),
            },
            Request::TokenCreate { role, key, ttl, uses } => {
                seconds(*ttl, LONGEST)?;
                token(*role, key, *uses).or_else(|(why, fix)| bad(why.to_owned(), fix))
            }
            Request::TokenRevoke { id } => match is_token_id(id) {
                true => Ok(()),
                false => {
                    bad("expected an id of ten hexadecimal digits".to_owned(), "take it from: kubeboot token list")
                }
            },
            Request::OperatorAdd { key } => match OperatorLine::parse(key) {
                Ok(_) => Ok(()),
                Err(why) => bad(why, "give the line of a file such as ~/.ssh/id_ed25519.pub."),
            },
            Request::OperatorRemove { key, .. } if key.len() > 2048 => {
                bad("this is no key".to_owned(), "take its fingerprint from: kubeboot operator list")
            }
            Request::UserCreate { user, certificate_request } => {
                signing_request(certificate_request)?;
                user.check().or_else(|(why, fix)| bad(why, fix))
            }
            Request::UserRevoke { name } => match user::is_name(name, user::NAME) {
                true => Ok(()),
                false => bad("this is no user's name".to_owned(), "take it from: kubeboot user list"),
            },
            Request::NodeRemove { name, drain } => match (rfc1123_problem(name), drain) {
                (Some(_), _) => bad("this is no node's name".to_owned(), "take it from: kubectl get nodes"),
                (None, Some(seconds)) if !(1..=LONGEST_DRAIN).contains(seconds) => bad(
                    format!("pods have 1 to {LONGEST_DRAIN} s to move"),
                    "give another --drain-timeout, or --without-drain.",
                ),
                _ => Ok(()),
            },
            Request::Status { .. }
            | Request::Members {}
            | Request::ControlPlanes {}
            | Request::SupportBundle {}
            | Request::TokenList {}
            | Request::OperatorList {}
            | Request::OperatorRemove { .. }
            | Request::UserList {} => Ok(()),
        }
    }

    /// What is said when it is not done.
    pub fn refused(&self) -> &'static str {
        match self {
            Request::Kubeconfig { .. } => "No kubeconfig was made",
            Request::Status { .. } => "The machine's status can't be shown",
            Request::Logs { .. } => "The logs can't be shown",
            Request::SupportBundle {} => "No support bundle was made",
            Request::TokenCreate { .. } => "No token was made",
            Request::TokenList {} => "The tokens can't be listed",
            Request::TokenRevoke { .. } => "No token was revoked",
            Request::OperatorAdd { .. } => "No operator was added",
            Request::OperatorRemove { .. } => "No operator was removed",
            Request::OperatorList {} => "The operators can't be listed",
            Request::UserCreate { .. } => "No user was made",
            Request::UserList {} => "The users can't be listed",
            Request::UserRevoke { .. } => "No user was revoked",
            Request::Members {} => "The members of the mesh can't be shown",
            Request::NodeRemove { .. } => "The node was not removed",
            Request::ControlPlanes {} => "The control planes can't be shown",
        }
    }
}

/// For logs: the command, and whom it is about. Of visible characters only.
impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Request::Kubeconfig { .. } => "kubeconfig".to_owned(),
            Request::Status { .. } => "status".to_owned(),
            Request::Logs { unit, .. } => format!("logs {}", unit.as_deref().unwrap_or_default()),
            Request::SupportBundle {} => "support-bundle".to_owned(),
            Request::TokenCreate { role: Admits::Worker, .. } => "token create for workers".to_owned(),
            Request::TokenCreate { .. } => "token create for a control plane".to_owned(),
            Request::TokenList {} => "token list".to_owned(),
            Request::TokenRevoke { id } => format!("token revoke {id}"),
            Request::OperatorAdd { key } => {
                format!("operator add {}", OperatorLine::parse(key).map(|line| line.fingerprint()).unwrap_or_default())
            }
            Request::OperatorRemove { key, .. } => format!("operator remove {key}"),
            Request::OperatorList {} => "operator list".to_owned(),
            Request::UserCreate { user, .. } => {
                format!("user create {} ({}) groups [{}]", user.name, user.role, user.groups.join(", "))
            }
            Request::UserList {} => "user list".to_owned(),
            Request::UserRevoke { name } => format!("user revoke {name}"),
            Request::Members {} => "members".to_owned(),
            Request::NodeRemove { name, drain: Some(_) } => format!("node remove {name}"),
            Request::NodeRemove { name, drain: None } => format!("node remove {name} without drain"),
            Request::ControlPlanes {} => "where control planes are".to_owned(),
        };
        f.write_str(one_line(&text).trim_end())
    }
}

/// An option as it is typed; nothing if the command has it so unasked.
fn option(name: &str, value: &str, unasked: &str) -> String {
    if value == unasked { String::new() } else { format!("{name} {value}") }
}

/// Seconds as `--ttl` takes them.
fn lifetime(seconds: u64) -> String {
    let units = [(DAY, 'd'), (60 * 60, 'h'), (60, 'm')];
    let whole = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{seconds}s"), |(unit, letter)| format!("{}{letter}", seconds / unit))
}

/// A word as a shell takes it: in quotes if a character of it might mean something there.
fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@/=+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Whether such a token may be made; else why not, and the fix.
fn token(role: Admits, key: &Bytes, uses: Option<u32>) -> Result<(), (&'static str, &'static str)> {
    match (role, uses) {
        _ if key.0.len() != 32 => Err(("its key has not 32 bytes", "report this.")),
        (Admits::ControlPlane, uses) if uses != Some(1) => Err((
            "a control plane's token admits one machine, because it is worth the cluster's keys",
            "make one for each machine.",
        )),
        (_, Some(0 | 10_001..)) => Err(("a token admits 1 to 10000 machines, or any number", "give another --uses.")),
        _ => Ok(()),
    }
}

/// Whether this may be a unit's name (systemd.unit(5)), which becomes an argument: no option, no pattern.
fn is_unit(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":_.@\\-".contains(&byte);
    (1..=255).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(fits)
}

/// Whether this is a token's id, as lists show it.
pub fn is_token_id(id: &str) -> bool {
    id.len() == 10 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
