//! Where a message goes from here: what is left to be done for it says so.

use super::super::links::{Out, Outs};
use crate::msg::{OutMsg, Stop};
use alloc::boxed::Box;
use toe_sync::crew::CoreSet;

/// Links to all that may come after protocol.
pub struct Route {
    pub post: Outs<Box<OutMsg>>,
    pub dma: Outs<Box<OutMsg>>,
    pub ctxq: Out<Box<OutMsg>>,
    pub egress: Out<Box<OutMsg>>,
    /// Waits for room.
    pub hand: Option<Box<OutMsg>>,
}

impl Route {
    /// Whether the next message can be taken: none waits.
    pub fn is_clear(&mut self) -> bool {
        match self.hand.take() {
            Some(msg) => self.send(msg),
            None => true,
        }
    }

    /// Sends a message on. False: it waits in hand.
    pub fn send(&mut self, msg: Box<OutMsg>) -> bool {
        let sent = match msg.next_stop() {
            Stop::Post => self.post.send(msg),
            Stop::Dma => self.dma.send(msg),
            Stop::Host => self.ctxq.send(msg),
            Stop::Egress => self.egress.send(msg),
        };
        self.hand = sent.err();
        self.hand.is_none()
    }

    pub fn publish(&mut self, touched: &mut CoreSet) {
        self.post.publish(touched);
        self.dma.publish(touched);
        self.ctxq.publish(touched);
        self.egress.publish(touched);
    }
}
