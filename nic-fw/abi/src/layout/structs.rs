//! Every struct, with the names of its fields. `nfp-fw/tests/header.rs` fails if a field or a struct is missing here.

use super::{CType, Field, Struct, Type, type_of};

/// Lists structs, the ones that others contain first.
macro_rules! structs {
    ($($path:ty as $name:literal { $($field:ident),* $(,)? })*) => {
        $(impl CType for $path {
            const TYPE: Type = Type::Struct($name);
        })*

        /// All of them, in the header's order.
        pub const STRUCTS: &[Struct] = &[$(Struct {
            name: $name,
            source: stringify!($path),
            size: size_of::<$path>(),
            align: align_of::<$path>(),
            fields: &[$(Field {
                name: stringify!($field),
                offset: core::mem::offset_of!($path, $field),
                ty: type_of(|s: &$path| &s.$field),
            },)*],
        },)*];
    };
}

structs! {
    crate::ids::FlowId as "toe_flow_id" { index, generation }
    crate::flow::FlowKey as "toe_flow_key" { local_ip, remote_ip, local_port, remote_port }
    crate::flow::Identity as "toe_flow_identity" {
        key, region, ctx, opaque, next_hop, vlan, ttl, tos, reo_wnd_more, reo_wnd_persist, retransmits, prior_cwnd, prior_ssthresh,
    }
    crate::flow::RxState as "toe_flow_rx" {
        buf, buf_log2, wscale, mss, irs, rcv_nxt, rcv_adv, rx_tail, ts_recent, last_tx_ms, last_ack_sent, fin_seq,
        flags, state, delack_segs, quickack, soft_error, delack_ms, last_rx_ms, ts_offset, snd_sml,
    }
    crate::flow::TxState as "toe_flow_tx" {
        buf, buf_log2, wscale, backoff, dup_acks, iss, snd_una, snd_nxt, snd_max, snd_wnd, snd_wl1, snd_wl2, tx_head,
        srtt_us, rttvar_us, timer_ms, timer, rto_min_4ms, max_wnd_log2, probes, min_rtt_us, board,
    }
    crate::flow::CcState as "toe_flow_cc" {
        cwnd, ssthresh, recover, algorithm, timers, challenges, challenge_epoch, words, ooo, ooo_more, sent,
    }
    crate::flow::FlowOptions as "toe_flow_options" {
        user_timeout_ms, keep_idle_s, keep_interval_s, keep_count, tos, ttl, quick_ack,
    }
    crate::context::HostLine as "toe_host_line" { hc_tail, ev_head, parked, _reserved }
    crate::context::CardLine as "toe_card_line" { hc_head, ev_tail, parked, failed, _reserved }
    crate::context::DaemonLine as "toe_daemon_line" { notices, failed, _reserved }
    crate::region::SlotConn as "toe_slot_conn" { state, error, flow, tx_off, rx_off, tx_len, rx_len, ctx, _reserved }
    crate::region::SlotNames as "toe_slot_names" { local_ip, remote_ip, local_port, remote_port, _reserved }
    crate::region::SlotTx as "toe_slot_tx" {
        head, lock, flags, nonblocking, timeout_us, slot_flags, linger, urgent, pacing, tos, ttl, max_segment, syn_retries,
        defer_accept_s, _reserved,
    }
    crate::region::SlotRx as "toe_slot_rx" { tail, lock, told, timeout_us, low_water, _reserved, urgent, _reserved2 }
    crate::region::SlotEvent as "toe_slot_event" { rx_head, tx_tail, flags, error, srtt_us, cwnd, _reserved }
    crate::region::SlotListen as "toe_slot_listen" { ring, head, tail, _reserved }
    crate::region::SlotOptions as "toe_slot_options" {
        user_timeout_ms, keep_idle_s, keep_interval_s, keep_count, quick_ack, linger2_s, not_sent_low_water, window_clamp, _reserved,
    }
    crate::desc::HostDesc as "toe_host_desc" { kind, flags, flow, tx_head, rx_tail, opaque, urgent, options, _reserved, phase }
    crate::desc::EventDesc as "toe_event_desc" {
        kind, flags, flow, rx_head, tx_tail, opaque, error, srtt_us, cwnd, urgent, _reserved, phase,
    }
    crate::context::ContextPage as "toe_context_page" { host, card, daemon, _reserved }
    crate::flow::FlowState as "toe_flow_state" { id, rx, tx, cc }
    crate::control::ControlMsg as "toe_control_msg" {
        kind, tag, status, _reserved, flow, args, body, _reserved2, phase,
    }
    crate::control::RateOrder as "toe_rate_order" { flow, rate_kbps, _reserved }
    crate::control::RateReport as "toe_rate_report" {
        flow, acked, marked, unacked, srtt_us, retransmits, rate_kbps, algorithm, _reserved, mss,
    }
    crate::observe::StageRecord as "toe_stage_record" {
        stage, instance, core, flags, cpu, queue, queue_max, credits, credits_max, _reserved, items, busy_ns, clock_ns,
    }
    crate::observe::TraceRecord as "toe_trace_record" {
        at_ns, begin_ns, stage, instance, kind, core, group, port, number, out, flow, seq, len, next,
    }
    crate::frames::RingHeader as "toe_frame_ring_header" { tail, _reserved, head, _reserved2 }
    crate::frames::FrameRecord as "toe_frame_record" {
        kind, len, flags, reason, csum_start, csum_offset, gso_size, _reserved, _reserved2,
    }
    crate::region::RegionHeader as "toe_region_header" {
        magic, abi_version, region, len, contexts_off, queues_off, sockets_off, accepts_off, payload_off,
        payload_len, n_contexts, hc_entries, ev_entries, n_sockets, n_listeners, accept_entries,
    }
    crate::region::SocketSlot as "toe_socket_slot" { conn, names, tx, rx, event, listen, options }
    crate::region::AcceptRecord as "toe_accept_record" { flow, tx_off, rx_off, tx_len, rx_len, _reserved, names }
    crate::window::CardPage as "toe_window_card_page" {
        magic, version, caps, status, max_flows, max_contexts, max_regions, mtu, mac_lo, mac_hi, _host, max_next_hops, link, _registers,
        done, outcome, peer, instance, window_lo, window_hi, stage, failed_core, failure_len, build, _reserved,
        failure, _reserved2,
    }
    crate::window::HostPage as "toe_window_host_page" {
        number, request, control_lo, control_hi, peer, window_lo, window_hi, version, memory_lo, memory_hi, _reserved,
    }
    crate::window::LogHeader as "toe_window_log_header" { begun, written, dropped, _reserved }
    crate::app::Info as "toe_app_info" {
        srtt_us, rttvar_us, cwnd, ssthresh, unacked, snd_wnd, retransmits, flags, rto_min_ms, since_tx_ms, since_rx_ms, wscales, algorithm,
        mss, backoff, probes, _reserved,
    }
    crate::app::Request as "toe_app_request" { op, slot, args, ip, port, flags, _reserved, _reserved2 }
    crate::app::Reply as "toe_app_reply" { errno, count, args, ip, port, _reserved, scope, slots }
}
