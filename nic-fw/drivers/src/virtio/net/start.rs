//! From a device on the bus to a running port (VIRTIO 1.1, 5.1.5).
//!
//! ```text
//!   negotiate ─► configuration ─► pairs: rings, buffers ─► control queue ─► start ─► set pairs, multicast ─► fill receive queues
//! ```

use super::control::{CommandError, NetControl, config};
use super::header::HEADER_LEN;
use super::rx::NetRx;
use super::settings::{CONTROL_BUFFER_LEN, CONTROL_BUFFERS, CONTROL_SIZE, Settings, WHOLE_FRAME};
use super::tx::NetTx;
use super::{FRAME_MAX, LINK_HEADER, RX_SKIP};
use crate::virtio::queue::{Alarm, BufferShape, Queue, Rings};
use crate::virtio::transport::{Features, Transport, TransportError};
use crate::{DmaMemory, Registers};
use alloc::vec::Vec;
use toe_hal::{Clock, PortCaps};

/// What every device must have.
const NEEDED: Features = Features::VERSION_1;
const OFFLOADS: Features = Features::CSUM
    .union(Features::GUEST_CSUM)
    .union(Features::GUEST_TSO4)
    .union(Features::GUEST_TSO6)
    .union(Features::GUEST_ECN)
    .union(Features::HOST_TSO4)
    .union(Features::HOST_TSO6)
    .union(Features::HOST_ECN);
const WANTED: Features = OFFLOADS
    .union(Features::MAC)
    .union(Features::MTU)
    .union(Features::MRG_RXBUF)
    .union(Features::STATUS)
    .union(Features::CTRL_VQ)
    .union(Features::CTRL_RX)
    .union(Features::EVENT_IDX)
    .union(Features::ACCESS_PLATFORM)
    .union(Features::ORDER_PLATFORM);
const LARGE_FRAMES: Features = Features::GUEST_TSO4.union(Features::GUEST_TSO6).union(Features::GUEST_ECN);

const DEFAULT_MTU: u16 = 1500;
/// RFC 791: every module must be able to forward so much.
const MTU_MIN: u16 = 68;
/// Most payload bytes in a super-frame: 64 KiB of IP less the headers, rounded down.
const TSO_MAX: u32 = 65_000;
/// More have no number for the control queue after them.
const MAX_PAIRS: u16 = 0x7fff;

/// Why there is no port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetError {
    Transport(TransportError),
    /// This setting is out of its bounds.
    BadSetting(&'static str),
    /// The memory is too small; see [`Settings::bytes`].
    NoMemory,
    /// Neither the device nor the settings have an address, or it is none of a single station.
    NoMac,
    /// The number of pairs could not be set.
    Pairs(CommandError),
    /// The device did not answer when it was asked for multicast.
    Multicast(CommandError),
}

impl From<TransportError> for NetError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

/// A running port.
#[derive(Debug)]
pub struct Net<R, M> {
    pub rx: NetRx<R>,
    pub tx: NetTx<R, M>,
    pub control: NetControl<R>,
}

/// Resets the device, sets it up and starts it. `host`: reads the board's slices of host memory. All waits have a deadline by `clock`.
/// After an error the device is told that nobody drives it, and is reset; if it does not even obey that, its memory is lost.
pub fn start<R: Registers, M>(
    transport: Transport<R>,
    memory: DmaMemory,
    settings: &Settings,
    host: M,
    clock: &impl Clock,
) -> Result<Net<R, M>, NetError> {
    settings.check().map_err(NetError::BadSetting)?;
    let alarm = Alarm::default();
    let mut control = NetControl { transport, queue: None, queue_index: 0, pairs: 0, settings: *settings, alarm };
    let started = bring_up(&mut control, memory, settings, host, clock);
    if started.is_err() {
        control.transport.fail();
        // The error to tell is the first one.
        let _ = control.transport.reset(clock);
    }
    let (rx, tx) = started?;
    Ok(Net { rx, tx, control })
}

fn bring_up<R: Registers, M>(
    control: &mut NetControl<R>,
    mut memory: DmaMemory,
    settings: &Settings,
    host: M,
    clock: &impl Clock,
) -> Result<(NetRx<R>, NetTx<R, M>), NetError> {
    let features = control.transport.negotiate(clock, NEEDED, |offered| wanted(offered, settings))?;
    let facts = Facts::read(&control.transport, settings)?;
    (control.pairs, control.queue_index) = (facts.pairs, facts.control_queue);
    control.transport.set_config_vector(settings.config_vector)?;
    let has_event_idx = features.contains(Features::EVENT_IDX);
    let mut builder = Builder { transport: &mut control.transport, settings, has_event_idx, alarm: &control.alarm };
    let (rx, tx) = builder.pairs(&mut memory, &facts, host)?;
    if features.contains(Features::CTRL_VQ) {
        control.queue = Some(builder.control(&mut memory, facts.control_queue)?);
    }
    control.transport.start();
    if facts.pairs > 1 {
        control.set_pairs(facts.pairs, clock).map_err(NetError::Pairs)?;
    }
    control.take_multicast(clock).map_err(NetError::Multicast)?;
    let mut rx = rx;
    rx.fill();
    Ok((rx, tx))
}

