//! Whatever the wire, the daemon and the card do, in whatever order: nothing panics, everything stays within its bounds, and once all is
//! closed nothing is left.

#[path = "../../../nic-fw/tcp/tests/tcp/choices.rs"]
mod choices;
mod common;
#[path = "hostile/world.rs"]
mod world;

use common::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn bounded_and_without_leaks() {
    let mut reached = BTreeMap::new();
    for seed in 0..500 {
        println!("seed {seed}");
        for (name, n, _) in world::run(&mut choices::Random(seed)).all() {
            *reached.entry(name).or_insert(0) += n;
        }
    }
    for name in [
        "passive_opens",
        "active_opens",
        "install_failed",
        "time_waits",
        "time_wait_evicted",
        "time_wait_reused",
        "syn_recycled",
        "syn_drop_accept_full",
        "ack_drop_accept_full",
        "handshake_timeouts",
        "drop_held_repeat",
        "injected_late",
        "drop_stale",
        "drop_paws",
        "fin_wait2_timeouts",
        "arp_table_full",
        "router_advertisements",
        "router_failovers",
        "addresses_duplicate",
        "nd_advertisements_sent",
        "icmp_errors_received",
        "icmp_errors_sent",
        "drop_fragment",
    ] {
        assert!(reached[name] > 0, "{name} was reached {} times only: {reached:#?}", reached[name]);
    }
}

proptest! {
    #[test]
    fn any_bytes_behind_any_ethertype(kind in prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x8100), Just(0x86dd), any::<u16>()], body: Vec<u8>) {
        let mut b = Bench::dual(|c| c.slaac = true);
        b.listen(80, 5);
        let frame = [&OUR_MAC[..], &PEER_MAC[..], &kind.to_be_bytes()[..], &body[..]].concat();
        prop_assert!(b.frame(&frame).len() <= 3);
    }
}
