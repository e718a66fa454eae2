//! Every constant, by module. `nfp-fw/tests/header.rs` fails if one of this crate is missing here.

use super::Constant;

/// Lists the constants of modules, with the prefix that C knows them by.
macro_rules! constants {
    ($($prefix:literal $module:tt { $($name:ident),* $(,)? })*) => {
        /// All of them, in the header's order.
        pub const CONSTANTS: &[Constant] = &[$($(constant!($prefix $module $name),)*)*];
    };
}

/// One of them.
macro_rules! constant {
    ($prefix:literal [$($module:ident)::*] $name:ident) => {
        Constant {
            name: concat!("TOE_", $prefix, stringify!($name)),
            source: concat!($(stringify!($module), "::",)* stringify!($name)),
            value: crate::$($module::)*$name as u64,
        }
    };
}

constants! {
    "" [] { ABI_VERSION }
    "" [desc] { DESC_LEN }
    "DESC_" [desc] { MIN_ENTRIES }
    "HC_" [desc::hc] { UPDATE, REBIND, ABORT, OPTIONS, CLOSE }
    "HC_FLAG_" [desc::hc_flags] { FIN, NODELAY, CORK, KEEPALIVE, RX_CLOSED, URGENT }
    "EV_" [desc::ev] { FLOW }
    "EV_FLAG_" [desc::ev_flags] { RX_FIN, TX_FIN_ACKED, ERROR, CLOSED, URGENT }
    "" [context] { CONTEXT_PAGE_LEN }
    "" [flow] { FLOW_STATE_LEN }
    "TCP_STATE_" [flow::tcp_state] {
        CLOSED, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT,
    }
    "TIMER_" [flow::timer] { NONE, RTO, PERSIST, KEEPALIVE, CORK, REORDER, TLP }
    "CC_" [flow::cc] { NEWRENO, CUBIC, DCTCP, DCTCP_RATE, TIMELY, CONST_RATE, COUNT }
    "QUICK_ACK_" [flow::quick_ack] { AS_IT_IS, ON, OFF }
    "RATE_WORD_" [flow::rate_words] { MARKED }
    "FLOW_FLAG_" [flow::flow_flags] {
        TIMESTAMPS, ECN, SACK, TX_FIN, FIN_SEEN, NODELAY, CORK, KEEPALIVE, RX_CLOSED, ECE, CWR, RECOVERY, LOSS,
        DELACK_ARMED, RTT_PENDING, FIN_SENT, FIN_ACKED, ACK_NOW, ORPHAN, REXMIT_ONE, PROBE, ECN_REDUCED, PUSH, RST_DUE, TLP_DUE,
        REORDERED, PROBED, BACKED_OFF, URGENT, PACED, RATED,
    }
    "" [control] { CONTROL_MSG_LEN, CONTROL_ENTRIES, FRAME_RING_LEN, CONTROL_REGION_LEN }
    "CONTROL_" [control] { SUBMISSIONS_OFF, COMPLETIONS_OFF, EXCEPTIONS_OFF, PACKETS_OFF, COUNTERS_PER_MSG, RATE_ORDERS_PER_MSG, RATE_REPORTS_PER_MSG }
    "CONTROL_KIND_" [control::kind] {
        REPLY, MAP_REGION, UNMAP_REGION, OPEN_CONTEXT, CLOSE_CONTEXT, INSTALL, RELEASE, FREEZE, ABORT, CLOSE, QUERY,
        NEXT_FLOW, SET_RATE, REBIND, ICMP_ERROR, NEXT_HOP, ADDRESS, COUNTERS, SET_BUFFERS, STAGES, TRACE, SET_SHARE, SET_CC, RATES,
        FLOW_CLOSED,
    }
    "CONTROL_STATUS_" [control::status] { OK, INVALID, NOT_FOUND, EXISTS, NO_SPACE, UNSUPPORTED }
    "CLOSE_REASON_" [control::close_reason] { DONE, TIME_WAIT, RESET, TIMEOUT, ABORTED, REGION_GONE }
    "" [observe] { STAGES_PER_MSG, TRACES_PER_MSG, NO_CPU }
    "STAGE_" [observe::stage] { INGRESS, PRE, PROTOCOL, POST, DMA, EGRESS, CTXQ, COUNT, FUSED }
    "STAGE_FLAG_" [observe::stage_flags] { ASLEEP }
    "TRACE_KIND_" [observe::trace_kind] { RX, RX_OUT, HC_OUT, TX_OUT, OUT, HC, EVENT, HC_DONE }
    "TRACE_OP_" [observe::trace_op] { STOP, START, READ }
    "" [frames] { FRAME_MAX }
    "FRAME_" [frames] { RING_HEADER_LEN, UNIT, RECORD_LEN }
    "FRAME_KIND_" [frames::kind] { SKIP, EXCEPTION, TRANSMIT, INJECT }
    "FRAME_FLAG_" [frames::flags] { CSUM_OK, NEEDS_CSUM }
    "" [region] { REGION_MAGIC, SOCKET_SLOT_LEN, ACCEPT_RECORD_LEN }
    "SLOT_STATE_" [region::slot_state] { FREE, OPEN, LISTENING, CONNECTING, CONNECTED, FAILED }
    "URGENT_STATE_" [region::urgent_state] { NONE, UNREAD, READ }
    "SLOT_FLAG_" [region::slot_flags] { CLEAN }
    "" [regs] { PCI_VENDOR, PCI_DEVICE, BAR0_LEN }
    "REG_" [regs] {
        MAGIC, MAGIC_VALUE, VERSION, CAPS, STATUS, MAX_FLOWS, MAX_CONTEXTS, MAX_REGIONS, MTU, MAC_LO, MAC_HI,
        CONTROL_LO, CONTROL_HI, ENABLE, MAX_NEXT_HOPS, LINK,
    }
    "ENABLE_" [regs::enable] { DETACH, ATTACH, RESET }
    "STATUS_" [regs::status] { DETACHED, ATTACHED, FAILED }
    "LINK_" [regs::link] { UNKNOWN, UP, DOWN }
    "CAP_" [regs::caps] { TIMERS, TSO, SACK, RACK, IPV6 }
    "IRQ_" [regs::irq] { MSIX, KICK, COUNT }
    "" [window] { WINDOW_MIN, WINDOW_MAX, WINDOW_DEFAULT }
    "WINDOW_" [window] {
        VECTORS_MAX, CONTROL_VECTOR, CARD_PAGE_OFF, HOST_PAGE_OFF, LOG_HEADER_OFF, LOG_OFF, MEMORY_OFF, LOG_LEN, FAILURE_MAX,
        BUILD_WORDS,
    }
    "WINDOW_OUTCOME_" [window::outcome] { NONE, OK, INVALID, FAILED, MISMATCH }
    "WINDOW_STAGE_" [window::stage] { NONE, BOOT, DEVICES, READY, REQUEST, RUNNING }
    "" [app] { APP_MAGIC }
    "APP_" [app] { MSG_LEN, POOL_MAX }
    "APP_OP_" [app::op] {
        HELLO, OPEN_CONTEXT, POOL, BIND, LISTEN, CONNECT, SUBSCRIBE, UNLISTEN, CLOSE_CONTEXT, BYE, IDENTIFY, RATE, CONGESTION, INFO,
        WHOSE,
    }
    "APP_WHOSE_" [app::whose] { OTHERS, OWN, ON_LINK }
    "APP_BIND_" [app::bind_flags] { REUSEADDR, REUSEPORT, V6ONLY, NO_PORT }
    "COUNTERS_" [counters] { TOTAL }
}
