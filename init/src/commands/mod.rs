//! One file for each subcommand: gather through `host`, decide with the pure rooms, act through `host`.

mod agent;
mod answer;
mod balancer;
mod boot;
mod etc;
mod health;
mod images;
mod init;
mod join;
mod kubeconfig;
mod logs;
mod members;
mod node;
mod operator;
mod os_health;
mod person;
mod place;
mod plan;
mod preflight;
mod prompt;
mod reset;
mod slot;
mod status;
mod support_bundle;
mod timeline;
mod token;
mod user;

use clap::{Parser, Subcommand, ValueEnum};

use crate::exit::Exit;

/// Turns a booted machine into a Kubernetes node, and swaps its signed releases.
#[derive(Debug, Parser)]
#[command(name = "kubeboot", version, propagate_version = true, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    there: place::There,
}

/// Every subcommand: a variant here and a file beside this one. Those that only units run are hidden.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make this machine the node that its settings ask for
    #[command(hide = true)]
    Boot(boot::Args),
    /// Say what boot would change on this machine
    Plan(plan::Args),
    /// In the initrd: mount /var, make /etc writable for this boot and give the machine its id
    #[command(hide = true)]
    Etc(etc::Args),
    /// Keep add-ons, labels and certificates what they should be
    #[command(hide = true)]
    Agent(agent::Args),
    /// Pass connections of this machine's programs to an API server that answers
    #[command(hide = true)]
    Balancer(balancer::Args),
    /// Wait until every gate of the release passes
    #[command(hide = true)]
    Health(health::Args),
    /// Say whether the OS image works: kubeboot runs and /var is writable
    #[command(hide = true)]
    OsHealth(os_health::Args),
    /// Check whether this machine can be a node; all findings at once, each with its fix
    Preflight(preflight::Args),
    /// Found a cluster on this machine, by hand
    Init(init::Args),
    /// Join a cluster with this machine, by hand
    Join(join::Args),
    /// On the console of a machine that was given no role: say what to do and offer it
    #[command(hide = true)]
    Prompt(prompt::Args),
    /// Show what this machine is and whether it is healthy
    Status(status::Args),
    /// Show who is in the mesh of the cluster's nodes, and who answers
    Members(members::Args),
    /// Return this machine to its first boot
    Reset(reset::Args),
    /// Show how long each phase of this boot took
    Timeline(timeline::Args),
    /// Remove nodes from the cluster
    Node(node::Args),
    /// Make tokens
    Token(token::Args),
    /// Get an operator's own access for kubectl
    Kubeconfig(kubeconfig::Args),
    /// Make access for people who are no operators, and take it away
    User(user::Args),
    /// Say whose ssh keys command the cluster
    Operator(operator::Args),
    /// Show the journal
    Logs(logs::Args),
    /// Gather what is needed to find a fault, without secrets
    SupportBundle(support_bundle::Args),
    /// Pick the release to boot, check it, and mount it as the seat
    #[command(hide = true)]
    Slot(slot::Args),
    /// Give containerd the node's own image, or the archives of a volume
    #[command(hide = true)]
    Images(images::Args),
}

impl Command {
    /// Whether another machine can do it, which `--node` names.
    fn takes_node(&self) -> bool {
        matches!(
            self,
            Command::Status(_)
                | Command::Members(_)
                | Command::Node(_)
                | Command::Token(_)
                | Command::Kubeconfig(_)
                | Command::User(_)
                | Command::Operator(_)
                | Command::Logs(_)
                | Command::SupportBundle(_)
        )
    }
}

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document.
    Json,
}

/// Runs the command that the process's arguments name. A usage error exits with 2, as [`Exit::BadInput`] does.
pub fn main() -> std::process::ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::BadInput } else { Exit::Success };
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return exit.into();
        }
    };
    run(line.command, &line.there).into()
}

