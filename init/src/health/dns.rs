//! One question to a DNS server and the address in its answer (RFC 1035, section 4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Type A (RFC 1035).
const A: u16 = 1;
/// Type AAAA (RFC 3596).
const AAAA: u16 = 28;
/// Class IN.
const IN: u16 = 1;

/// A question for the address of `name`, of the family of `like`. None for a name that is no domain name.
pub fn question(id: u16, name: &str, like: IpAddr) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(64);
    // Header: id, recursion desired, one question.
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    for word in [kind(like), IN] {
        message.extend(word.to_be_bytes());
    }
    Some(message)
}

fn kind(like: IpAddr) -> u16 {
    if like.is_ipv4() { A } else { AAAA }
}

/// The addresses in an answer to question `id`.
///
/// # Errors
/// In words: an answer to another question, an error code, or bytes that are no answer.
pub fn answer(id: u16, message: &[u8]) -> Result<Vec<IpAddr>, String> {
    let cut = || "expected a DNS answer, found one cut short".to_owned();
    let word = |at: usize| -> Option<u16> { Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?])) };
    let header = |at: usize| word(at).ok_or_else(cut);
    if header(0)? != id || header(2)? & 0x8000 == 0 {
        return Err("expected the answer to this question, found another message".to_owned());
    }
    match header(2)? & 0x000f {
        0 => {}
        3 => return Err("the name does not exist (NXDOMAIN)".to_owned()),
        code => return Err(format!("the server answers with error code {code}")),
    }
    let (questions, answers) = (header(4)?, header(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(message, at).ok_or_else(cut)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = skip_name(message, at).ok_or_else(cut)?;
        let (kind, length) = (header(at)?, usize::from(header(at + 8)?));
        let data = message.get(at + 10..at + 10 + length).ok_or_else(cut)?;
        match kind {
            A => found.extend(<[u8; 4]>::try_from(data).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)))),
            AAAA => found.extend(<[u8; 16]>::try_from(data).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))),
            _ => {}
        }
        at += 10 + length;
    }
    Ok(found)
}

/// Where a name ends: at an empty label, or at a pointer to an earlier one.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return message.get(at + 1).map(|_| at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));

    /// The question, answered with one address by a pointer to the name, as every server writes it.
    fn answered(id: u16, address: [u8; 4]) -> Vec<u8> {
        let mut message = question(id, "kubernetes.default.svc.cluster.local", V4).unwrap();
        message[2] = 0x85;
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        message.extend(address);
        message
    }

    #[test]
    fn an_address_is_asked_for_and_found() {
        assert_eq!(answer(7, &answered(7, [10, 96, 0, 1])), Ok(vec!["10.96.0.1".parse().unwrap()]));
        assert!(answer(8, &answered(7, [10, 96, 0, 1])).unwrap_err().contains("another message"));
    }

    #[test]
    fn an_error_code_is_named() {
        let mut message = answered(7, [0; 4]);
        message[3] = 3;
        assert!(answer(7, &message).unwrap_err().contains("NXDOMAIN"));
    }

    #[test]
    fn a_name_that_is_none_is_not_asked() {
        assert_eq!(question(1, "a..b", V4), None);
        assert_eq!(question(1, &"x".repeat(64), V4), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = answer(u16::from_be_bytes([bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0)]), &bytes);
        }

        #[test]
        fn every_cut_is_an_error(length in 0usize..70) {
            let message = answered(7, [1, 2, 3, 4]);
            prop_assume!(length < message.len());
            prop_assert!(answer(7, &message[..length]).is_err());
        }
    }
}
