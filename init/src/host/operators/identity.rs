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

/// An ssh key that can sign. No `Debug`: it may hold a secret.
pub enum Identity {
    /// From a file.
    File(FileKey),
    /// Held by the agent; the public key (wire form).
    Agent(Vec<u8>),
}

impl Identity {
    /// The public key (wire form).
    pub fn public(&self) -> &[u8] {
        match self {
            Identity::File(key) => key.public(),
            Identity::Agent(key) => key,
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
            Identity::Agent(key) => {
                let answer = Agent::connect()?.ask(&agent::sign(key, message))?;
                agent::signature(&answer).map_err(|why| format!("{}: {why}", self.fingerprint()))
            }
        }
    }
}

/// The keys to try, in this order: the file's alone if one is named, else `~/.ssh/id_ed25519` and the agent's.
///
/// # Errors
/// There is none, in words.
pub fn found(file: Option<&Path>) -> Result<Vec<Identity>, String> {
    if let Some(file) = file {
        return named(file).map(|key| vec![key]);
    }
    let usual = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh/id_ed25519"));
    let mut keys: Vec<Identity> = Vec::new();
    let mut why = Vec::new();
    match usual.as_deref().map(|path| (path, read(path))) {
        Some((_, Ok(Some(text)))) => match FileKey::parse(&text) {
            Ok(key) => keys.push(Identity::File(key)),
            Err(unusable) => why.push(format!("~/.ssh/id_ed25519: {unusable}")),
        },
        Some((path, Err(error))) => why.push(format!("{}: {error}", path.display())),
        Some((_, Ok(None))) => why.push("there is no ~/.ssh/id_ed25519".to_owned()),
        None => why.push("HOME is not set".to_owned()),
    }
    match agents() {
        Ok(held) => {
            if held.is_empty() {
                why.push("ssh-agent holds no key of a kind that is taken".to_owned());
            }
            for key in held {
                if !keys.iter().any(|known| known.public() == key) && keys.len() < KEYS {
                    keys.push(Identity::Agent(key));
                }
            }
        }
        Err(error) => why.push(error),
    }
    if keys.is_empty() { Err(why.join("; ")) } else { Ok(keys) }
}

/// The key in a file: a private one, or of a public one, or of one that a passphrase protects, the private half in the agent.
fn named(file: &Path) -> Result<Identity, String> {
    let name = file.display();
    let text = read(file).map_err(|error| format!("{name}: {error}"))?;
    let text = text.ok_or_else(|| format!("{name} does not exist"))?;
    let public = match FileKey::parse(&text) {
        Ok(key) => return Ok(Identity::File(key)),
        Err(Unusable::Encrypted(public) | Unusable::Kind(public)) => public,
        Err(Unusable::Form) => match OperatorLine::parse(&text) {
            Ok(line) => line.key,
            Err(_) => return Err(format!("{name}: expected an ssh key, private or public, found something else")),
        },
    };
    match agents() {
        Ok(held) if held.contains(&public) => Ok(Identity::Agent(public)),
        Ok(_) => Err(format!("{name}: ssh-agent does not hold this key; add it with: ssh-add {name}")),
        Err(error) => Err(format!("{name} can't be used without ssh-agent: {error}")),
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

fn agents() -> Result<Vec<Vec<u8>>, String> {
    let answer = Agent::connect()?.ask(&agent::identities())?;
    agent::keys(&answer).map_err(|why| why.to_string())
}

/// A connection with ssh-agent.
struct Agent(UnixStream);

impl Agent {
    fn connect() -> Result<Self, String> {
        let socket = std::env::var_os("SSH_AUTH_SOCK").ok_or("there is no ssh-agent: SSH_AUTH_SOCK is not set")?;
        Agent::at(Path::new(&socket))
    }

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
