//! A device that has broken the rules of a queue, or that asks for it, is reset and started anew with the same queues (VIRTIO 1.2, 2.1.2
//! and 2.4).
//!
//! ```text
//!   shut: nothing more is read or told ─► reset: the device has no buffer any more ─► rewind: all of them ours ─► as at the start
//! ```
//!
//! *Buffers.* What the device has comes back by its reset alone: as long as that has not ended, no queue is touched. Frames on loan to the
//! card stay there and come back as always, and their buffers go to the device then. Frames that were on their way are lost.
//! Nothing is allocated.

use super::NetRx;
use super::control::NetControl;
use super::start::NetError;
use super::tx::NetTx;
use crate::Registers;
use crate::virtio::queue::Queue;
use crate::virtio::transport::{Features, Transport, TransportError};
use toe_hal::Clock;

impl<R: Registers> NetControl<R> {
    /// Resets the device and starts it again as it was. All waits have a deadline by `clock`. After an error both halves find and send
    /// nothing, and it may be tried again.
    pub fn restart<M>(&mut self, rx: &mut NetRx<R>, tx: &mut NetTx<R, M>, clock: &impl Clock) -> Result<(), NetError> {
        rx.count_reset();
        self.shut(rx, tx);
        // What was found out about the device before this.
        self.alarm.take();
        let restarted = self.bring_back(rx, tx, clock);
        if restarted.is_err() {
            self.shut(rx, tx);
            self.transport.fail();
            // The error to tell is the first one.
            let _ = self.transport.reset(clock);
        }
        restarted
    }

    fn shut<M>(&mut self, rx: &mut NetRx<R>, tx: &mut NetTx<R, M>) {
        rx.queues().chain(tx.queues()).chain(&mut self.queue).for_each(Queue::shut);
    }

    fn bring_back<M>(&mut self, rx: &mut NetRx<R>, tx: &mut NetTx<R, M>, clock: &impl Clock) -> Result<(), NetError> {
        // The same features or none: caps and buffers were made for them.
        let features = self.transport.features();
        self.transport.negotiate(clock, features, |_| Features::empty())?;
        rx.rewind();
        tx.rewind();
        self.queue.iter_mut().for_each(Queue::rewind);
        self.transport.set_config_vector(self.settings.config_vector)?;
        for (pair, queue) in (0..).zip(rx.queues()) {
            reopen(&mut self.transport, queue, 2 * pair, self.settings.vector(pair))?;
        }
        for (pair, queue) in (0..).zip(tx.queues()) {
            reopen(&mut self.transport, queue, 2 * pair + 1, None)?;
        }
        if let Some(queue) = &mut self.queue {
            reopen(&mut self.transport, queue, self.queue_index, None)?;
        }
        self.transport.start();
        if self.pairs > 1 {
            self.set_pairs(self.pairs, clock).map_err(NetError::Pairs)?;
        }
        self.take_multicast(clock).map_err(NetError::Multicast)?;
        rx.fill();
        Ok(())
    }
}

/// Tells the device of a queue that it had before its reset.
fn reopen<R: Registers>(transport: &mut Transport<R>, queue: &mut Queue<R>, index: u16, vector: Option<u16>) -> Result<(), TransportError> {
    let size = queue.rings().size();
    let offered = transport.queue_size(index, size)?;
    if offered != size {
        return Err(TransportError::NoQueue { index, size: offered });
    }
    let notifier = transport.enable_queue(index, queue.rings(), vector)?;
    queue.reopen(notifier);
    Ok(())
}
