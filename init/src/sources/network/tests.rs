use super::*;

fn rendered(text: &str) -> String {
    let source = Source::UserData { file: "cidata volume /dev/vdb, network-config".into() };
    let fragment = parse(source, Layout::NoCloud, text.as_bytes());
    let mut out = String::new();
    if let Some((_, files)) = fragment.os.network {
        for file in files {
            out += &format!("== {}\n{}", file.name, file.text);
        }
    }
    for problem in fragment.problems {
        out += &format!("problem: {problem}\n");
    }
    for warning in fragment.warnings {
        out += &format!("warning: {warning}\n");
    }
    out
}

#[test]
fn version_2() {
    insta::assert_snapshot!(rendered(
        "version: 2
ethernets:
  eth0:
    dhcp4: true
  uplink:
    match: {macaddress: '52:54:00:AB:cd:01'}
    set-name: lan0
    addresses: [192.168.1.10/24, 'fd00::10/64']
    gateway4: 192.168.1.1
    nameservers: {addresses: [192.168.1.1], search: [example.org, lan]}
    routes:
      - {to: 10.0.0.0/8, via: 192.168.1.254, metric: 50}
      - {to: default, via: 'fd00::1', on-link: true}
    mtu: 9000
    optional: true
"
    ));
}

#[test]
fn version_1() {
    insta::assert_snapshot!(rendered(
        "network:
  version: 1
  config:
    - type: physical
      name: eth0
      mac_address: 52:54:00:ab:cd:01
      subnets:
        - {type: static, address: 192.168.1.10, netmask: 255.255.255.0, gateway: 192.168.1.1, dns_search: [a.example]}
        - {type: static6, address: 'fd00::10/64'}
    - type: physical
      name: eth1
      subnets: [{type: dhcp}]
    - {type: nameserver, address: [10.0.0.2], search: lan}
"
    ));
}

#[test]
fn what_can_not_be_set_up_is_an_error_and_nothing_can_be_smuggled_into_the_file() {
    insta::assert_snapshot!(rendered(
        "version: 2
bonds: {bond0: {interfaces: [a, b]}}
ethernets:
  \"eth0\\n[Network]\": {dhcp4: true}
  eth1:
    dhcp4: perhaps
    addresses: [\"10.0.0.1/24\\nDHCP=yes\", 10.0.0.300/24]
    wakeonlan: true
"
    ));
    insta::assert_snapshot!(rendered("version: 3\n"));
}
