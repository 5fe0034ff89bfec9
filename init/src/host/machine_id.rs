//! machine-id(5): 128 random bits, written as 32 lower-case hexadecimal digits.

use std::io::{self, ErrorKind};

/// The id in a file's contents; none when they are no id (or all zeros, which machine-id(5) forbids).
pub fn parse(contents: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(contents).ok()?.trim_end_matches('\n');
    let digits = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (id.len() == 32 && digits && id.bytes().any(|byte| byte != b'0')).then(|| id.to_owned())
}

/// A file's contents for an id.
pub fn text(id: &str) -> String {
    format!("{id}\n")
}

/// A new id. The kernel's UUID generator is there before any device node or library is, and gives a version-4 UUID,
/// which is what machine-id(5) recommends.
///
/// # Errors
/// `/proc` not mounted.
pub fn generate() -> io::Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let id = uuid.trim().replace('-', "");
    parse(id.as_bytes()).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("the kernel gave {uuid:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_new_and_read_back() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(parse(text(&one).as_bytes()), Some(one));
    }

    #[test]
    fn what_is_no_id_is_none() {
        for bad in ["", "uninitialized\n", "00000000000000000000000000000000\n", "0123456789ABCDEF0123456789ABCDEF\n"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
