//! What operators ask for, done at a control plane: for those who come by the network and for who is logged in there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::answers::{Answers, Caller, Machine, Place, Places};
use super::output::{self, Halt, Programs, Sink};
use super::removal;
use super::roster::Roster;
use super::store::{People, Rbac, bound};
use crate::certificates::{Authority, Request as Certificate, Unix, signing_request};
use crate::enrolment::decision::{Origin, TokenRecord};
use crate::enrolment::objects::moment;
use crate::exit::Exit;
use crate::host::enrolment::issue;
use crate::host::enrolment::store::{InApi, Objects, Store};
use crate::host::mesh::Watch;
use crate::host::node::ThisNode;
use crate::host::node_removal::{Look, Removal, Removing};
use crate::host::root::Root;
use crate::kubernetes::API_PORT;
use crate::operators::key::{OperatorLine, of_settings};
use crate::operators::objects::{Listed, SETTINGS, UserObject, operators, users};
use crate::operators::user::{self, Issued, Revoked, Wanted, binding_name};
use crate::operators::{Request, Trouble};
use crate::token::Joiner;
use crate::words::tokens;

/// What is advised when the cluster does not answer.
const LOOK: &str = "see how the cluster is: kubeboot status";

/// A control plane that does what operators ask.
pub struct Desk {
    /// This machine, as it tells of itself.
    pub(super) machine: Machine,
    /// This machine, as a node.
    pub(super) this: ThisNode,
    people: People,
    store: Store,
    /// What is needed of the API besides ConfigMaps.
    pub(super) rbac: Arc<dyn Rbac>,
    /// How a node is looked at that is to be removed.
    pub(super) removals: Box<Look>,
    roster: Roster,
    places: Places,
}

fn by_this_machine(root: Root) -> impl Fn(&str) -> Result<Box<dyn Removing>, String> {
    move |name| Ok(Box::new(Removal::look(&root, name)?))
}

impl Desk {
    /// At this machine, through its API server.
    pub fn new(root: &Root, this: &ThisNode, api: Arc<InApi>) -> Self {
        Desk::over(root, this, api.clone(), api, Programs::default())
    }

    /// With other objects than an API server's.
    pub(super) fn over(
        root: &Root,
        this: &ThisNode,
        objects: Arc<dyn Objects>,
        rbac: Arc<dyn Rbac>,
        programs: Programs,
    ) -> Self {
        let roster = Roster::new(root, objects.clone());
        Desk {
            machine: Machine { root: root.clone(), programs },
            this: this.clone(),
            people: People::new(objects.clone()),
            store: Store::new(objects),
            rbac,
            removals: Box::new(by_this_machine(root.clone())),
            roster,
            places: Places::default(),
        }
    }

    /// That can ask the mesh who the operators are, while the API does not answer.
    #[must_use]
    pub fn beside(mut self, mesh: Watch) -> Self {
        self.roster = self.roster.beside(mesh);
        self
    }

    /// Who the cluster is.
    pub fn cluster(&self) -> &crate::plan::record::Cluster {
        &self.this.cluster
    }

    /// Where machines reach this one.
    pub fn address(&self) -> IpAddr {
        self.this.node.address
    }

    /// Root on this machine.
    pub fn here(&self) -> Caller {
        Caller { name: self.this.node.name.clone(), key: None }
    }

    /// Looks at the operators on record, for when the API does not answer.
    ///
    /// # Errors
    /// It does not answer, in words. What was seen before stays.
    pub fn refresh(&self) -> Result<(), String> {
        self.roster.look().map(drop)
    }

    /// Puts on record whom this machine's settings name and nobody has removed: they command the cluster when this machine
    /// is lost, too.
    ///
    /// # Errors
    /// The first that can't be put on record, in words. Who was before stays.
    pub fn adopt(&self, now: Unix) -> Result<(), String> {
        let by = format!("the settings of {}", self.this.node.name);
        let named = self.operators()?.into_iter().filter(|(_, row)| row.from == SETTINGS);
        for (line, Listed { fingerprint, .. }) in named {
            let adopted = self.people.adopt_operator(&line, &by, now);
            if adopted.map_err(|why| format!("operator {fingerprint} of the settings is not on record: {why}"))? {
                println!("operator {fingerprint} of this machine's settings is on record for the whole cluster");
                // Who can't see it now sees it at the next look.
                let _ = self.refresh();
            }
        }
        Ok(())
    }
}

