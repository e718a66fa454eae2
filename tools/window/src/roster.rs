//! Which peers there are, and what each of them has still to be told. No I/O.
//!
//! ```text
//!   join(3) ──► outbox of 3:        version, 3, memory, vectors of all others, its own
//!               outbox of others:   vectors of 3
//!   leave(3) ─► outbox of others:   what of 3 they have not been told is taken back; if they had heard of it: 3 has left
//! ```
//!
//! So an outbox holds the vectors of peers that are here, each once, and little besides: however slow its reader is.
//!
//! **No id is used again while somebody is here who has heard of it.** QEMU frees what it has for a peer that leaves, and writes to it
//! when a peer of that number comes back (hw/misc/ivshmem.c, 7.2: `close_peer_eventfds`, `process_msg_connect`): it crashes. Besides, ids
//! rise as long as they can, so that what a dead peer has left in the window is not taken for its successor's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use toe_link::ivshmem::{MEMORY, VERSION};

/// Announcements of leaves that may wait for one peer. A reader that is so far behind is given up.
const LEAVES_MAX: usize = 256;

/// A message and the descriptor with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<F> {
    pub value: i64,
    pub fd: Option<Rc<F>>,
}

struct Peer<F> {
    vectors: Vec<Rc<F>>,
    outbox: VecDeque<Message<F>>,
    /// Whom it has heard of, gone or not.
    heard: BTreeSet<u16>,
}

impl<F> Peer<F> {
    fn announce(&mut self, id: u16, vectors: &[Rc<F>]) {
        self.outbox.extend(vectors.iter().map(|fd| Message { value: id.into(), fd: Some(fd.clone()) }));
    }
}

/// All peers. `F`: what a descriptor is.
pub struct Roster<F> {
    memory: Rc<F>,
    peers: BTreeMap<u16, Peer<F>>,
    most: usize,
    /// Where the search for an id begins.
    next: u16,
}

impl<F> Roster<F> {
    /// For at most `most` peers.
    pub fn new(memory: F, most: usize) -> Self {
        Self { memory: Rc::new(memory), peers: BTreeMap::new(), most: most.min(usize::from(u16::MAX)), next: 0 }
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.peers.len() >= self.most
    }

    pub fn ids(&self) -> impl Iterator<Item = u16> {
        self.peers.keys().copied()
    }

    /// A peer has come; these are its vectors. Its id is the next that none of the others has ever heard of. `None`: there are too
    /// many of them, or all ids are used up until some peer leaves.
    pub fn join(&mut self, vectors: Vec<F>) -> Option<u16> {
        if self.is_full() {
            return None;
        }
        let is_new = |id: &u16| !self.peers.contains_key(id) && self.peers.values().all(|p| !p.heard.contains(id));
        let id = (0..=u16::MAX).map(|n| self.next.wrapping_add(n)).find(is_new)?;
        self.next = id.wrapping_add(1);
        let vectors: Vec<Rc<F>> = vectors.into_iter().map(Rc::new).collect();
        let greeting = [(VERSION, None), (id.into(), None), (MEMORY, Some(self.memory.clone()))];
        let outbox = greeting.into_iter().map(|(value, fd)| Message { value, fd }).collect();
        let mut new = Peer { vectors: Vec::new(), outbox, heard: BTreeSet::new() };
        for (&other, peer) in &mut self.peers {
            new.announce(other, &peer.vectors);
            peer.announce(id, &vectors);
        }
        // Last: then it has heard of everybody who was here (QEMU's server does the same).
        new.announce(id, &vectors);
        new.vectors = vectors;
        self.peers.insert(id, new);
        Some(id)
    }

    /// A peer has gone.
    pub fn leave(&mut self, id: u16) {
        if self.peers.remove(&id).is_none() {
            return;
        }
        let value = i64::from(id);
        for peer in self.peers.values_mut() {
            peer.outbox.retain(|m| m.value != value || m.fd.is_none());
            if peer.heard.contains(&id) {
                peer.outbox.push_back(Message { value, fd: None });
            }
        }
    }

    /// What `id` is to be told next.
    pub fn next(&self, id: u16) -> Option<&Message<F>> {
        self.peers.get(&id)?.outbox.front()
    }

    /// It has been told.
    pub fn sent(&mut self, id: u16) {
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some(Message { value, fd: Some(_) }) = peer.outbox.pop_front()
            && let Ok(other) = u16::try_from(value)
        {
            peer.heard.insert(other);
        }
    }

