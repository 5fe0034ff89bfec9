//! What workers do for operators, and where the rest is done.

use std::net::IpAddr;

use super::Trouble;
use super::request::Request;
use crate::exit::Exit;
use crate::words::one_line;

/// Control planes that are named at most.
const NAMED: usize = 3;

/// A worker was asked for what only control planes do. `name` is the worker's, `control_planes` are those that are known.
pub fn not_by_a_worker(name: &str, request: &Request, control_planes: &[IpAddr]) -> Trouble {
    let command = one_line(&request.command());
    let why =
        format!("{} is a worker, which only shows its own status, logs, support bundle and members", one_line(name));
    let ask = |address: &IpAddr| format!("kubeboot --node {address} {command}");
    let fix: Vec<String> = control_planes.iter().take(NAMED).map(ask).collect();
    let mut trouble = Trouble::new(Exit::BadInput, request.refused(), why, "");
    trouble.fix = match fix.as_slice() {
        [] => vec![format!(
            "this worker knows of no control plane now; name one yourself: kubeboot --node CONTROL-PLANE {command}"
        )],
        [first, rest @ ..] => {
            let or = rest.iter().map(|other| format!("or another control plane: {other}"));
            std::iter::once(format!("ask a control plane: {first}")).chain(or).collect()
        }
    };
    trouble
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::DAY;
    use crate::operators::request::{Admits, Bytes};
    use crate::operators::user;

    #[test]
    fn the_fix_is_a_whole_command_at_a_control_plane() {
        let request = Request::NodeRemove { name: "w-2".into(), drain: Some(300) };
        let addresses = ["10.0.0.10", "fd00::10"].map(|address| address.parse().expect("an address"));
        let trouble = not_by_a_worker("w-1", &request, &addresses);
        assert_eq!(trouble.exit, 2);
        assert_eq!(
            trouble.fix,
            [
                "ask a control plane: kubeboot --node 10.0.0.10 node remove w-2 --drain-timeout 300",
                "or another control plane: kubeboot --node fd00::10 node remove w-2 --drain-timeout 300"
            ]
        );
        assert!(trouble.why[0].starts_with("w-1 is a worker"));
        let trouble = not_by_a_worker("w-1", &Request::TokenList {}, &[]);
        assert!(trouble.fix[0].ends_with("kubeboot --node CONTROL-PLANE token list"));
    }

    /// As it would be asked at a control plane.
    fn asked_there(request: &Request) -> String {
        let trouble = not_by_a_worker("w-1", request, &["10.0.0.10".parse().expect("an address")]);
        trouble.fix[0].trim_start_matches("ask a control plane: kubeboot --node 10.0.0.10 ").to_owned()
    }

    #[test]
    fn the_fix_asks_for_no_more_than_was_asked_for() {
        let user = user::Wanted {
            name: "eve".into(),
            groups: vec!["dev".into(), "system:masters".into()],
            ttl: 90 * 60,
            role: user::Role::Admin,
            namespace: Some("shop".into()),
            reserved: true,
        };
        let plain = user::Wanted {
            groups: Vec::new(),
            ttl: 30 * DAY,
            role: user::Role::View,
            namespace: None,
            reserved: false,
            ..user.clone()
        };
        let create = |user| Request::UserCreate { user, certificate_request: Bytes(vec![1]) };
        let token = |role, ttl, uses| Request::TokenCreate { role, key: Bytes(vec![7; 32]), ttl, uses };
        let kubeconfig = |ttl| Request::Kubeconfig { certificate_request: Bytes(vec![1]), ttl };
        let remove = |key: &str, last| Request::OperatorRemove { key: key.into(), last };
        let requests = [
            create(user),
            create(plain),
            token(Admits::Worker, 3600, Some(3)),
            token(Admits::Worker, DAY, None),
            token(Admits::ControlPlane, 90, Some(1)),
            kubeconfig(61),
            kubeconfig(7 * DAY),
            remove("SHA256:abc+/0", true),
            remove("ssh-ed25519 AAAA o'neill", false),
            Request::NodeRemove { name: "w-2".into(), drain: None },
            Request::Logs { unit: Some(r"a\x2db".into()), follow: true, lines: 5 },
            Request::Logs { unit: None, follow: false, lines: 200 },
            Request::Status { why: true, json: true },
        ];
        let commands = [
            "user create eve --role admin --group dev --group system:masters --namespace shop --ttl 90m --allow-reserved",
            "user create eve --role view",
            "token create --uses 3 --ttl 1h",
            "token create",
            "token create --role control-plane --ttl 90s",
            "kubeconfig --ttl 61s",
            "kubeconfig",
            "operator remove SHA256:abc+/0 --yes-remove-the-last",
            r"operator remove 'ssh-ed25519 AAAA o'\''neill'",
            "node remove w-2 --without-drain",
            r"logs 'a\x2db' --follow --lines 5",
            "logs",
            "status --why --output json",
        ];
        assert_eq!(requests.each_ref().map(asked_there), commands);
    }
}
