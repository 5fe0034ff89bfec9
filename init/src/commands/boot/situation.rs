//! What a boot decides upon: the settings in force, the facts, and what follows from both.

use std::time::Duration;

use crate::enrolment::failure::{Context, Failure};
use crate::enrolment::joiner::Credential;
use crate::enrolment::message::Purpose;
use crate::enrolment::seeking;
use crate::exit::Exit;
use crate::facts::{self, Facts, NodeAddress};
use crate::host::facts::{Probe, await_address, await_time, gather_with};
use crate::host::operators::kept;
use crate::host::root::Root;
use crate::host::wait::TimedOut;
use crate::host::{clock, etcd, files, founder, sources, systemd, worker};
use crate::kubernetes::Site;
use crate::paths;
use crate::plan::record::Node;
use crate::plan::worker::When;
use crate::plan::{self, Damaged, Founder, Step, Worker};
use crate::preflight::{self, Severity};
use crate::release::Version;
use crate::settings::frozen::{self, Frozen};
use crate::settings::{Role, Settings};
use crate::timeline::Outcome;
use crate::token::{JoinToken, Joiner, Seed, Token};
use crate::words::{self, Block};

use super::told::{Stop, Told};

/// The settings in force.
pub struct InForce {
    /// Those frozen at the first success, else what the sources say now.
    pub frozen: Frozen,
    /// What holds at this boot: the frozen ones, but for the keys that are not frozen.
    pub settings: Settings,
    /// The token, while nothing is frozen.
    pub token: Option<Token>,
    /// Whether settings are frozen: the machine is a node, which comes back by itself whatever it has to wait for.
    pub node: bool,
}

/// How long a command waits for the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: it only looks.
    None,
    /// A new machine for [`ADDRESS`], so that it hears what is wrong; a node as long as it takes.
    Boot,
}

/// How long a new machine may take to get its address before preflight says that it has none.
const ADDRESS: Duration = Duration::from_secs(120);
/// How often a node says on the console what it still waits for.
const REMIND: Duration = Duration::from_secs(60);
/// How long a new machine whose clock can't be believed waits for a time server.
const TIME: Duration = Duration::from_secs(60);
/// A wait as short as a single look was none.
const WORTH_TELLING: Duration = Duration::from_millis(100);
/// Between looks at the network: one takes a fraction of a millisecond.
const LOOK: Duration = Duration::from_millis(25);
/// Between looks of a node that has waited long: the cause is then outside.
const SLOW_LOOK: Duration = Duration::from_secs(1);

/// Reads the sources, and holds them against what was frozen.
///
/// # Errors
/// Settings that can't be used, or frozen ones that can't be read.
pub fn in_force(root: &Root, told: &mut Told) -> Result<InForce, Stop> {
    let found =
        files::read_optional(&root.path(paths::FROZEN)).map_err(|error| damaged_settings(&error.to_string()))?;
    let now = told.timed("read the settings", || sources::read(root));
    let Some(text) = found else {
        let now = now.map_err(|problems| Stop { exit: Exit::BadInput, block: words::bad_settings(&problems) })?;
        now.warnings.iter().for_each(|warning| told.say(|paint| words::warning(warning, paint)));
        return Ok(InForce { frozen: Frozen::of(&now), settings: now.settings, token: now.token, node: false });
    };
    let kept = Frozen::parse(&String::from_utf8_lossy(&text)).map_err(|why| damaged_settings(&why))?;
    // What the sources say now changes nothing, so what is wrong with it stops nothing.
    let mut settings = match now {
        Ok(now) => {
            let differences = frozen::diff(&kept, &now.settings, &now.origins);
            differences.iter().for_each(|one| told.say(|paint| words::ignored(one, paint)));
            kept.in_force(&now)
        }
        Err(problems) => {
            problems.iter().for_each(|problem| told.note(&format!("ignored: {problem}")));
            kept.settings.clone()
        }
    };
    // Nor does a volume take effect away from what only who controls the machine's boot says.
    if let Ok(now) = sources::without_volumes(root) {
        settings = kept.in_force(&now);
    }
    kept::apply(root, &mut settings);
    Ok(InForce { frozen: kept, settings, token: None, node: true })
}

