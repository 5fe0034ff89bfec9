//! Inputs → settings: every value judged, every problem collected.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use super::inputs::Value;
use super::keys::{self, Key};
use super::problem::{Problem, Warning};
use super::rules;
use super::{
    Api, Backend, Cidr, Cluster, Egress, Inputs, Network, Node, Origin, Os, ProxyMode, Registry, Role, Settings, Source,
};
use crate::certificates::OperatorKey;
use crate::token::{Kind, Token};

/// What the inputs come to. No `Debug`: it may hold a token.
pub struct Validated {
    /// The settings, without secrets.
    pub settings: Settings,
    /// The token, kept apart.
    pub token: Option<Token>,
    /// The origin of each key that some source gave; what is missing here has its default.
    pub origins: BTreeMap<String, Origin>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

/// The serial device that gets the events, whatever is wrong with the other inputs.
pub fn report_device(inputs: Inputs) -> Option<String> {
    Judge { values: inputs.values, problems: Vec::new() }.report()
}

/// Judges merged inputs. Fails with every problem at once, those of the sources first.
pub fn validate(inputs: Inputs) -> Result<Validated, Vec<Problem>> {
    let mut judge = Judge { values: inputs.values, problems: inputs.problems };
    let token = judge.token();
    let settings = Settings {
        role: judge.role(),
        name: judge.text("name", rules::is_node_name),
        join: judge.list("join", rules::is_host),
        operator: judge.operator(),
        report: judge.report(),
        cluster: judge.cluster(),
        node: judge.node(),
        api: Api { extra_sans: judge.list("api.extra-sans", rules::is_san) },
        network: judge.network(),
        proxy: judge.choice("proxy.mode", &[("nftables", ProxyMode::Nftables), ("none", ProxyMode::None)]),
        registry: judge.registry(),
        egress: Egress {
            http_proxy: judge.text("http-proxy", rules::is_url),
            https_proxy: judge.text("https-proxy", rules::is_url),
            no_proxy: judge.list("no-proxy", rules::is_proxy_exception),
        },
        addons: judge.addons(),
        os: Os::default(),
    };
    judge.across(&settings, token.as_ref());
    let mut warnings = inputs.warnings;
    let origin = judge.origin(keys::TOKEN);
    if token.is_some() && origin.source == Source::KernelCommandLine {
        let text =
            "every pod can read the kernel command line, and the token on it; a systemd credential is a better place";
        warnings.push(Warning { origin, text: text.to_owned() });
    }
    for (key, url) in [("http-proxy", &settings.egress.http_proxy), ("https-proxy", &settings.egress.https_proxy)] {
        if url.as_deref().is_some_and(rules::has_password) {
            let text = format!(
                "{key} holds a name or a password, so it is for containerd only: the API server's pod, which would have it \
                 too, can be read by whoever may get pods"
            );
            warnings.push(Warning { origin: judge.origin(key), text });
        }
    }
    let mut origins: BTreeMap<String, Origin> =
        judge.values.iter().map(|(key, given)| ((*key).to_owned(), given.origin.clone())).collect();
    let os = judge.os(inputs.os, &mut origins, &mut warnings);
    if judge.problems.is_empty() {
        Ok(Validated { settings: Settings { os, ..settings }, token, origins, warnings })
    } else {
        Err(judge.problems)
    }
}

/// The values, and the problems found in them so far.
struct Judge {
    values: BTreeMap<&'static str, super::Given>,
    problems: Vec<Problem>,
}

impl Judge {
    fn wrong(&mut self, key: &'static str, found: &str, expected: &str) {
        let origin = self.origin(key);
        let masked = keys::URLS.contains(&key).then(|| rules::masked(found));
        self.problems.push(Problem::value(key, &origin, masked.as_deref().unwrap_or(found), expected));
    }

    fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::whole(Source::Default), |given| given.origin.clone())
    }

    fn one(&self, key: &str) -> Option<String> {
        match &self.values.get(key)?.value {
            Value::One(text) => Some(text.as_str().to_owned()),
            _ => None,
        }
    }

    fn expected(key: &str) -> &'static str {
        keys::find(key).map_or("", |key: &Key| key.expected)
    }

    fn text(&mut self, key: &'static str, good: impl Fn(&str) -> bool) -> Option<String> {
        let text = self.one(key)?;
        if good(&text) {
            return Some(text);
        }
        self.wrong(key, &text, Self::expected(key));
        None
    }

    fn report(&mut self) -> Option<String> {
        self.text("report", rules::is_device)
    }

    fn list(&mut self, key: &'static str, good: impl Fn(&str) -> bool) -> Vec<String> {
        let items = match self.values.get(key).map(|given| &given.value) {
            Some(Value::List(items)) => items.clone(),
            _ => return Vec::new(),
        };
        for item in &items {
            if !good(item) {
                self.wrong(key, item, Self::expected(key));
            }
        }
        items
    }

    fn map(&mut self, key: &'static str, good: impl Fn(&str, &str) -> bool) -> BTreeMap<String, Vec<String>> {
        let map = match self.values.get(key).map(|given| &given.value) {
            Some(Value::Map(map)) => map.clone(),
            _ => return BTreeMap::new(),
        };
        for (name, values) in &map {
            for value in values {
                if !good(name, value) {
                    self.wrong(key, &format!("{name}={value}"), Self::expected(key));
                }
            }
        }
        map
    }

    fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let Some(text) = self.one(key) else { return choices[0].1 };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return *choice;
        }
        self.wrong(key, &text, Self::expected(key));
        choices[0].1
    }

    /// A secret: a problem tells where the slip is, never what was written.
    fn token(&mut self) -> Option<Token> {
        let origin = self.origin(keys::TOKEN);
        let Value::One(text) = &self.values.get(keys::TOKEN)?.value else { return None };
        match Token::parse(text) {
            Ok(token) => Some(token),
            Err(error) => {
                self.problems.push(Problem {
                    key: Some(keys::TOKEN.to_owned()),
                    origin,
                    found: error.to_string(),
                    expected: Self::expected(keys::TOKEN).to_owned(),
                    nearest: None,
                });
                None
            }
        }
    }

    /// Keys that a client certificate can be issued for: of another an operator would hear nothing.
    fn operator(&mut self) -> Vec<String> {
        let keys = self.list("operator", rules::is_ssh_key);
        let origin = self.origin("operator");
        for key in keys.iter().filter(|key| rules::is_ssh_key(key)) {
            if let Err(unfit) = OperatorKey::parse(key) {
                let mut problem = Problem::value("operator", &origin, key, Self::expected("operator"));
                problem.found = format!("{} ({unfit})", problem.found);
                self.problems.push(problem);
            }
        }
        keys
    }

    fn role(&mut self) -> Option<Role> {
        match self.one("role")?.as_str() {
            "init" => Some(Role::Init),
            "worker" => Some(Role::Worker),
            "control-plane" => Some(Role::ControlPlane),
            other => {
                self.wrong("role", other, Self::expected("role"));
                None
            }
        }
    }

    fn parsed<T: FromStr>(&mut self, key: &'static str, default: Option<T>, allowed: impl Fn(&T) -> bool) -> Option<T> {
        let Some(text) = self.one(key) else { return default };
        match text.parse::<T>().ok().filter(|value| allowed(value)) {
            Some(value) => Some(value),
            None => {
                self.wrong(key, &text, Self::expected(key));
                default
            }
        }
    }

    /// An address block within the prefix lengths that Kubernetes can work with.
    fn block(&mut self, key: &'static str, default: Cidr, four: (u8, u8), six: (u8, u8)) -> Cidr {
        let Some(text) = self.one(key) else { return default };
        let block = match text.parse::<Cidr>() {
            Ok(block) => block,
            Err(expected) => {
                self.wrong(key, &text, &expected);
                return default;
            }
        };
        let (widest, narrowest) = if block.address.is_ipv4() { four } else { six };
        if !(widest..=narrowest).contains(&block.prefix) {
            self.wrong(key, &text, &format!("a prefix length from /{widest} to /{narrowest}"));
        }
        block
    }

    fn cluster(&mut self) -> Cluster {
        let default = Cluster::default();
        Cluster {
            pod_cidr: self.block("cluster.pod-cidr", default.pod_cidr, (8, 24), (48, 64)),
            service_cidr: self.block("cluster.service-cidr", default.service_cidr, (12, 28), (108, 124)),
            dns_domain: self.text("cluster.dns-domain", rules::is_dns_name).unwrap_or(default.dns_domain),
        }
    }

    fn node(&mut self) -> Node {
        let usable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast();
        let label = |name: &str, value: &str| rules::is_label_key(name) && rules::is_label_value(value);
        Node {
            ip: self.parsed("node.ip", None, usable),
            labels: single(self.map("node.labels", label)),
            taints: self.list("node.taints", rules::is_taint),
        }
    }

    fn network(&mut self) -> Network {
        let backends = [
            ("vxlan", Backend::Vxlan),
            ("host-gw", Backend::HostGw),
            ("wireguard", Backend::Wireguard),
            ("none", Backend::None),
        ];
        Network {
            backend: self.choice("network.backend", &backends),
            mtu: self.parsed("network.mtu", None, |mtu: &u32| (576..=65535).contains(mtu)),
        }
    }

    fn registry(&mut self) -> Registry {
        Registry {
            mirrors: self.map("registry.mirrors", |host, url| rules::is_registry(host) && rules::is_url(url)),
            extra_cas: self.list("registry.extra-cas", rules::is_pem_certificate),
        }
    }

    fn addons(&mut self) -> Vec<String> {
        if !self.values.contains_key("addons") {
            return vec!["coredns".to_owned()];
        }
        self.list("addons", rules::is_addon)
    }

    /// Rules that span keys.
    fn across(&mut self, settings: &Settings, token: Option<&Token>) {
        let (pods, services) = (settings.cluster.pod_cidr, settings.cluster.service_cidr);
        // The one that was given is the one to correct.
        let names = ["cluster.service-cidr", "cluster.pod-cidr"];
        let [(key, found), (other, it)] = match self.values.contains_key(names[0]) {
            true => [(names[0], services), (names[1], pods)],
            false => [(names[1], pods), (names[0], services)],
        };
        if pods.address.is_ipv4() != services.address.is_ipv4() {
            let expected = format!("addresses of the same family as {other}, which is {it}");
            self.wrong(key, &found.to_string(), &expected);
        } else if pods.overlaps(&services) {
            let expected = format!("a block that does not overlap {other}, which is {it}");
            self.wrong(key, &found.to_string(), &expected);
        }
        if let Some(ip) = settings.node.ip {
            if ip.is_ipv4() != pods.address.is_ipv4() {
                let expected = format!("an address of the same family as cluster.pod-cidr, which is {pods}");
                self.wrong("node.ip", &ip.to_string(), &expected);
            }
            for (name, block) in [("cluster.pod-cidr", pods), ("cluster.service-cidr", services)] {
                if block.contains(ip) {
                    self.wrong("node.ip", &ip.to_string(), &format!("an address outside {name}, which is {block}"));
                }
            }
        }
        if settings.role == Some(Role::Init) && token.is_some_and(|token| token.kind() != Kind::Seed) {
            self.problems.push(Problem {
                key: Some(keys::TOKEN.to_owned()),
                origin: self.origin(keys::TOKEN),
                found: "a join token".to_owned(),
                expected: "a seed (kb1s-…), because role is init; or no token: the founder makes its own".to_owned(),
                nearest: None,
            });
        }
    }

    /// The operating system's part. A bad host name is a problem; a key that ssh would refuse is one too.
    fn os(&mut self, os: super::OsFragment, origins: &mut BTreeMap<String, Origin>, warnings: &mut Vec<Warning>) -> Os {
        let mut out = Os::default();
        if let Some((origin, name)) = os.hostname {
            if !rules::is_node_name(&name) {
                let expected = Self::expected("name");
                self.problems.push(Problem::value("hostname", &origin, &name, expected));
            }
            origins.insert("os.hostname".to_owned(), origin);
            out.hostname = Some(name);
        }
        if let Some((origin, lines)) = os.ssh_authorized_keys {
            for line in &lines {
                if !rules::is_ssh_key(line) {
                    let expected = Self::expected("operator");
                    self.problems.push(Problem::value("ssh_authorized_keys", &origin, line, expected));
                } else if let Err(unfit) = OperatorKey::parse(line) {
                    // It is good enough for sshd, which is what cloud-init's key is for.
                    let text =
                        format!("an ssh key can log in to a debug image, but can't command the cluster: {unfit}");
                    warnings.push(Warning { origin: origin.clone(), text });
                }
            }
            origins.insert("os.ssh-authorized-keys".to_owned(), origin);
            out.ssh_authorized_keys = lines;
        }
        if let Some((origin, files)) = os.write_files {
            origins.insert("os.write-files".to_owned(), origin);
            out.write_files = files;
        }
        if let Some((origin, servers)) = os.ntp_servers {
            for server in servers.iter().filter(|server| !rules::is_host(server)) {
                let expected = "a host name or an address";
                self.problems.push(Problem::value("ntp.servers", &origin, server, expected));
            }
            origins.insert("os.ntp-servers".to_owned(), origin);
            out.ntp_servers = servers;
        }
        if let Some((origin, files)) = os.network {
            origins.insert("os.network".to_owned(), origin);
            out.network = files;
        }
        out
    }
}

