//! The health check in HTTP/1.1 (RFC 9112), as far as it is needed: one fixed request, and the status of its answer.

/// What is asked: open to everyone at an API server of this cluster.
pub const REQUEST: &[u8] =
    b"GET /readyz HTTP/1.1\r\nHost: kubernetes.default.svc\r\nUser-Agent: kubeboot-balancer\r\n\r\n";

/// Longest head of an answer that is read.
const LONGEST_HEAD: usize = 4096;
/// Longest body that is waited for, so that the connection serves the next check too.
const LONGEST_BODY: usize = 4096;

/// What has been read of an answer so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Not all of it is there.
    Partial,
    /// It is whole.
    Whole {
        /// The HTTP status.
        status: u16,
        /// Whether the connection takes another request.
        again: bool,
    },
    /// It is none of HTTP's.
    Nonsense,
}

/// Reads an answer. A body whose end can't be told is not waited for, and neither is one that belongs to a failure: the
/// status is enough, and the connection is given up.
pub fn answer(bytes: &[u8]) -> Answer {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > LONGEST_HEAD { Answer::Nonsense } else { Answer::Partial };
    };
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return Answer::Nonsense };
    let mut lines = head.split("\r\n");
    let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let digits = first.and_then(|rest| rest.split(' ').next()).filter(|digits| digits.len() == 3);
    let Some(status) = digits.and_then(|digits| digits.parse().ok()) else { return Answer::Nonsense };
    let (mut length, mut again) = (None, status == 200);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse::<usize>().ok().filter(|length| *length <= LONGEST_BODY);
        } else if name.eq_ignore_ascii_case("connection") {
            again &= !value.eq_ignore_ascii_case("close");
        }
    }
    let body = bytes.len() - (end + 4);
    match length {
        Some(length) if again && body < length => Answer::Partial,
        Some(length) => Answer::Whole { status, again: again && body == length },
        None => Answer::Whole { status, again: false },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READY: &str = "HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length: 2\r\n\r\nok";

    #[test]
    fn a_ready_server_may_be_asked_again() {
        assert_eq!(answer(READY.as_bytes()), Answer::Whole { status: 200, again: true });
        for length in 0..READY.len() {
            assert_eq!(answer(&READY.as_bytes()[..length]), Answer::Partial, "{length}");
        }
    }

    #[test]
    fn every_other_answer_ends_the_connection() {
        let closed = [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 900\r\n\r\n[-]etcd failed",
        ];
        for text in closed {
            let Answer::Whole { again, .. } = answer(text.as_bytes()) else { panic!("{text}") };
            assert!(!again, "{text}");
        }
        assert_eq!(answer(b"SSH-2.0-x\r\n\r\n"), Answer::Nonsense);
        assert_eq!(answer(&[b'x'; LONGEST_HEAD + 1]), Answer::Nonsense);
    }

    proptest! {
        #[test]
        fn anything_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), prefix in any::<bool>()) {
            let bytes = if prefix { [b"HTTP/1.1 200 \r\n", bytes.as_slice()].concat() } else { bytes };
            answer(&bytes);
        }
    }
}
