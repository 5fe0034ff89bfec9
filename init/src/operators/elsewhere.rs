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
}
