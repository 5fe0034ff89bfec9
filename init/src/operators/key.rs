//! Public keys of operators, as people write them: a line of `authorized_keys`, or a fingerprint.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::enrolment::ssh;
use crate::settings::Settings;

/// Bytes of such a line at most.
const LINE: usize = 2048;
/// Characters of a comment that are kept.
const COMMENT: usize = 64;

/// An ssh public key with its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorLine {
    /// The key's kind, such as `ssh-ed25519`.
    pub kind: &'static str,
    /// The key (the ssh wire form).
    pub key: Vec<u8>,
    /// What stands behind it: by custom, whose it is. Of visible characters and single blanks only.
    pub comment: String,
}

impl OperatorLine {
    /// Reads `type base64 [comment]`, of the kinds whose signatures are taken.
    ///
    /// # Errors
    /// What was expected and what was found, in words.
    pub fn parse(line: &str) -> Result<Self, String> {
        if line.len() > LINE {
            return Err(format!("expected an ssh public key of at most {LINE} bytes, found {}", line.len()));
        }
        let mut words = line.split_whitespace();
        let form = || "expected an ssh public key, \"type base64 [comment]\"".to_owned();
        let (Some(named), Some(encoded)) = (words.next(), words.next()) else { return Err(form()) };
        let key = STANDARD.decode(encoded).map_err(|_| form())?;
        let kind = ssh::kind(&key).map_err(|fault| format!("this ssh key can't be an operator's: {fault}"))?;
        if kind != named {
            return Err(format!("the key says {named} and is {kind}"));
        }
        let visible = words.map(|word| word.chars().filter(|c| !c.is_control()).collect::<String>());
        let comment: Vec<String> = visible.filter(|word| !word.is_empty()).collect();
        let comment: String = comment.join(" ").chars().take(COMMENT).collect();
        Ok(OperatorLine { kind, key, comment: comment.trim_end().to_owned() })
    }

    /// The line.
    pub fn text(&self) -> String {
        format!("{} {} {}", self.kind, STANDARD.encode(&self.key), self.comment).trim_end().to_owned()
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        ssh::fingerprint(&self.key)
    }
}

/// The keys that a machine's settings name, a line each. What can hold no certificate can sign requests all the same.
pub fn of_settings(settings: &Settings) -> Vec<String> {
    settings.operator.iter().chain(&settings.os.ssh_authorized_keys).cloned().collect()
}
