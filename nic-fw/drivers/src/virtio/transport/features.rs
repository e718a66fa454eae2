//! What driver and device can agree on.

use bitflags::bitflags;

bitflags! {
    /// Feature bits: of the network device (5.1.3), of queues and transport (6).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u64 {
        const CSUM = 1 << 0;
        const GUEST_CSUM = 1 << 1;
        const MTU = 1 << 3;
        const MAC = 1 << 5;
        const GUEST_TSO4 = 1 << 7;
        const GUEST_TSO6 = 1 << 8;
        const GUEST_ECN = 1 << 9;
        const HOST_TSO4 = 1 << 11;
        const HOST_TSO6 = 1 << 12;
        const HOST_ECN = 1 << 13;
        const MRG_RXBUF = 1 << 15;
        const STATUS = 1 << 16;
        const CTRL_VQ = 1 << 17;
        const CTRL_RX = 1 << 18;
        const MQ = 1 << 22;
        const EVENT_IDX = 1 << 29;
        const VERSION_1 = 1 << 32;
        /// Addresses are what an IOMMU translates, if there is one.
        const ACCESS_PLATFORM = 1 << 33;
        /// The device needs the barriers of the platform rather than those between cores.
        const ORDER_PLATFORM = 1 << 36;
    }
}

/// (feature, what it needs) (5.1.3.1).
const NEEDS: &[(Features, Features)] = &[
    (Features::GUEST_TSO4, Features::GUEST_CSUM),
    (Features::GUEST_TSO6, Features::GUEST_CSUM),
    (Features::GUEST_ECN, Features::GUEST_TSO4.union(Features::GUEST_TSO6)),
    (Features::HOST_TSO4, Features::CSUM),
    (Features::HOST_TSO6, Features::CSUM),
    (Features::HOST_ECN, Features::HOST_TSO4.union(Features::HOST_TSO6)),
    (Features::CTRL_RX, Features::CTRL_VQ),
    (Features::MQ, Features::CTRL_VQ),
];

impl Features {
    /// Without features whose needs are not met. (ECN needs one of two; here it wants both, as we never ask for one alone.)
    pub(super) fn consistent(mut self) -> Self {
        // In the order of the table: what ECN needs is judged before ECN.
        for (feature, needs) in NEEDS {
            if !self.contains(*needs) {
                self.remove(*feature);
            }
        }
        self
    }
}
