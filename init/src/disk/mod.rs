//! Where `/var` is: the partition labelled `kubeboot-var` on the disk that the machine was started from, whatever other
//! disks carry that label; and what is said when there is none that can be used.

mod check;
pub mod gpt;
mod trouble;

pub use check::{Checked, checked, flags};
pub use trouble::Trouble;

/// GPT label of the partition that holds `/var`. `units/repart.d/30-var.conf` makes it at the first boot.
pub const VAR: &str = "kubeboot-var";
/// GPT label of the partitions that wait for the next image.
const EMPTY: &str = "_empty";

const MIB: u64 = 1 << 20;
/// The least that `/var` is made with, in bytes (`units/repart.d/30-var.conf`).
const VAR_BYTES: u64 = 4096 * MIB;
/// What is set aside for the next image, in bytes: a root and its hash tree (`units/repart.d/20-root-b.conf`,
/// `21-verity-b.conf`).
const NEXT_BYTES: u64 = (412 + 10) * MIB;
/// What partitions lose to alignment and to the table at the disk's end, at most, in bytes.
const TABLE_BYTES: u64 = MIB;

/// A disk with its partitions, as the kernel sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name below `/dev`, such as `vda`.
    pub device: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its partitions, in no order.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name below `/dev`, such as `vda6`.
    pub device: String,
    /// Its GPT label; empty when it has none.
    pub label: String,
    /// Where on the disk it begins, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Disk {
    /// What is free behind the last partition, in bytes.
    fn behind(&self) -> u64 {
        let ends = self.partitions.iter().map(|one| one.start.saturating_add(one.bytes));
        self.bytes.saturating_sub(ends.max().unwrap_or_default())
    }

    /// Whether room for the next image was set aside before.
    fn has_next(&self) -> bool {
        self.partitions.iter().any(|one| one.label == EMPTY)
    }
}

/// Finds the partition that holds `/var`. `disks` are those that carry the root and its hash tree.
///
/// # Errors
/// There is none, or it can't be told which one it is.
pub fn var(disks: &[Disk]) -> Result<&Partition, Trouble> {
    let [disk] = disks else {
        return Err(Trouble::Disks(disks.iter().map(|disk| disk.device.clone()).collect()));
    };
    let found: Vec<&Partition> = disk.partitions.iter().filter(|one| one.label == VAR).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(missing(disk)),
        several => {
            let mut partitions: Vec<String> = several.iter().map(|one| one.device.clone()).collect();
            partitions.sort();
            Err(Trouble::Several { disk: disk.device.clone(), partitions })
        }
    }
}

