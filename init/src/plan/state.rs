//! Judges the files of one kind each: is what is on disk what should be there?

use zeroize::Zeroizing;

use crate::certificates::check::{self, Fault, Inspected};
use crate::certificates::{Authority, Form, Leaf, OperatorKey, Request, Unix};
use crate::kubernetes::{encryption, kubeconfig};

use super::sight::{Entry, Sight};

/// Judges an authority's certificate and key.
pub fn authority(sight: &Sight, which: Authority, now: Unix) -> Result<Inspected, Fault> {
    check::authority(which, file(sight, which.certificate())?, file(sight, which.key())?, now)
}

/// Judges a leaf in whatever form it is kept. `authority` is its signer's, `ca` and `server` what a kubeconfig says.
pub fn leaf(
    sight: &Sight,
    which: Leaf,
    request: &Request,
    authority: &Inspected,
    server: &str,
    now: Unix,
) -> Result<(), Fault> {
    let (certificate, key) = match which.form() {
        Form::Pair { certificate, key } => (file(sight, certificate)?.to_vec(), secret(file(sight, key)?)),
        Form::Joined { path } => {
            let joined = file(sight, path)?;
            (joined.to_vec(), secret(joined))
        }
        Form::Kubeconfig { path } => {
            let text = file(sight, path)?;
            let ca = sight.contents(request.authority.certificate()).unwrap_or_default();
            kubeconfig::taken_apart(text, which, server, ca).map_err(Fault::Unreadable)?
        }
    };
    let inspected = check::inspect(&certificate)?;
    if check::public_half(&key)? != inspected.public_key {
        return Err(Fault::WrongKey);
    }
    check::leaf(&inspected, authority, request, now)
}

/// Judges an operator's certificate.
pub fn operator(sight: &Sight, key: &OperatorKey, authority: &Inspected, now: Unix) -> Result<(), Fault> {
    let inspected = check::inspect(file(sight, &key.path())?)?;
    if inspected.public_key != key.public_key {
        return Err(Fault::WrongKey);
    }
    check::leaf(&inspected, authority, &key.request(), now)
}

/// Judges the key that signs ServiceAccount tokens; returns its public half.
pub fn service_account_key(sight: &Sight, path: &str) -> Result<Vec<u8>, Fault> {
    check::public_half(file(sight, path)?)
}

/// Judges the public half in `path` against the key's.
pub fn service_account_public_key(sight: &Sight, path: &str, public: &[u8]) -> Result<(), Fault> {
    if check::public_key(file(sight, path)?)? == public { Ok(()) } else { Err(Fault::WrongKey) }
}

/// Judges the encryption configuration.
pub fn encryption(sight: &Sight) -> Result<(), Fault> {
    encryption::check(file(sight, encryption::PATH)?).map_err(Fault::Unreadable)
}

/// The contents of the file at `path`, or why there are none.
pub fn file<'a>(sight: &'a Sight, path: &str) -> Result<&'a [u8], Fault> {
    match sight.at(path) {
        Entry::File { contents, .. } | Entry::Link { contents: Some(contents), .. } => Ok(contents),
        Entry::Missing => Err(Fault::Missing),
        Entry::Link { contents: None, .. } => Err(Fault::Unreadable("a symbolic link that leads nowhere".to_owned())),
        Entry::Directory { .. } => Err(Fault::Unreadable("a directory".to_owned())),
        Entry::Unreadable(reason) => Err(Fault::Unreadable(reason.clone())),
    }
}

fn secret(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.to_vec())
}