/// Why a machine whose frozen settings can't be read goes no further.
pub fn damaged_settings(why: &str) -> Stop {
    Stop {
        exit: Exit::Damaged,
        block: Block {
            what: format!("The settings that this node was set up with can't be read ({})", paths::FROZEN),
            why: vec![why.to_owned()],
            state: "Nothing was changed.".to_owned(),
            fix: vec![
                format!("restore {} from a backup,", paths::FROZEN),
                "or give the node up with: kubeboot reset".to_owned(),
            ],
        },
    }
}

/// The role, if one was given.
///
/// # Errors
/// A role that this release can't take, or one that can't be taken with what was given beside it.
pub fn role(force: &InForce) -> Result<Option<Role>, Stop> {
    let _ = match force.settings.role {
        Some(Role::ControlPlane) => join_token(force, Joiner::ControlPlane)?,
        Some(Role::Worker) => join_token(force, Joiner::Worker)?,
        Some(Role::Init) | None => None,
    };
    Ok(force.settings.role)
}

/// The token by which a new machine joins; none on one that has joined.
fn join_token(force: &InForce, joiner: Joiner) -> Result<Option<JoinToken>, Stop> {
    if force.node {
        return Ok(None);
    }
    let refused = |block| Stop { exit: Exit::BadInput, block };
    let token = force.token.clone().ok_or_else(|| refused(seeking::no_token(joiner)))?;
    let token = match Credential::of(joiner, token) {
        Ok(Credential::Token(token)) => token,
        Ok(Credential::Node { .. }) => return Err(refused(seeking::no_token(joiner))),
        Err(failure) => return Err(refused(unfit(&failure, joiner))),
    };
    Ok(Some(token))
}

/// What is said of a token that is not for the role.
pub fn unfit(failure: &Failure, joiner: Joiner) -> Block {
    let release = Version { major: 0, minor: 0, patch: 0, build: 0 };
    failure.block(&Context { purpose: Purpose::Join(joiner), server: "", name: "", release })
}

/// What a boot, or a plan, is made for.
pub struct Situation {
    /// What should be on disk.
    pub goal: Goal,
    /// MTU of the interface that has the node's address, in bytes.
    pub mtu: u32,
}

/// What a machine should come to.
pub enum Goal {
    /// The founder of a cluster.
    Founder {
        /// What should be on disk.
        founder: Box<Founder>,
        /// The seed that the operator gave.
        seed: Option<Seed>,
    },
    /// A machine that joins a cluster, or has joined.
    Member(Box<Member>),
}

/// A machine that joins a cluster, or has joined.
pub struct Member {
    /// As what.
    pub joiner: Joiner,
    /// What should be on disk of every machine that joins.
    pub worker: Worker,
    /// The settings in force: of a machine that joins now, its own, until the cluster's are known.
    pub settings: Settings,
    /// Its own settings with their origins.
    pub own: Frozen,
    /// The token; none once it has joined.
    pub token: Option<JoinToken>,
}

