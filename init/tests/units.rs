//! What unit files must say for a machine that nobody looks after.
#![allow(clippy::disallowed_methods, reason = "a test that reads the units")]

use std::collections::BTreeMap;
use std::path::Path;

/// The system's services by name, as settings with their values.
fn services() -> BTreeMap<String, Vec<(String, String)>> {
    units("service")
}

/// Its units of a kind.
fn units(kind: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../units/systemd/system");
    let entries = std::fs::read_dir(folder).expect("the units").flatten();
    let units = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == kind));
    let read = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path()).expect("a unit");
        let settings = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        (entry.file_name().into_string().expect("a name"), settings)
    };
    units.map(read).collect()
}

fn value<'a>(settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn what_starts_again_is_never_given_up() {
    let services = services();
    let again = services.iter().filter(|(_, settings)| value(settings, "Restart").is_some());
    let names: Vec<&str> = again.clone().map(|(name, _)| name.as_str()).collect();
    for needed in [
        "containerd",
        "kubelet",
        "kubeboot",
        "kubeboot-agent",
        "kubeboot-balancer",
        "kubeboot-health",
        "kubeboot-images",
    ] {
        assert!(names.contains(&format!("{needed}.service").as_str()), "{needed} does not start again: {names:?}");
    }
    for (name, settings) in again {
        assert_eq!(value(settings, "StartLimitIntervalSec"), Some("0"), "{name}");
    }
}

/// A machine that joins waits for its cluster as long as it takes. Logging in and the boot's success do not.
#[test]
fn nothing_of_the_system_waits_for_a_cluster() {
    let (services, targets) = (services(), units("target"));
    let boot = &services["kubeboot.service"];
    assert_eq!((value(boot, "Type"), value(boot, "TimeoutStartSec")), (Some("oneshot"), Some("infinity")));
    // systemd.target(5): a target is ordered after what it wants, unless that is without default dependencies.
    assert_eq!(value(&targets["kubeboot.target"], "DefaultDependencies"), Some("no"));
    let system = ["multi-user.target", "boot-complete.target", "default.target", "getty.target"];
    for (name, settings) in services.iter().chain(&targets) {
        let of = |what: &str| {
            let values = settings.iter().filter(|(known, _)| known == what);
            values.flat_map(|(_, value)| value.split(' ')).collect::<Vec<_>>()
        };
        let held: Vec<_> = ["Before", "WantedBy", "RequiredBy"].into_iter().flat_map(of).collect();
        let holds = held.iter().any(|unit| system.contains(unit));
        assert_eq!(
            holds,
            ["kubeboot.target", "kubeboot-os-health.service"].contains(&name.as_str()),
            "{name}: {held:?}"
        );
    }
    let health = &services["kubeboot-os-health.service"];
    let before: Vec<_> = ["After", "Requires", "Wants"].into_iter().filter_map(|what| value(health, what)).collect();
    assert_eq!(before, ["kubeboot-slot.service", "kubeboot-slot.service"], "the image's health is no cluster's");
}

#[test]
fn what_sets_a_status_line_may_send_it() {
    for (name, settings) in services() {
        let program = value(&settings, "ExecStart").unwrap_or_default();
        if ["kubeboot boot", "kubeboot health", "kubeboot agent", "kubeboot balancer"]
            .iter()
            .any(|end| program.ends_with(end))
        {
            let notifies = value(&settings, "Type") == Some("notify") || value(&settings, "NotifyAccess").is_some();
            assert!(notifies, "{name} has no socket to say how it is");
        }
    }
}

#[test]
fn nothing_requires_what_may_fail_at_its_first_start() {
    for (name, settings) in services() {
        let requires = value(&settings, "Requires").unwrap_or_default();
        assert!(!requires.contains("containerd"), "{name} never runs where containerd starts at its second try only");
    }
}

#[test]
fn boot_is_tried_again_for_what_may_pass_and_for_nothing_else() {
    use kubeboot::exit::Exit;
    let services = services();
    let unit = &services["kubeboot.service"];
    assert_eq!(value(unit, "RestartSec"), Some(kubeboot::exit::TRIED_AGAIN_AFTER.to_string().as_str()));
    let kept = value(unit, "RestartPreventExitStatus").expect("the setting");
    let kept: Vec<&str> = kept.split(' ').collect();
    let all =
        [Exit::Failure, Exit::BadInput, Exit::Preflight, Exit::Damaged, Exit::Timeout, Exit::NoRole, Exit::Refused];
    for exit in all {
        assert_eq!(kept.contains(&exit.code().to_string().as_str()), !exit.is_tried_again(), "{exit:?}");
    }
}
