use super::*;
use crate::settings::{Origin, Source};

#[test]
fn figures_alone_are_no_difference() {
    assert!(same_but_for_figures("only 900 MiB of 4.0 GiB are free", "only 1200 MiB of 4.0 GiB are free"));
    assert!(!same_but_for_figures("swap is on", "swap is off"));
    assert!(!same_but_for_figures("port 6443", "port 6443 and 2379"));
}

#[test]
fn a_fault_of_the_disk_has_its_fix() {
    let fix = |number: i32| {
        let why = format!("write /var/lib/kubeboot/etcd.json: {}", std::io::Error::from_raw_os_error(number));
        disk_fix(&why).map(|fix| fix.split(':').next().unwrap_or_default().to_owned())
    };
    let [full, read_only, faulty] = [28, 30, 5].map(fix);
    assert_eq!(full.as_deref(), Some("make room on /var"));
    assert_eq!(read_only.as_deref(), Some("restart the machine"));
    assert_eq!(faulty.as_deref(), Some("replace the disk"));
    assert_eq!(fix(2), None);
}

#[test]
fn steps() {
    let lines = [
        step(Outcome::Done, "etcd's certificate authority", Duration::from_micros(4200), Paint::Plain),
        step(Outcome::Skipped, "encryption key", Duration::ZERO, Paint::Plain),
        step(Outcome::Failed, "a step\x1b[2Jwith\ncontrols", Duration::from_secs(200), Paint::Plain),
        step(Outcome::Done, "in colour", Duration::from_millis(1500), Paint::Color).escape_debug().to_string(),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn durations() {
    let texts = [0.0004, 0.0123, 0.9999, 1.254, 42.4, 119.6, 3600.0].map(|s| duration(Duration::from_secs_f64(s)));
    assert_eq!(texts, ["0.4 ms", "12 ms", "1.00 s", "1.25 s", "42 s", "2 min 0 s", "60 min 0 s"]);
}

#[test]
fn blocks() {
    let line = Origin::whole(Source::KernelCommandLine);
    let mut unknown = Problem::value("rloe", &line, "init", "a key of the list in docs/settings.md");
    unknown.nearest = Some("role");
    let user_data = Source::UserData { file: "cidata volume /dev/vdb, user-data".into() };
    let address =
        Problem::value("node.ip", &Origin::at(&user_data, Some(7)), "10.0.0.300", "an IP address such as 192.168.1.10");
    insta::assert_snapshot!(bad_settings(&[unknown.clone(), address]).text(Paint::Plain));
    insta::assert_snapshot!(bad_settings(&[unknown]).line());
}

#[test]
fn welcome() {
    let keys = ["SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".to_owned()];
    let ready = Ready {
        node: "cp-1",
        cluster: "4f5a1c4e8f0b4b0e9d3c2a1b0c9d8e7f",
        fingerprint: "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
        kubernetes: "v1.37.2",
        server: "https://192.168.1.10:6443",
        after: Duration::from_millis(41_300),
        operators: &keys,
        report: Some("ttyS1"),
        shell: false,
        join: Some([192, 168, 1, 10].into()),
    };
    insta::assert_snapshot!("ready_with_an_operator", ready.text(Paint::Plain));
    insta::assert_snapshot!("ready_unreported", Ready { report: None, join: None, ..ready.clone() }.text(Paint::Plain));
    insta::assert_snapshot!("ready_without", Ready { operators: &[], ..ready.clone() }.text(Paint::Plain));
    insta::assert_snapshot!("ready_debug", Ready { operators: &[], shell: true, ..ready }.text(Paint::Plain));
    let member = Member {
        node: "w-1",
        cluster: "4f5a1c4e8f0b4b0e9d3c2a1b0c9d8e7f",
        kubernetes: "v1.37.2",
        after: Duration::from_millis(12_300),
    };
    insta::assert_snapshot!("member", member.text(Paint::Plain));
    insta::assert_snapshot!("no_role", no_role(false, Paint::Plain));
    insta::assert_snapshot!("no_role_with_a_shell", no_role(true, Paint::Plain));
    let text = crate::token::Seed::new([7; 16]).text();
    insta::assert_snapshot!("seed", seed(&text, Paint::Plain).as_str());
}
