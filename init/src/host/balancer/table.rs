//! Connections by a key that is never met again: an event that was under way for one that is gone finds nothing.

use std::net::SocketAddr;

use super::pipe::{Pipe, Side};

/// The listener's token.
pub(super) const LISTENER: u64 = 0;
/// Marks the token of a health check.
const CHECK: u64 = 1 << 63;
/// Marks the token of a connection.
const PIPE: u64 = 1 << 62;
/// In a connection's token: its server's socket.
const SERVER: u64 = 1 << 61;
/// Bits of the generation.
const GENERATION: u32 = 0x0fff_ffff;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Check(u32),
    Pipe(Key, Side),
}

impl Token {
    pub(super) fn number(self) -> u64 {
        match self {
            Token::Listener => LISTENER,
            Token::Check(id) => CHECK | u64::from(id),
            Token::Pipe(key, side) => {
                let server = if side == Side::Server { SERVER } else { 0 };
                PIPE | server | (u64::from(key.generation) << 32) | u64::from(key.index)
            }
        }
    }

    pub(super) fn of(number: u64) -> Self {
        let index = (number & u64::from(u32::MAX)) as u32;
        if number & CHECK != 0 {
            Token::Check(index)
        } else if number & PIPE != 0 {
            let side = if number & SERVER == 0 { Side::Client } else { Side::Server };
            Token::Pipe(Key { index, generation: (number >> 32) as u32 & GENERATION }, side)
        } else {
            Token::Listener
        }
    }
}

/// Names a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    pipe: Option<Box<Pipe>>,
}

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, pipe: Pipe) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = (slot.generation + 1) & GENERATION;
        slot.pipe = Some(Box::new(pipe));
        Key { index, generation: slot.generation }
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut Pipe> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation);
        slot.and_then(|slot| slot.pipe.as_deref_mut())
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Box<Pipe>> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        let pipe = slot.pipe.take()?;
        self.free.push(key.index);
        Some(pipe)
    }

    /// The connections to a server.
    pub(super) fn to(&self, address: SocketAddr) -> Vec<Key> {
        let slots = self.slots.iter().enumerate();
        let used = slots.filter(|(_, slot)| slot.pipe.as_ref().is_some_and(|pipe| pipe.address == address));
        used.map(|(index, slot)| Key { index: index as u32, generation: slot.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart() {
        let key = Key { index: u32::MAX, generation: GENERATION };
        let all = [
            Token::Listener,
            Token::Check(0),
            Token::Check(u32::MAX),
            Token::Pipe(key, Side::Client),
            Token::Pipe(key, Side::Server),
            Token::Pipe(Key { index: 0, generation: 1 }, Side::Server),
        ];
        for token in all {
            assert_eq!(Token::of(token.number()), token);
        }
    }

    #[test]
    fn a_key_of_one_that_is_gone_finds_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pipe = || Pipe::new(std::net::TcpStream::connect(address).unwrap(), address);
        let mut table = Table::default();
        let first = table.insert(pipe());
        assert!(table.remove(first).is_some() && table.remove(first).is_none());
        let second = table.insert(pipe());
        assert!(table.get(first).is_none() && table.get(second).is_some());
        assert_eq!((table.len(), table.to(address)), (1, vec![second]));
    }
}