impl Answers for Desk {
    /// While the API does not answer: whether it was when it did last, by this process or by one before.
    fn is_operator(&self, key: &[u8]) -> Result<bool, String> {
        self.roster.is_operator(&self.this.settings, key)
    }

    fn enter(&self) -> Option<Place<'_>> {
        self.places.enter()
    }

    fn answer(&self, who: &Caller, request: &Request, now: Unix, sink: &mut dyn Sink) -> Result<u8, Halt> {
        request.check()?;
        let what = request.refused();
        let failed = |why: String| Trouble::new(Exit::Failure, what, why, LOOK);
        // By what was seen earlier a machine tells of itself. What is issued can't be taken back, and what is changed is the
        // cluster's: for that the operators are looked at now.
        if who.key.is_some() && !request.is_for_workers() {
            self.refresh().map_err(failed)?;
        }
        // The key was looked up when it was admitted; who was removed since must not use the open connection to come back.
        self.still(who)?;
        match request {
            Request::Kubeconfig { certificate_request, ttl } => {
                let expected = user::asked_by_operator();
                let spki = signing_request::check(&certificate_request.0, &expected);
                let spki = spki.map_err(|why| Trouble::new(Exit::BadInput, what, why, "report this."))?;
                let issued = self.issued(&user::of_operator(&who.name, *ttl), &spki, now, Vec::new());
                output::value(sink, &issued.map_err(failed)?)
            }
            Request::TokenCreate { .. } | Request::TokenList {} | Request::TokenRevoke { .. } => {
                self.tokens(who, request, now, sink)
            }
            Request::OperatorAdd { key } => {
                let line = OperatorLine::parse(key).map_err(failed)?;
                let in_force = self.operators().map_err(failed)?.iter().any(|(other, _)| other.key == line.key);
                let added = !in_force && self.people.set_operator(&line, true, &who.name, now).map_err(failed)?;
                // It is on record; who can't see it now sees it at the next look.
                let _ = self.refresh();
                output::value(sink, &json!({"fingerprint": line.fingerprint(), "added": added}))
            }
            Request::OperatorRemove { key, last } => self.remove_operator(who, key, *last, now, sink),
            Request::OperatorList {} => {
                let rows: Vec<_> = self.operators().map_err(failed)?.into_iter().map(|(_, row)| row).collect();
                output::value(sink, &rows)
            }
            Request::UserCreate { user, certificate_request } => {
                let spki = signing_request::check(&certificate_request.0, &user.request());
                let spki = spki.map_err(|why| Trouble::new(Exit::BadInput, what, why, "report this."))?;
                self.create_user(who, user, &spki, now, sink)
            }
            Request::UserList {} => output::value(sink, &users(&self.people.users().map_err(failed)?, now)),
            Request::UserRevoke { name } => self.revoke_user(who, name, now, sink),
            Request::ControlPlanes {} => {
                let servers = self.rbac.servers().unwrap_or_default();
                let addresses: BTreeSet<IpAddr> = servers.iter().map(SocketAddr::ip).chain([self.address()]).collect();
                output::value(sink, &addresses)
            }
            Request::Status { .. } | Request::Logs { .. } | Request::SupportBundle {} | Request::Members {} => {
                let answered = self.machine.answer(request, Some(&*self.rbac), now, sink);
                answered
                    .unwrap_or_else(|| Err(failed("a fault of kubeboot's own: it is the machine's".to_owned()).into()))
            }
            Request::NodeRemove { name, drain } => {
                let removing = (self.removals)(name).map_err(|why| removal::failed(name, &why))?;
                removal::remove(&*removing, drain.map(Duration::from_secs), self.machine.programs.sign_of_life, sink)
            }
        }
    }
}

impl Desk {
    fn operators(&self) -> Result<Vec<(OperatorLine, Listed)>, String> {
        Ok(operators(&of_settings(&self.this.settings), &self.roster.look()?))
    }