/// A map whose names have one value each: the last given.
fn single(map: BTreeMap<String, Vec<String>>) -> BTreeMap<String, String> {
    map.into_iter().filter_map(|(name, mut values)| Some((name, values.pop()?))).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::settings::{Fragment, Given};

    /// A key of this kind in ssh's own form, good enough for sshd.
    fn key(kind: &str) -> String {
        let string = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        format!("{kind} {} ann", STANDARD.encode([string(kind.as_bytes()), string(&[4; 133])].concat()))
    }

    fn judged(change: impl Fn(&mut Fragment)) -> Result<Validated, Vec<Problem>> {
        let mut fragment = Fragment::empty(Source::KernelCommandLine);
        change(&mut fragment);
        validate(Inputs::merge(vec![fragment]))
    }

    #[test]
    fn an_operator_whose_key_can_hold_no_certificate_is_a_problem_with_the_reason() {
        for kind in ["ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com", "ssh-rsa"] {
            let origin = Origin::whole(Source::KernelCommandLine);
            let value = Value::List(vec![key(kind)]);
            let problems = judged(|fragment| {
                fragment.values.insert("operator", Given { origin: origin.clone(), value: value.clone() });
            });
            let problems: Vec<String> = problems.err().unwrap().iter().map(ToString::to_string).collect();
            assert!(problems.len() == 1 && problems[0].contains("can't hold a client certificate"), "{problems:?}");
        }
    }

    #[test]
    fn a_login_key_that_can_hold_no_certificate_is_a_warning_with_the_reason() {
        let origin = Origin::whole(Source::KernelCommandLine);
        let lines = vec![key("sk-ssh-ed25519@openssh.com")];
        let judged = judged(|fragment| fragment.os.ssh_authorized_keys = Some((origin.clone(), lines.clone())));
        let warnings = judged.unwrap_or_else(|problems| panic!("{problems:?}")).warnings;
        let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains("can't hold a client certificate"), "{said:?}");
    }

    #[test]
    fn a_bad_proxy_is_quoted_without_its_password() {
        for bad in ["ftp://ann:secret@proxy", "ann:secret@proxy:1", "http://ann:secret@pro xy"] {
            let origin = Origin::whole(Source::KernelCommandLine);
            let value = Value::One(zeroize::Zeroizing::new(bad.to_owned()));
            let problems = judged(|fragment| {
                fragment.values.insert("https-proxy", Given { origin: origin.clone(), value: value.clone() });
            });
            let problems: Vec<String> = problems.err().unwrap().iter().map(ToString::to_string).collect();
            assert!(problems.len() == 1 && !problems[0].contains("secret"), "{problems:?}");
        }
    }
}
