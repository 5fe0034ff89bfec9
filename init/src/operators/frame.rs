//! Frames: what stands behind the length on the stream once an operator is admitted.
//!
//! A frame is the form (one byte, 1), the kind (one byte) and a body that its kind bounds. Requests and troubles are JSON,
//! because later releases add to them; what a control plane says is bytes, passed on as they come.

use serde::{Deserialize, Serialize};

use crate::enrolment::Malformed;
use crate::exit::Exit;
use crate::words::Block;

/// The form of frames, their first byte.
const FORM: u8 = 1;
/// Bytes in front of the body: form and kind.
const HEAD: usize = 2;

/// Longest frames of each kind, in bytes, form and kind included.
pub mod most {
    use super::HEAD;

    /// [`super::Frame::Request`]
    pub const REQUEST: usize = HEAD + (16 << 10);
    /// [`super::Frame::Data`]
    pub const DATA: usize = HEAD + DATA_BODY;
    /// Bytes that one frame of data carries.
    pub const DATA_BODY: usize = 32 << 10;
    /// [`super::Frame::Failed`]
    pub const FAILED: usize = HEAD + (64 << 10);
    /// What a control plane says.
    pub const ANSWER: usize = if DATA > FAILED { DATA } else { FAILED };
}

/// Any frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Kind 1, from the operator: a [`super::Request`] as JSON.
    Request(Vec<u8>),
    /// Kind 2: a part of the answer. An empty one says that the work goes on.
    Data(Vec<u8>),
    /// Kind 3: the answer is complete. The command ends with this code.
    Done(u8),
    /// Kind 4: it was not done.
    Failed(Trouble),
}

/// Why a request was not done, for people: a [`Block`] and the code that the command ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trouble {
    /// [`Exit::code`].
    pub exit: u8,
    /// What went wrong.
    pub what: String,
    /// The reasons.
    pub why: Vec<String>,
    /// The state that things are left in.
    pub state: String,
    /// What to do.
    pub fix: Vec<String>,
}

impl Trouble {
    /// A trouble that changed nothing.
    pub fn new(exit: Exit, what: &str, why: impl ToString, fix: &str) -> Self {
        Trouble {
            exit: exit.code(),
            what: what.to_owned(),
            why: vec![why.to_string()],
            state: "Nothing was changed.".to_owned(),
            fix: vec![fix.to_owned()],
        }
    }

    /// A trouble in the words of a block.
    pub fn of(exit: Exit, block: Block) -> Self {
        let Block { what, why, state, fix } = block;
        Trouble { exit: exit.code(), what, why, state, fix }
    }

    /// In another state than before.
    pub fn leaving(self, state: impl ToString) -> Self {
        Trouble { state: state.to_string(), ..self }
    }

    /// As it is shown.
    pub fn block(&self) -> Block {
        let Trouble { what, why, state, fix, .. } = self.clone();
        Block { what, why, state, fix }
    }

    /// Texts of another machine's, cut to what a screen takes: whatever they are, JSON of them fits in a frame.
    fn bounded(mut self) -> Self {
        let cut = |text: &mut String| {
            if let Some((at, _)) = text.char_indices().nth(500) {
                text.truncate(at);
            }
        };
        [&mut self.what, &mut self.state].into_iter().for_each(cut);
        for list in [&mut self.why, &mut self.fix] {
            list.truncate(8);
            list.iter_mut().for_each(cut);
        }
        self
    }
}

impl Frame {
    /// The bytes, without the length in front.
    ///
    /// # Errors
    /// The body is longer than its kind may be.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let (kind, longest, body) = match self {
            Frame::Request(body) => (1, most::REQUEST, body.clone()),
            Frame::Data(body) => (2, most::DATA, body.clone()),
            Frame::Done(code) => (3, HEAD + 1, vec![*code]),
            Frame::Failed(trouble) => {
                let text = serde_json::to_vec(&trouble.clone().bounded()).expect("texts and a number");
                (4, most::FAILED, text)
            }
        };
        let bytes = [&[FORM, kind][..], &body].concat();
        match bytes.len() <= longest {
            true => Ok(bytes),
            false => Err(Malformed::Long { field: "frame", most: longest, found: bytes.len() }),
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// What is wrong with the bytes; never what stands in them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (head, body) = bytes.split_first_chunk::<HEAD>().ok_or(Malformed::Short("head"))?;
        let [form, kind] = *head;
        if form != FORM {
            return Err(Malformed::Unknown { field: "form", found: form });
        }
        let bounded = |longest: usize| match bytes.len() <= longest {
            true => Ok(body.to_vec()),
            false => Err(Malformed::Long { field: "frame", most: longest, found: bytes.len() }),
        };
        match kind {
            1 => bounded(most::REQUEST).map(Frame::Request),
            2 => bounded(most::DATA).map(Frame::Data),
            3 => match body {
                [code] => Ok(Frame::Done(*code)),
                [] => Err(Malformed::Short("exit code")),
                [_, rest @ ..] => Err(Malformed::Trailing(rest.len())),
            },
            4 => {
                let trouble: Result<Trouble, _> = serde_json::from_slice(&bounded(most::FAILED)?);
                trouble.map(|trouble| Frame::Failed(trouble.bounded())).map_err(|_| Malformed::Form("trouble"))
            }
            found => Err(Malformed::Unknown { field: "kind", found }),
        }
    }

    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Request(_) => "request",
            Frame::Data(_) => "data",
            Frame::Done(_) => "done",
            Frame::Failed(_) => "failed",
        }
    }
}
