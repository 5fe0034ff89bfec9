//! Rules over the kernel, the hardware and the clock.

use super::{Finding, Outcome, Subject, error, given, size, warning};
use crate::facts::{Clock, EARLIEST, Presence, Swap, Version};
use crate::settings::{Backend, ProxyMode, Role};

pub(super) fn container(subject: &Subject) -> Outcome {
    let Some(manager) = &subject.facts.container else { return Outcome::Pass };
    error(
        format!("this system runs in a container ({manager})"),
        "boot the image on a virtual machine or on bare metal",
    )
    .into()
}

/// kube-proxy's nftables mode (KEP-3866).
const FOR_NFTABLES: Version = Version(5, 13);
/// cgroup v2 as the kubelet wants it (KEP-2254, and Kubernetes' documentation of cgroup v2).
const FOR_CGROUPS: Version = Version(5, 8);

pub(super) fn version(subject: &Subject) -> Outcome {
    let kernel = &subject.facts.kernel;
    let Some(version) = kernel.version() else {
        return Outcome::Unchecked(format!("found no version in the kernel's release {:?}", kernel.release));
    };
    let (least, why) = match subject.settings.proxy {
        ProxyMode::Nftables => (FOR_NFTABLES, "kube-proxy's nftables mode"),
        ProxyMode::None => (FOR_CGROUPS, "cgroup v2"),
    };
    if version >= least {
        return Outcome::Pass;
    }
    error(
        format!("the kernel is {}, older than {least}, which {why} needs", kernel.release),
        format!("boot an image with kernel {least} or later"),
    )
    .into()
}

/// Modules with what they are for; sorted by purpose.
const ALWAYS: &[(&str, &str)] = &[
    ("overlay", "the file systems of pods"),
    ("bridge", "the pod network"),
    ("veth", "the pod network"),
    ("nf_conntrack", "the pod network"),
    ("nf_tables", "the pod network"),
    ("nft_chain_nat", "the pod network"),
    ("nft_masq", "the pod network"),
    ("erofs", "releases"),
    ("loop", "releases on /var"),
    ("dm_verity", "releases on /var"),
];
const NFTABLES: &[(&str, &str)] = &[
    ("br_netfilter", "Services between pods of one node"),
    ("nft_ct", "Services"),
    ("nft_fib_ipv4", "Services"),
    ("nft_nat", "Services"),
    ("nft_numgen", "Services"),
    ("nft_reject_ipv4", "Services"),
];

pub(super) fn modules(subject: &Subject) -> Outcome {
    let services = match subject.settings.proxy {
        ProxyMode::Nftables => NFTABLES,
        ProxyMode::None => &[],
    };
    let backend: &[(&str, &str)] = match subject.settings.network.backend {
        Backend::Vxlan => &[("vxlan", "network.backend vxlan")],
        Backend::Wireguard => &[("wireguard", "network.backend wireguard")],
        Backend::HostGw | Backend::None => &[],
    };
    let needed = || ALWAYS.iter().chain(services).chain(backend);
    let those = |presence| needed().filter(move |(name, _)| subject.facts.kernel.presence(name) == presence);
    let missing: Vec<String> = those(Presence::Missing).map(|(name, what)| format!("{name} (for {what})")).collect();
    let unknown: Vec<&str> = those(Presence::Unknown).map(|(name, _)| *name).collect();
    match (missing.is_empty(), unknown.is_empty()) {
        (false, _) => error(
            format!("this kernel lacks {}", missing.join(", ")),
            "boot the image's own kernel, or one built with these options",
        )
        .into(),
        (true, false) => Outcome::Unchecked(format!(
            "/lib/modules/{} has no modules.builtin, so nobody can say whether the kernel has {}",
            subject.facts.kernel.release,
            unknown.join(", ")
        )),
        (true, true) => Outcome::Pass,
    }
}

pub(super) fn cgroups(subject: &Subject) -> Outcome {
    given(&subject.facts.cgroup_controllers, |controllers| {
        if controllers.is_empty() {
            return error(
                "cgroup version 2 is not mounted at /sys/fs/cgroup",
                "remove systemd.unified_cgroup_hierarchy= and cgroup_no_v1= from the kernel command line",
            )
            .into();
        }
        let lacking = |names: &[&str]| -> Vec<String> {
            names.iter().filter(|name| !controllers.contains(**name)).map(|name| (*name).to_owned()).collect()
        };
        let mut findings: Vec<Finding> = Vec::new();
        let (needed, wanted) = (lacking(&["cpu", "memory", "pids"]), lacking(&["cpuset", "io"]));
        if !needed.is_empty() {
            findings.push(error(
                format!("missing cgroup controllers: {}", needed.join(", ")),
                "remove cgroup_disable= from the kernel command line, or boot a kernel that has them",
            ));
        }
        if !wanted.is_empty() {
            findings.push(warning(
                format!("missing cgroup controllers: {}; pods can't be given what they govern", wanted.join(", ")),
                "boot a kernel that has them, if pods need CPUs or disk time of their own",
            ));
        }
        findings.into()
    })
}

const MIB: u64 = 1 << 20;

