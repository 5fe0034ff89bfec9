//! The slot table and its file.

use crate::host::root::Root;
use crate::host::{files, releases};
use crate::paths;
use crate::release::{Keys, Version};
use crate::slots::{self, Slot, Slots, Transition, Unbelievable};

/// The table as it is on disk.
pub(super) struct Table<'a> {
    root: &'a Root,
    /// What it says. Empty, but for a floor, when the file can't be believed.
    pub(super) slots: Slots,
    /// False when there is a file that can't be believed. Then nothing is written over it: a later kubeboot may read it,
    /// and a person may want to.
    believed: bool,
}

impl<'a> Table<'a> {
    /// Reads the table. None yet is an empty one. One that can't be believed leaves the factory release, held to the
    /// floor of whatever genuine release lies on `/var`: it may have been the committed one.
    pub(super) fn load(root: &'a Root, keys: &Keys) -> Self {
        let read = match files::read_optional(&root.path(paths::SLOTS)) {
            Ok(None) => Ok(Slots::default()),
            Ok(Some(bytes)) => slots::read(&bytes).map_err(|unbelievable| {
                let fix = match &unbelievable {
                    Unbelievable::Damaged(_) => {
                        "restore it from a backup; until then this machine keeps to its factory release"
                    }
                    Unbelievable::Later { .. } => "boot an OS image at least as new as the one before",
                };
                (unbelievable.to_string(), fix)
            }),
            Err(error) => Err((format!("can't read {}: {error}", paths::SLOTS), "check the disk that holds /var")),
        };
        match read {
            Ok(slots) => Table { root, slots, believed: true },
            Err((wrong, fix)) => {
                eprintln!("kubeboot: {wrong}. Only the factory release can be used. Fix: {fix}");
                let floor = releases::highest_floor(root, keys).unwrap_or_else(|error| {
                    eprintln!("kubeboot: can't list {}: {error}", paths::RELEASES);
                    None
                });
                Table { root, slots: Slots { floor, ..Slots::default() }, believed: false }
            }
        }
    }

    /// Carries out a transition on disk, then here. When it can't be written, nothing changes in either place.
    pub(super) fn change(&mut self, slot: Slot, transition: Transition) -> Result<(), String> {
        let mut changed = self.slots.clone();
        changed.apply(slot, transition).map_err(|refused| refused.to_string())?;
        self.write(changed)
    }

    /// Raises the floor, on disk, then here. Writes nothing when it is as high already.
    pub(super) fn raise_floor(&mut self, floor: Version) -> Result<(), String> {
        let mut changed = self.slots.clone();
        if !self.believed || !changed.raise_floor(floor) {
            return Ok(());
        }
        self.write(changed)
    }

    fn write(&mut self, changed: Slots) -> Result<(), String> {
        files::write_atomic(&self.root.path(paths::SLOTS), &slots::write(&changed), 0o644).map_err(|error| {
            format!("can't write {}: {error}. Fix: free space on /var, or check the disk that holds it", paths::SLOTS)
        })?;
        self.slots = changed;
        Ok(())
    }
}
