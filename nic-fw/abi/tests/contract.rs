//! Properties of the contract that const asserts can't state.

use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;
use toe_abi::control::{self, COUNTERS_PER_MSG, ControlMsg, kind};
use toe_abi::counters::{self, Counter, Drop, Exception};
use toe_abi::desc;
use toe_abi::flow::{FLOW_STATE_LEN, FlowState, as_v4, v4_mapped};
use toe_abi::frames::{self, Found, FrameRecord, Placing, UNIT};
use toe_abi::region::{ACCEPT_RECORD_LEN, RegionConfig, RegionHeader, SOCKET_SLOT_LEN};
use toe_abi::{ABI_VERSION, FlowId, HostAddr, RegionId, compatible};
use zerocopy::{FromBytes, IntoBytes};

fn sane_config() -> impl Strategy<Value = RegionConfig> {
    let powers = [0u32..13, 0u32..13, 0u32..10];
    (any::<u16>(), 1u32..200, powers, 1u32..3000, 1u32..100, 0u64..1 << 40).prop_map(
        |(region, n_contexts, [hc, ev, accept], n_sockets, n_listeners, payload_len)| RegionConfig {
            region,
            n_contexts,
            hc_entries: 1 << hc,
            ev_entries: 1 << ev,
            n_sockets,
            n_listeners,
            accept_entries: 1 << accept,
            payload_len,
        },
    )
}

/// Every part of a region, with the alignment it needs.
fn parts(h: &RegionHeader) -> Vec<(Range<u64>, u64)> {
    let range = |start: u64, len: u64| start..start + len;
    let mut out = vec![(range(0, size_of::<RegionHeader>() as u64), 4096)];
    for i in 0..h.n_contexts {
        out.push((range(h.context_page(i), 4096), 4096));
        out.push((range(h.hc_queue(i), u64::from(h.hc_entries) * 64), 64));
        out.push((range(h.ev_queue(i), u64::from(h.ev_entries) * 64), 64));
    }
    for i in 0..h.n_sockets {
        out.push((range(h.socket(i), SOCKET_SLOT_LEN as u64), 64));
    }
    for i in 0..h.n_listeners {
        out.push((range(h.accept_ring(i), u64::from(h.accept_entries) * ACCEPT_RECORD_LEN as u64), 128));
    }
    out.push((range(h.payload_off, h.payload_len), 4096));
    out
}