impl Situation {
    /// Gathers facts, waits with `patience` for the node's address, and judges both.
    ///
    /// # Errors
    /// Preflight found an error; nothing was changed.
    pub fn gather(root: &Root, told: &mut Told, force: &InForce, role: Role, patience: Patience) -> Result<Self, Stop> {
        let settings = &force.settings;
        let mut facts = told.timed("gather facts", || gather_with(root, Probe::IfNew));
        // A machine that gets no address hears so from preflight, together with all else that is wrong.
        let ended = |passed| if passed { Outcome::Done } else { Outcome::Failed };
        let start = clock::monotonic();
        let address = network(root, told, &mut facts, force, role, patience);
        told.step("wait for an address", ended(address.is_ok()), clock::monotonic().saturating_sub(start));
        if patience == Patience::Boot && address.is_ok() {
            time(root, told, &mut facts, force);
        }
        let start = clock::monotonic();
        let report = preflight::run(&facts, settings, role);
        let summary = format!("preflight: {}", report.summary());
        told.step(&summary, ended(report.passed), clock::monotonic().saturating_sub(start));
        let (errors, warnings) = (report.findings(Severity::Error), report.findings(Severity::Warning));
        for finding in warnings {
            told.note(&format!("{}. Fix: {}.", finding.found, finding.fix));
        }
        let mut errors: Vec<String> = errors.map(|one| format!("{}. Fix: {}.", one.found, one.fix)).collect();
        let address = match address {
            Ok(address) if report.passed => address,
            Ok(_) => return Err(refused(errors)),
            Err(late) => {
                if errors.is_empty() {
                    errors.push(format!("{late}. Fix: connect the machine's network, or correct its network-config."));
                }
                return Err(refused(errors));
            }
        };
        let node = node(root, &facts, settings, address.ip);
        let goal = match role {
            Role::Init => Goal::founder(force, node),
            Role::Worker => Goal::member(force, node, Joiner::Worker)?,
            Role::ControlPlane => Goal::member(force, node, Joiner::ControlPlane)?,
        };
        Ok(Situation { goal, mtu: address.mtu })
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        match &self.goal {
            Goal::Founder { founder, .. } => &founder.settings,
            Goal::Member(member) => &member.settings,
        }
    }

    /// Who the node is.
    pub fn node(&self) -> &Node {
        match &self.goal {
            Goal::Founder { founder, .. } => &founder.node,
            Goal::Member(member) => &member.worker.node,
        }
    }

    /// Whether the cluster's settings are known: a machine that joins learns them when it is admitted.
    pub fn knows_its_cluster(&self) -> bool {
        !matches!(&self.goal, Goal::Member(member) if member.token.is_some())
    }

    /// Compares what should be with what is.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn plan(&self, root: &Root) -> Result<Vec<Step>, Damaged> {
        let now = clock::unix();
        match &self.goal {
            Goal::Founder { founder, .. } => plan::plan(founder, &founder::look(root, founder), now),
            Goal::Member(member) => match (member.joiner, &member.token) {
                (Joiner::Worker, _) => {
                    plan::worker::plan(&member.worker, &worker::look(root, &member.worker), now, When::Lost)
                }
                (Joiner::ControlPlane, Some(_)) => {
                    let sight = worker::look_at(root, &plan::control_plane::paths(&member.worker));
                    plan::control_plane::plan(&member.worker, &sight, now)
                }
                (Joiner::ControlPlane, None) => {
                    let founder = member.as_founder();
                    plan::plan(&founder, &founder::look(root, &founder), now)
                }
            },
        }
    }

    /// What the node's configuration is rendered from.
    ///
    /// # Errors
    /// In words: the record of its membership in etcd is damaged.
    pub fn site<'a>(&'a self, root: &Root, cluster: &'a str) -> Result<Site<'a>, String> {
        Ok(Site {
            settings: self.settings(),
            node: self.node(),
            cluster,
            membership: etcd::membership(root)?,
            mtu: self.mtu,
            host_authorities: founder::host_authorities(root),
            inputs: founder::inputs(root),
        })
    }
}

impl Member {
    /// What should be on disk of a control plane that has joined: the same as of a founder whose founding is complete.
    pub fn as_founder(&self) -> Founder {
        Founder {
            settings: self.settings.clone(),
            node: self.worker.node.clone(),
            given: None,
            frozen: self.own.text(),
        }
    }
}

impl Goal {
    fn member(force: &InForce, node: Node, joiner: Joiner) -> Result<Self, Stop> {
        Ok(Goal::Member(Box::new(Member {
            joiner,
            worker: Worker { node },
            settings: force.settings.clone(),
            own: force.frozen.clone(),
            token: join_token(force, joiner)?,
        })))
    }

