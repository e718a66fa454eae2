use super::super::ast::{Body, Opt};
use super::*;
use proptest::prelude::*;

const SCRIPT: &str = "\
# A comment.
--mtu=1400   // another
--include=../common/accept.pkt
--rcvbuf=65536

0      socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
+0...0.2 connect(3, @2, ...) = -1 ECONNREFUSED (Connection refused)
+.1    < @2 [ect0,reserved 3] SEW 0:0(0) win 100 <mss 1460,sackOK,TS val 5 ecr 0,nop,wscale 7>
*      > P.U 4294967295:9(10) ack 7 urg 3
       <nop,nop,sack 1:2 3:4>
+.1~+.2 > R 1:1(0) <...>
+0     < icmp unreachable frag_needed mtu 1200 [1:1001(1000)]
+0     setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0
+0     poll([{fd=3, events=POLLIN|POLLOUT, revents=0}], 1, 0) = 0
+0     ? @2 state == FIN-WAIT-1
+5     silence
";

fn error(text: &str) -> String {
    parse("x.pkt", text).expect_err("no script").to_string()
}

#[test]
fn everything_in_its_place() {
    let script = parse("x.pkt", SCRIPT).unwrap();
    assert_eq!((script.config.mtu, script.config.rcvbuf_log2, script.include.as_deref()), (1400, 16, Some("../common/accept.pkt")));
    assert_eq!(script.events.len(), 10);
    assert_eq!(script.events[0].place, "x.pkt:6");
    let Action::Call(call) = &script.events[1].action else { panic!() };
    assert_eq!((call.until, call.result.map_err(|e| e.name)), (Some(200_000), Err("ECONNREFUSED")));
    let Action::Expect(packet) = &script.events[3].action else { panic!() };
    let Body::Tcp(segment) = &packet.body else { panic!() };
    assert_eq!((segment.len, segment.window, segment.urgent), (10, None, Some(3)));
    assert_eq!(segment.options.as_deref(), Some(&[Opt::Nop, Opt::Nop, Opt::Sack(vec![(1, 2), (3, 4)])][..]));
    assert_eq!(script.events[4].when, When::Between { relative: true, from: 100_000, to: 200_000 });
}

#[test]
fn errors_say_where_and_what_was_expected() {
    assert_eq!(error("\n+0 < S 0:1(0) win 3\n"), "x.pkt:2:10: expected `0`, as the length says, found `1(0)`");
    assert_eq!(error("+0 < S 0:0(0)"), "x.pkt:1:14: expected `win`, found the end");
    assert_eq!(error("# ä\n+0 ä"), "x.pkt:2:4: expected `<`, `>`, `?`, `silence` or a system call, found `ä`");
    assert_eq!(error("--mtu=99999"), "x.pkt:1:7: expected a number up to 65535, found `99999`");
    assert_eq!(error("+0 close(3) = 0 x"), "x.pkt:1:17: expected the end of the line, found `x`");
}

#[test]
fn options_must_fill_words() {
    assert!(parse("x", "+0 > . 1:1(0) ack 1 <mss 1>").is_ok());
    assert!(error("+0 > . 1:1(0) ack 1 <nop>").contains("expected options of 4 to 40 bytes in fours, not 1"));
}

#[test]
fn what_is_inbound_is_said() {
    assert!(error("+0 < . 1:1(0) ack 1 win 5 <...>").contains("is for packets that the stack sends"));
    assert!(error("+0 < . 1:1(0) ack 1 win *").contains("a number"));
}

#[test]
fn a_mark_says_why_a_script_fails() {
    let script = parse("x", "#! expect-fail: not built\n+0 silence").unwrap();
    assert_eq!(script.expect_fail.as_deref(), Some("not built"));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = parse("x", &text);
    }

    /// Scripts with a piece taken out, doubled or replaced.
    #[test]
    fn no_damaged_script_panics(at in 0..SCRIPT.len(), len in 0..20usize, with in "[ -~äß\n]{0,4}") {
        let end = (at + len).min(SCRIPT.len());
        let text = format!("{}{with}{}", &SCRIPT[..at], &SCRIPT[end..]);
        if let Err(e) = parse("x", &text) {
            prop_assert!(e.line <= text.lines().count() + 1, "{e}");
        }
    }
}