proptest! {
    #[test]
    fn region_parts_are_aligned_and_disjoint(config in sane_config()) {
        let header = RegionHeader::new(&config).expect("sane");
        let mut parts = parts(&header);
        parts.sort_by_key(|(range, _)| (range.start, range.end));
        for (range, align) in &parts {
            prop_assert_eq!(range.start % align, 0, "{:?}", range);
            prop_assert!(range.end <= header.len);
        }
        for pair in parts.windows(2) {
            prop_assert!(pair[0].0.end <= pair[1].0.start, "{:?} and {:?}", pair[0].0, pair[1].0);
        }
        prop_assert!(header.payload_len >= config.payload_len);
    }

    /// Whatever the configuration: laid out without overflow, or refused.
    #[test]
    fn region_of_any_config(
        counts in prop::array::uniform6(prop_oneof![any::<u32>(), (0u32..32).prop_map(|n| 1 << n), Just(0)]),
        payload_len in prop_oneof![any::<u64>(), u64::MAX - 10_000..],
    ) {
        let [n_contexts, hc_entries, ev_entries, n_sockets, n_listeners, accept_entries] = counts;
        let config = RegionConfig { region: 1, n_contexts, hc_entries, ev_entries, n_sockets, n_listeners, accept_entries, payload_len };
        let sane = counts.iter().all(|n| (1..=1 << 20).contains(n));
        let powers = [hc_entries, ev_entries, accept_entries].iter().all(|n| n.is_power_of_two());
        match RegionHeader::new(&config) {
            Some(header) => {
                prop_assert!(sane && powers);
                prop_assert_eq!(header.payload_off + header.payload_len, header.len);
            }
            None => prop_assert!(!sane || !powers || payload_len > 1 << 60),
        }
    }

    #[test]
    fn v4_addresses_round_trip(v4 in any::<[u8; 4]>(), other in any::<[u8; 16]>()) {
        prop_assert_eq!(as_v4(&v4_mapped(v4)), Some(v4));
        let mapped = other[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        prop_assert_eq!(as_v4(&other).is_some(), mapped);
    }

    #[test]
    fn control_message_carries_a_flow_state(bytes in prop::collection::vec(any::<u8>(), FLOW_STATE_LEN)) {
        let state = FlowState::read_from_bytes(&bytes).expect("any bytes are a state");
        let mut message = ControlMsg::new(kind::INSTALL, 1);
        message.set_flow_state(&state);
        let carried = message.flow_state();
        prop_assert_eq!(carried.as_bytes(), &bytes[..]);
        prop_assert_eq!((message.kind, message.tag, message.phase), (kind::INSTALL, 1, 0));
    }

    /// As many as fit; the rest stays away.
    #[test]
    fn control_message_carries_counters(values in prop::collection::vec(any::<u64>(), 0..COUNTERS_PER_MSG + 5)) {
        let mut message = ControlMsg::new(kind::COUNTERS | kind::REPLY, 1);
        message.set_counters(&values);
        let n = values.len().min(COUNTERS_PER_MSG);
        prop_assert_eq!(&message.counters()[..n], &values[..n]);
        prop_assert!(message.counters()[n..].iter().all(|v| *v == 0));
    }

    /// Neighbours in time never share a phase, in any lap, across the wrap of the index; 0 is never one.
    #[test]
    fn phases_tell_laps_apart(index in prop_oneof![any::<u32>(), 0..100u32, u32::MAX - 100..], log2 in 1u32..21) {
        let entries = 1 << log2;
        let phase = desc::phase(index, entries);
        prop_assert_ne!(phase, 0);
        prop_assert_ne!(phase, desc::phase(index.wrapping_sub(entries), entries));
        prop_assert_eq!(desc::slot(index, entries), index % entries);
        let same_lap = index / entries == index.wrapping_add(1) / entries;
        prop_assert_eq!(phase == desc::phase(index.wrapping_add(1), entries), same_lap);
    }

    /// A placed frame lies in the data area and in what is free, and its record says so to the consumer.
    #[test]
    fn frames_are_placed_where_they_are_found(
        log2 in 6u32..21,
        tail in any::<u32>(),
        used in any::<u32>(),
        len in prop_oneof![any::<u32>(), 0..2000u32],
    ) {
        let (ring, tail) = (1u32 << log2, tail & !(UNIT - 1));
        let used = used % (ring / UNIT + 1) * UNIT;
        let head = tail.wrapping_sub(used);
        match frames::place(ring, tail, head, len) {
            Placing::Put { at, advance } => {
                prop_assert!(at + advance <= ring && advance <= ring - used && advance >= frames::RECORD_LEN + len);
                let record = FrameRecord { kind: frames::kind::INJECT, len, ..FrameRecord::default() };
                prop_assert_eq!(record.check(ring, tail, advance), Found::Frame { at: at + frames::RECORD_LEN, len, advance });
            }
            Placing::Skip { at, len } => {
                prop_assert!(at + len == ring && len <= ring - used);
                let record = FrameRecord { len, ..FrameRecord::default() };
                prop_assert_eq!(record.check(ring, tail, len), Found::Skip { advance: len });
            }
            Placing::Full => prop_assert!(used > 0),
            Placing::TooLong => prop_assert!(len > frames::FRAME_MAX || len + frames::RECORD_LEN > ring),
            Placing::Insane => prop_assert!(false, "both indices are sane"),
        }
    }

    /// Any record: what the answer names is inside the ring and inside what is ready, and it makes progress.
    #[test]
    fn any_frame_record_is_contained(
        log2 in 6u32..21,
        head in any::<u32>(),
        ready in any::<u32>(),
        record in any::<[u8; 64]>(),
        small in any::<bool>(),
    ) {
        let (ring, head) = (1u32 << log2, head & !(UNIT - 1));
        let ready = ready % (ring / UNIT) * UNIT + UNIT;
        let mut record = FrameRecord::read_from_bytes(&record).expect("any bytes are a record");
        if small {
            (record.kind, record.len) = (record.kind % 3, record.len % (2 * ring));
        }
        match record.check(ring, head, ready) {
            Found::Frame { at, len, advance } => {
                prop_assert!(at + len <= ring && advance <= ready && advance >= UNIT && len <= frames::FRAME_MAX);
            }
            Found::Skip { advance } => prop_assert!(advance >= UNIT && advance <= ready),
            Found::Corrupt => {}
        }
    }

    #[test]
    fn any_ring_indices_are_judged(log2 in 6u32..21, head in any::<u32>(), tail in any::<u32>()) {
        let head = head & !(UNIT - 1);
        if let Some(ready) = frames::ready(1 << log2, head, tail) {
            prop_assert!(ready <= 1 << log2 && head.wrapping_add(ready) == tail);
        }
        let insane = tail.wrapping_sub(head) > 1 << log2 || !tail.is_multiple_of(UNIT);
        prop_assert_eq!(frames::place(1 << log2, tail, head, 0) == Placing::Insane, insane);
    }

    #[test]
    fn host_addresses_saturate(offset in any::<u64>(), bytes in any::<u64>()) {
        let addr = HostAddr::new(RegionId(3), offset).add(bytes);
        let exact = u128::from(offset) + u128::from(bytes);
        prop_assert_eq!(u128::from(addr.offset), exact.min(u64::MAX.into()));
    }
}

#[test]
fn counters_have_names_of_their_own() {
    let names: Vec<&str> = (0..counters::TOTAL).map(|i| counters::name(i).expect("every number has a name")).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), counters::TOTAL);
    assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "OpenMetrics names");
    assert_eq!(counters::name(counters::TOTAL), None);
    assert_eq!(counters::name(Counter::COUNT), Some(Drop::ALL[0].name()));
    assert_eq!(counters::name(Counter::COUNT + Drop::COUNT), Some(Exception::ALL[0].name()));
}

