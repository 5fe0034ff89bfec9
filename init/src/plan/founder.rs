//! The founder's plan: what the machine that founds a cluster has to have on disk, in the order in which it is made.

use std::collections::BTreeMap;

use crate::certificates::{Authority, Fault, Inspected, Leaf, OperatorKey, Subject, Unix, check, operators};
use crate::etcd::Membership;
use crate::kubernetes::{self, encryption, kubeconfig};
use crate::paths;
use crate::settings::frozen::Frozen;
use crate::settings::{Backend, ProxyMode, Settings};
use crate::token::Token;

use super::parts::write;
use super::record::{Cluster, Node};
use super::sight::{Entry, Sight};
use super::{Damaged, Step, parts, state};

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// The settings in force: the frozen ones, once there are any.
    pub settings: Settings,
    /// The node's name, address and machine-id: the pinned ones, once there are any.
    pub node: Node,
    /// The founding key's public half (Ed25519) of the seed that the operator gave; else the founder makes its own seed.
    pub given: Option<[u8; 32]>,
    /// The text that freezes the settings after the first success.
    pub frozen: String,
}

/// A part of what should be. Each is compared with what is, in the order of [`ORDER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Etcd,
    Strays,
    Directories,
    Node,
    Identity,
    Cluster,
    Authorities,
    ServiceAccounts,
    Encryption,
    Certificates,
    Operators,
    Kubeconfigs,
    Freeze,
    /// Everything before is on disk before anything after it is begun.
    Flush,
}

/// The founder's order. The cluster's id is on disk before any key of the cluster is made; the settings are frozen,
/// which says that the founding is complete, only when everything else is on disk.
const ORDER: &[Part] = &[
    Part::Etcd,
    Part::Strays,
    Part::Directories,
    Part::Node,
    Part::Identity,
    Part::Flush,
    Part::Cluster,
    Part::Flush,
    Part::Authorities,
    Part::ServiceAccounts,
    Part::Encryption,
    Part::Certificates,
    Part::Operators,
    Part::Kubeconfigs,
    Part::Flush,
    Part::Freeze,
    Part::Flush,
];

/// Beside those of every node.
pub(super) const DIRECTORIES: &[parts::Directory] = &[
    ("/var/log", 0o755, false),
    (crate::certificates::operators::DIRECTORY, 0o755, true),
    ("/etc/kubernetes/pki/etcd", 0o755, true),
    ("/etc/kubernetes/encryption", 0o700, true),
    (paths::ETCD_DATA, 0o700, true),
    (kubernetes::AUDIT_LOGS, 0o700, true),
];

/// The key that signs ServiceAccount tokens.
pub const SERVICE_ACCOUNT_KEY: &str = "/etc/kubernetes/pki/sa.key";
/// Its public half.
pub const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "/etc/kubernetes/pki/sa.pub";

impl Founder {
    /// Every path that the plan wants to know of.
    pub fn paths(&self) -> Vec<String> {
        let mut files: Vec<String> = [
            paths::CLUSTER,
            paths::IDENTITY_KEY,
            paths::FOUNDING_TOKENS,
            paths::SEED,
            paths::NODE,
            paths::FROZEN,
            paths::WAS_READY,
            paths::ETCD_MEMBERSHIP,
            // Only for what a power cut left beside it.
            paths::MESH_KEY,
            SERVICE_ACCOUNT_KEY,
            SERVICE_ACCOUNT_PUBLIC_KEY,
            encryption::PATH,
        ]
        .map(str::to_owned)
        .into();
        let authorities = Authority::ALL.iter().flat_map(|authority| [authority.certificate(), authority.key()]);
        let leaves = self.leaves();
        let certificates = leaves.iter().flat_map(|leaf| leaf.form().paths());
        files.extend(authorities.chain(certificates).map(str::to_owned));
        files.extend(self.operators().iter().map(OperatorKey::path));
        files.extend(self.kubeconfigs().into_iter().map(|(path, _)| path.to_owned()));
        parts::add_strays(&mut files);
        files.extend(parts::directory_paths(DIRECTORIES));
        files.push(ETCD_MEMBER.to_owned());
        files
    }

    /// The certificates that this node has.
    pub fn leaves(&self) -> Vec<Leaf> {
        let wanted = |leaf: &Leaf| match leaf {
            Leaf::KubeProxy => self.settings.proxy != ProxyMode::None,
            Leaf::Flannel => self.settings.network.backend != Backend::None,
            _ => true,
        };
        Leaf::ALL.into_iter().filter(wanted).collect()
    }

