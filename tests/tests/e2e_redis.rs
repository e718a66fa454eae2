//! redis-server on the card: load, and a forked child that saves and exits in the middle of it.

use std::time::Duration;

use toe_lab::instance::Place;
use toe_lab::job::wait_until;
use toe_lab::{CARD_IP, Card, Job, Pair, servers};

const LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 6379;

fn begin() -> (Pair, Card, Job) {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let mut redis = servers::redis(&pair.lab, &card.place(), "redis", PORT).expect("starts");
    servers::wait_redis(&mut redis, &pair.peer_place(), CARD_IP, PORT).expect("answers");
    (pair, card, redis)
}

fn cli(from: &Place, words: &[&str]) -> String {
    let port = PORT.to_string();
    let mut args = vec!["-h", CARD_IP, "-p", &port];
    args.extend(words);
    from.run("redis-cli", &args, LIMIT).expect("redis-cli").stdout()
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn redis_benchmark_gets_its_answers() {
    let (pair, _card, mut redis) = begin();
    let tests = ["-t", "ping_mbulk,set,get,incr,lpush,lrange_100", "-c", "50"];
    let rates = servers::redis_benchmark(&pair.peer_place(), CARD_IP, PORT, 10_000, &tests).expect("rates");
    assert!(rates.len() >= 6, "{rates:?}");
    let pipelined = servers::redis_benchmark(&pair.peer_place(), CARD_IP, PORT, 50_000, &["-t", "set,get", "-P", "32", "-d", "2000"]);
    assert_eq!(pipelined.expect("rates").len(), 2);
    assert!(redis.is_running());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_child_that_saves_and_exits_disturbs_nobody() {
    let (pair, card, mut redis) = begin();
    let peer = pair.peer_place();
    cli(&peer, &["EVAL", "for i = 1, 200000 do redis.call('SET', 'key' .. i, 'value' .. i) end", "0"]);
    let saved_before = cli(&peer, &["LASTSAVE"]);
    // LASTSAVE counts seconds.
    wait_until("a new second", LIMIT, || cli(&peer, &["TIME"]).lines().next() > Some(saved_before.trim())).expect("time goes on");
    std::thread::scope(|scope| {
        let load = scope.spawn(|| servers::redis_benchmark(&peer, CARD_IP, PORT, 100_000, &["-t", "set,get", "-c", "20"]));
        assert!(cli(&peer, &["BGSAVE"]).contains("Background saving started"));
        wait_until("saved", LIMIT, || cli(&peer, &["LASTSAVE"]) != saved_before).expect("the child ends");
        assert_eq!(load.join().expect("no panic").expect("rates").len(), 2);
    });
    assert!(cli(&peer, &["INFO", "persistence"]).contains("rdb_last_bgsave_status:ok"));
    assert!(pair.lab.path("/run/redis/dump.rdb").metadata().expect("dump").len() > 1_000_000);
    // Nothing of the child is left with toed either.
    let mut status = serde_json::Value::Null;
    let alone = wait_until("the child is forgotten", LIMIT, || {
        status = card.json("status").unwrap_or_default();
        status["applications"][0]["pids"].as_array().map(Vec::len) == Some(1)
    });
    assert!(alone.is_ok(), "{status}");
    assert!(redis.is_running());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_client_on_the_card_talks_to_a_server_on_the_kernel() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let mut redis = servers::redis(&pair.lab, &pair.peer_place(), "redis", PORT).expect("starts");
    servers::wait_redis(&mut redis, &card.place(), "10.77.0.1", PORT).expect("answers");
    let rates = servers::redis_benchmark(&card.place(), "10.77.0.1", PORT, 20_000, &["-t", "set,get", "-c", "50"]).expect("rates");
    assert_eq!(rates.len(), 2);
}
