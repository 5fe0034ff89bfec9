//! A certificate for a person, asked for with a key that is made here and goes nowhere but into the kubeconfig.

use std::path::Path;

use zeroize::Zeroizing;

use super::answer::{print, stop};
use super::boot::Stop;
use super::place::Open;
use crate::certificates::{Request as Certificate, check};
use crate::exit::Exit;
use crate::host::{files, keys};
use crate::kubernetes::kubeconfig;
use crate::operators::Request;
use crate::operators::request::Bytes;
use crate::operators::user::Issued;
use crate::words;

/// A person's kubeconfig. Holds a secret: no Debug.
pub struct Person {
    /// What was issued.
    pub issued: Issued,
    /// The file's text.
    text: Zeroizing<String>,
}

/// Makes a key, has it certified, and puts the kubeconfig together. `certificate` is what the signing request says, `request`
/// what is asked with it.
pub fn ask(open: Open, certificate: &Certificate, request: impl FnOnce(Bytes) -> Request) -> Result<Person, Stop> {
    let what = "No kubeconfig was made";
    let failed = |why: String| stop(Exit::Failure, what, why, "report this as a bug, with both releases.");
    let (der, key) = keys::signing_request(certificate).map_err(|error| failed(error.to_string()))?;
    let issued: Issued = open.value(&request(Bytes(der)))?;
    // A certificate for another key would be of no use, and say that something is wrong between here and there.
    let found = check::inspect(issued.certificate.as_bytes()).map_err(|fault| failed(fault.to_string()))?;
    let own = check::public_half(key.as_bytes()).map_err(|fault| failed(fault.to_string()))?;
    if found.public_key != own || found.common_name != issued.user {
        return Err(failed("the certificate that came is for another key or name".to_owned()));
    }
    if issued.servers.is_empty() {
        return Err(failed("the control plane named no API server".to_owned()));
    }
    let servers: Vec<String> = issued.servers.iter().map(|server| format!("https://{server}")).collect();
    let (ca, certificate) = (issued.authority.as_bytes(), issued.certificate.as_bytes());
    let text = kubeconfig::of_person(&issued.user, &servers, ca, certificate, key.as_bytes());
    Ok(Person { issued, text })
}

impl Person {
    /// Writes the file, mode 0600, or prints it; what there is to know besides goes where it is not in the way.
    pub fn keep(&self, out: Option<&Path>) -> Result<(), Stop> {
        for note in &self.issued.notes {
            eprintln!("{}", words::note(note, words::Paint::Plain));
        }
        let Some(path) = out else {
            eprintln!("{} until {}", self.issued.user, self.issued.expires);
            return print(&self.text);
        };
        files::write_atomic(path, self.text.as_bytes(), 0o600).map_err(|error| {
            let why = format!("{} can't be written: {error}", path.display());
            let mut stop = stop(Exit::Failure, "The kubeconfig was not kept", why, "run it again, with another file.");
            stop.block.state = "The certificate was issued; its key is gone, so nobody can use it.".to_owned();
            stop
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::DAY;
    use crate::host::api::Api;
    use crate::host::operators::tests::{ADA, World, mode};
    use crate::operators::user::{Role, Wanted, asked_by_operator};

    #[test]
    fn a_kubeconfig_is_one_persons_and_of_use_to_nobody_else() {
        let world = World::new();
        let open = || Open::There(Box::new(world.open(ADA)));
        let kubeconfig = |certificate_request| Request::Kubeconfig { certificate_request, ttl: DAY };
        let own = ask(open(), &asked_by_operator(), kubeconfig).unwrap_or_else(|stop| panic!("{:?}", stop.block));
        let path = world.folder.path().join("kubeconfig");
        own.keep(Some(&path)).unwrap_or_else(|stop| panic!("{:?}", stop.block));
        assert_eq!(mode(&path), 0o600);
        assert!(Api::from_kubeconfig(&path).is_ok());

        // A name that YAML would take for a number.
        let (name, groups) = ("123".to_owned(), Vec::new());
        let user = Wanted { name, groups, ttl: DAY, role: Role::View, namespace: None, reserved: false };
        let certificate = user.request();
        let create = |certificate_request| Request::UserCreate { user, certificate_request };
        let person = ask(open(), &certificate, create).unwrap_or_else(|stop| panic!("{:?}", stop.block));
        person.keep(Some(&path)).unwrap_or_else(|stop| panic!("{:?}", stop.block));
        let text = String::from_utf8(files::read_optional(&path).unwrap().unwrap()).unwrap();
        assert!(text.contains("current-context: \"123@kubernetes-10.0.0.11-6443\"\n"), "{text}");
        assert!(person.keep(Some(&path.join("not/a/folder"))).is_err());
    }
}