    fn founder(force: &InForce, node: Node) -> Self {
        let seed = match &force.token {
            Some(Token::Seed(seed)) => Some(seed.clone()),
            _ => None,
        };
        let founder = Founder {
            settings: force.settings.clone(),
            node,
            given: seed.as_ref().map(|seed| seed.founding_key().public()),
            frozen: force.frozen.text(),
        };
        Goal::Founder { founder: Box::new(founder), seed }
    }
}

/// Waits for the node's address. A node that was switched on together with its router waits longer than the router.
fn network(
    root: &Root,
    told: &mut Told,
    facts: &mut Facts,
    force: &InForce,
    role: Role,
    patience: Patience,
) -> Result<NodeAddress, TimedOut> {
    let settings = &force.settings;
    if let (Patience::Boot, Err(problem)) = (patience, facts.node_address(settings)) {
        systemd::status(&format!("waiting for the node's address: {problem}"));
    }
    let limit = match (patience, force.node) {
        (Patience::None, _) => Duration::ZERO,
        (Patience::Boot, false) => ADDRESS,
        (Patience::Boot, true) => REMIND,
    };
    let mut pause = LOOK;
    loop {
        let late = match await_address(root, facts, settings, limit, pause) {
            Err(late) if patience == Patience::Boot && force.node => late,
            ended => return ended,
        };
        pause = SLOW_LOOK;
        let reminder = waiting_for(&preflight::run(facts, settings, role), &late);
        systemd::status(&reminder);
        // News, whatever the attempt before ended with.
        told.release();
        told.note(&reminder);
    }
}

/// Certificates are made by the clock. A new machine whose clock has lost its battery waits for a time server, which it
/// can ask now; a node that has certificates renews them when the clock is set.
fn time(root: &Root, told: &mut Told, facts: &mut Facts, force: &InForce) {
    let start = clock::monotonic();
    let limit = if force.node { Duration::ZERO } else { TIME };
    if !force.node && preflight::is_doubtful(&facts.clock, start.as_secs()) {
        systemd::status("waiting for a time server: this machine's clock can't be believed");
    }
    let heard = await_time(root, facts, limit);
    let took = clock::monotonic().saturating_sub(start);
    if took >= WORTH_TELLING {
        told.step("wait for a time server", if heard.is_ok() { Outcome::Done } else { Outcome::Failed }, took);
    }
}

/// What a node still waits for, and what would help.
fn waiting_for(report: &preflight::Report, late: &TimedOut) -> String {
    let errors: Vec<String> =
        report.findings(Severity::Error).map(|one| format!("{}. Fix: {}", one.found, one.fix)).collect();
    let why = if errors.is_empty() { late.seen.clone() } else { errors.join("; ") };
    format!("still waiting for {}: {why}", late.condition)
}

/// Who the node is: as pinned, once the facts hold it fast, else as they have it now. The address is what they found it to
/// be: the pinned one, or a worker's new one.
fn node(root: &Root, facts: &Facts, settings: &Settings, address: std::net::IpAddr) -> Node {
    let pinned = facts.pinned.as_ref().and_then(|_| files::read_optional(&root.path(paths::NODE)).ok().flatten());
    let pinned = pinned.and_then(|bytes| Node::parse(&bytes).ok());
    pinned.map(|node| Node { address, ..node }).unwrap_or_else(|| Node {
        name: facts::node_name(facts, settings),
        address,
        machine_id: facts.machine_id.known().map(|id| id.as_str().to_owned()).unwrap_or_default(),
    })
}

