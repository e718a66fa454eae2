//! Every counter of the card. `rx_frames + rx_injected = rx_delivered + rx_exceptions + rx_answered + drop_*` holds and is tested.

/// Declares an enum of counters with names and one-line explanations.
macro_rules! counters {
    ($(#[$m:meta])* $v:vis enum $name:ident { $($(#[doc = $doc:literal])* $var:ident = $text:literal,)* }) => {
        $(#[$m])*
        #[repr(u16)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        $v enum $name { $($(#[doc = $doc])* $var,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$var,)*];
            pub const COUNT: usize = Self::ALL.len();

            /// Name as operators see it.
            pub const fn name(self) -> &'static str {
                match self { $($name::$var => $text,)* }
            }

            /// What it counts.
            pub const fn help(self) -> &'static str {
                match self { $($name::$var => concat!($($doc),*),)* }
            }
        }
    };
}

counters! {
    /// One number each, in this order, in answers to COUNTERS.
    pub enum Counter {
        /// Frames received from the port.
        RxFrames = "rx_frames",
        /// Bytes of them.
        RxBytes = "rx_bytes",
        /// Frames injected by the control plane after a set-up.
        RxInjected = "rx_injected",
        /// Frames that reached the protocol stage of a flow and were not dropped there.
        RxDelivered = "rx_delivered",
        /// Frames of no known flow handed to the control plane.
        RxExceptions = "rx_exceptions",
        /// Frames answered by the card itself (ARP and neighbour solicitations for its own addresses).
        RxAnswered = "rx_answered",
        /// Payload bytes placed in receive buffers, in order or not.
        RxPayloadBytes = "rx_payload_bytes",
        /// Segments placed out of order.
        RxOutOfOrder = "rx_out_of_order",
        /// Frames sent.
        TxFrames = "tx_frames",
        /// Bytes of them.
        TxBytes = "tx_bytes",
        /// Payload bytes sent, retransmissions included.
        TxPayloadBytes = "tx_payload_bytes",
        /// Segments without payload sent.
        TxAcks = "tx_acks",
        /// Recoveries that began without a timeout: by RACK, or after three duplicate ACKs.
        TxFastRetransmits = "tx_fast_retransmits",
        /// Times RACK found segments lost (RFC 8985), retransmissions included.
        TxRackLosses = "tx_rack_losses",
        /// Tail loss probes sent (RFC 8985, 7).
        TxTailProbes = "tx_tail_probes",
        /// Losses that a tail loss probe has repaired.
        TxTailRepairs = "tx_tail_repairs",
        /// Recoveries taken back because nothing had been lost.
        TxSpuriousRecoveries = "tx_spurious_recoveries",
        /// Timeouts taken back because nothing had been lost.
        TxSpuriousTimeouts = "tx_spurious_timeouts",
        /// D-SACKs received: something was sent twice needlessly (RFC 2883).
        RxDsacks = "rx_dsacks",
        /// Segments received that announced urgent data (RFC 9293, 3.8.5).
        RxUrgent = "rx_urgent",
        /// Peers that took back what they had SACKed.
        RxReneged = "rx_reneged",
        /// Times that no record or scoreboard was free: recovery without it, by duplicate ACKs and timeouts. Or no set of timers: the flow keeps its.
        RecordsRefused = "records_refused",
        /// Retransmission timeouts.
        TxTimeouts = "tx_timeouts",
        /// Zero-window and keep-alive probes sent.
        TxProbes = "tx_probes",
        /// Resets sent.
        TxResets = "tx_resets",
        /// Frames the control plane had us send.
        TxControlFrames = "tx_control_frames",
        /// Frames the port had no room for; sent again later.
        TxPortBusy = "tx_port_busy",
        /// Frames not sent because the next hop is unknown.
        TxNoNextHop = "tx_no_next_hop",
        /// Descriptors taken from applications.
        HcDescriptors = "hc_descriptors",
        /// Of an unknown kind.
        HcBadKind = "hc_bad_kind",
        /// Naming a flow that does not exist (any more).
        HcBadFlow = "hc_bad_flow",
        /// Naming a flow of another region.
        HcForeignFlow = "hc_foreign_flow",
        /// With positions outside the buffer.
        HcBadPosition = "hc_bad_position",
        /// Events posted to applications.
        Events = "events",
        /// Times an event had to wait because a queue was full.
        EventQueueFull = "event_queue_full",
        /// Contexts given up because their indices made no sense.
        ContextsFailed = "contexts_failed",
        /// Interrupts sent to sleeping contexts.
        Interrupts = "interrupts",
        /// Kicks received.
        Kicks = "kicks",
        /// Control messages.
        ControlMessages = "control_messages",
        /// Control messages refused.
        ControlRefused = "control_refused",
        /// Flows installed.
        FlowsInstalled = "flows_installed",
        /// Flows ended.
        FlowsClosed = "flows_closed",
        /// DMA transfers that failed (region unmapped meanwhile, or out of range).
        DmaFaults = "dma_faults",
        /// Times a core went to sleep.
        Sleeps = "sleeps",
        /// Frames that the port lost because its receive ring was full: the card never saw them.
        RxPortOverrun = "rx_port_overrun",
        /// Frames that the port received but could not hand over: longer than a buffer, say.
        RxPortUnusable = "rx_port_unusable",
        /// Frames sent that the wire refused.
        TxPortLost = "tx_port_lost",
        /// Times that the port's device was reset because it had broken the rules.
        PortResets = "port_resets",
    }
}