fn run(command: Command, there: &place::There) -> Exit {
    if !command.takes_node()
        && let Err(stop) = there.refuse()
    {
        return answer::end("kubeboot", Output::Text, Err(stop));
    }
    match command {
        Command::Boot(args) => boot::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Etc(args) => etc::run(&args),
        Command::Preflight(args) => preflight::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Join(args) => join::run(&args),
        Command::Prompt(args) => prompt::run(&args),
        Command::Status(args) => status::run(&args, there),
        Command::Members(args) => members::run(&args, there),
        Command::Reset(args) => reset::run(&args),
        Command::Timeline(args) => timeline::run(&args),
        Command::Node(args) => node::run(&args, there),
        Command::Token(args) => token::run(&args, there),
        Command::Slot(args) => slot::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Balancer(args) => balancer::run(&args),
        Command::Health(args) => health::run(&args),
        Command::OsHealth(args) => os_health::run(&args),
        Command::Kubeconfig(args) => kubeconfig::run(&args, there),
        Command::User(args) => user::run(&args, there),
        Command::Operator(args) => operator::run(&args, there),
        Command::Logs(args) => logs::run(&args, there),
        Command::SupportBundle(args) => support_bundle::run(&args, there),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_an_example() {
        for command in CommandLine::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("kubeboot "), "{} has no example in after_help", command.get_name());
        }
    }

    #[test]
    fn operations_md_lists_every_subcommand_and_no_other() {
        let text = include_str!("../../../docs/operations.md");
        let listed: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("| `kubeboot ")?.split('`').next()).collect();
        let command = CommandLine::command();
        let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
        assert_eq!(listed, visible.map(clap::Command::get_name).collect());
    }

    #[test]
    fn another_machine_is_named_before_or_behind_a_command_and_by_what_is_one_alone() {
        let parse = |words: &str| CommandLine::try_parse_from(words.split(' '));
        let fingerprint = "0f".repeat(16);
        for words in [
            "kubeboot --node 10.0.0.10 status",
            "kubeboot status --node 10.0.0.10 --why",
            "kubeboot user create bob --node cp-1.example:7440 -o x --output json",
            "kubeboot user revoke bob --node 10.0.0.10 --output json",
            "kubeboot --node 10.0.0.10 logs -f kubelet",
            "kubeboot --node 10.0.0.10 members --output json",
            "kubeboot --node 10.0.0.10 node remove w-7 --drain-timeout 60",
            &format!("kubeboot --node 10.0.0.10 --fingerprint {fingerprint} --cluster-id {fingerprint} operator list"),
        ] {
            let line = parse(words).unwrap_or_else(|error| panic!("{error}"));
            assert!(line.there.node.is_some() && line.command.takes_node(), "{words}");
        }
        for words in [
            "kubeboot --node 10.0.0.10 --fingerprint 0f status",
            "kubeboot --fingerprint 0f status",
            "kubeboot --node 10.0.0.10 operator add",
            "kubeboot user create bob --output json",
            "kubeboot kubeconfig --ttl 1y",
            "kubeboot support-bundle",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
        // What is this machine's alone is not done here when another is named.
        for words in ["kubeboot --node 10.0.0.10 reset --yes", "kubeboot init --node 10.0.0.10"] {
            let line = parse(words).unwrap();
            assert_eq!(run(line.command, &line.there), Exit::BadInput, "{words}");
        }
    }

    /// [`crate::operators::Request::command`] leaves out what a command has unasked.
    #[test]
    fn commands_have_unasked_what_requests_leave_out_of_them() {
        use crate::operators::request::{LINES_UNASKED, TTL_OPERATOR, TTL_TOKEN, TTL_USER};
        let mut root = CommandLine::command();
        root.build();
        let unasked = |path: &[&str], argument: &str| {
            let command = path.iter().fold(&root, |command, name| command.find_subcommand(name).expect("a command"));
            let argument =
                command.get_arguments().find(|found| found.get_long() == Some(argument)).expect("an argument");
            argument.get_default_values()[0].to_str().expect("text").to_owned()
        };
        for (path, ttl) in
            [(&["kubeconfig"][..], TTL_OPERATOR), (&["token", "create"], TTL_TOKEN), (&["user", "create"], TTL_USER)]
        {
            assert_eq!(token::lifetime(&unasked(path, "ttl")), Ok(ttl), "{path:?}");
        }
        assert_eq!(unasked(&["token", "create"], "role"), "worker");
        assert_eq!(unasked(&["logs"], "lines"), LINES_UNASKED.to_string());
    }

    #[test]
    fn what_units_ask_of_kubeboot_it_understands() {
        macro_rules! units {
            ($($name:literal),*) => { [$(include_str!(concat!("../../../units/", $name, ".service"))),*] };
        }
        let units = units![
            "initrd/systemd/system/kubeboot-etc",
            "systemd/system/kubeboot-agent",
            "systemd/system/kubeboot-archives",
            "systemd/system/kubeboot-balancer",
            "systemd/system/kubeboot-console",
            "systemd/system/kubeboot-health",
            "systemd/system/kubeboot-images",
            "systemd/system/kubeboot-os-health",
            "systemd/system/kubeboot-slot",
            "systemd/system/kubeboot"
        ];
        for unit in units {
            let asks = unit.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
            let mut asked = asks.filter(|(_, words)| words.contains("bin/kubeboot")).peekable();
            assert!(asked.peek().is_some(), "{unit}");
            for (_, words) in asked {
                CommandLine::try_parse_from(words.split_whitespace()).unwrap();
            }
        }
    }
}
