//! The two sides of one request, as machines: frames in, frames and events out.

use super::frame::{Frame, Trouble, most};
use super::request::Request;
use crate::enrolment::Malformed;
use crate::exit::Exit;

/// Why the answer to a request is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// What came is no frame.
    #[error("it sent what is no part of an answer: {0}")]
    Nonsense(#[from] Malformed),
    /// A frame out of its turn.
    #[error("it sent {0} where a part of the answer was expected")]
    Unexpected(&'static str),
    /// More than there may be.
    #[error("its answer is longer than {0} bytes")]
    Long(u64),
    /// The stream ended within the answer.
    #[error("it closed the connection before the answer was complete")]
    Ended,
    /// Nothing came in time.
    #[error("nothing came in time")]
    TimedOut,
}

/// What comes to who asks.
#[derive(Debug)]
pub enum Event<'a> {
    /// A frame, without the length in front.
    Message(&'a [u8]),
    /// The stream has ended.
    Closed,
    /// Nothing came in time.
    TimedOut,
}

/// What who asks does about it.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A part of the answer came; empty: the work goes on.
    Part(Vec<u8>),
    /// The answer is complete; the command ends with this code.
    Done(u8),
    /// The control plane did not do it.
    Failed(Trouble),
    /// The answer is of no use.
    Broken(Broken),
}

/// Who asks: one request, on a connection on which the operator was admitted.
#[derive(Debug)]
pub struct Asking {
    most: u64,
    left: Option<u64>,
}

impl Asking {
    /// Begins. `most` bytes of answer are taken. Returns the machine and the first frame.
    ///
    /// # Errors
    /// The request does not fit in a frame.
    pub fn start(request: &Request, most: u64) -> Result<(Self, Vec<u8>), Malformed> {
        let frame = Frame::Request(request.text()).encode()?;
        Ok((Asking { most, left: Some(most) }, frame))
    }

    /// The longest frame that is read now, in bytes; 0: none is.
    pub fn most(&self) -> usize {
        if self.left.is_some() { most::ANSWER } else { 0 }
    }

    /// What to do about an event.
    pub fn handle(&mut self, event: &Event<'_>) -> Step {
        let Some(left) = self.left.take() else { return Step::Broken(Broken::Ended) };
        let frame = match event {
            Event::Message(bytes) => Frame::decode(bytes),
            Event::Closed => return Step::Broken(Broken::Ended),
            Event::TimedOut => return Step::Broken(Broken::TimedOut),
        };
        match frame {
            Ok(Frame::Data(part)) => match left.checked_sub(part.len() as u64) {
                Some(left) => {
                    self.left = Some(left);
                    Step::Part(part)
                }
                None => Step::Broken(Broken::Long(self.most)),
            },
            Ok(Frame::Done(code)) => Step::Done(code),
            Ok(Frame::Failed(trouble)) => Step::Failed(trouble),
            Ok(other) => Step::Broken(Broken::Unexpected(other.name())),
            Err(malformed) => Step::Broken(Broken::Nonsense(malformed)),
        }
    }
}

/// What a control plane makes of the one frame that it reads.
///
/// # Errors
/// What the operator is told: it is no request, one of another release, or one that may not be made.
pub fn asked(bytes: &[u8]) -> Result<Request, Trouble> {
    let refused = |why: String| {
        Trouble::new(Exit::BadInput, "The node can't read the request", why, "use the kubeboot of its release.")
    };
    let body = match Frame::decode(bytes) {
        Ok(Frame::Request(body)) => body,
        Ok(other) => return Err(refused(format!("expected a request, found {}", other.name()))),
        Err(malformed) => return Err(refused(malformed.to_string())),
    };
    let request = Request::read(&body).map_err(refused)?;
    request.check()?;
    Ok(request)
}

/// The frames of an answer's bytes.
pub fn parts(bytes: &[u8]) -> impl Iterator<Item = Frame> {
    bytes.chunks(most::DATA_BODY).map(|chunk| Frame::Data(chunk.to_vec()))
}
