//! Rules over `/var`.

use super::{Finding, Outcome, Subject, error, given, size, warning};
use crate::settings::Role;

pub(super) fn file_system(subject: &Subject) -> Outcome {
    given(&subject.facts.var, |var| {
        let what = format!("/var is {} ({})", var.kind, var.source);
        if var.read_only {
            let fix = "look in the kernel's messages: it does so to a damaged file system. If the disk is failing, replace it";
            return error(format!("{what}, mounted read-only"), fix).into();
        }
        let fix = "boot the image from a disk on which systemd-repart can make a partition labelled kubeboot-var";
        match var.kind.as_str() {
            "ext4" | "xfs" | "btrfs" | "f2fs" => Outcome::Pass,
            "tmpfs" | "ramfs" | "rootfs" => error(format!("{what}, which forgets everything at power-off"), fix).into(),
            "overlay" | "fuse.fuse-overlayfs" => {
                error(format!("{what}, on which containerd can't make the file systems of pods"), fix).into()
            }
            kind if kind.starts_with("nfs") || kind.starts_with("cifs") || kind.starts_with("fuse") => {
                error(format!("{what}: etcd and containerd need a local file system"), fix).into()
            }
            _ => warning(format!("{what}, which kubeboot is not tested on"), fix).into(),
        }
    })
}

const GIB: u64 = 1 << 30;

pub(super) fn space(subject: &Subject) -> Outcome {
    // etcd may grow to 2 GiB (its default quota) on a control plane; the rest is for images and logs.
    let enough = if subject.role == Role::Worker { 2 * GIB } else { 3 * GIB };
    given(&subject.facts.var, |var| {
        let mut findings: Vec<Finding> = Vec::new();
        let free = format!("{} of {} are free on /var ({})", size(var.available), size(var.total), var.source);
        let fix = "give the machine a larger disk, or delete what is not needed";
        // evictionHard of `kubernetes::kubelet`: nodefs.available below 10 %, nodefs.inodesFree below 5 %.
        if var.available < GIB {
            findings.push(error(format!("only {free}"), fix));
        } else if var.available < enough {
            findings.push(warning(format!("only {free}; {} are enough for a while", size(enough)), fix));
        } else if u128::from(var.available) * 100 < u128::from(var.total) * 10 {
            findings.push(warning(format!("only {free}: below 10 % the kubelet evicts pods and takes no more"), fix));
        }
        if var.inodes > 0 && u128::from(var.inodes_free) * 100 < u128::from(var.inodes) * 5 {
            let found = format!("only {} of {} inodes are free on /var", var.inodes_free, var.inodes);
            findings.push(warning(format!("{found}: below 5 % the kubelet evicts pods and takes no more"), fix));
        }
        findings.into()
    })
}

/// What etcd's documentation asks for: the 99th percentile of fdatasync below 10 ms, in microseconds.
const GOOD: u64 = 10_000;
/// etcd's election timeout, in microseconds: a leader that takes longer is voted out. Judged by the median: one stall,
/// such as a snapshot of the hypervisor's, is over when etcd starts.
const HOPELESS: u64 = 1_000_000;

pub(super) fn latency(subject: &Subject) -> Outcome {
    let Some(latency) = &subject.facts.write_latency else { return Outcome::Pass };
    given(latency, |latency| {
        let found = || {
            let (p99, p50) = (millis(latency.p99), millis(latency.p50));
            let which = if latency.writes < 100 { "the slowest" } else { "p99" };
            format!("a small write to /var takes {p99} to last ({which} of {}; median {p50})", latency.writes)
        };
        let fix = "put the disk on local flash storage, and give the machine one that others do not fill";
        match (latency.p50, latency.p99) {
            (p50, _) if p50 >= HOPELESS => error(format!("{}; etcd gives up at 1 s", found()), fix).into(),
            (_, p99) if p99 > GOOD => warning(format!("{}; etcd wants 10 ms or less", found()), fix).into(),
            _ => Outcome::Pass,
        }
    })
}

/// Microseconds as milliseconds with one digit after the point, below 10 ms, and none above.
fn millis(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{} ms", micros / 1000),
    }
}
