//! What people are told about tokens: how machines are started with them, and what the cluster has.

use std::borrow::Cow;

use zeroize::Zeroizing;

use crate::certificates::Unix;
use crate::enrolment::decision::{Origin, TokenRecord};
use crate::enrolment::note::short;
use crate::enrolment::objects::{NodeObject, TokenObject, moment, role_text};
use crate::settings::Role;
use crate::token::{JoinToken, Joiner, SECRET, Seed, Token, fingerprint};

use super::{Paint, Tone};

/// How a machine is started with a token. Secret.
pub struct Start {
    /// On the kernel command line.
    pub parameters: Zeroizing<String>,
    /// As user-data.
    pub cloud_config: Zeroizing<String>,
}

/// How a machine of that role is started with that token; `join` is a control plane's address, without which the machine finds
/// one on its network.
pub fn start(role: Role, token: &str, join: Option<&str>) -> Start {
    let name = match role {
        Role::Init => "init",
        Role::ControlPlane => "control-plane",
        Role::Worker => "worker",
    };
    let mut parameters = Zeroizing::new(String::with_capacity(512));
    parameters.push_str(&format!("kubeboot.role={name} kubeboot.token="));
    parameters.push_str(token);
    let mut cloud_config = Zeroizing::new(String::with_capacity(512));
    cloud_config.push_str(&format!("#cloud-config\nkubeboot:\n  role: {name}\n  token: "));
    cloud_config.push_str(token);
    cloud_config.push('\n');
    if let Some(join) = join.filter(|_| role != Role::Init) {
        parameters.push_str(&format!(" kubeboot.join={join}"));
        cloud_config.push_str(&format!("  join: [\"{join}\"]\n"));
    }
    Start { parameters, cloud_config }
}

/// A seed and the tokens that come from it. Secret.
pub struct Set {
    /// The founder's.
    pub seed: Zeroizing<String>,
    /// For workers.
    pub worker: Zeroizing<String>,
    /// For further control planes.
    pub control_plane: Zeroizing<String>,
}

impl Set {
    /// Of a seed.
    pub fn of(seed: &Seed) -> Self {
        let join = |role| seed.join_token(role).text();
        Set { seed: seed.text(), worker: join(Joiner::Worker), control_plane: join(Joiner::ControlPlane) }
    }

    /// Each token with its role, in the order in which they are shown.
    pub fn each(&self) -> [(Role, &str); 3] {
        [(Role::Init, &*self.seed), (Role::Worker, &*self.worker), (Role::ControlPlane, &*self.control_plane)]
            .map(|(role, token)| (role, token.as_str()))
    }

    /// The set as people read it. Secret.
    pub fn text(&self, join: Option<&str>, paint: Paint) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(4096));
        let title = |text: &str| paint.tone(Tone::Strong, text);
        let titles = [
            "The founder's token, a seed. Whoever has it has the other two",
            "The workers' token",
            "The control planes' token. It is worth the cluster's keys",
        ];
        for ((_, token), text) in self.each().into_iter().zip(titles) {
            out.push_str(&format!("{}\n  {token}\n\n", title(text)));
        }
        out.push_str(
            "Both are good for 24 h from the founding. Later ones come from: kubeboot token create\nThe founder of a seed \
             is one machine.\n",
        );
        if join.is_none() {
            out.push_str(
                "The others find it on their network. On another one they have to be told where it will be reached:\n\
                 kubeboot.join=ADDRESS, in user-data join: [\"ADDRESS\"]\n",
            );
        }
        out.push_str(&format!(
            "\n{}\n",
            title("On the kernel command line (pods can read it: credentials and user-data are better)")
        ));
        for (role, token) in self.each() {
            out.push_str(&format!("  {}\n", start(role, token, join).parameters.as_str()));
        }
        out.push_str(&format!("\n{}\n", title("Or as the file user-data on a volume labelled cidata")));
        for (role, token) in self.each() {
            for line in start(role, token, join).cloud_config.lines() {
                out.push_str(&format!("  {line}\n"));
            }
            out.push('\n');
        }
        // The last machine's needs no empty line after it.
        out.pop();
        out
    }
}

