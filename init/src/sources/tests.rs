use super::*;
use crate::settings::validate;

/// Everything that a volume's user-data comes to, as text.
fn told(user_data: &[u8]) -> String {
    let volume = Volume {
        layout: Layout::NoCloud,
        name: "cidata volume /dev/vdb".into(),
        user_data: Some(Bytes::new(user_data.to_vec())),
        meta_data: None,
        network: None,
    };
    say(&Gathered { volumes: vec![volume], ..Gathered::default() })
}

fn say(gathered: &Gathered) -> String {
    match validate(parse(gathered)) {
        Err(problems) => problems.iter().map(|problem| format!("problem: {problem}\n")).collect(),
        Ok(validated) => {
            let mut out = String::new();
            let settings = serde_json::to_value(&validated.settings).expect("plain data");
            let default = serde_json::to_value(crate::settings::Settings::default()).expect("plain data");
            for (name, value) in settings.as_object().into_iter().flatten() {
                if default.get(name) != Some(value) {
                    out += &format!("{name} = {value}\n");
                }
            }
            for (key, origin) in &validated.origins {
                out += &format!("{key} from {origin}\n");
            }
            for warning in &validated.warnings {
                out += &format!("warning: {warning}\n");
            }
            out
        }
    }
}

fn line(text: &str) -> String {
    say(&Gathered { command_line: Bytes::new(text.as_bytes().to_vec()), ..Gathered::default() })
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqGXr0WDGZqFbDkGWqIRWHGSfDQHpRq4gsqY9gNyL9 ann@desk";

#[test]
fn a_kernel_command_line_with_every_kind_of_value() {
    insta::assert_snapshot!(line(&format!(
        "BOOT_IMAGE=/vmlinuz root=/dev/vda2 kubeboot.role=init kubeboot.name=a kubeboot.name=cp-1 quiet \
         kubeboot.operator=\"{KEY}\" kubeboot.operator=\"{KEY}, too\" kubeboot.api.extra_sans=a.example,10.0.0.1 \
         kubeboot.api.extra-sans=b.example kubeboot.node.labels=disk=ssd,zone=a kubeboot.node.labels=rack= \
         kubeboot.registry.mirrors=docker.io=https://a.example,docker.io=https://b.example kubeboot.addons= \
         kubeboot.network.mtu=1400 kubeboot.report=ttyS1"
    )));
}

#[test]
fn every_example_of_the_table_is_valid() {
    for key in crate::settings::keys::KEYS.iter().filter(|key| !key.example.starts_with('(')) {
        let told = line(&format!("kubeboot.{}={}", key.name, key.example));
        assert!(told.contains(&format!("{} from kernel command line", key.name)), "{told}");
    }
}

#[test]
fn problems_of_a_kernel_command_line_come_all_at_once() {
    insta::assert_snapshot!(line(
        "kubeboot.role=control-plane kubeboot.rloe=init kubeboot.pod-cidr=10.0.0.0/8 kubeboot.name=CP_1 kubeboot.token \
         kubeboot.cluster=x kubeboot.node.ip=127.0.0.1 kubeboot.network.mtu=12 kubeboot.node.labels=disk \
         kubeboot.node.taints=a:Never kubeboot.cluster.pod-cidr=10.96.5.0/16 kubeboot.proxy.mode=iptables \
         kubeboot.http-proxy=proxy:3128 kubeboot.addons=dashboard kubeboot.operator=bob kubeboot.report=/dev/ttyS1"
    ));
}

#[test]
fn a_mistyped_token_is_located_and_not_repeated() {
    let text = crate::token::Seed::new(*b"kubeboot is fine").text();
    let wrong = text.replacen('D', "E", 1);
    let told = line(&format!("kubeboot.role=init kubeboot.token={wrong}"));
    assert!(!told.contains(&wrong[5..]), "{told}");
    insta::assert_snapshot!(told);
    let join = crate::token::Seed::new(*b"kubeboot is fine").join_token(crate::token::Joiner::Worker).text();
    insta::assert_snapshot!(line(&format!("kubeboot.role=init kubeboot.token={}", join.as_str())));
    let good = line(&format!("kubeboot.role=init kubeboot.token={}", text.as_str()));
    assert!(good.contains("a systemd credential is a better place") && !good.contains(&text[5..]), "{good}");
}

#[test]
fn rules_that_span_keys() {
    insta::assert_snapshot!(line("kubeboot.cluster.pod-cidr=10.96.0.0/16 kubeboot.node.ip=10.96.0.9"));
    insta::assert_snapshot!(line("kubeboot.cluster.pod-cidr=fd00::/48 kubeboot.node.ip=10.0.0.9"));
}

const CLOUD_CONFIG: &str = "#cloud-config
kubeboot:
  role: init
  cluster: {pod-cidr: 10.10.0.0/16}
  node:
    labels: {disk: ssd, 'topology.kubernetes.io/zone': a}
  registry:
    mirrors:
      docker.io: [https://a.example, https://b.example]
hostname: cp-1
fqdn: cp-1.example.org
ssh_authorized_keys:
  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqGXr0WDGZqFbDkGWqIRWHGSfDQHpRq4gsqY9gNyL9 ann@desk
users:
  - default
  - name: ann
    shell: /bin/bash
write_files:
  - {path: /etc/motd, content: hello, permissions: '0600'}
  - {path: /etc/a/b, content: aGk=, encoding: b64, owner: 'root:root'}
ntp: {servers: [ntp.example.org]}
packages: [vim]
runcmd: [reboot]
";

#[test]
fn a_cloud_config_is_applied_and_what_is_not_is_named() {
    insta::assert_snapshot!(told(CLOUD_CONFIG.as_bytes()));
}

/// Parts in base64, as a MIME message has them that are no text.
fn multipart(parts: &[&[u8]]) -> Vec<u8> {
    use base64::Engine as _;
    let mut out = "Content-Type: multipart/mixed; boundary=b\nMIME-Version: 1.0\n\n".to_owned();
    for part in parts {
        let body = base64::engine::general_purpose::STANDARD.encode(part);
        out += &format!("--b\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n{body}\n");
    }
    (out + "--b--\n").into_bytes()
}

#[test]
fn packed_forms_say_the_same_as_the_plain_one() {
    let plain = told(CLOUD_CONFIG.as_bytes());
    assert_eq!(told(&gzipped(CLOUD_CONFIG.as_bytes())), plain);
    assert_eq!(told(&gzipped(&gzipped(CLOUD_CONFIG.as_bytes()))), plain);
    assert_eq!(told(CLOUD_CONFIG.replace('\n', "\r\n").as_bytes()), plain);
    let mime = format!(
        "Content-Type: multipart/mixed; boundary=\"==b\"\nMIME-Version: 1.0\n\n--==b\nContent-Type: \
        text/cloud-config; charset=\"utf-8\"\nMIME-Version: 1.0\n\n{CLOUD_CONFIG}\n--==b--\n"
    );
    assert_eq!(told(mime.as_bytes()), plain);
    assert_eq!(told(&gzipped(mime.as_bytes())), plain);
}

#[test]
fn parts_that_are_not_ours_are_named() {
    let mime = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/x-shellscript\n\n\
        #!/bin/sh\nreboot\n--b\nContent-Type: text/cloud-config\nContent-Transfer-Encoding: base64\n\n\
        a3ViZWJvb3Q6CiAgcm9sZTogaW5pdAo=\n--b\nContent-Type: text/plain\n\n#kubeboot\nname = 'cp-1'\n--b--\n";
    insta::assert_snapshot!(told(mime.as_bytes()));
}

#[test]
fn what_is_not_understood_is_said_to_be_so() {
    let bomb = gzipped(&vec![b'#'; 64 << 20]);
    let deep = gzipped(&gzipped(&gzipped(&gzipped(b"#kubeboot"))));
    let all = [
        told(b""),
        told(b"  \n"),
        told(b"#!/bin/sh\nreboot\n"),
        told(b"{\"ignition\": {\"version\": \"3.4.0\"}}"),
        told(b"role: init\n"),
        told(b"#cloud-config\nkubeboot: [a\n"),
        told(b"#cloud-config\n- a\n"),
        told(b"#cloud-config\nkubeboot:\n  role: init\n  cluster:\n    pod_cidr: 10.0.0.0/8\n"),
        told(b"#cloud-config\nkubeboot:\n  token: [a]\n  network: {mtu: 14.5}\n  cluster: x\n"),
        told(b"#kubeboot\nrole = init\n"),
        told(b"#kubeboot\nrole = 'init'\n'cluster.dns-domain' = 'a'\ncluster.dns-domain = 'b'\n"),
        told(b"#cloud-config\nwrite_files: [{path: /usr/bin/x}, {path: /etc/../x}, {path: /etc/kubernetes/manifests/x.yaml}]\n"),
        told(b"#cloud-config\nwrite_files: [{path: /etc/x, content: '%', encoding: b64}, {path: /etc/x, permissions: '7777'}]\n"),
        told(b"\xff\xfe\x00"),
        told(&vec![b'x'; LIMIT + 1]),
        told(&gzipped(b"#kubeboot\n")[..12]),
        told(&bomb),
        told(&deep),
        told(b"Content-Type: multipart/mixed; boundary=b\n\n--b--\n"),
        // MIME bombs: parts without end, parts that unpack without end, parts in parts in parts.
        told(&multipart(&[b"#kubeboot\n".as_slice(); 65])),
        told(&multipart(&[&bomb, b"#kubeboot\nrole = 'init'\n"])),
        told(&multipart(&[&multipart(&[&multipart(&[&multipart(&[b"#kubeboot\nrole = 'init'\n"])])])])),
        told(&[b"Content-Type: multipart/mixed; boundary=b\n".repeat(20_000).as_slice(), b"\n--b\n\nx\n--b--\n"].concat()),
    ];
    insta::assert_snapshot!(all.iter().enumerate().map(|(at, told)| format!("{at}: {told}\n")).collect::<String>());
}

#[test]
fn credentials_in_toml_and_yaml() {
    let credential = |name: &str, text: &str| (name.to_owned(), Bytes::new(text.as_bytes().to_vec()));
    let with = |credentials| say(&Gathered { credentials, ..Gathered::default() });
    insta::assert_snapshot!(with(vec![
        credential("kubeboot.config", "role: worker\nnode:\n  labels: {a: b}\n"),
        credential("kubeboot.role", "init\n"),
    ]));
    insta::assert_snapshot!(with(vec![credential(
        "kubeboot.config",
        "# comment\nname = 'x'\n[cluster]\ndns-domain = 'lan'\n"
    )]));
    insta::assert_snapshot!(with(vec![
        credential("kubeboot.config", "role = init\n"),
        credential("kubeboot.confg", ""),
        credential("kubeboot.token", "swordfish"),
    ]));
    insta::assert_snapshot!(with(vec![credential("kubeboot.config", "role: [init\n")]));
}

#[test]
fn ssh_keys_of_user_data_and_of_the_platform_are_joined() {
    let other = KEY.replace("ann@desk", "bob@desk");
    let volume = Volume {
        layout: Layout::NoCloud,
        name: "cidata volume /dev/vdb".into(),
        user_data: Some(Bytes::new(format!("#cloud-config\nssh_authorized_keys: ['{KEY}']\n").into_bytes())),
        meta_data: Some(Bytes::new(format!("public-keys: ['{other}', '{KEY}']\n").into_bytes())),
        network: None,
    };
    let inputs = parse(&Gathered { volumes: vec![volume], ..Gathered::default() });
    let (origin, keys) = inputs.os.ssh_authorized_keys.expect("keys");
    assert_eq!(
        (origin.to_string().as_str(), keys),
        ("cidata volume /dev/vdb, user-data line 2", vec![KEY.to_owned(), other])
    );
}

#[test]
fn a_config_drive_gives_name_and_keys() {
    let meta =
        format!("{{\"uuid\": \"x\", \"hostname\": \"vm.novalocal\", \"public_keys\": {{\"me\": \"{KEY}\\n\"}}}}");
    let volume = Volume {
        layout: Layout::ConfigDrive,
        name: "config-2 volume /dev/sr0".into(),
        user_data: Some(Bytes::new(b"#kubeboot\nrole = 'init'\n".to_vec())),
        meta_data: Some(Bytes::new(meta.into_bytes())),
        network: Some(Bytes::new(b"{}".to_vec())),
    };
    insta::assert_snapshot!(say(&Gathered { volumes: vec![volume], ..Gathered::default() }));
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, head in 0usize..6) {
            let heads: [&[u8]; 6] =
                [b"", b"#cloud-config\n", b"#kubeboot\n", b"Content-Type: multipart/mixed; boundary=b\n\n--b\n", b"\x1f\x8b\x08", b"#cloud-config\nkubeboot:\n  "];
            told(&[heads[head], &bytes].concat());
        }

        #[test]
        fn every_source_gives_the_same_settings(name in "[a-z]{1,8}", mtu in 576u32..9000, label in "[a-z]{1,5}") {
            let settings = |gathered: Gathered| validate(parse(&gathered)).ok().map(|validated| validated.settings);
            let bytes = |text: String| Bytes::new(text.into_bytes());
            let expected = settings(Gathered {
                command_line: bytes(format!("kubeboot.name={name} kubeboot.network.mtu={mtu} kubeboot.node.labels=a={label}")),
                ..Gathered::default()
            });
            prop_assert!(expected.is_some());
            let toml = format!("name = '{name}'\nnetwork.mtu = {mtu}\n[node.labels]\na = '{label}'\n");
            let yaml = format!("name: '{name}'\nnetwork: {{mtu: {mtu}}}\nnode:\n  labels: {{a: '{label}'}}\n");
            let credential = |text: &str| vec![("kubeboot.config".to_owned(), bytes(text.to_owned()))];
            prop_assert_eq!(&settings(Gathered { baked: Some(bytes(toml.clone())), ..Gathered::default() }), &expected);
            prop_assert_eq!(&settings(Gathered { by_hand: Some(bytes(toml.clone())), ..Gathered::default() }), &expected);
            prop_assert_eq!(&settings(Gathered { credentials: credential(&toml), ..Gathered::default() }), &expected);
            prop_assert_eq!(&settings(Gathered { credentials: credential(&yaml), ..Gathered::default() }), &expected);
        }
    }
}
