//! The network behind the device: frames in and out.

use super::{Chain, DeviceQueue};

/// A frame that the driver has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub header: Vec<u8>,
    pub bytes: Vec<u8>,
}

/// One pair of queues, from the device's side.
pub struct Peer {
    pub rx: DeviceQueue,
    pub tx: DeviceQueue,
    /// Chains of the receive queue that were taken and not used yet.
    pub stock: Vec<Chain>,
    pub is_mergeable: bool,
}

impl Peer {
    pub fn new(rx: DeviceQueue, tx: DeviceQueue, is_mergeable: bool) -> Self {
        Self { rx, tx, stock: Vec::new(), is_mergeable }
    }

    pub fn stock_up(&mut self) {
        while let Some(chain) = self.rx.take() {
            assert!(chain.parts.iter().all(|p| p.2), "receive buffers are for writing");
            self.stock.insert(0, chain);
        }
    }

    /// Puts a frame into buffers, not published. Returns how many it took; `None`: there are not enough.
    pub fn deliver(&mut self, header: &[u8; 12], frame: &[u8]) -> Option<usize> {
        self.stock_up();
        let mut bytes = [header.as_slice(), frame].concat();
        let (mut room, mut count) = (0, 0);
        while room < bytes.len() {
            let chain = self.stock.iter().rev().nth(count)?;
            room += chain.parts.iter().map(|p| p.1 as usize).sum::<usize>();
            count += 1;
        }
        assert!(self.is_mergeable || count == 1, "the driver's buffers are too small for what it has negotiated");
        bytes[10..12].copy_from_slice(&(count as u16).to_le_bytes());
        let mut rest = bytes.as_slice();
        for _ in 0..count {
            let chain = self.stock.pop().unwrap();
            let (address, len, _) = chain.parts[0];
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            self.rx.memory.write(address, now);
            self.rx.put(chain.head.into(), now.len() as u32);
            rest = later;
        }
        Some(count)
    }

    /// Takes the next frame that was sent and uses its buffers, not published.
    pub fn collect(&mut self) -> Option<Sent> {
        let chain = self.tx.take()?;
        assert!(chain.parts.iter().all(|p| !p.2), "transmit buffers are for reading");
        let bytes: Vec<u8> = chain.parts.iter().flat_map(|(at, len, _)| self.tx.memory.read(*at, *len as usize)).collect();
        self.tx.put(chain.head.into(), 0);
        let (header, bytes) = bytes.split_at(12);
        Some(Sent { header: header.to_vec(), bytes: bytes.to_vec() })
    }
}
