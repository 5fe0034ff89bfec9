//! What a node thinks of the mesh, as `kubeboot members` shows it.

use serde::{Deserialize, Serialize};

use super::announcement::Handle;
use super::machine::Mesh;
use super::members::{Member, State};
use super::{SECOND, Time};
use crate::enrolment::objects::hex;

/// The mesh as one node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct View {
    /// The node that says so.
    pub node: String,
    /// The epoch of its newest mesh key.
    pub key_epoch: u64,
    /// How many records it holds.
    pub records: usize,
    /// Why it takes no part any more, if that is so.
    pub silent: Option<String>,
    /// Everybody that it knows, itself included: control planes first, by name.
    pub members: Vec<Seen>,
}

/// A member as one node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seen {
    /// The name that it says it has.
    pub name: String,
    /// `control-plane` or `worker`: what it says it is.
    pub role: String,
    /// Where it takes packets.
    pub address: String,
    /// Its node key's fingerprint, in hexadecimal digits.
    pub node_key: String,
    /// `alive`, `suspect` or `down`.
    pub state: String,
    /// For how many seconds.
    pub seconds: u64,
    /// How often it has started.
    pub generation: u32,
    /// How often it has objected to being called suspect or down since it started.
    pub incarnation: u32,
    /// Smoothed time from ping to answer in milliseconds; none where it was not measured from here.
    pub round_trip: Option<f64>,
    /// Of a suspect: who got no answer from it first, as far as is known here.
    pub suspected_by: Option<String>,
    /// Whether it is the node that says so.
    pub this_node: bool,
}

impl View {
    /// What `mesh` thinks at a time; `silent` is why it takes no part any more.
    pub fn of(mesh: &Mesh, now: Time, silent: Option<&str>) -> Self {
        let mut members: Vec<Seen> = mesh.members().iter().map(|member| seen(mesh, member, now)).collect();
        members.sort_by(|a, b| (&a.role, &a.name, &a.node_key).cmp(&(&b.role, &b.name, &b.node_key)));
        View {
            node: mesh.me().name.to_string(),
            key_epoch: mesh.key_epoch(),
            records: mesh.records().len(),
            silent: silent.map(str::to_owned),
            members,
        }
    }
}

fn seen(mesh: &Mesh, member: &Member, now: Time) -> Seen {
    let said = &member.announcement;
    let suspicion = mesh.suspicions().find(|(of, _)| *of == said.id.handle());
    Seen {
        name: said.name.to_string(),
        role: if said.control_plane { "control-plane" } else { "worker" }.to_owned(),
        address: said.address.to_string(),
        node_key: hex(&said.id.0),
        state: match member.state {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Down => "down",
        }
        .to_owned(),
        seconds: now.saturating_sub(member.since) / SECOND,
        generation: said.generation,
        incarnation: member.incarnation,
        round_trip: (member.round_trip > 0).then(|| f64::from(member.round_trip) / 1000.0),
        suspected_by: suspicion.map(|(_, suspicion)| name_of(mesh, suspicion.accuser)),
        this_node: said.id == mesh.me().id,
    }
}

/// A member's name; of one that is not known here, its handle.
fn name_of(mesh: &Mesh, handle: Handle) -> String {
    let known = mesh.members().get(handle);
    known.map_or_else(|| format!("{:016x}", handle.0), |member| member.announcement.name.to_string())
}
