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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use zeroize::Zeroizing;

    use super::*;
    use crate::mesh::{Action, Authority, Event, MeshKey, Node, Setup};
    use crate::token::{Joiner, Seed};

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 7440))
    }

    fn mesh(number: u8) -> Mesh {
        let signer = || Seed::new([number; 16]).join_token(Joiner::Worker).join_key();
        let (key, name) = (signer().public(), format!("node-{number}").into());
        let signer = signer();
        let setup = Setup {
            cluster: [1; 16],
            node: Node { key, address: address(number), control_plane: number == 2, name },
            generation: u32::from(number),
            seed: [number; 32],
            key: MeshKey::new(3, Zeroizing::new([3; 32])),
            sign: Box::new(move |message| signer.sign(message)),
            verifier: Box::new(Authority { cluster: [1; 16], identity: [0; 32] }),
            records: Vec::new(),
        };
        Mesh::new(0, setup).expect("a good name")
    }

    /// Ticks the first until `seen` of its view; what it sends arrives at the second at once, while that one `answers`.
    fn until(meshes: &mut [Mesh; 2], now: &mut Time, answers: bool, seen: impl Fn(&View) -> bool) -> View {
        for _ in 0..600 {
            let [one, other] = &mut *meshes;
            let mut waiting = one.handle(*now, Event::Tick);
            while let Some(action) = waiting.pop() {
                let Action::Send { packet, .. } = action else { continue };
                let answered = answers.then(|| other.handle(*now, Event::Packet { from: address(1), bytes: &packet }));
                for action in answered.unwrap_or_default() {
                    if let Action::Send { packet, .. } = action {
                        waiting.extend(one.handle(*now + 500, Event::Packet { from: address(2), bytes: &packet }));
                    }
                }
            }
            let view = View::of(one, *now, None);
            if seen(&view) {
                return view;
            }
            *now += SECOND / 10;
        }
        panic!("after a minute: {:?}", View::of(&meshes[0], *now, None));
    }

    #[test]
    fn it_says_who_answers_and_whom_who_suspects() {
        let (mut meshes, mut now) = ([mesh(1), mesh(2)], 0);
        meshes[0].handle(now, Event::Join(&[address(2)]));
        let view = until(&mut meshes, &mut now, true, |view| view.members.iter().any(|seen| seen.round_trip.is_some()));
        let rows: Vec<_> = view.members.iter().map(|seen| (&*seen.name, &*seen.role, &*seen.state)).collect();
        assert_eq!(rows, [("node-2", "control-plane", "alive"), ("node-1", "worker", "alive")]);
        assert_eq!((view.key_epoch, &*view.node, view.members[0].generation), (3, "node-1", 2));
        assert!(view.members[1].this_node && view.members[1].round_trip.is_none());
        let view = until(&mut meshes, &mut now, false, |view| view.members[0].state == "suspect");
        assert_eq!(view.members[0].suspected_by.as_deref(), Some("node-1"));
        let view = until(&mut meshes, &mut now, false, |view| view.members[0].state == "down");
        assert_eq!((view.members[0].suspected_by.as_deref(), view.members[0].seconds), (None, 0));
    }
}
