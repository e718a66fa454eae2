//! Applications that mean harm: what they hold is theirs to ruin, and nothing else.
//!
//! Each test lets one attack of `hostile/app.py` go on while another application serves a file and a third comes
//! along; then it kills the attacker and looks whether everything it held has returned.

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
    let mut scene = Scene::new();
    let said = scene.survive("exhaust", 0, "reset accepted");
    for refusal in ["EMFILE: contexts", "ENOBUFS: listeners", "EADDRINUSE: a port that is taken", "ENFILE: tokens"] {
        assert!(said.contains(&format!("errno {refusal}")), "{refusal}:\n{said}");
    }
    scene.assert_clean();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn requests_that_are_none() {
    let mut scene = Scene::new();
    scene.survive("requests", 0, "");
    scene.assert_counted(&["toed_requests_refused"]);
    scene.assert_clean();
}
