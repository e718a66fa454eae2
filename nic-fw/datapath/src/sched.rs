//! The scheduler: which flows may send, and when each must be looked at again.
//!
//! Two first-in, first-out lists of ready flows: owed ACKs and retransmissions go before new data. Whoever has sent
//! its quantum goes to the end of its list, so flows share the wire by turns. A flow index may stay in a list
//! when its flow has ended: the visit finds nothing to send.

use crate::{
    list::{Links, List},
    wheel::Wheel,
};

pub struct Sched {
    links: Links,
    urgent: List,
    data: List,
    /// Which of the two lists a ready flow is in.
    is_urgent: alloc::boxed::Box<[bool]>,
    /// Whose turn it is, and how many bytes it may still send.
    turn: Option<(u32, u32)>,
    quantum_bytes: u32,
    pub timers: Wheel,
}

impl Sched {
    pub fn new(flows: usize, quantum_bytes: u32) -> Self {
        Self {
            links: Links::new(flows),
            urgent: List::default(),
            data: List::default(),
            is_urgent: alloc::vec![false; flows].into_boxed_slice(),
            turn: None,
            quantum_bytes,
            timers: Wheel::new(flows),
        }
    }

    /// How many flows there can be.
    pub fn flows(&self) -> u32 {
        self.is_urgent.len() as u32
    }

    /// Flow `i` may have something to send.
    pub fn ready(&mut self, i: u32, urgent: bool) {
        if self.links.linked(i) {
            if !urgent || self.is_urgent[i as usize] {
                return;
            }
            self.links.unlink(&mut self.data, i);
        }
        self.is_urgent[i as usize] = urgent;
        self.links.push(if urgent { &mut self.urgent } else { &mut self.data }, i);
    }

    /// Whose turn it is: the same flow's until its quantum is used up or it has nothing to send, unless another one has
    /// something urgent.
    pub fn next(&mut self) -> Option<u32> {
        if let Some(i) = self.links.pop(&mut self.urgent) {
            if let Some((other, _)) = self.turn.take().filter(|&(other, _)| other != i) {
                self.ready(other, false);
            }
            self.turn = Some((i, self.quantum_bytes));
        } else if self.turn.is_none() {
            self.turn = self.links.pop(&mut self.data).map(|i| (i, self.quantum_bytes));
        }
        self.turn.map(|(i, _)| i)
    }

    /// Flow `i` has sent a segment of `bytes` and may have more.
    pub fn sent(&mut self, i: u32, bytes: u32, urgent: bool) {
        match &mut self.turn {
            // A segment without payload takes its share as well.
            Some((turn, credit)) if *turn == i && *credit > bytes.max(64) => *credit -= bytes.max(64),
            _ => {
                self.idle(i);
                self.ready(i, urgent);
            }
        }
    }

    /// Flow `i` has nothing to send now.
    pub fn idle(&mut self, i: u32) {
        self.turn = self.turn.filter(|&(turn, _)| turn != i);
    }

    /// Flow `i` has ended: no turn, no timer.
    pub fn forget(&mut self, i: u32) {
        self.timers.disarm(i);
        self.idle(i);
        if self.links.linked(i) {
            let list = if self.is_urgent[i as usize] { &mut self.urgent } else { &mut self.data };
            self.links.unlink(list, i);
        }
    }

    /// Whether something goes before new data.
    pub fn any_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    pub fn any_ready(&self) -> bool {
        self.turn.is_some() || !self.urgent.is_empty() || !self.data.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(s: &mut Sched) -> alloc::vec::Vec<u32> {
        core::iter::from_fn(|| s.next().inspect(|&i| s.idle(i))).collect()
    }

    #[test]
    fn turns_are_taken_in_order() {
        let mut s = Sched::new(4, 1000);
        s.ready(2, false);
        s.ready(0, false);
        s.ready(2, false);
        assert_eq!(turns(&mut s), [2, 0]);
    }

    #[test]
    fn acks_and_retransmissions_go_first() {
        let mut s = Sched::new(4, 1000);
        s.ready(0, false);
        s.ready(1, false);
        s.ready(1, true);
        s.ready(1, false);
        assert_eq!(turns(&mut s), [1, 0]);
    }

    #[test]
    fn a_turn_ends_with_its_quantum() {
        let mut s = Sched::new(4, 1000);
        s.ready(0, false);
        s.ready(1, false);
        let mut order = alloc::vec::Vec::new();
        for _ in 0..6 {
            let i = s.next().unwrap();
            order.push(i);
            s.sent(i, 500, false);
        }
        assert_eq!(order, [0, 0, 1, 1, 0, 0]);
    }

    #[test]
    fn something_urgent_interrupts_a_turn() {
        let mut s = Sched::new(4, 1000);
        s.ready(0, false);
        assert_eq!(s.next(), Some(0));
        s.sent(0, 100, false);
        s.ready(1, true);
        assert_eq!(turns(&mut s), [1, 0]);
    }

    #[test]
    fn a_flow_that_ended_takes_its_timer_and_turn_along() {
        let mut s = Sched::new(4, 1000);
        s.ready(0, true);
        s.ready(1, false);
        s.timers.arm(0, 5);
        s.forget(0);
        assert_eq!((turns(&mut s), s.timers.next_tick()), (alloc::vec![1], None));
    }
}