counters! {
    /// Why a received frame was dropped. Follows [`Counter`] in answers to COUNTERS.
    pub enum Drop {
        /// Shorter than its headers say.
        Truncated = "drop_truncated",
        /// Not for our MAC address, and not broadcast or multicast.
        OtherMac = "drop_other_mac",
        /// Broadcast or multicast, and nothing that the card's host listens to: neither ARP nor neighbour and listener discovery.
        Group = "drop_group",
        /// IPv4 header malformed: version, length or total length.
        BadIpHeader = "drop_bad_ip_header",
        /// IPv4 header checksum.
        BadIpChecksum = "drop_bad_ip_checksum",
        /// TCP header malformed: data offset outside the segment.
        BadTcpHeader = "drop_bad_tcp_header",
        /// TCP checksum.
        BadTcpChecksum = "drop_bad_tcp_checksum",
        /// TCP options malformed.
        BadTcpOptions = "drop_bad_tcp_options",
        /// The exception ring to the control plane was full.
        ExceptionRingFull = "drop_exception_ring_full",
        /// No control plane is attached.
        NoControlPlane = "drop_no_control_plane",
        /// Flow: outside the receive window (an ACK was sent).
        OutOfWindow = "drop_out_of_window",
        /// Flow: nothing in it was new (an ACK was sent).
        Duplicate = "drop_duplicate",
        /// Flow: older than the last timestamp (RFC 7323, 5.3).
        Paws = "drop_paws",
        /// Flow: acknowledges what was never sent, or far in the past (RFC 5961, 5).
        BadAck = "drop_bad_ack",
        /// Flow: no ACK bit.
        NoAck = "drop_no_ack",
        /// Flow: RST whose sequence number is in the window but not exact (RFC 5961, 3).
        RstChallenged = "drop_rst_challenged",
        /// Flow: SYN in a synchronized state (RFC 5961, 4).
        SynChallenged = "drop_syn_challenged",
        /// Flow: no interval left for another out-of-order hole.
        NoInterval = "drop_no_interval",
        /// Flow: the application has closed its receiving side.
        RxClosed = "drop_rx_closed",
        /// Flow: frozen for export.
        Frozen = "drop_frozen",
        /// No lease or message was free inside the card.
        NoBuffer = "drop_no_buffer",
        /// Its region went away while payload was being written.
        DmaFault = "drop_dma_fault",
    }
}

counters! {
    /// Why a frame went to the control plane. Follows [`Drop`] in answers to COUNTERS.
    pub enum Exception {
        /// ARP and neighbour discovery.
        Arp = "exception_arp",
        /// ICMP.
        Icmp = "exception_icmp",
        /// An IP fragment.
        Fragment = "exception_fragment",
        /// IPv4 options.
        IpOptions = "exception_ip_options",
        /// A TCP segment with SYN of no known flow.
        Syn = "exception_syn",
        /// Any other TCP segment of no known flow.
        UnknownFlow = "exception_unknown_flow",
        /// None of these: another protocol over IP, or another Ethertype.
        OtherProtocol = "exception_other_protocol",
    }
}

/// Numbers in the whole set: [`Counter`], then [`Drop`], then [`Exception`].
pub const TOTAL: usize = Counter::COUNT + Drop::COUNT + Exception::COUNT;

/// Name of number `i` of the whole set.
pub fn name(i: usize) -> Option<&'static str> {
    Some(number(i)?.0)
}

/// What number `i` of the whole set counts.
pub fn help(i: usize) -> Option<&'static str> {
    Some(number(i)?.1)
}

fn number(i: usize) -> Option<(&'static str, &'static str)> {
    if let Some(counter) = Counter::ALL.get(i) {
        return Some((counter.name(), counter.help()));
    }
    let i = i - Counter::COUNT;
    if let Some(drop) = Drop::ALL.get(i) {
        return Some((drop.name(), drop.help()));
    }
    Exception::ALL.get(i - Drop::COUNT).map(|exception| (exception.name(), exception.help()))
}
