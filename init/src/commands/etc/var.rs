//! `/var` in the initrd: found on the disk that the machine was started from, checked, mounted.

use std::path::PathBuf;
use std::time::Duration;

use crate::disk::{self, Checked, Partition, Trouble};
use crate::host::root::Root;
use crate::host::{disk as machine, files, mounts, wait};

/// How long the kernel may take to show a partition that was just made.
const APPEAR: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Mounts it in the real root, unless it is mounted there already. `note` hears of what does not stop the boot.
///
/// # Errors
/// [`Trouble`]; nothing is mounted then.
pub(super) fn mount(initrd: &Root, real: &Root, note: impl FnOnce(&str)) -> Result<(), Trouble> {
    let target = real.path("/var");
    if mounts::is_mount_point(&target) {
        return Ok(());
    }
    let device = device(initrd, &find(initrd, real)?);
    let command_line = files::read_optional(&initrd.path("/proc/cmdline")).ok().flatten().unwrap_or_default();
    let check = match machine::check(&device, &String::from_utf8_lossy(&command_line))? {
        Checked::InOrder => None,
        Checked::Not(why) => Some(why),
    };
    let name = device.display().to_string();
    mounts::state(&device, &target).map_err(|error| Trouble::Unmountable {
        device: name.clone(),
        said: error.to_string(),
        check: check.clone(),
    })?;
    if let Some(why) = check {
        note(&format!("{name} (/var) could not be checked, and was mounted: {why}"));
    }
    Ok(())
}

fn device(initrd: &Root, partition: &Partition) -> PathBuf {
    initrd.path("/dev").join(&partition.device)
}

/// systemd-repart has ended: it has made the partition, or it does not.
fn find(initrd: &Root, real: &Root) -> Result<Partition, Trouble> {
    let look = || {
        let disks = machine::carrying(initrd, &real.path("/")).map_err(Trouble::Unknown)?;
        disk::var(&disks).cloned()
    };
    let found = wait::until("the partition for /var", APPEAR, LOOK, || match look() {
        Err(Trouble::NotMade { disk, .. }) => Err(disk),
        decided => Ok(decided),
    });
    found.unwrap_or_else(|late| Err(Trouble::NotMade { disk: late.seen, said: Some(machine::repart_says()) }))
}