pub(super) fn memory(subject: &Subject) -> Outcome {
    // Below the first figure the node's own services don't fit; below the second nothing else does.
    let (least, enough) = match subject.role {
        Role::Init | Role::ControlPlane => (1024 * MIB, 1536 * MIB),
        Role::Worker => (400 * MIB, 700 * MIB),
    };
    given(&subject.facts.memory, |bytes| {
        let what = if subject.role == Role::Worker { "a worker" } else { "a control plane" };
        let finding = |verb, limit| format!("{what} {verb} {}; this machine has {}", size(limit), size(*bytes));
        let fix = |limit| format!("give the machine {} of memory or more", size(limit));
        match *bytes {
            bytes if bytes < least => error(finding("needs", least), fix(enough)).into(),
            bytes if bytes < enough => warning(finding("should have", enough), fix(enough)).into(),
            _ => Outcome::Pass,
        }
    })
}

pub(super) fn cpus(subject: &Subject) -> Outcome {
    given(&subject.facts.cpus, |count| match count {
        0 | 1 => warning("this machine has 1 CPU; a control plane wants 2", "give the machine 2 CPUs or more").into(),
        _ => Outcome::Pass,
    })
}

pub(super) fn swap(subject: &Subject) -> Outcome {
    given(&subject.facts.swap, |areas| {
        if areas.is_empty() {
            return Outcome::Pass;
        }
        let list: Vec<String> = areas.iter().map(|Swap { path, bytes }| format!("{path}, {}", size(*bytes))).collect();
        error(
            format!("swap is on ({})", list.join("; ")),
            "add systemd.swap=no to the kernel command line and boot again, or remove the swap area",
        )
        .into()
    })
}

/// An image may be used for so long before its date speaks against the clock: 15 years, in seconds.
const LIFE: u64 = 15 * 365 * 24 * 3600;
/// A difference between system and hardware clock that no start-up explains: a time zone is at least that, in seconds.
const DRIFT: u64 = 15 * 60;

pub(super) fn clock(subject: &Subject) -> Outcome {
    let clock = &subject.facts.clock;
    let fix = "set the hardware clock in the firmware's setup to UTC, or name a time server (cloud-config: ntp), and \
               boot again";
    let earliest = clock.image.max(EARLIEST);
    if clock.now < earliest {
        let made = if clock.image >= EARLIEST { "on" } else { "after" };
        let (now, earliest) = (date(clock.now), date(earliest));
        return error(format!("the clock says {now}, but this image was made {made} {earliest}"), fix).into();
    }
    if clock.now - earliest > LIFE {
        let found = format!("the clock says {}, more than 15 years after this image was made", date(clock.now));
        return error(found, fix).into();
    }
    match clock.hardware {
        None if !clock.synchronized => warning(
            "this machine has no hardware clock, and no time server was heard yet",
            "name a time server (cloud-config: ntp)",
        )
        .into(),
        Some(hardware) if !clock.synchronized && hardware.abs_diff(clock.now) > DRIFT => {
            let minutes = hardware.abs_diff(clock.now) / 60;
            warning(format!("system clock and hardware clock are {minutes} minutes apart"), fix).into()
        }
        _ => Outcome::Pass,
    }
}

/// systemd sets a clock that is behind the image's date to that date when it starts (systemd(1), `clock-epoch`, which
/// mkosi puts into the image): it is then beyond it by no more than the uptime and this, in seconds.
const JUST_SET: u64 = 2;

/// Whether this clock is more likely wrong than right, so that a time server is worth waiting for: it can't be right, or
/// there is no hardware clock that it could have its time from. `up` is how long the machine runs, in seconds.
pub fn is_doubtful(clock: &Clock, up: u64) -> bool {
    let earliest = clock.image.max(EARLIEST);
    let set_by_systemd = match clock.hardware {
        Some(hardware) => hardware < earliest,
        None => clock.now.saturating_sub(earliest) < up.saturating_add(JUST_SET),
    };
    !clock.synchronized && (clock.now < earliest || clock.now - earliest > LIFE || set_by_systemd)
}

/// A time in seconds since 1970 as `2026-11-23 06:34 UTC` (days to date by Howard Hinnant's `civil_from_days`).
fn date(unix: u64) -> String {
    let days = unix / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let minutes = unix % 86_400 / 60;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (EARLIEST, "2026-01-01 00:00 UTC"),
            (EARLIEST - 1, "2025-12-31 23:59 UTC"),
            (1_709_164_800, "2024-02-29 00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(unix), expected);
        }
    }

    #[test]
    fn a_clock_without_a_battery_is_doubtful_until_a_time_server_was_heard() {
        const IMAGE: u64 = EARLIEST + 1000;
        let clock = |now, hardware| Clock { now, image: IMAGE, hardware, synchronized: false };
        let doubtful = [
            ("before the image", clock(IMAGE - 1, Some(IMAGE - 1))),
            ("far beyond it", clock(IMAGE + LIFE + 1, Some(IMAGE + LIFE + 1))),
            ("set to the image's date over a dead hardware clock", clock(IMAGE + 20, Some(20))),
            ("set to the image's date without one", clock(IMAGE + 20, None)),
        ];
        for (case, clock) in doubtful {
            assert!(is_doubtful(&clock, 20), "{case}");
            assert!(!is_doubtful(&Clock { synchronized: true, ..clock }, 20), "{case}, and then heard");
        }
        let later = IMAGE + 86_400;
        assert!(!is_doubtful(&clock(later, Some(later)), 20));
        assert!(!is_doubtful(&clock(later, None), 20), "its host set it");
    }
}
