//! A control plane's part in the mesh: what the cluster's API says it publishes, and after a removal it has a new key made.

use std::collections::BTreeSet;

use super::{Handle, Order};
use crate::enrolment::objects;
use crate::enrolment::taking::{Answer, Call};
use crate::host::clock;
use crate::host::enrolment::store::Objects;
use crate::mesh::publish::{People, Wanted};
use crate::mesh::rekeying::{self, Mine, Next, Rekeying};
use crate::mesh::{NodeId, Roll};
use crate::operators::key::OperatorLine;
use crate::operators::objects::{OPERATOR, OperatorObject};
use crate::plan::record::Endpoints;

/// What a control plane remembers between two rounds.
#[derive(Debug, Default)]
pub struct Publisher {
    /// A key that it makes.
    mine: Option<Mine>,
}

impl Publisher {
    /// What the cluster's API says, the mesh is to say too, and which operators this control plane's settings name.
    ///
    /// # Errors
    /// In words: a call of the API, or an object that is damaged.
    pub fn publish(
        &mut self,
        handle: &Handle,
        servers: Option<&Endpoints>,
        settings: &[String],
        objects: &dyn Objects,
    ) -> Result<(), String> {
        let (removed, operators) = (removed(objects)?, Some(people(settings, objects)?));
        handle.order(Order::Publish(Wanted { endpoints: servers.cloned(), removed: removed.clone(), operators }));
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

/// Who the operators are. An object that is damaged says nothing, here as elsewhere.
fn people(settings: &[String], objects: &dyn Objects) -> Result<People, String> {
    let Answer::List(list) = objects.call(&Call::Labelled(objects::KIND, OPERATOR.to_owned()))? else {
        return Err("list the operators on record: the API answered something else".to_owned());
    };
    let on_record: Vec<OperatorObject> = list.iter().filter_map(|object| OperatorObject::read(object).ok()).collect();
    let named = settings.iter().filter_map(|line| OperatorLine::parse(line).ok()).map(|line| line.key);
    Ok(People { on_record: Roll::on_record(&on_record), of_settings: Roll::of_settings(named, &on_record) })
}

/// Whose node keys the cluster says are removed. An object whose name is none of kubeboot's says nothing.
fn removed(objects: &dyn Objects) -> Result<BTreeSet<NodeId>, String> {
    match objects.call(&Call::Labelled(objects::KIND, objects::REMOVED.to_owned()))? {
        Answer::List(list) => Ok(list.iter().filter_map(objects::removed).map(NodeId).collect()),
        _ => Ok(BTreeSet::new()),
    }
}