/// What is said beside a token that was just made; the token itself is not in it.
pub fn created(record: &TokenRecord, address: &str) -> String {
    let uses = match record.uses_left {
        None => "any number of machines".to_owned(),
        Some(1) => "one machine".to_owned(),
        Some(uses) => format!("{uses} machines"),
    };
    let role = role_text(record.kind);
    format!(
        "It admits {uses} in the role {role} until {}; its id is {}.\nGive it to the machine as the credential or the setting token, \
         with\n  kubeboot.role={role} kubeboot.join={address}\nWhat it takes on the kernel command line, pods on that machine \
         can read.\n",
        moment(record.expires),
        short(&record.id()),
    )
}

/// What a token is, told offline, and no part of its secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspected {
    /// `seed`, `worker`, `control-plane`
    pub kind: &'static str,
    /// Of the key that vouches for the cluster: 32 hexadecimal digits.
    pub fingerprint: String,
    /// What lists and logs call it; for a seed those of its two tokens, the worker's first.
    pub ids: Vec<String>,
}

/// Looks at a token.
pub fn inspect(token: &Token) -> Inspected {
    let id = |token: &JoinToken| short(&fingerprint(&token.join_key().public()));
    let hex = |bytes: &[u8; SECRET]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match token {
        Token::Seed(seed) => Inspected {
            kind: "seed",
            fingerprint: hex(&fingerprint(&seed.founding_key().public())),
            ids: [Joiner::Worker, Joiner::ControlPlane].map(|role| id(&seed.join_token(role))).into(),
        },
        Token::Join(join) => {
            Inspected { kind: role_text(join.joiner()), fingerprint: hex(join.fingerprint()), ids: vec![id(join)] }
        }
    }
}

impl Inspected {
    /// As people read it.
    pub fn text(&self) -> String {
        let what = match self.kind {
            "seed" => "a seed: the token of a cluster's founder",
            "worker" => "the token of a worker",
            _ => "the token of a control plane",
        };
        let ids = match self.ids.as_slice() {
            [worker, control_plane] => {
                format!("{worker} (its token for workers), {control_plane} (its token for control planes)")
            }
            ids => ids.join(", "),
        };
        format!(
            "kind         {what}\nid           {ids}\nfingerprint  {} (of the key that vouches for its cluster)\nchecksum     \
             good: it has no typing error\n",
            self.fingerprint
        )
    }
}

/// A row of the list of tokens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// What lists and logs call it.
    pub id: String,
    /// `worker` or `control-plane`
    pub role: Cow<'static, str>,
    /// RFC 3339.
    pub expires: String,
    /// Whether it has expired.
    pub expired: bool,
    /// How many more machines it admits; none: any number.
    pub uses_left: Option<u32>,
    /// Names of the nodes that came with it.
    pub nodes: Vec<String>,
    /// `founding`, or who made it.
    pub from: String,
}

/// The rows for these tokens and nodes, by when they expire.
pub fn listed(tokens: &[TokenObject], nodes: &[NodeObject], now: Unix) -> Vec<Listed> {
    let mut tokens: Vec<&TokenObject> = tokens.iter().collect();
    tokens.sort_by_key(|token| (token.record.expires, token.record.id()));
    let row = |token: &TokenObject| {
        let (record, id) = (&token.record, token.record.id());
        let came = nodes.iter().filter(|node| node.enrolled && node.token == Some(id));
        Listed {
            id: short(&id),
            role: role_text(record.kind).into(),
            expires: moment(record.expires),
            expired: now >= record.expires,
            uses_left: token.uses_left(None),
            nodes: came.map(|node| node.record.name.clone()).collect(),
            from: match &record.origin {
                Origin::Founding => "founding".to_owned(),
                Origin::Created { by } => by.clone(),
            },
        }
    };
    tokens.into_iter().map(row).collect()
}