    /// Operators' keys that can hold a certificate, each once.
    pub fn operators(&self) -> Vec<OperatorKey> {
        let lines = self.settings.operator.iter().chain(&self.settings.os.ssh_authorized_keys);
        let mut keys: Vec<OperatorKey> = Vec::new();
        for key in lines.filter_map(|line| OperatorKey::parse(line).ok()) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// What this node's certificates get their names from.
    pub fn subject(&self) -> Subject {
        let cluster = &self.settings.cluster;
        Subject {
            node: self.node.name.clone(),
            address: self.node.address,
            service: cluster.service_cidr.nth(1).unwrap_or(cluster.service_cidr.address),
            dns_domain: cluster.dns_domain.clone(),
            extra_sans: self.settings.api.extra_sans.clone(),
        }
    }

    /// Kubeconfigs that refer to files, with their contents.
    fn kubeconfigs(&self) -> Vec<(&'static str, String)> {
        let leaves = self.leaves();
        let all = kubeconfig::of_node(&kubernetes::server(self.node.address));
        all.into_iter().filter(|(leaf, ..)| leaves.contains(leaf)).map(|(_, path, text)| (path, text)).collect()
    }
}

/// etcd makes it when it starts for the first time.
const ETCD_MEMBER: &str = "/var/lib/etcd/member";
/// What etcd writes first into its database, in bytes: the four pages of an empty one (`init` in bbolt's db.go). The
/// first commit makes it larger.
const EMPTY_DATABASE: u64 = 4 * 4096;

/// What is on disk only after the founding was complete.
pub const FOUNDED: &[&str] = &[paths::FROZEN, paths::WAS_READY, ETCD_MEMBER];

/// Whether the founding was once complete: from then on, what can't be made again is never replaced.
pub fn founded(sight: &Sight) -> bool {
    FOUNDED.iter().any(|path| sight.exists(path))
}

/// Compares what should be with what is.
///
/// # Errors
/// [`Damaged`]: something that can't be made again is missing or damaged.
pub fn plan(founder: &Founder, sight: &Sight, now: Unix) -> Result<Vec<Step>, Damaged> {
    let found = Found { founder, sight, now, founded: founded(sight) };
    let mut steps = Vec::new();
    let mut flushed = 0;
    let mut authorities = BTreeMap::new();
    for part in ORDER {
        match part {
            Part::Etcd => steps.extend(found.etcd()?),
            Part::Strays => steps.extend(parts::strays(sight)),
            Part::Directories => steps.extend(parts::directories(sight, DIRECTORIES)),
            Part::Node => steps.extend(found.node()?),
            Part::Identity => steps.extend(found.identity()?),
            Part::Cluster => steps.extend(found.cluster()?),
            Part::Authorities => steps.extend(found.authorities(&mut authorities)?),
            Part::ServiceAccounts => steps.extend(found.service_accounts()?),
            Part::Encryption => steps.extend(found.encryption()?),
            Part::Certificates => steps.extend(found.certificates(&authorities)),
            Part::Operators => steps.extend(found.operators(&authorities)),
            Part::Kubeconfigs => steps.extend(parts::kubeconfigs(sight, founder.kubeconfigs())),
            Part::Freeze => steps.extend(found.freeze()?),
            Part::Flush if steps.len() > flushed => steps.push(Step::Flush),
            Part::Flush => {}
        }
        if *part == Part::Flush {
            flushed = steps.len();
        }
    }
    Ok(steps)
}

/// What is, beside what should be.
struct Found<'a> {
    founder: &'a Founder,
    sight: &'a Sight,
    now: Unix,
    founded: bool,
}

