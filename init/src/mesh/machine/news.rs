//! What is passed on: each piece a bounded number of times, the least passed on first.

use std::collections::VecDeque;

use crate::mesh::announcement::Handle;
use crate::mesh::record::About;
use crate::mesh::{MILLISECOND, Time};

/// Pieces of news that are held. What does not fit is left to anti-entropy.
pub const MAX_NEWS: usize = 256;

/// What a piece is about: a newer piece replaces an older one about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Member(Handle),
    Record(About),
}

struct Piece {
    subject: Subject,
    left: usize,
    bytes: Vec<u8>,
    /// When a suspicion began: its age is written into its last two bytes each time it is passed on.
    begun: Option<Time>,
}

/// Pieces that are still passed on.
#[derive(Default)]
pub(super) struct News(VecDeque<Piece>);

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a piece that is to be passed on `times` times.
    pub(super) fn add(&mut self, subject: Subject, bytes: Vec<u8>, begun: Option<Time>, times: usize) {
        self.forget(subject);
        self.0.truncate(MAX_NEWS - 1);
        self.0.push_front(Piece { subject, left: times, bytes, begun });
    }

    pub(super) fn forget(&mut self, subject: Subject) {
        self.0.retain(|piece| piece.subject != subject);
    }

    /// Appends what fits up to `most` bytes in all. Where many wait, each is passed on less often.
    pub(super) fn fill(&mut self, body: &mut Vec<u8>, most: usize, now: Time) {
        let cost = 1 + self.0.len() / 32;
        for _ in 0..self.0.len() {
            let fits = self.0.front().is_some_and(|piece| body.len() + piece.bytes.len() <= most);
            if !fits {
                break;
            }
            let Some(mut piece) = self.0.pop_front() else { break };
            body.extend_from_slice(&piece.bytes);
            if let Some(begun) = piece.begun {
                let age = now.saturating_sub(begun) / (100 * MILLISECOND);
                let end = body.len();
                body[end - 2..].copy_from_slice(&u16::try_from(age).unwrap_or(u16::MAX).to_be_bytes());
            }
            piece.left = piece.left.saturating_sub(cost);
            if piece.left > 0 {
                self.0.push_back(piece);
            }
        }
    }
}
