//! A control plane's part in the mesh: what the cluster's API says it publishes, and after a removal it has a new key made.

use std::collections::BTreeSet;

use super::{Handle, Order};
use crate::enrolment::objects;
use crate::enrolment::taking::{Answer, Call};
use crate::host::clock;
use crate::host::enrolment::store::Objects;
use crate::mesh::NodeId;
use crate::mesh::publish::Wanted;
use crate::mesh::rekeying::{self, Mine, Next, Rekeying};
use crate::plan::record::Endpoints;

/// What a control plane remembers between two rounds.
#[derive(Debug, Default)]
pub struct Publisher {
    /// A key that it makes.
    mine: Option<Mine>,
}

impl Publisher {
    /// What the cluster's API says, the mesh is to say too.
    ///
    /// # Errors
    /// In words: a call of the API, or an object that is damaged.
    pub fn publish(
        &mut self,
        handle: &Handle,
        servers: Option<&Endpoints>,
        objects: &dyn Objects,
    ) -> Result<(), String> {
        let removed = removed(objects)?;
        handle.order(Order::Publish(Wanted { endpoints: servers.cloned(), removed: removed.clone() }));
        self.rekey(handle, &removed, objects)
    }

    /// Sees that every removal is followed by a new mesh key, made once.
    fn rekey(&mut self, handle: &Handle, removed: &BTreeSet<NodeId>, objects: &dyn Objects) -> Result<(), String> {
        let held = handle.standing().key_epoch;
        if held == 0 {
            return Ok(());
        }
        let found = match objects.call(&Call::Get(rekeying::NAME.to_owned()))? {
            Answer::Object(Some(object)) => Rekeying::read(&object)?,
            _ => Rekeying::default(),
        };
        let write = |rekeying: &Rekeying| {
            let (object, made) = (rekeying.object(), rekeying.version.is_some());
            let call = if made { Call::Update(object) } else { Call::Create(object) };
            objects.call(&call).map(|answer| answer != Answer::Conflict)
        };
        match rekeying::next(&found, removed, held, self.mine.as_ref(), clock::unix()) {
            Next::Nothing | Next::Wait => {}
            Next::Settle(settled) => {
                if write(&settled)? {
                    self.mine = None;
                }
            }
            Next::Claim(claim) => {
                if write(&claim)? {
                    println!("mesh: nodes were removed; the mesh gets a new key, of epoch {}", claim.epoch);
                    self.mine = Some(Mine { epoch: claim.epoch, removed: removed.clone() });
                    handle.order(Order::Rekey(claim.epoch));
                }
            }
        }
        Ok(())
    }
}

/// Whose node keys the cluster says are removed. An object whose name is none of kubeboot's says nothing.
fn removed(objects: &dyn Objects) -> Result<BTreeSet<NodeId>, String> {
    match objects.call(&Call::Labelled(objects::KIND, objects::REMOVED.to_owned()))? {
        Answer::List(list) => Ok(list.iter().filter_map(objects::removed).map(NodeId).collect()),
        _ => Ok(BTreeSet::new()),
    }
}
