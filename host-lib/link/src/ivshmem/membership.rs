//! What a peer knows of the others, from the messages of the server so far. No I/O.

use super::{MEMORY, ProtocolError, VERSION};
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;
use toe_abi::window::VECTORS_MAX;

/// Other peers that are believed.
pub const PEERS_MAX: usize = 64;

/// How far the server's greeting is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Version,
    Id,
    Memory,
    Greeted,
}

/// The peers of a window, seen by one of them. `F`: what a descriptor is.
#[derive(Debug)]
pub struct Membership<F = OwnedFd> {
    stage: Stage,
    id: u16,
    memory: Option<F>,
    own: Vec<F>,
    peers: BTreeMap<u16, Vec<F>>,
}

impl<F> Default for Membership<F> {
    fn default() -> Self {
        Self { stage: Stage::Version, id: 0, memory: None, own: Vec::new(), peers: BTreeMap::new() }
    }
}

impl<F> Membership<F> {
    /// Takes a message. Says who has left, if that is what it says.
    pub fn take(&mut self, value: i64, fd: Option<F>) -> Result<Option<u16>, ProtocolError> {
        let unexpected = |place| ProtocolError::Unexpected { value, place };
        match (self.stage, fd) {
            (Stage::Version, None) if value == VERSION => self.stage = Stage::Id,
            (Stage::Version, _) => return Err(ProtocolError::Version(value)),
            (Stage::Id, None) => {
                self.id = u16::try_from(value).map_err(|_| unexpected("where the peer's id is due"))?;
                self.stage = Stage::Memory;
            }
            (Stage::Memory, Some(fd)) if value == MEMORY => {
                self.memory = Some(fd);
                self.stage = Stage::Greeted;
            }
            (Stage::Greeted, fd) => {
                let peer = u16::try_from(value).map_err(|_| unexpected("after the greeting"))?;
                return self.news(peer, fd);
            }
            (Stage::Id | Stage::Memory, _) => return Err(unexpected("in the greeting")),
        }
        Ok(None)
    }

    fn news(&mut self, peer: u16, fd: Option<F>) -> Result<Option<u16>, ProtocolError> {
        let Some(fd) = fd else {
            if peer == self.id {
                return Err(ProtocolError::Unexpected { value: peer.into(), place: "while its peer is here" });
            }
            return Ok(self.peers.remove(&peer).map(|_| peer));
        };
        let known = self.peers.len();
        let vectors = if peer == self.id {
            &mut self.own
        } else if self.peers.contains_key(&peer) || known < PEERS_MAX {
            self.peers.entry(peer).or_default()
        } else {
            return Err(ProtocolError::TooMany(PEERS_MAX));
        };
        if vectors.len() as u64 >= VECTORS_MAX {
            return Err(ProtocolError::TooMany(VECTORS_MAX as usize));
        }
        vectors.push(fd);
        Ok(None)
    }

    /// Our id, once the server has said it.
    pub fn id(&self) -> Option<u16> {
        (self.stage == Stage::Memory || self.stage == Stage::Greeted).then_some(self.id)
    }

    /// The memory, once it is there.
    pub fn memory(&self) -> Option<&F> {
        self.memory.as_ref()
    }

    /// Our own vectors: read them.
    pub fn own(&self) -> &[F] {
        &self.own
    }

    /// Another peer's vectors: write them. Empty: it is not here.
    pub fn vectors_of(&self, peer: u16) -> &[F] {
        self.peers.get(&peer).map_or(&[], Vec::as_slice)
    }

    /// Who else is here.
    pub fn others(&self) -> impl Iterator<Item = u16> {
        self.peers.keys().copied()
    }

    /// Whether all vectors of `peer` have been announced: a server gives the same number to everybody, and those of
    /// one of the two, of whoever came later, are the last to come.
    pub fn is_complete(&self, peer: u16) -> bool {
        !self.own.is_empty() && self.vectors_of(peer).len() == self.own.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn greeted(id: i64) -> Membership<u32> {
        let mut m = Membership::default();
        for (value, fd) in [(0, None), (id, None), (-1, Some(99))] {
            assert_eq!(m.take(value, fd), Ok(None));
        }
        m
    }

    #[test]
    fn a_greeting_brings_id_memory_and_vectors() {
        let mut m = greeted(4);
        assert_eq!((m.id(), m.memory()), (Some(4), Some(&99)));
        for (value, fd) in [(1, 10), (1, 11), (4, 40)] {
            m.take(value, Some(fd)).unwrap();
            assert!(!m.is_complete(1), "{value}");
        }
        m.take(4, Some(41)).unwrap();
        assert!(m.is_complete(1));
        assert_eq!((m.vectors_of(1), m.own()), (&[10, 11][..], &[40, 41][..]));
    }

    #[test]
    fn who_comes_later_is_complete_when_it_has_as_many_as_we() {
        let mut m = greeted(0);
        m.take(0, Some(1)).unwrap();
        m.take(0, Some(2)).unwrap();
        m.take(7, Some(3)).unwrap();
        assert!(!m.is_complete(7));
        m.take(7, Some(4)).unwrap();
        assert!(m.is_complete(7));
        assert_eq!(m.take(7, None), Ok(Some(7)));
        assert!(m.vectors_of(7).is_empty() && !m.is_complete(7));
        assert_eq!(m.take(7, None), Ok(None), "a second time it is no news");
        m.take(7, Some(5)).unwrap();
        assert_eq!(m.vectors_of(7), [5], "its successor begins anew");
    }

    #[test]
    fn what_is_out_of_place_is_refused() {
        for (messages, wrong) in [
            (vec![(1, None)], "another version"),
            (vec![(0, Some(1))], "a version with a descriptor"),
            (vec![(0, None), (-1, Some(1))], "memory before the id"),
            (vec![(0, None), (65536, None)], "an id that is too large"),
            (vec![(0, None), (-5, None)], "an id below 0"),
            (vec![(0, None), (1, None), (-1, None)], "no memory"),
            (vec![(0, None), (1, None), (1, Some(1))], "a vector before the memory"),
            (vec![(0, None), (1, None), (-1, Some(1)), (-1, Some(2))], "memory twice"),
            (vec![(0, None), (1, None), (-1, Some(1)), (1, None)], "our own end"),
        ] {
            let mut m = Membership::default();
            let last = messages.iter().map(|&(value, fd): &(i64, Option<u32>)| m.take(value, fd)).last();
            assert!(last.unwrap().is_err(), "{wrong}");
        }
    }

    proptest! {
        /// Whatever a server sends: no panic, and nothing grows beyond its bound.
        #[test]
        fn any_messages(messages in prop::collection::vec((prop_oneof![-2i64..200, any::<i64>()], any::<bool>()), 0..500)) {
            let mut m = greeted(3);
            for (value, fd) in messages {
                if m.take(value, fd.then_some(0)).is_err() {
                    break;
                }
                prop_assert!(m.others().count() <= PEERS_MAX);
                prop_assert!(m.others().all(|p| p != 3 && !m.vectors_of(p).is_empty()));
            }
        }
    }
}
