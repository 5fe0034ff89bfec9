//! The ssh keys that a person has: a file of OpenSSH's, and those that ssh-agent holds.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::enrolment::ssh;
use crate::operators::agent;
use crate::operators::key::OperatorLine;
use crate::operators::key_file::{FileKey, LONGEST, Unusable};

/// How long an agent may think: its owner may have to be asked, or touch a token.
const PATIENCE: Duration = Duration::from_secs(60);
/// Keys that a control plane is shown at most, as ssh has it of logins.
const KEYS: usize = 6;

/// Where a person's keys are.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// The file that was named, and then no other key.
    pub file: Option<PathBuf>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// The agent's socket.
    pub agent: Option<PathBuf>,
}

impl Keys {
    /// As the environment has it. `file`: the one that was named.
    pub fn of_this_person(file: Option<PathBuf>) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Keys { file, home: set("HOME"), agent: set("SSH_AUTH_SOCK") }
    }
}

/// An ssh key that can sign. No `Debug`: it may hold a secret.
pub enum Identity {
    /// From a file.
    File(FileKey),
    /// Held by an agent.
    Agent {
        /// The agent's socket.
        socket: PathBuf,
        /// The public key (wire form).
        key: Vec<u8>,
    },
}

impl Identity {
    /// The public key (wire form).
    pub fn public(&self) -> &[u8] {
        match self {
            Identity::File(key) => key.public(),
            Identity::Agent { key, .. } => key,
        }
    }

    /// `SHA256:…`
    pub fn fingerprint(&self) -> String {
        ssh::fingerprint(self.public())
    }

    /// Signs, in the ssh wire form.
    ///
    /// # Errors
    /// The agent does not, in words.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Identity::File(key) => Ok(key.sign(message)),
            Identity::Agent { socket, key } => {
                let answer = Agent::at(socket)?.ask(&agent::sign(key, message))?;
                agent::signature(&answer).map_err(|why| format!("{}: {why}", self.fingerprint()))
            }
        }
    }
}

impl Keys {
    /// The keys to try, in this order: the file's alone if one is named, else `~/.ssh/id_ed25519` and the agent's.
    ///
    /// # Errors
    /// There is none, in words.
    pub fn found(&self) -> Result<Vec<Identity>, String> {
        if let Some(file) = &self.file {
            return self.named(file).map(|key| vec![key]);
        }
        let mut keys: Vec<Identity> = Vec::new();
        let mut why = Vec::new();
        match self.home.as_deref().map(|home| read(&home.join(".ssh/id_ed25519"))) {
            Some(Ok(Some(text))) => match FileKey::parse(&text) {
                Ok(key) => keys.push(Identity::File(key)),
                Err(unusable) => why.push(format!("~/.ssh/id_ed25519: {unusable}")),
            },
            Some(Err(error)) => why.push(format!("~/.ssh/id_ed25519: {error}")),
            Some(Ok(None)) => why.push("there is no ~/.ssh/id_ed25519".to_owned()),
            None => why.push("HOME is not set".to_owned()),
        }
        match self.held() {
            Ok((_, held)) if held.is_empty() => why.push("ssh-agent holds no key of a kind that is taken".to_owned()),
            Ok((socket, held)) => {
                let others = held.into_iter().filter(|key| !keys.iter().any(|known| known.public() == key));
                let others: Vec<_> = others.map(|key| Identity::Agent { socket: socket.clone(), key }).collect();
                keys.extend(others);
                keys.truncate(KEYS);
            }
            Err(error) => why.push(error),
        }
        if keys.is_empty() { Err(why.join("; ")) } else { Ok(keys) }
    }

    /// The key in a file: a private one; or of a public one, or of one that a passphrase protects, the private half in the
    /// agent.
    fn named(&self, file: &Path) -> Result<Identity, String> {
        let name = file.display();
        let text = read(file).map_err(|error| format!("{name}: {error}"))?;
        let text = text.ok_or_else(|| format!("{name} does not exist"))?;
        let key = match FileKey::parse(&text) {
            Ok(key) => return Ok(Identity::File(key)),
            Err(Unusable::Encrypted(public) | Unusable::Kind(public)) => public,
            Err(Unusable::Form) => match OperatorLine::parse(&text) {
                Ok(line) => line.key,
                Err(_) => return Err(format!("{name}: expected an ssh key, private or public, found something else")),
            },
        };
        match self.held() {
            Ok((socket, held)) if held.contains(&key) => Ok(Identity::Agent { socket, key }),
            Ok(_) => Err(format!("{name}: ssh-agent does not hold this key; add it with: ssh-add {name}")),
            Err(error) => Err(format!("{name} can't be used without ssh-agent: {error}")),
        }
    }

    /// The agent's socket, and its keys.
    fn held(&self) -> Result<(PathBuf, Vec<Vec<u8>>), String> {
        let socket = self.agent.clone().ok_or("there is no ssh-agent: SSH_AUTH_SOCK is not set")?;
        let answer = Agent::at(&socket)?.ask(&agent::identities())?;
        Ok((socket, agent::keys(&answer).map_err(|why| why.to_string())?))
    }
}

/// A key's file, if there is one and it is no longer than such files are.
fn read(path: &Path) -> std::io::Result<Option<Zeroizing<String>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Zeroizing::new(String::with_capacity(LONGEST + 1));
    file.take(LONGEST as u64 + 1).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// A connection with ssh-agent.
struct Agent(UnixStream);

impl Agent {
    fn at(socket: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("ssh-agent at {}: {error}", socket.display());
        let stream = UnixStream::connect(socket).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Agent(stream))
    }

    fn ask(mut self, message: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("ssh-agent does not answer: {error}");
        let length = u32::try_from(message.len()).map_err(|_| "too long for ssh-agent".to_owned())?;
        self.0.write_all(&[&length.to_be_bytes(), message].concat()).map_err(failed)?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length).map_err(failed)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > agent::LONGEST {
            return Err(format!("ssh-agent's answer has {length} bytes, of at most {}", agent::LONGEST));
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).map_err(failed)?;
        Ok(answer)
    }
}
