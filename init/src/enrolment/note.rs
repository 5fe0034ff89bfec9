//! The server's log: one line for everybody who came.

use std::fmt;
use std::net::IpAddr;

use super::message::Purpose;
use super::reason::{Reason, role};
use crate::token::SECRET;
use crate::words;

/// A line of the server's log: who, and what became of it. Of visible characters only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Who asked, as far as it said so.
    pub who: Who,
    /// What became of it.
    pub outcome: Outcome,
}

/// Who asked, as far as it said so; proven only where it was admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// For what.
    pub purpose: Option<Purpose>,
    /// As which node.
    pub node: Option<(String, IpAddr)>,
    /// With which token.
    pub token: Option<[u8; SECRET]>,
    /// With which ssh key.
    pub operator: Option<String>,
}

/// What became of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Admitted.
    Admitted,
    /// Refused.
    Refused(Reason),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = match &self.outcome {
            Outcome::Admitted => "admitted ".to_owned(),
            Outcome::Refused(_) => "refused ".to_owned(),
        };
        line += match self.who.purpose {
            None => "somebody",
            Some(Purpose::Join(joiner)) => role(joiner),
            Some(Purpose::Return) => "returning node",
            Some(Purpose::Operate) => "operator",
        };
        if let Some((name, address)) = &self.who.node {
            line += &format!(" {name} ({address})");
        }
        if let Some(key) = &self.who.operator {
            line += &format!(" {key}");
        }
        if let Some(token) = &self.who.token {
            line += &format!(" with token {}", short(token));
        }
        if let Outcome::Refused(reason) = &self.outcome {
            line += &format!(": {reason}");
        }
        f.write_str(&words::one_line(&line))
    }
}

/// A token's id as lists and logs show it: the first 40 bits, in hexadecimal digits.
pub fn short(id: &[u8; SECRET]) -> String {
    id[..5].iter().map(|byte| format!("{byte:02x}")).collect()
}
