//! Versions of releases.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A release's version, `1.37.2-4`: that of its Kubernetes, and which build of it. Versions are ordered by these
/// numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Kubernetes' major version.
    pub major: u32,
    /// Kubernetes' minor version.
    pub minor: u32,
    /// Kubernetes' patch version.
    pub patch: u32,
    /// The build, counted from 1 for each version of Kubernetes; 0 stands before every build.
    pub build: u32,
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no release version. Expected MAJOR.MINOR.PATCH-BUILD in decimal numbers, like 1.37.2-1")]
pub struct VersionError {
    /// The text.
    pub found: String,
}

impl Version {
    /// Kubernetes' version, without the build: `1.37.2`.
    #[must_use]
    pub fn kubernetes(self) -> String {
        format!("{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}-{}", self.major, self.minor, self.patch, self.build)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let version = || {
            let (kubernetes, build) = text.split_once('-')?;
            let mut parts = kubernetes.split('.');
            let version = Self {
                major: number(parts.next()?)?,
                minor: number(parts.next()?)?,
                patch: number(parts.next()?)?,
                build: number(build)?,
            };
            parts.next().is_none().then_some(version)
        };
        version().ok_or_else(|| VersionError { found: text.to_owned() })
    }
}

/// A decimal number in its only spelling: no sign, no leading zero.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = text == "0" || !text.starts_with('0');
    if digits && shortest { text.parse().ok() } else { None }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_four_plain_numbers_are_a_version() {
        for text in [
            "",
            "1.37.2",
            "1.37-1",
            "1.37.2.3-1",
            "v1.37.2-1",
            "1.37.02-1",
            "1.37.2-",
            "1.37.2-+1",
            "1.37.2-rc.1",
            "1.37.2-1 ",
            "1.37.2-4294967296",
        ] {
            assert_eq!(text.parse::<Version>(), Err(VersionError { found: text.into() }), "{text}");
        }
    }

    #[test]
    fn numbers_are_compared_not_letters() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("1.9.9-9") < version("1.10.0-1"));
        assert!(version("1.37.2-9") < version("1.37.2-10"));
        assert!(version("1.37.10-1") > version("1.37.9-2"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_what_is_parsed(major: u32, minor: u32, patch: u32, build: u32) {
            let version = Version { major, minor, patch, build };
            prop_assert_eq!(version.to_string().parse(), Ok(version));
        }

        #[test]
        fn a_text_that_parses_is_printed_the_same(text in "[0-9.\\-v+ ]{0,14}") {
            if let Ok(version) = text.parse::<Version>() {
                prop_assert_eq!(version.to_string(), text);
            }
        }
    }
}
