//! What an application has unless told otherwise: of the machine's memory, or of the card's window.

use crate::core::{BUFFER_LOG2, Limits};
use anyhow::{Result, ensure};
use toe_abi::control::CONTROL_REGION_LEN;
use toe_abi::region::{RegionConfig, RegionHeader};

/// Default sizes of one application: what a machine has to spare, or a part of the card's window.
pub(super) struct Sizes {
    pub limits: Limits,
    /// Buffers of a connection.
    pub buffer_log2: u8,
    /// Bytes of the window.
    window: Option<u64>,
}

impl Sizes {
    pub fn new(window: Option<u64>) -> Self {
        let base = Limits::default();
        let Some(bytes) = window else {
            let limits = Limits { payload_len: base.payload_len.min(half_of_memory()), ..base };
            return Self { limits, buffer_log2: BUFFER_LOG2, window };
        };
        // Several applications, each with some dozens of connections: of 64 MiB, six of 9 MiB with buffers of 32 KiB.
        let payload_len = (bytes / 8 / 4096 * 4096).clamp(1 << 16, base.payload_len);
        let buffer_log2 = (bytes / 1024).clamp(1 << 14, 1 << BUFFER_LOG2).ilog2() as u8;
        let limits =
            Limits { contexts: 8, hc_entries: 512, ev_entries: 512, sockets: 512, listeners: 16, accept_entries: 64, payload_len, ..base };
        Self { limits, buffer_log2, window }
    }

    /// Whether a window has room for one application.
    pub fn check(&self, l: &Limits) -> Result<()> {
        let Some(window) = self.window else { return Ok(()) };
        let config = RegionConfig {
            region: 1,
            n_contexts: l.contexts,
            hc_entries: l.hc_entries,
            ev_entries: l.ev_entries,
            n_sockets: l.sockets,
            n_listeners: l.listeners,
            accept_entries: l.accept_entries,
            payload_len: l.payload_len,
        };
        let wanted = RegionHeader::new(&config).map_or(u64::MAX, |h| h.len);
        let room = window.saturating_sub(CONTROL_REGION_LEN.next_multiple_of(4096));
        ensure!(
            wanted <= room,
            "an application takes {wanted} bytes, and the window has {room}: a larger one (toe-window --size) or smaller applications \
             (--shm-len, --max-contexts, --app-kin-len) help"
        );
        Ok(())
    }
}

/// One application cannot take all of the machine's memory, unless it is told that it may (the bound that tmpfs has, too).
pub(super) fn half_of_memory() -> u64 {
    let s = rustix::system::sysinfo();
    ((s.totalram as u64).saturating_mul(u64::from(s.mem_unit)) / 2).max(1 << 26)
}
