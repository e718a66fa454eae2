use super::*;
use proptest::prelude::*;
use std::vec::Vec;

#[test]
fn usual_layout_of_timestamps() {
    let options = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
    assert_eq!(timestamps(&options), Ok(Some(Timestamps { val: 7, ecr: 9 })));
}

/// RFC 9293 MUST-4, MUST-64.
#[test]
fn options_of_a_linux_syn() {
    let options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let parsed = TcpOptions::parse(&options).unwrap();
    let want = TcpOptions {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: 1, ecr: 0 }),
        ..TcpOptions::default()
    };
    assert_eq!(parsed, want);
}

/// RFC 9293 MUST-6, MUST-68; RFC 5482 3-5, 4.1-1.
#[test]
fn unknown_options_are_skipped() {
    assert_eq!(TcpOptions::parse(&[254, 4, 9, 9, 2, 4, 1, 0]).unwrap().mss, Some(256));
    const USER_TIMEOUT: u8 = 28;
    assert_eq!(TcpOptions::parse(&[USER_TIMEOUT, 4, 0, 100]), Ok(TcpOptions::default()));
}

/// RFC 9293 MUST-4.
#[test]
fn end_of_list_ends_the_list() {
    assert_eq!(TcpOptions::parse(&[0, 2, 0, 0]), Ok(TcpOptions::default()));
}

/// RFC 9293 MUST-7.
#[test]
fn bad_option_lengths_are_errors() {
    let cases: [&[u8]; 9] =
        [&[2], &[2, 0], &[2, 1], &[2, 4, 5], &[2, 3, 5], &[3, 4, 1, 1], &[4, 3, 0], &[8, 9, 0, 0, 0, 0, 0, 0, 0], &[5, 2]];
    for case in cases {
        assert_eq!(TcpOptions::parse(case), Err(FrameError::BadTcpOptions), "{case:?}");
    }
    assert_eq!(TcpOptions::parse(&[5, 9, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::BadTcpOptions));
}

#[test]
fn data_offset_must_lie_in_the_segment() {
    let mut segment = [0u8; 20];
    segment[12] = 4 << 4;
    assert_eq!(Tcp::parse(&segment, Span::new(0, 20)), Err(FrameError::BadTcpHeader));
    segment[12] = 6 << 4;
    assert_eq!(Tcp::parse(&segment, Span::new(0, 20)), Err(FrameError::BadTcpHeader));
    segment[12] = 5 << 4;
    assert!(Tcp::parse(&segment, Span::new(0, 20)).is_ok());
    assert_eq!(Tcp::parse(&segment, Span::new(0, 19)), Err(FrameError::Truncated));
}

#[test]
fn a_fifth_sack_block_has_no_room() {
    let mut sack = SackBlocks::default();
    for i in 0..4 {
        assert!(sack.push(SeqNum(i), SeqNum(i + 1)));
    }
    assert!(!sack.push(SeqNum(9), SeqNum(10)));
    assert_eq!(sack.len(), 4);
}

/// RFC 9293 MUST-64: with timestamps and without, padded and not.
#[test]
fn sack_blocks_are_found_in_every_layout() {
    const SACK: [u8; 10] = [5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    const TIMESTAMPS: [u8; 10] = [8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
    let layouts: [&[&[u8]]; 4] = [&[&[1, 1], &SACK], &[&SACK, &[1, 1]], &[&TIMESTAMPS, &SACK], &[&[1, 1], &TIMESTAMPS, &[1, 1], &SACK]];
    for layout in layouts {
        let mut segment = std::vec![0; HEADER_LEN];
        layout.iter().for_each(|part| segment.extend(*part));
        segment[12] = (segment.len() as u8 / 4) << 4;
        let tcp = Tcp::parse(&segment, Span::new(0, segment.len())).unwrap();
        assert_eq!(tcp.sack(&segment).iter().next(), Some((SeqNum(1), SeqNum(2))), "{layout:?}");
    }
}

proptest! {
    /// RFC 7323 2.2-7.
    #[test]
    fn any_options(bytes in proptest::collection::vec(any::<u8>(), 0..=40)) {
        let all = TcpOptions::parse(&bytes);
        prop_assert_eq!(timestamps(&bytes), all.map(|o| o.timestamps));
    }

    #[test]
    fn any_segment(bytes: Vec<u8>, start: u8, end: u8) {
        let _ = Tcp::parse(&bytes, Span::new(start.into(), end.into()));
    }
}
