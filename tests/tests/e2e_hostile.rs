//! Applications and hosts that mean harm: what they hold is theirs to ruin, and nothing else.
//!
//! Most tests let one attack of `hostile/app.py` go on while another application serves a file and a third comes
//! along; then they kill the attacker and look whether everything it held has returned. The others send what
//! `hostile/wire.py` makes up.

#[path = "hostile/scene.rs"]
mod scene;

use scene::Scene;

#[test]
#[ignore = "end to end: cargo xtask test"]
fn random_bytes_all_over_its_region() {
    let mut scene = Scene::new();
    scene.survive("scribble", 2, "");
    scene.assert_counted(&["hc_bad_kind", "hc_bad_flow"]);
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_memory_cannot_be_resized() {
    let mut scene = Scene::new();
    let said = scene.survive("seals", 1, "reset accepted");
    for step in ["shrink", "grow", "allocate beyond", "seal against writing", "seal against executing"] {
        assert!(said.contains(&format!("errno EPERM: {step}\n")), "{step}:\n{said}");
    }
    assert!(!said.contains("allowed: "), "{said}");
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn descriptors_in_the_name_of_others() {
    let mut scene = Scene::new();
    scene.survive("forge", 1, "");
    scene.assert_counted(&["hc_bad_kind", "hc_bad_flow", "hc_foreign_flow", "hc_bad_position"]);
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn indices_that_make_no_sense() {
    let mut scene = Scene::new();
    let said = scene.survive("indices", 1, "reset accepted");
    assert!(said.contains("given up") && said.contains("works again"), "{said}");
    scene.assert_counted(&["contexts_failed", "event_queue_full"]);
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn slots_and_accept_rings_that_lie() {
    let mut scene = Scene::new();
    scene.survive("slots", 8, "reset made");
    scene.assert_counted(&["toed_bad_accept_heads", "toed_requests_refused"]);
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_flood_of_kicks() {
    let mut scene = Scene::new();
    scene.survive("kicks", 1, "reset accepted");
    scene.assert_counted(&["kicks"]);
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn descriptors_filled_blocked_and_nested() {
    let mut scene = Scene::new();
    scene.survive("descriptors", 1, "reset accepted");
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn everything_it_may_have_and_more() {
    let mut scene = Scene::with_memory(64 << 20);
    let said = scene.survive("exhaust", 0, "reset accepted");
    for refusal in ["EMFILE: contexts", "ENOBUFS: listeners", "EADDRINUSE: a port that is taken", "ENFILE: tokens", "ENOBUFS: memory"] {
        assert!(said.contains(&format!("errno {refusal}")), "{refusal}:\n{said}");
    }
    scene.assert_clean();
}

/// Each socket is a descriptor of toed: one application must not take all of them.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn everything_it_may_have_where_descriptors_are_few() {
    let mut scene = Scene::with_descriptors(1024);
    let said = scene.survive("exhaust", 0, "reset accepted");
    assert!(said.contains("errno ENFILE: tokens"), "{said}");
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn connections_to_nobody_and_everybody() {
    let mut scene = Scene::new();
    let said = scene.survive("addresses", 1, "reset accepted");
    for ip in ["127.0.0.1", "10.77.0.255", "224.0.0.1", "255.255.255.255", "192.0.2.1"] {
        assert!(said.contains(&format!(": {ip}\n")), "{ip} was not refused:\n{said}");
    }
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_crowd_where_descriptors_are_few() {
    let mut scene = Scene::with_descriptors(512);
    let said = scene.survive("crowd", 0, "");
    assert!(said.contains("errno EUSERS: processes after 127"), "{said}");
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn requests_that_are_none() {
    let mut scene = Scene::new();
    let said = scene.survive("requests", 0, "");
    for step in ["lingering descriptors", "garbage refused", "crowd"] {
        assert!(said.contains(step), "{step}:\n{said}");
    }
    scene.assert_counted(&["toed_requests_refused"]);
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn malformed_frames_are_counted_by_reason() {
    let mut scene = Scene::new();
    scene.on_the_wire("malformed");
    scene.fetch();
    let reasons = ["truncated", "other_mac", "bad_ip_header", "bad_ip_checksum", "bad_tcp_header", "bad_tcp_checksum", "bad_tcp_options"];
    for reason in reasons {
        assert!(scene.counter(&format!("drop_{reason}")) >= 20, "{reason}: {:?}", scene.card.stats());
    }
    for reason in ["arp", "icmp", "fragment", "ip_options", "syn", "unknown_flow", "other_protocol"] {
        assert!(scene.counter(&format!("exception_{reason}")) >= 20, "{reason}");
    }
    scene.assert_books_balance();
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn random_frames() {
    let mut scene = Scene::new();
    scene.on_the_wire("noise");
    scene.fetch();
    scene.assert_books_balance();
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_flood_of_syns() {
    let mut scene = Scene::new();
    scene.on_the_wire("flood");
    let half_open = scene.card.json("status").expect("status")["half_open"].as_u64().expect("a number");
    assert!((1..=4096).contains(&half_open), "{half_open} half-open connections");
    scene.fetch();
    scene.assert_counted(&["exception_syn"]);
    scene.assert_books_balance();
    scene.assert_clean();
}

/// SYN cookies: nothing is kept of a SYN, and yet a connection has all of its options.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_kernel_connects_in_a_flood_of_syns_by_cookies() {
    let mut scene = Scene::with_toed("--tcp-max-syn-backlog=8");
    toe_lab::servers::make_file(&scene.pair.lab.path("/run/www/small"), 5000, 3).expect("file");
    let said = scene.on_the_wire("siege");
    assert_eq!((said.matches("options 7\n").count(), said.matches("bytes 5000\n").count()), (20, 20), "{said}");
    scene.fetch();
    scene.assert_counted(&["engine_syn_cookies_sent", "engine_syn_cookies_valid"]);
    assert_eq!(scene.counter("engine_syn_recycled"), 0);
    scene.assert_books_balance();
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn storms_of_arp_and_icmp() {
    let mut scene = Scene::new();
    scene.on_the_wire("storms");
    scene.fetch();
    scene.assert_counted(&[
        "rx_answered",
        "exception_arp",
        "exception_icmp",
        "exception_fragment",
        "engine_reassembled",
        "engine_drop_fragment",
    ]);
    scene.assert_books_balance();
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn segments_injected_into_a_connection() {
    let mut scene = Scene::new();
    let said = scene.on_the_wire("injection");
    assert!(said.contains(&format!("hash {}", scene.hash)), "{said}");
    scene.assert_counted(&[
        "drop_rst_challenged",
        "drop_syn_challenged",
        "drop_out_of_window",
        "drop_no_ack",
        "drop_bad_ack",
        "drop_duplicate",
        "drop_paws",
    ]);
    scene.assert_books_balance();
    scene.assert_clean();
}