/// What is wanted of an offer.
fn wanted(offered: Features, settings: &Settings) -> Features {
    let mut wanted = WANTED;
    if settings.pairs > 1 {
        wanted |= Features::MQ;
    }
    // 5.1.6.3.1: without mergeable buffers each must take a whole super-frame.
    if !offered.contains(Features::MRG_RXBUF) && settings.rx_buffer_len < WHOLE_FRAME {
        wanted -= LARGE_FRAMES;
    }
    wanted
}

/// What the configuration says, checked.
struct Facts {
    mac: [u8; 6],
    mtu: u16,
    pairs: u16,
    /// Its number comes after those of all pairs that the device has.
    control_queue: u16,
}

impl Facts {
    fn read<R: Registers>(transport: &Transport<R>, settings: &Settings) -> Result<Self, NetError> {
        let features = transport.features();
        let (mac, max_pairs, mtu) = transport.config(|config| {
            // Fields of features that were not negotiated need not exist.
            let half = |feature, at| features.contains(feature).then(|| config.read16(at));
            let mac = features.contains(Features::MAC).then(|| [0, 1, 2, 3, 4, 5].map(|i| config.read8(config::MAC + i)));
            (mac, half(Features::MQ, config::MAX_PAIRS), half(Features::MTU, config::MTU))
        })?;
        let mac = mac.or(settings.mac).filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]).ok_or(NetError::NoMac)?;
        let max_pairs = max_pairs.filter(|pairs| (1..=MAX_PAIRS).contains(pairs)).unwrap_or(1);
        // Else a frame of that size would not fit into a buffer.
        let room = if features.contains(Features::MRG_RXBUF) { FRAME_MAX } else { settings.rx_buffer_len - RX_SKIP - HEADER_LEN };
        let mtu = mtu.filter(|mtu| *mtu >= MTU_MIN).unwrap_or(DEFAULT_MTU).min((room - LINK_HEADER).min(0xffff) as u16);
        Ok(Self { mac, mtu, pairs: settings.pairs.min(max_pairs), control_queue: 2 * max_pairs })
    }
}

struct Builder<'a, R> {
    transport: &'a mut Transport<R>,
    settings: &'a Settings,
    has_event_idx: bool,
    alarm: &'a Alarm,
}

impl<R: Registers> Builder<'_, R> {
    fn pairs<M>(&mut self, memory: &mut DmaMemory, facts: &Facts, host: M) -> Result<(NetRx<R>, NetTx<R, M>), NetError> {
        let settings = self.settings;
        let (rx_shape, tx_shape) =
            (BufferShape { stride: settings.rx_buffer_len, skip: RX_SKIP }, BufferShape { stride: settings.tx_buffer_len, skip: 0 });
        let spares_len = WHOLE_FRAME * usize::from(settings.spare_buffers);
        let rx_len = settings.rx_buffer_len * usize::from(settings.rx_buffers);
        let block_len = rx_len * usize::from(facts.pairs) + spares_len;
        let mut block = memory.take(block_len, 64).ok_or(NetError::NoMemory)?;
        let (base, len) = (block.base().cast_const(), block.len());
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for pair in 0..facts.pairs {
            let buffers = block.take(rx_len, 64).ok_or(NetError::NoMemory)?;
            rx.push(self.queue(memory, 2 * pair, settings.queue_size, buffers, rx_shape, settings.vector(pair))?);
            let buffers = memory.take(settings.tx_buffer_len * usize::from(settings.queue_size), 64).ok_or(NetError::NoMemory)?;
            tx.push(self.queue(memory, 2 * pair + 1, settings.queue_size, buffers, tx_shape, None)?);
        }
        let features = self.transport.features();
        let caps = caps(features, facts, &tx);
        Ok((NetRx::new(base, len, rx, block, features), NetTx::new(tx, host, caps, features)))
    }

    fn control(&mut self, memory: &mut DmaMemory, index: u16) -> Result<Queue<R>, NetError> {
        let shape = BufferShape { stride: CONTROL_BUFFER_LEN, skip: 0 };
        let buffers = memory.take(CONTROL_BUFFER_LEN * usize::from(CONTROL_BUFFERS), 64).ok_or(NetError::NoMemory)?;
        self.queue(memory, index, CONTROL_SIZE, buffers, shape, None)
    }

    fn queue(
        &mut self,
        memory: &mut DmaMemory,
        index: u16,
        size: u16,
        buffers: DmaMemory,
        shape: BufferShape,
        vector: Option<u16>,
    ) -> Result<Queue<R>, NetError> {
        let size = self.transport.queue_size(index, size)?;
        let rings = Rings::take(memory, size).ok_or(NetError::NoMemory)?;
        let notifier = self.transport.enable_queue(index, &rings, vector)?;
        Ok(Queue::new(rings, buffers, shape, notifier, self.has_event_idx).with_alarm(self.alarm.clone()))
    }
}

fn caps<R: Registers>(features: Features, facts: &Facts, tx: &[Queue<R>]) -> PortCaps {
    let takes = |queue: &Queue<R>| usize::from(queue.buffers()) * queue.buffer_len() >= HEADER_LEN + FRAME_MAX;
    let can_tso = features.contains(Features::HOST_TSO4 | Features::HOST_TSO6) && tx.iter().all(takes);
    let tso_max = if can_tso { TSO_MAX } else { 0 };
    PortCaps { mac: facts.mac, mtu: facts.mtu, tx_csum: features.contains(Features::CSUM), tso_max }
}