    /// Whether `id` is so far behind that it should be let go.
    pub fn is_stuck(&self, id: u16) -> bool {
        self.peers.get(&id).is_some_and(|p| p.outbox.iter().filter(|m| m.fd.is_none()).count() > LEAVES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_link::ivshmem::Membership;

    /// Vectors of the n-th that ever joined: recognizable.
    fn vectors(n: u32) -> Vec<u32> {
        vec![10 * n, 10 * n + 1]
    }

    /// Everything that waits for `id`, told.
    fn tell(roster: &mut Roster<u32>, id: u16) -> Vec<(i64, Option<u32>)> {
        let mut told = Vec::new();
        while let Some(m) = roster.next(id) {
            told.push((m.value, m.fd.as_deref().copied()));
            roster.sent(id);
        }
        told
    }

    #[test]
    fn who_joins_hears_of_all_and_all_of_him() {
        let mut roster = Roster::new(99, 16);
        assert_eq!(roster.join(vectors(1)), Some(0));
        assert_eq!(tell(&mut roster, 0), [(0, None), (0, None), (-1, Some(99)), (0, Some(10)), (0, Some(11))]);
        assert_eq!(roster.join(vectors(2)), Some(1));
        let greeting = [(0, None), (1, None), (-1, Some(99)), (0, Some(10)), (0, Some(11)), (1, Some(20)), (1, Some(21))];
        assert_eq!(tell(&mut roster, 1), greeting);
        assert_eq!(tell(&mut roster, 0), [(1, Some(20)), (1, Some(21))]);
    }

    #[test]
    fn an_id_is_used_again_when_nobody_is_left_who_knew_it() {
        let mut roster = Roster::new(99, 16);
        for n in 0..3 {
            roster.join(vectors(n)).unwrap();
        }
        tell(&mut roster, 0);
        roster.leave(1);
        assert_eq!(roster.join(vectors(7)), Some(3));
        assert_eq!(tell(&mut roster, 0), [(1, None), (3, Some(70)), (3, Some(71))]);
        roster.leave(0);
        roster.next = 0;
        assert_eq!(roster.join(vectors(8)), Some(0));
        assert_eq!(roster.join(vectors(9)), Some(1));
    }

    #[test]
    fn ids_run_out_for_who_stays_and_come_back_when_he_leaves() {
        let mut roster = Roster::new(99, 4);
        roster.join(vectors(1));
        let peer = roster.peers.get_mut(&0).unwrap();
        peer.heard.extend(0..=u16::MAX);
        assert_eq!(roster.join(vectors(2)), None);
        roster.leave(0);
        assert_eq!(roster.join(vectors(2)), Some(1));
    }

    #[test]
    fn who_was_never_heard_of_does_not_leave() {
        let mut roster = Roster::new(99, 16);
        roster.join(vectors(1));
        tell(&mut roster, 0);
        roster.join(vectors(2));
        roster.leave(1);
        assert_eq!(tell(&mut roster, 0), []);
        // Half announced: the rest is taken back.
        roster.join(vectors(3));
        roster.sent(0);
        roster.leave(2);
        assert_eq!(tell(&mut roster, 0), [(2, None)]);
    }

    #[test]
    fn a_reader_that_never_reads_keeps_no_more_than_who_is_there() {
        let mut roster = Roster::new(99, 4);
        roster.join(vectors(1));
        for n in 2..2_000 {
            let id = roster.join(vectors(n)).unwrap();
            roster.leave(id);
        }
        assert_eq!(tell(&mut roster, 0).len(), 5, "its own greeting");
    }

    #[test]
    fn a_reader_that_falls_behind_leaves_is_stuck() {
        let mut roster = Roster::new(99, 4);
        roster.join(vectors(1));
        let mut rounds = 0;
        while !roster.is_stuck(0) {
            let id = roster.join(vectors(2)).unwrap();
            // It has heard of the newcomer, but not of the end of the last.
            roster.peers.get_mut(&0).unwrap().heard.insert(id);
            roster.leave(id);
            rounds += 1;
            assert!(rounds < 1000);
        }
        assert!(!roster.is_stuck(1));
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut roster = Roster::new(99, 2);
        roster.join(vectors(1)).unwrap();
        roster.join(vectors(2)).unwrap();
        assert!(roster.is_full() && roster.join(vectors(3)).is_none());
        roster.leave(0);
        assert_eq!(roster.join(vectors(3)), Some(2));
    }

    /// Peers that come, go and read at random end up knowing exactly who is there.
    #[test]
    fn everybody_knows_the_others_in_the_end() {
        let mut roster = Roster::new(99, 8);
        let mut views: BTreeMap<u16, Membership<u32>> = BTreeMap::new();
        let mut seed = 1_u64;
        let mut draw = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % n
        };
        fn read(roster: &mut Roster<u32>, view: &mut Membership<u32>, id: u16) -> bool {
            let Some(m) = roster.next(id) else { return false };
            view.take(m.value, m.fd.as_deref().copied()).unwrap();
            roster.sent(id);
            true
        }
        for n in 0..20_000 {
            let ids: Vec<u16> = if views.is_empty() { vec![0] } else { views.keys().copied().collect() };
            let id = ids[draw(ids.len() as u64) as usize];
            match draw(12) {
                0 => {
                    if let Some(id) = roster.join(vectors(n)) {
                        views.insert(id, Membership::default());
                    }
                }
                1 if views.len() > 2 && views.remove(&id).is_some() => roster.leave(id),
                _ => {
                    if let Some(view) = views.get_mut(&id) {
                        read(&mut roster, view, id);
                    }
                }
            }
        }
        let here: Vec<u16> = roster.ids().collect();
        assert!(here.len() > 2);
        for (&id, view) in &mut views {
            while read(&mut roster, view, id) {}
            let others: Vec<u16> = here.iter().copied().filter(|&o| o != id).collect();
            assert_eq!(view.others().collect::<Vec<_>>(), others);
            assert!(others.iter().all(|&o| view.is_complete(o)), "two vectors each");
        }
    }
}