    /// What is asked about tokens.
    fn tokens(&self, who: &Caller, request: &Request, now: Unix, sink: &mut dyn Sink) -> Result<u8, Halt> {
        let what = request.refused();
        let failed = |why: String| Trouble::new(Exit::Failure, what, why, LOOK);
        match request {
            Request::TokenCreate { role, key, ttl, uses } => {
                let key = key.0.as_slice().try_into().map_err(|_| failed("its key has not 32 bytes".to_owned()))?;
                let origin = Origin::Created { by: who.name.clone() };
                let expires = now.saturating_add(*ttl);
                let record = TokenRecord { kind: (*role).into(), key, expires, uses_left: *uses, origin };
                match self.store.create_token(record).map_err(failed)? {
                    true => output::value(sink, &json!({"expires": moment(expires), "join": self.address()})),
                    false => {
                        let why = "there is a token of its id";
                        Err(Trouble::new(Exit::Failure, what, why, "ask again: that makes another token.").into())
                    }
                }
            }
            Request::TokenList {} => {
                let mut damaged = Vec::new();
                let tokens = self.store.tokens(&mut damaged).map_err(failed)?;
                let nodes = self.store.nodes(&mut damaged).map_err(failed)?;
                output::value(sink, &json!({"tokens": tokens::listed(&tokens, &nodes, now), "damaged": damaged}))
            }
            Request::TokenRevoke { id } => match self.store.delete_token(&format!("token-{id}")).map_err(failed)? {
                true => output::value(sink, &json!({"revoked": id})),
                false => {
                    let why = format!("there is no token with the id {id}");
                    Err(Trouble::new(Exit::Failure, what, why, "see which there are: kubeboot token list").into())
                }
            },
            _ => Err(failed("a fault of kubeboot's own: this is not about tokens".to_owned()).into()),
        }
    }

    /// Refuses to remove the last: afterwards only who starts a control plane anew could name one.
    fn remove_operator(&self, who: &Caller, key: &str, last: bool, now: Unix, sink: &mut dyn Sink) -> Result<u8, Halt> {
        let what = "No operator was removed";
        let failed = |why: String| Trouble::new(Exit::Failure, what, why, LOOK);
        let is_meant = |line: &OperatorLine| {
            line.fingerprint() == key.trim() || OperatorLine::parse(key).is_ok_and(|meant| meant.key == line.key)
        };
        let is_last = || {
            let why = "it is the last: nobody could command the cluster from outside any more";
            let fix = "add another first: kubeboot operator add; or, if that is what you want, --yes-remove-the-last. \
                       Afterwards: kubeboot.operator= with another key on a control plane's kernel command line.";
            Trouble::new(Exit::BadInput, what, why, fix)
        };
        let all = self.operators().map_err(failed)?;
        let count = all.len();
        let found = all.into_iter().map(|(line, _)| line).find(is_meant);
        if found.is_some() && count == 1 && !last {
            return Err(is_last().into());
        }
        // The settings of a control plane may name one that is not on record yet.
        let meant = found.or_else(|| OperatorLine::parse(key).ok());
        let removed = match &meant {
            Some(line) => self.people.set_operator(line, false, &who.name, now).map_err(failed)?,
            None => false,
        };
        let Some(line) = meant.filter(|_| removed) else {
            let why = "there is no such operator";
            let fix = "see who there is: kubeboot operator list; who is not listed can be removed by the whole key";
            return Err(Trouble::new(Exit::Failure, what, why, fix).into());
        };
        // Looked at afterwards too, so that of two who remove each other's key at once at least one gives it back.
        let left = self.operators().map_err(failed)?;
        if left.is_empty() && count > 0 && !last {
            self.people.set_operator(&line, true, &who.name, now).map_err(|why| {
                failed(why).leaving(format!("{} is removed, and nobody is left.", line.fingerprint()))
            })?;
            return Err(is_last().into());
        }
        output::value(sink, &json!({"fingerprint": line.fingerprint(), "left": left.len()}))
    }

    fn issued(&self, request: &Certificate, spki: &[u8], now: Unix, notes: Vec<String>) -> Result<Issued, String> {
        let servers = self.api_servers()?;
        Ok(Issued {
            user: request.common_name.clone(),
            certificate: issue::sign(&self.machine.root, request, spki, now)?,
            authority: issue::public(&self.machine.root, Authority::Cluster.certificate())?,
            servers,
            expires: user::expires(now, request.lifetime),
            notes,
        })
    }

