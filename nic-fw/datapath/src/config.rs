//! What a card is made with.

/// Sizes of a card's tables, fixed at start. Everything is allocated from these numbers once.
#[derive(Clone, Debug)]
pub struct CardConfig {
    /// Connections at one time.
    pub max_flows: u32,
    /// Contexts, the control region's included.
    pub max_contexts: u16,
    /// Regions, the control region included.
    pub max_regions: u16,
    /// Entries of the next-hop table: each neighbour that has connections takes one, 68 bytes.
    pub max_next_hops: u16,
    /// Addresses of the card's own.
    pub max_addresses: u16,
    /// Secret of the flow table's hash.
    pub hash_key: [u64; 2],
    /// How long an idle context is polled before it is parked, microseconds.
    pub spin_us: u64,
    /// Payload bytes a flow may send before it is the next one's turn.
    pub quantum_bytes: u32,
    /// Descriptors taken from a context in one visit.
    pub visit_descriptors: u32,
    /// Records of what was sent when, and of data received beyond holes, for all flows together. A bulk flow needs some dozens.
    pub tcp_records: u32,
    /// Messages of a flow group that may be under way from protocol to the port, in all classes.
    pub pool_messages: u16,
    /// Pipelined: messages that a ring between two stages holds.
    pub ring_entries: u32,
    /// Pipelined: received frames of a flow group that may be under way to protocol.
    pub rx_window: u16,
    /// Pipelined: received frames of a flow group that wait for credit; more are dropped.
    pub rx_hold: u16,
    /// Pipelined: messages whose payload may be under way to host memory, for each DMA stage.
    pub dma_entries: u16,
    /// Events, completions and frames of the control plane that may be under way to the host.
    pub posting_entries: u16,
}

impl CardConfig {
    /// Connections at one time, within what indices have room for.
    pub fn max_flows(&self) -> u32 {
        self.max_flows.clamp(1, 1 << 24)
    }
}

impl Default for CardConfig {
    fn default() -> Self {
        Self {
            max_flows: 16_384,
            max_contexts: 256,
            max_regions: 64,
            max_next_hops: 4096,
            max_addresses: 16,
            hash_key: [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344],
            spin_us: 50,
            quantum_bytes: 64 * 1024,
            visit_descriptors: 32,
            tcp_records: 65_536,
            pool_messages: 512,
            posting_entries: 256,
            ring_entries: 256,
            rx_window: 256,
            rx_hold: 64,
            dma_entries: 128,
        }
    }
}
