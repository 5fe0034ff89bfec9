//! Where Debian's packages come from: wherever this machine's own apt gets them. No mirror is ever named in this tree.

use std::process::Command;

use anyhow::Result;

use crate::command;

/// The mirrors that this machine's apt configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The archive.
    pub debian: String,
    /// The security archive, when the configuration names one.
    pub security: Option<String>,
}

/// Reads apt's configuration. None on a machine that gets no packages from Debian (Ubuntu): there debootstrap's and
/// mkosi's own defaults serve.
///
/// # Errors
/// apt-get does not run.
pub fn of_this_machine() -> Result<Option<Mirrors>> {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]);
    Ok(choose(&command::output(&mut list, "ask apt for its mirrors")?))
}

/// The first mirror of each kind in `apt-get indextargets`' answer.
fn choose(listing: &str) -> Option<Mirrors> {
    let of = |wanted: &str| {
        listing.lines().find_map(|line| match line.split('|').collect::<Vec<_>>().as_slice() {
            ["Debian", label, address] if *label == wanted => Some(address.trim_end_matches('/').to_owned()),
            _ => None,
        })
    };
    Some(Mirrors { debian: of("Debian")?, security: of("Debian-Security") })
}

impl Mirrors {
    /// A deb822 list of `suite` for mkosi's sandbox, security updates included where they are to be had.
    #[must_use]
    pub fn sources(&self, suite: &str) -> String {
        let stanza = |address: &str, suites: &str| {
            format!(
                "Types: deb\nURIs: {address}\nSuites: {suites}\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            )
        };
        let main = stanza(&self.debian, &format!("{suite} {suite}-updates"));
        match &self.security {
            Some(security) => format!("{main}\n{}", stanza(security, &format!("{suite}-security"))),
            None => main,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "Debian|Debian|http://a.example/debian/\nDebian|Debian|http://b.example/debian/\n\
                           Debian|Debian-Security|http://a.example/security/\nOther|Debian|http://c.example/\n";

    #[test]
    fn the_first_mirror_of_each_kind_is_taken() {
        let mirrors = choose(LISTING).unwrap();
        assert_eq!(mirrors.debian, "http://a.example/debian");
        assert_eq!(mirrors.security.as_deref(), Some("http://a.example/security"));
    }

    #[test]
    fn another_distribution_has_none() {
        assert_eq!(choose("Ubuntu|Ubuntu|http://u.example/ubuntu/\n"), None);
    }

    #[test]
    fn sources_name_updates_and_security() {
        insta::assert_snapshot!(choose(LISTING).unwrap().sources("trixie"), @r"
        Types: deb
        URIs: http://a.example/debian
        Suites: trixie trixie-updates
        Components: main
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

        Types: deb
        URIs: http://a.example/security
        Suites: trixie-security
        Components: main
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
        ");
    }
}
