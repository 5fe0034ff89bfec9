//! What `kubeboot members` says.

use std::time::Duration;

use super::{Block, duration, one_line, table};
use crate::mesh::view::{Seen, View};

/// The mesh as this node sees it.
pub fn text(view: &View) -> String {
    let head = ["NAME", "ROLE", "ADDRESS", "STATE", "FOR", "ROUND TRIP", "STARTS", "OBJECTIONS", "SUSPECTED BY"];
    let mut out = table::text(head, view.members.iter().map(row));
    let count = |state: &str| view.members.iter().filter(|member| member.state == state).count();
    let states = ["alive", "suspect", "down"].map(|state| (count(state), state));
    let states: Vec<String> =
        states.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}")).collect();
    out += &format!(
        "\n{} as {} sees them: {}. The mesh key is the one of epoch {}; {}.\n",
        counted(view.members.len(), "member"),
        one_line(&view.node),
        states.join(", "),
        view.key_epoch,
        counted(view.records, "record"),
    );
    if let Some(why) = &view.silent {
        out += &format!("This node takes no part any more: {}.\n", one_line(why));
    }
    out
}

fn row(member: &Seen) -> [String; 9] {
    let dash = || "-".to_owned();
    let name = if member.this_node { format!("{} (this node)", member.name) } else { member.name.clone() };
    // What another machine says may be any number.
    let trip = member.round_trip.and_then(|trip| Duration::try_from_secs_f64(trip / 1000.0).ok()).map(duration);
    [
        name,
        member.role.clone(),
        member.address.clone(),
        member.state.clone(),
        duration(Duration::from_secs(member.seconds)),
        trip.unwrap_or_else(dash),
        member.generation.to_string(),
        member.incarnation.to_string(),
        member.suspected_by.clone().unwrap_or_else(dash),
    ]
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Why there is nothing to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nothing {
    /// The machine is no node.
    NoNode,
    /// Only root may ask.
    NotRoot,
    /// The agent does not run, or its mesh has not begun.
    NoAgent,
    /// In words: something else.
    Failed(String),
}

/// Says why there is nothing to show, and what to do.
pub fn nothing(why: &Nothing) -> Block {
    let (reason, fix) = match why {
        Nothing::NoNode => (
            "this machine is no node yet: it is in no mesh".to_owned(),
            "give it a role (kubeboot init, kubeboot join), or ask on a node.",
        ),
        Nothing::NotRoot => ("only root may ask the agent".to_owned(), "run it as root."),
        Nothing::NoAgent => (
            "the agent does not run, or has not begun with the mesh".to_owned(),
            "see how the agent is: systemctl status kubeboot-agent, journalctl -u kubeboot-agent.",
        ),
        Nothing::Failed(why) => (why.clone(), "see how the agent is: journalctl -u kubeboot-agent."),
    };
    Block {
        what: "The members of the mesh can't be shown".to_owned(),
        why: vec![reason],
        state: "Nothing was changed.".to_owned(),
        fix: vec![fix.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Paint;

    fn member(name: &str, role: &str, state: &str) -> Seen {
        Seen {
            name: name.to_owned(),
            role: role.to_owned(),
            address: format!("192.168.1.{}:7440", name.len() * 5),
            node_key: "00".repeat(16),
            state: state.to_owned(),
            seconds: 3725,
            generation: 2,
            incarnation: 0,
            round_trip: Some(0.84),
            suspected_by: None,
            this_node: false,
        }
    }

    fn view() -> View {
        let this = Seen { this_node: true, round_trip: None, ..member("cp-1", "control-plane", "alive") };
        let suspect = Seen { suspected_by: Some("cp-1".into()), seconds: 3, ..member("w-22", "worker", "suspect") };
        let down = Seen { incarnation: 4, ..member("w-333", "worker", "down") };
        View {
            node: "cp-1".to_owned(),
            key_epoch: 2,
            records: 3,
            silent: None,
            members: vec![this, member("w-1", "worker", "alive"), suspect, down],
        }
    }

    #[test]
    fn members() {
        insta::assert_snapshot!(text(&view()));
    }

    #[test]
    fn a_node_that_is_alone_and_was_removed() {
        let mut view = view();
        view.members.truncate(1);
        view.records = 1;
        view.silent = Some("this node was removed from the cluster".to_owned());
        insta::assert_snapshot!(text(&view));
    }

    #[test]
    fn for_programs() {
        insta::assert_json_snapshot!(View { members: view().members[2..3].to_vec(), ..view() });
    }

    #[test]
    fn why_there_is_nothing_to_show() {
        let all = [Nothing::NoNode, Nothing::NotRoot, Nothing::NoAgent, Nothing::Failed("no answer".into())];
        insta::assert_snapshot!(all.map(|why| nothing(&why).text(Paint::Plain)).join("\n"));
    }
}
