//! Each of these scripts is wrong in one way: the runner must see it.

use super::super::parse;
use super::*;

const OPEN: &str = "\
0   socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0  bind(3, ..., ...) = 0
+0  listen(3, 5) = 0
+0  < S 0:0(0) win 65535 <mss 1460,nop,nop,TS val 7 ecr 0>
+0  > S. 0:0(0) ack 1 win 32768 <mss 1460,nop,nop,TS val 100 ecr 7>
+.1 < . 1:1(0) ack 1 win 65535 <nop,nop,TS val 8 ecr 100>
+0  accept(3, ..., ...) = 4
";

fn failure(rest: &str) -> String {
    let script = parse("x.pkt", &format!("{OPEN}{rest}")).unwrap();
    run("x.pkt", &script).expect_err("it must fail").0
}

fn passes(rest: &str) {
    let script = parse("x.pkt", &format!("{OPEN}{rest}")).unwrap();
    run("x.pkt", &script).unwrap_or_else(|failure| panic!("{}", failure.0));
}

#[test]
fn what_is_right_passes() {
    passes("");
    passes("+.1 write(4, ..., 9) = 9\n+0 > P. 1:10(9) ack 1 <nop,nop,TS val 300 ecr 8>");
}

#[test]
fn every_field_is_compared() {
    let write = "+.1 write(4, ..., 9) = 9\n";
    for (line, why) in [
        ("+0 > . 1:10(9) ack 1 <...>", "x.pkt:9: flags: expected ., got P."),
        ("+0 > P. 2:11(9) ack 1 <...>", "x.pkt:9: seq: expected 2, got 1"),
        ("+0 > P. 1:9(8) ack 1 <...>", "x.pkt:9: length: expected 8, got 9"),
        ("+0 > P. 1:10(9) ack 2 <...>", "x.pkt:9: ack: expected 2, got 1"),
        ("+0 > P. 1:10(9) ack 1 win 1 <...>", "x.pkt:9: window: expected 1, got 32768"),
        ("+0 > [ect0] P. 1:10(9) ack 1 <...>", "x.pkt:9: ECN: expected ect0, got noecn"),
        ("+0 > [tos 0x10] P. 1:10(9) ack 1 <...>", "x.pkt:9: type of service: expected 0x10, got 0x00"),
        ("+0 > [ttl 63] P. 1:10(9) ack 1 <...>", "x.pkt:9: TTL: expected 63, got 64"),
        ("+0 > @2 P. 1:10(9) ack 1 <...>", "x.pkt:9: connection: expected 2, got 1"),
        ("+0 > P. 1:10(9) ack 1", "x.pkt:9: options: expected <>, got <nop,nop,TS val 300 ecr 8>"),
        ("+0 > P. 1:10(9) ack 1 <nop,nop,TS val 200 ecr 8>", "x.pkt:9: options: expected"),
        ("+0 > P. 1:10(9) ack 1 <nop,nop,TS val 300 ecr 9>", "x.pkt:9: options: expected"),
        ("+.1 > P. 1:10(9) ack 1 <...>", "x.pkt:9: time: expected 0.296000 to 0.304000, got 0.200000"),
    ] {
        let got = failure(&format!("{write}{line}"));
        assert!(got.starts_with(why), "{line}: {got}");
    }
}

#[test]
fn packets_too_many_and_too_few_are_seen() {
    assert!(failure("+0 > . 1:1(0) ack 1 <...>").starts_with("x.pkt:8: nothing was sent until 0.104000"));
    assert!(failure("+0 write(4, ..., 9) = 9").starts_with("x.pkt:8: a packet that was not expected"));
    assert!(failure("+0 write(4, ..., 9) = 9\n+1 silence").starts_with("x.pkt:9: a packet that was not expected"));
}

#[test]
fn calls_are_compared() {
    assert!(failure("+0 read(4, ..., 9) = 9").contains("it waits, and was to return 9 at once"));
    assert!(failure("+0...0.5 read(4, ..., 9) = 9").contains("has not returned"));
    assert!(failure("+0 close(5) = 0").contains("returned -1 EBADF, not 0"));
    assert!(failure("+0 recv(4, ..., 9, MSG_DONTWAIT) = 0").contains("returned -1 EAGAIN, not 0"));
    assert!(failure("+0 ? state == LISTEN").starts_with("x.pkt:8: state is ESTAB"));
    assert!(failure("+0 ? nonsense == 1").contains("nothing is called nonsense"));
}

#[test]
fn time_does_not_go_back() {
    assert!(failure("0.05 silence").contains("but it is 0.100000 already"));
}

#[test]
fn a_script_that_is_to_fail_must() {
    assert!(failure("#! expect-fail: for a reason\n").contains("passes, but is expected to fail (for a reason)"));
    passes("#! expect-fail: for a reason\n+0 > . 1:1(0) ack 1");
}