    /// Every control plane's: first those that serve now, then those that start just now or are without power, too.
    fn api_servers(&self) -> Result<Vec<SocketAddr>, String> {
        let mut servers = self.rbac.servers()?;
        let on_record = self.store.nodes(&mut Vec::new())?.into_iter().filter(|node| node.enrolled);
        let control_planes = on_record.filter(|node| node.record.role == Joiner::ControlPlane);
        for address in control_planes.map(|node| node.record.address) {
            if !servers.iter().any(|server| server.ip() == address) {
                servers.push(SocketAddr::new(address, API_PORT));
            }
        }
        if servers.is_empty() {
            servers.push(SocketAddr::new(self.address(), API_PORT));
        }
        Ok(servers)
    }

    /// On record first, so that no certificate exists that nobody knows of; then bound, then issued.
    fn create_user(
        &self,
        who: &Caller,
        wanted: &Wanted,
        spki: &[u8],
        now: Unix,
        sink: &mut dyn Sink,
    ) -> Result<u8, Halt> {
        let name = &wanted.name;
        let failed = |state: &str| {
            let state = state.to_owned();
            move |why: String| Trouble::new(Exit::Failure, "No user was made", why, LOOK).leaving(&state)
        };
        let set = |before: Option<&UserObject>| UserObject::of(wanted, &who.name, now, before);
        self.people.set_user(name, set).map_err(failed("Nothing was changed."))?;
        let on_record = failed(&format!("{name} is on record and has no new certificate; the same command goes on."));
        let before = bound(&*self.rbac, name).map_err(&on_record)?;
        // What a binding gives can't be changed: another role takes another binding.
        for old in before.iter().filter(|bound| bound.own && !wanted.is_bound_by(bound)) {
            self.rbac.delete(&old.path()).map_err(&on_record)?;
        }
        self.rbac.apply(&wanted.binding()).map_err(&on_record)?;
        let mut notes: Vec<String> = wanted.caution().map(str::to_owned).into_iter().collect();
        notes.extend(before.iter().filter(|bound| !bound.own).map(|bound| format!("{bound} names this user, too")));
        let issued = self.issued(&wanted.request(), spki, now, notes).map_err(on_record)?;
        output::value(sink, &issued)
    }

    fn revoke_user(&self, who: &Caller, name: &str, now: Unix, sink: &mut dyn Sink) -> Result<u8, Halt> {
        let what = "No user was revoked";
        let failed = |why: String| Trouble::new(Exit::Failure, what, why, LOOK);
        let user = self.people.user(name).map_err(failed)?;
        let bound = bound(&*self.rbac, name).map_err(failed)?;
        if user.is_none() && bound.is_empty() {
            let why = format!("nobody is known as {name}");
            return Err(Trouble::new(Exit::Failure, what, why, "see who there is: kubeboot user list").into());
        }
        let mut deleted = Vec::new();
        for own in bound.iter().filter(|bound| bound.own) {
            let state = match deleted.as_slice() {
                [] => "Nothing was changed.".to_owned(),
                some => format!("Deleted: {}.", some.join(", ")),
            };
            self.rbac.delete(&own.path()).map_err(|why| failed(why).leaving(state))?;
            deleted.push(own.to_string());
        }
        if let Some(user) = &user {
            let revoked = |before: Option<&UserObject>| UserObject {
                revoked: true,
                by: who.name.clone(),
                since: now,
                ..before.unwrap_or(user).clone()
            };
            let state = format!("{} binds nothing any more; it is not on record as revoked.", binding_name(name));
            self.people.set_user(name, revoked).map_err(|why| failed(why).leaving(state))?;
        }
        let alive = user.filter(|user| user.expires > now);
        output::value(
            sink,
            &Revoked {
                name: name.to_owned(),
                certificate_until: alive.as_ref().map(|user| moment(user.expires)),
                deleted,
                left: bound.iter().filter(|bound| !bound.own).map(ToString::to_string).collect(),
                groups: alive.map(|user| user.groups).unwrap_or_default(),
            },
        )
    }
}