impl Found<'_> {
    /// etcd's data is etcd's own. But where it is missing etcd begins an empty cluster without a word, which must not
    /// happen to one that was in use.
    fn etcd(&self) -> Result<Option<Step>, Damaged> {
        let etcd = self.sight.etcd();
        if self.sight.exists(paths::WAS_READY) || self.votes() {
            let parts = [(&etcd.database, paths::ETCD_DATABASE, "etcd's database")];
            let parts = parts.into_iter().chain([(&etcd.log, paths::ETCD_LOG, "etcd's write-ahead log")]);
            for (amount, path, what) in parts {
                let found = match amount {
                    Ok(0) => "missing or empty",
                    Ok(_) => continue,
                    Err(reason) => reason,
                };
                let (path, what, found) = (path.to_owned(), what.to_owned(), found.to_owned());
                return Err(Damaged::EtcdGone { path, what, found });
            }
            return Ok(None);
        }
        // A power cut while etcd makes its database may leave pages of zeros, which it never starts from again. It
        // makes its log only when the database is on disk, and commits nothing before: nothing is lost.
        let half_made = etcd.log == Ok(0) && matches!(etcd.database, Ok(1..=EMPTY_DATABASE));
        let because = "etcd was making it when the power went, and nothing is in it yet".to_owned();
        Ok(half_made.then(|| Step::Remove { path: paths::ETCD_DATABASE.to_owned(), because }))
    }

    /// Whether this machine is on record as a member of etcd's that votes: what it has promised must not be forgotten.
    fn votes(&self) -> bool {
        let record = state::file(self.sight, paths::ETCD_MEMBERSHIP).ok();
        record.and_then(|bytes| Membership::parse(bytes).ok()).is_some_and(|membership| membership.voter)
    }

    /// Whether the machine was joining a cluster when it was interrupted: it has the cluster's record, and not the tokens
    /// that a founder has before that. Its keys are the cluster's, so what it founded would be a second one of them.
    fn was_joining(&self) -> bool {
        !self.founded && self.sight.exists(paths::CLUSTER) && !self.sight.exists(paths::FOUNDING_TOKENS)
    }

    fn node(&self) -> Result<Option<Step>, Damaged> {
        let what = "the node's name and address";
        let Some(because) = parts::node(self.sight, &self.founder.node) else { return Ok(None) };
        if self.founded {
            return Err(Damaged::new(paths::NODE, what, because));
        }
        Ok(Some(write(paths::NODE, 0o644, self.founder.node.text(), because)))
    }

    /// Seed and identity key, which the cluster's record is made from.
    fn identity(&self) -> Result<Vec<Step>, Damaged> {
        if self.was_joining() {
            return Err(Damaged::Joining { path: paths::CLUSTER.to_owned() });
        }
        if self.founded || (self.sight.exists(paths::CLUSTER) && !self.is_of_another_seed()) {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        let seed = state::file(self.sight, paths::SEED).ok().and_then(|text| std::str::from_utf8(text).ok());
        let own = seed.is_some_and(|text| matches!(Token::parse(text), Ok(Token::Seed(_))));
        if self.founder.given.is_none() && !own {
            steps.push(Step::Seed);
        }
        if self.founder.given.is_some() && self.sight.exists(paths::SEED) {
            // Else it would be shown as the cluster's.
            let because = "a seed was given since it was made".to_owned();
            steps.push(Step::Remove { path: paths::SEED.to_owned(), because });
        }
        if state::file(self.sight, paths::IDENTITY_KEY).and_then(check::ed25519_public_half).is_err() {
            steps.push(Step::Identity);
        }
        Ok(steps)
    }

    /// Whether the founding was cut short and the operator has given another seed since: his tokens fit that one, so the
    /// cluster, which nobody has joined, is founded anew from it.
    fn is_of_another_seed(&self) -> bool {
        let record = state::file(self.sight, paths::CLUSTER).ok().and_then(|bytes| Cluster::parse(bytes).ok());
        let other = |record: Cluster| self.founder.given.is_some_and(|given| !record.is_founded_by(&given));
        !self.founded && record.is_some_and(other)
    }

    fn cluster(&self) -> Result<Option<Step>, Damaged> {
        let what = "who the cluster is";
        if self.is_of_another_seed() {
            return Ok(Some(Step::Cluster));
        }
        let record = match state::file(self.sight, paths::CLUSTER) {
            Err(Fault::Missing) if !self.founded => return Ok(Some(Step::Cluster)),
            Err(fault) => return Err(Damaged::new(paths::CLUSTER, what, fault.to_string())),
            Ok(bytes) => Cluster::parse(bytes).map_err(|reason| Damaged::new(paths::CLUSTER, what, reason))?,
        };
        let identity = state::file(self.sight, paths::IDENTITY_KEY).and_then(check::ed25519_public_half);
        let identity = identity
            .and_then(|public| if record.is_identity(&public) { Ok(()) } else { Err(Fault::WrongKey) })
            .map_err(|fault| Damaged::new(paths::IDENTITY_KEY, "the cluster's identity key", fault.to_string()));
        identity.map(|()| None)
    }

    fn authorities(&self, found: &mut BTreeMap<Authority, Inspected>) -> Result<Vec<Step>, Damaged> {
        let mut steps = Vec::new();
        for authority in Authority::ALL {
            match state::authority(self.sight, authority, self.now) {
                Ok(inspected) => {
                    found.insert(authority, inspected);
                    steps.extend(self.mode(authority.key(), 0o600));
                }
                Err(fault) if self.founded => {
                    let key_is_bad = state::file(self.sight, authority.key()).and_then(check::public_half).is_err();
                    let path = if key_is_bad { authority.key() } else { authority.certificate() };
                    let what = format!("certificate authority {authority}");
                    return Err(Damaged::of_fault(path, &what, &fault, self.now));
                }
                Err(fault) => steps.push(Step::Authority { authority, because: fault.to_string() }),
            }
        }
        Ok(steps)
    }

    fn service_accounts(&self) -> Result<Vec<Step>, Damaged> {
        let public = match state::service_account_key(self.sight, SERVICE_ACCOUNT_KEY) {
            Ok(public) => public,
            Err(fault) if self.founded => {
                let what = "the key that signs ServiceAccount tokens";
                return Err(Damaged::new(SERVICE_ACCOUNT_KEY, what, fault.to_string()));
            }
            Err(fault) => return Ok(vec![Step::ServiceAccountKey { because: fault.to_string() }]),
        };
        let mut steps: Vec<Step> = self.mode(SERVICE_ACCOUNT_KEY, 0o600).into_iter().collect();
        if let Err(fault) = state::service_account_public_key(self.sight, SERVICE_ACCOUNT_PUBLIC_KEY, &public) {
            steps.push(Step::ServiceAccountPublicKey { because: fault.to_string() });
        }
        Ok(steps)
    }

    fn encryption(&self) -> Result<Option<Step>, Damaged> {
        match state::encryption(self.sight) {
            Ok(()) => Ok(self.mode(encryption::PATH, 0o600)),
            Err(fault) if self.founded => {
                Err(Damaged::new(encryption::PATH, "the key that encrypts Secrets in etcd", fault.to_string()))
            }
            Err(fault) => Ok(Some(Step::EncryptionKey { because: fault.to_string() })),
        }
    }

    fn certificates(&self, authorities: &BTreeMap<Authority, Inspected>) -> Vec<Step> {
        let (subject, server) = (self.founder.subject(), kubernetes::server(self.founder.node.address));
        let mut steps = Vec::new();
        for leaf in self.founder.leaves() {
            let request = leaf.request(&subject);
            let verdict = match authorities.get(&request.authority) {
                Some(authority) => state::leaf(self.sight, leaf, &request, authority, &server, self.now),
                None => Err(Fault::Missing),
            };
            let Err(fault) = verdict else { continue };
            steps.push(Step::Issue { leaf, request, because: fault.to_string() });
        }
        steps
    }

    fn operators(&self, authorities: &BTreeMap<Authority, Inspected>) -> Vec<Step> {
        let mut steps = Vec::new();
        for public in self.founder.operators() {
            let verdict = match authorities.get(&Authority::Cluster) {
                Some(authority) => state::operator(self.sight, &public, authority, self.now),
                None => Err(Fault::Missing),
            };
            if let Err(fault) = verdict {
                steps.push(Step::Operator { key: public.fingerprint(), public, because: fault.to_string() });
            }
        }
        steps.extend(self.former_operators());
        steps
    }

    /// Certificates of operators who are no longer named: no report gives them out again.
    fn former_operators(&self) -> impl Iterator<Item = Step> {
        let named: Vec<String> = self.founder.operators().iter().map(OperatorKey::path).collect();
        let kept = |path: &&str| path.starts_with(operators::DIRECTORY) && path.ends_with(".crt");
        let because = "this operator is no longer named".to_owned();
        let former = self.sight.present().filter(kept).filter(move |path| !named.iter().any(|one| one == path));
        former.map(move |path| Step::Remove { path: path.to_owned(), because: because.clone() })
    }

    fn freeze(&self) -> Result<Option<Step>, Damaged> {
        let fault = match state::file(self.sight, paths::FROZEN).map(String::from_utf8_lossy) {
            Ok(text) => match Frozen::parse(&text) {
                Ok(_) => return Ok(None),
                Err(reason) => format!("unreadable: {reason}"),
            },
            Err(fault) => fault.to_string(),
        };
        if self.founded {
            // Their networks are in etcd and in every node: what the sources say now may be something else.
            return Err(Damaged::new(paths::FROZEN, "the settings that the cluster was founded with", fault));
        }
        Ok(Some(write(paths::FROZEN, 0o600, self.founder.frozen.clone(), "first success".to_owned())))
    }

    fn mode(&self, path: &str, mode: u32) -> Option<Step> {
        let differs = matches!(self.sight.at(path), Entry::File { mode: found, .. } if *found != mode);
        differs.then(|| Step::Mode { path: path.to_owned(), mode })
    }
}