/// Every error, each with its fix on its line.
fn refused(why: Vec<String>) -> Stop {
    let what = match why.len() {
        1 => "Preflight found an error".to_owned(),
        count => format!("Preflight found {count} errors"),
    };
    let state = "Nothing was changed on this machine.".to_owned();
    Stop { exit: Exit::Preflight, block: Block { what, why, state, fix: Vec::new() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Pinned, sample};
    use crate::token::SECRET;
    use crate::words::Paint;

    /// A machine that is no node yet, and what it was given.
    fn given(role: Role, token: Option<Token>, join: &[&str]) -> InForce {
        let join = join.iter().map(|host| (*host).to_owned()).collect();
        let settings = Settings { role: Some(role), join, ..Settings::default() };
        let frozen = Frozen { format: 1, settings: settings.clone(), origins: Default::default() };
        InForce { frozen, settings, token, node: false }
    }

    #[test]
    fn a_machine_that_joins_needs_its_own_kind_of_token() {
        let seed = Seed::new([7; SECRET]);
        let token = |joiner| Some(Token::Join(seed.join_token(joiner)));
        let refused = [
            given(Role::Worker, None, &["cp-1"]),
            given(Role::Worker, Some(Token::Seed(seed.clone())), &["cp-1"]),
            given(Role::Worker, token(Joiner::ControlPlane), &["cp-1"]),
            given(Role::ControlPlane, token(Joiner::Worker), &["cp-1"]),
            given(Role::ControlPlane, None, &["cp-1"]),
        ];
        let texts: Vec<String> = refused
            .iter()
            .map(|force| {
                let stop = role(force).expect_err("it can't be what it is told to be");
                assert_eq!(stop.exit, Exit::BadInput);
                stop.block.text(Paint::Plain)
            })
            .collect();
        insta::assert_snapshot!(texts.join("\n"));
        let good = given(Role::Worker, token(Joiner::Worker), &["cp-1"]);
        assert_eq!(role(&good), Ok(Some(Role::Worker)));
        let good = given(Role::ControlPlane, token(Joiner::ControlPlane), &[]);
        assert_eq!(role(&good), Ok(Some(Role::ControlPlane)));
        let node = InForce { node: true, ..given(Role::Worker, None, &[]) };
        assert_eq!(role(&node), Ok(Some(Role::Worker)), "a node comes back by its key");
    }

    /// A stick with a mistake would keep a lost key in force.
    #[test]
    fn a_source_with_a_mistake_keeps_no_operator_of_the_boot_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let key = |name: &str| format!("{} {name}", crate::operators::tests::public_line(7, "").trim());
        let settings = Settings { role: Some(Role::Init), operator: vec![key("lost")], ..Settings::default() };
        let frozen = Frozen { format: 1, settings, origins: Default::default() };
        let write = |path: &str, text: String| {
            let path = root.path(path);
            let missing: Vec<_> = path.ancestors().skip(1).take_while(|folder| !files::exists(folder)).collect();
            missing.iter().rev().for_each(|folder| files::make_folder(folder, 0o755).unwrap());
            files::write_volatile(&path, text.as_bytes(), 0o600).unwrap();
        };
        let operator = || in_force(&root, &mut Told::nobody("plan")).unwrap().settings.operator;
        write(paths::FROZEN, frozen.text());
        write(paths::BAKED, format!("operator = [\"{}\"]", key("baked")));
        assert_eq!(operator(), [key("baked")]);
        write("/proc/cmdline", format!("kubeboot.operator=\"{}\"", key("new")));
        write(paths::BAKED, "no = such key".to_owned());
        assert!(sources::read(&root).is_err());
        assert_eq!(operator(), [key("new")]);
    }

    #[test]
    fn a_node_that_waits_says_for_what_and_what_would_help() {
        let (mut facts, settings) = (sample::facts(), sample::settings());
        facts.established = true;
        facts.pinned = Some(Pinned { name: "one".into(), address: [10, 0, 2, 99].into() });
        let late = TimedOut { condition: "the node's address".into(), waited: REMIND, seen: "eth1 may come".into() };
        assert_eq!(
            waiting_for(&preflight::run(&facts, &settings, Role::Init), &late),
            "still waiting for the node's address: this node's address is 10.0.2.99, which no interface has any more. Fix: \
             give the machine 10.0.2.99 again (a DHCP reservation, or ip=): it is in etcd and in the certificates"
        );
        let fine = preflight::run(&sample::facts(), &settings, Role::Init);
        assert_eq!(waiting_for(&fine, &late), "still waiting for the node's address: eth1 may come");
    }
}