/// The list as a table.
pub fn table(rows: &[Listed]) -> String {
    if rows.is_empty() {
        return "There are no tokens. To make one: kubeboot token create\n".to_owned();
    }
    let cells = rows.iter().map(|row| {
        let expires = if row.expired { "expired".to_owned() } else { row.expires.clone() };
        let uses = row.uses_left.map_or("any".to_owned(), |uses| uses.to_string());
        [row.id.clone(), row.role.to_string(), expires, uses, row.from.clone(), row.nodes.join(" ")]
    });
    super::table::text(["ID", "ROLE", "EXPIRES", "USES LEFT", "FROM", "NODES"], cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrolment::decision::NodeRecord;
    use crate::enrolment::objects::holder;
    use crate::sources::{Gathered, Layout, Volume};

    #[test]
    fn a_generated_set() {
        let set = Set::of(&Seed::new([7; SECRET]));
        insta::assert_snapshot!(set.text(None, Paint::Plain).as_str());
    }

    #[test]
    fn what_is_generated_is_read_as_it_is_meant() {
        let set = Set::of(&Seed::new([7; SECRET]));
        for ((role, token), join) in
            set.each().into_iter().flat_map(|each| [None, Some("192.0.2.10")].map(|join| (each, join)))
        {
            let start = start(role, token, join);
            let by_parameters =
                Gathered { command_line: Zeroizing::new(start.parameters.as_bytes().to_vec()), ..Gathered::default() };
            let user_data = Zeroizing::new(start.cloud_config.as_bytes().to_vec());
            let volume = Volume {
                layout: Layout::NoCloud,
                name: "cidata volume".into(),
                user_data: Some(user_data),
                meta_data: None,
                network: None,
            };
            let by_cloud_config = Gathered { volumes: vec![volume], ..Gathered::default() };
            for gathered in [by_parameters, by_cloud_config] {
                let validated = crate::settings::validate(crate::sources::parse(&gathered)).unwrap();
                assert_eq!(validated.settings.role, Some(role));
                let expected: Vec<&str> = join.filter(|_| role != Role::Init).into_iter().collect();
                assert_eq!(validated.settings.join, expected);
                assert!(validated.token.is_some());
            }
        }
    }

    #[test]
    fn what_is_said_of_a_new_token_and_of_one_that_is_looked_at() {
        let origin = Origin::Created { by: "cp-1".into() };
        let record =
            TokenRecord { kind: Joiner::Worker, key: [1; 32], expires: 1_800_000_000, uses_left: None, origin };
        let seed = Seed::new([7; SECRET]);
        let texts = [
            created(&record, "192.0.2.10"),
            inspect(&Token::Seed(seed.clone())).text(),
            inspect(&Token::Join(seed.join_token(Joiner::ControlPlane))).text(),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn the_list() {
        let token = |number: u8, expires, uses_left, origin| {
            let kind = if number == 1 { Joiner::ControlPlane } else { Joiner::Worker };
            TokenObject::new(TokenRecord { kind, key: [number; 32], expires, uses_left, origin })
        };
        let now = 1_800_000_000;
        let mut used = token(1, now + 60, Some(1), Origin::Created { by: "cp-1".into() });
        used.taken.insert(holder(&[5; 32], "cp-2"), "00".into());
        let tokens = [token(2, now, None, Origin::Founding), used];
        let record = NodeRecord {
            name: "cp-2".into(),
            role: Joiner::ControlPlane,
            key: [5; 32],
            address: [192, 0, 2, 2].into(),
        };
        let token = Some(tokens[1].record.id());
        let node = NodeObject { record, enrolled: true, token, since: now, version: None };
        insta::assert_snapshot!(table(&listed(&tokens, &[node], now)));
        assert!(table(&[]).contains("no tokens"));
    }
}