#[test]
fn counters_explain_themselves() {
    let helps = (0..counters::TOTAL).map(|i| counters::help(i).expect("every number is explained"));
    for help in helps {
        assert!(help.trim().len() > 3, "{help:?}");
    }
    assert!(Drop::ALL.iter().all(|d| d.name().starts_with("drop_")));
    assert!(Exception::ALL.iter().all(|e| e.name().starts_with("exception_")));
}

/// A few answers to COUNTERS bring them all.
#[test]
fn counters_fit_into_a_few_messages() {
    const { assert!(counters::TOTAL <= 4 * COUNTERS_PER_MSG) };
    assert!(COUNTERS_PER_MSG * 8 <= ControlMsg::new(0, 0).body.len());
}

#[test]
fn versions_with_the_same_major_are_compatible() {
    assert!(compatible(ABI_VERSION));
    assert!(compatible(ABI_VERSION + 1));
    assert!(compatible(ABI_VERSION | 0xffff));
    assert!(!compatible(ABI_VERSION + (1 << 16)));
    assert!(!compatible(0));
}

#[test]
fn flow_id_of_nobody_is_the_default() {
    assert_eq!(FlowId::default(), FlowId::NONE);
    assert_eq!(ControlMsg::new(0, 0).flow, FlowId::NONE);
}

#[test]
fn control_region_is_laid_out_without_overlap() {
    let ring = u64::from(control::FRAME_RING_LEN) + frames::RING_HEADER_LEN as u64;
    let queue = u64::from(control::CONTROL_ENTRIES) * control::CONTROL_MSG_LEN as u64;
    let starts = [4096, control::SUBMISSIONS_OFF, control::COMPLETIONS_OFF, control::EXCEPTIONS_OFF, control::PACKETS_OFF];
    let ends = [4096, starts[1] + queue, starts[2] + queue, starts[3] + ring, starts[4] + ring];
    for i in 1..starts.len() {
        assert!(starts[i] >= ends[i - 1] && starts[i].is_multiple_of(64), "part {i}");
    }
    assert!(control::CONTROL_REGION_LEN >= ends[4]);
    assert!(frames::record_len(frames::FRAME_MAX).is_some_and(|len| len <= control::FRAME_RING_LEN / 2));
    assert_eq!(frames::record_len(frames::FRAME_MAX + 1), None);
}
