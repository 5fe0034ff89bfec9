//! The health check in HTTP/1.1 (RFC 9112), as far as it is needed: one fixed request, and the status of its answer.

use httparse::Status;

/// What is asked: open to everyone at an API server of this cluster.
pub const REQUEST: &[u8] =
    b"GET /readyz HTTP/1.1\r\nHost: kubernetes.default.svc\r\nUser-Agent: kubeboot-balancer\r\n\r\n";

/// Most header fields that an answer may have.
const HEADERS: usize = 32;
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
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let end = match head.parse(bytes) {
        Ok(Status::Complete(end)) => end,
        Ok(Status::Partial) if bytes.len() <= LONGEST_HEAD => return Answer::Partial,
        _ => return Answer::Nonsense,
    };
    let (Some(1), Some(status)) = (head.version, head.code) else { return Answer::Nonsense };
    let field = |name: &str| {
        let named = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        named.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let again = status == 200 && !field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let length = field("content-length").and_then(|value| value.parse::<usize>().ok());
    let body = bytes.len() - end;
    match length.filter(|length| *length <= LONGEST_BODY) {
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