/// Why a disk has no partition for `/var`, though systemd-repart looked at it.
fn missing(disk: &Disk) -> Trouble {
    let next = if disk.has_next() { 0 } else { NEXT_BYTES };
    let (behind, needed) = (disk.behind(), VAR_BYTES + next + TABLE_BYTES);
    if behind >= needed {
        return Trouble::NotMade { disk: disk.device.clone(), said: None };
    }
    Trouble::NoRoom {
        disk: disk.device.clone(),
        bytes: disk.bytes,
        behind,
        next,
        enough: disk.bytes.saturating_sub(behind).saturating_add(needed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Paint;

    fn partition(device: &str, label: &str, start: u64, mebibytes: u64) -> Partition {
        Partition { device: device.into(), label: label.into(), start: start * MIB, bytes: mebibytes * MIB }
    }

    /// The image, as it was built, on a disk of so many MiB.
    fn image(mebibytes: u64) -> Disk {
        let partitions = vec![
            partition("vda1", "esp", 1, 260),
            partition("vda3", "kubeboot-verity-a", 673, 10),
            partition("vda2", "kubeboot-root-a", 261, 412),
        ];
        Disk { device: "vda".into(), bytes: mebibytes * MIB, partitions }
    }

    /// The same after its first boot.
    fn grown(mebibytes: u64) -> Disk {
        let mut disk = image(mebibytes);
        disk.partitions.push(partition("vda4", EMPTY, 683, 412));
        disk.partitions.push(partition("vda5", EMPTY, 1095, 10));
        disk.partitions.push(partition("vda6", VAR, 1105, mebibytes - 1106));
        disk
    }

    #[test]
    fn the_partition_is_that_of_the_disk_that_was_started_from() {
        assert_eq!(var(&[grown(6144)]).map(|one| one.device.as_str()), Ok("vda6"));
    }

    #[test]
    fn a_root_on_two_disks_and_two_partitions_of_one_label_are_not_guessed_about() {
        let other = Disk { device: "vdb".into(), ..grown(6144) };
        assert_eq!(var(&[grown(6144), other]), Err(Trouble::Disks(vec!["vda".into(), "vdb".into()])));
        let mut twice = grown(8192);
        twice.partitions.insert(0, partition("vda7", VAR, 7000, 100));
        let partitions = vec!["vda6".to_owned(), "vda7".to_owned()];
        assert_eq!(var(&[twice]), Err(Trouble::Several { disk: "vda".into(), partitions }));
    }

    #[test]
    fn the_room_that_lacks_is_told_to_the_mebibyte() {
        let room = |disk: Disk| match var(&[disk]) {
            Err(Trouble::NoRoom { behind, next, enough, .. }) => Some((behind / MIB, next / MIB, enough / MIB)),
            Err(Trouble::NotMade { .. }) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(room(image(684)), Some((1, 422, 683 + 422 + 4096 + 1)));
        assert_eq!(room(image(5201)), Some((4518, 422, 5202)));
        assert_eq!(room(image(5202)), None, "there is room, and still no partition");
        let mut without = grown(5201);
        without.partitions.pop();
        assert_eq!(room(without.clone()), Some((4096, 0, 5202)), "somebody removed it");
        without.bytes += MIB;
        assert_eq!(room(without), None);
    }

    #[test]
    fn a_table_that_says_more_than_the_disk_has_is_no_panic() {
        let mut disk = image(100);
        disk.partitions.push(partition("vda9", "x", u64::MAX / MIB, u64::MAX / MIB));
        assert!(matches!(var(&[disk]), Err(Trouble::NoRoom { behind: 0, .. })));
    }

    #[test]
    fn sizes_are_those_that_repart_is_told() {
        let least = |text: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix("SizeMinBytes="))?;
            let (number, unit) = value.split_at(value.len() - 1);
            let unit = if unit == "G" { 1024 * MIB } else { MIB };
            number.parse::<u64>().ok().map(|number| number * unit)
        };
        let var = include_str!("../../../units/repart.d/30-var.conf");
        assert_eq!(least(var), Some(VAR_BYTES));
        assert!(var.contains(&format!("Label={VAR}\n")));
        let next = [
            include_str!("../../../units/repart.d/20-root-b.conf"),
            include_str!("../../../units/repart.d/21-verity-b.conf"),
        ];
        assert_eq!(next.iter().filter_map(|text| least(text)).sum::<u64>(), NEXT_BYTES);
        assert!(next.iter().all(|text| text.contains(&format!("Label={EMPTY}\n"))));
    }

    #[test]
    fn every_trouble_is_said_with_its_fix() {
        let device = || "vda6".to_owned();
        let said = || "Structure needs cleaning".to_owned();
        let small = var(&[image(2048)]).expect_err("no room");
        let mut without = grown(5000);
        without.partitions.pop();
        let troubles = [
            small,
            var(&[without]).expect_err("no room"),
            Trouble::NotMade { disk: "vda".into(), said: Some("vda is read-only".into()) },
            Trouble::NotMade { disk: "vda".into(), said: None },
            Trouble::Unknown("the partition table of vda can't be read: its checksum is wrong".into()),
            Trouble::Disks(vec!["vda".into(), "vdb".into()]),
            Trouble::Several { disk: "vda".into(), partitions: vec!["vda6".into(), "vda7".into()] },
            Trouble::Damaged { device: device(), said: said() },
            Trouble::Unmountable { device: device(), said: said(), check: None },
            Trouble::Unmountable { device: device(), said: said(), check: Some("bad magic number".into()) },
        ];
        let blocks: Vec<String> = troubles.iter().map(|one| one.block().text(Paint::Plain)).collect();
        insta::assert_snapshot!(blocks.join("\n"));
    }
}
