//! Bounds, seals and sessions of host memory.

use super::mapping::PAGE;
use super::*;
use proptest::prelude::*;
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags};

const LEN: u64 = 16 * PAGE;
const IOVA: u64 = 1 << 40;
const R1: RegionId = RegionId(1);

fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("toe-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn sealed(len: u64) -> OwnedFd {
    memfd(len, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
}

fn mapping(iova: u64, len: u64) -> Mapping {
    Mapping::new(sealed(len), 0, iova, len).unwrap()
}

/// One mapping of `LEN` bytes, region 1 over its last 15 pages.
fn memory() -> SoftMemory {
    let mut memory = SoftMemory::new(4);
    memory.map(mapping(IOVA, LEN)).unwrap();
    memory.bind(R1, IOVA + PAGE, LEN - PAGE).unwrap();
    memory
}

fn at(offset: u64) -> HostAddr {
    HostAddr::new(R1, offset)
}

fn span(offset: u64, len: u32) -> HostSpan {
    HostSpan { addr: at(offset), len }
}

#[test]
fn memory_that_can_shrink_is_refused() {
    for seals in [SealFlags::empty(), SealFlags::GROW] {
        let refused = Mapping::new(memfd(LEN, seals), 0, IOVA, LEN).unwrap_err();
        assert!(matches!(refused, MapRefused::NotSealed), "{refused}");
        assert_eq!(refused.errno(), libc::EPERM);
    }
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(matches!(Mapping::new(&file, 0, IOVA, PAGE), Err(MapRefused::NotSealed)));
}

#[test]
fn a_range_beyond_the_descriptor_is_refused() {
    let refused = |offset, len| matches!(Mapping::new(sealed(LEN), offset, IOVA, len), Err(MapRefused::TooShort { .. }));
    assert!(refused(0, LEN + PAGE) && refused(PAGE, LEN) && refused(LEN, PAGE));
    assert!(Mapping::new(sealed(LEN), PAGE, IOVA, LEN - PAGE).is_ok());
}

#[test]
fn odd_ranges_are_refused() {
    for (offset, iova, len) in
        [(0, IOVA, 0), (1, IOVA, PAGE), (0, IOVA + 8, PAGE), (0, IOVA, 100), (0, !(PAGE - 1), PAGE * 2), (!(PAGE - 1), IOVA, PAGE * 2)]
    {
        let refused = Mapping::new(sealed(LEN), offset, iova, len).unwrap_err();
        assert!(matches!(refused, MapRefused::Geometry { .. }), "{offset:#x} {iova:#x} {len:#x}: {refused}");
    }
}

#[test]
fn bytes_go_to_the_right_place() {
    let fd = sealed(LEN);
    let mut memory = SoftMemory::new(4);
    memory.map(Mapping::new(&fd, 0, IOVA, LEN).unwrap()).unwrap();
    memory.bind(R1, IOVA + PAGE, LEN - PAGE).unwrap();
    assert_eq!(memory.write(at(8), b"hello", 0), Ok(Dma::Done));
    let mut file = [0; 5];
    rustix::io::pread(&fd, &mut file, PAGE + 8).unwrap();
    assert_eq!(&file, b"hello");
    memory.store(at(16), 0x0102_0304).unwrap();
    assert_eq!(memory.load(at(16)), Ok(0x0102_0304));
    let mut back = [0; 5];
    assert_eq!(memory.fetch(at(8), &mut back, 0), Ok(Dma::Done));
    assert_eq!(&back, b"hello");
    let mut gathered = Vec::new();
    memory.slice(span(8, 5)).unwrap().copy_to(&mut gathered);
    assert_eq!(gathered, b"hello");
}

#[test]
fn the_edges_of_a_region_are_exact() {
    let mut memory = memory();
    let end = LEN - PAGE;
    assert!(memory.write(at(end - 4), &[0; 4], 0).is_ok());
    assert_eq!(memory.write(at(end - 3), &[0; 4], 0), Err(DmaFault));
    assert!(memory.write(at(end), &[], 0).is_ok());
    assert_eq!(memory.fetch(at(u64::MAX), &mut [0; 2], 0), Err(DmaFault));
    assert!(memory.slice(span(0, end as u32)).is_ok());
    assert!(memory.slice(span(1, end as u32)).is_err());
    assert_eq!(memory.load(at(end)), Err(DmaFault));
    assert_eq!(memory.load(at(2)), Err(DmaFault), "words are aligned");
    assert_eq!(memory.load(HostAddr::new(RegionId(2), 0)), Err(DmaFault), "not bound");
    assert_eq!(memory.load(HostAddr::new(RegionId::NONE, 0)), Err(DmaFault));
}

#[test]
fn a_region_lies_inside_one_mapping() {
    let mut memory = memory();
    memory.map(mapping(IOVA + LEN, LEN)).unwrap();
    for (iova, len) in
        [(IOVA - PAGE, PAGE), (IOVA, LEN + PAGE), (IOVA + LEN - PAGE, 2 * PAGE), (IOVA, 0), (IOVA + 8, PAGE), (0, u64::MAX), (u64::MAX, 1)]
    {
        assert_eq!(memory.bind(RegionId(2), iova, len), Err(DmaFault), "{iova:#x} {len:#x}");
    }
    assert_eq!(memory.bind(RegionId(4), IOVA, PAGE), Err(DmaFault), "no such region on this card");
}

#[test]
fn after_unbind_and_unmap_accesses_fault() {
    let mut memory = memory();
    memory.unbind(R1);
    assert_eq!(memory.load(at(0)), Err(DmaFault));
    memory.bind(R1, IOVA, LEN).unwrap();
    assert_eq!(memory.unmap(IOVA, PAGE).len(), 0, "only whole mappings go");
    assert_eq!(memory.unmap(IOVA, LEN).len(), 1);
    assert_eq!(memory.load(at(0)), Err(DmaFault));
    assert_eq!(memory.bind(R1, IOVA, LEN), Err(DmaFault));
}

#[test]
fn overlapping_mappings_are_refused() {
    let memory = memory();
    for iova in [IOVA, IOVA + PAGE, IOVA - PAGE] {
        assert!(matches!(memory.map(mapping(iova, 2 * PAGE)), Err(MapRefused::Overlap { .. })), "{iova:#x}");
    }
    assert!(memory.map(mapping(IOVA - 2 * PAGE, 2 * PAGE)).unwrap().is_empty());
}

#[test]
fn a_hosts_end_takes_only_its_control_region() {
    let mut memory = memory();
    memory.map(mapping(IOVA * 4, LEN)).unwrap();
    memory.bind(RegionId::CONTROL, IOVA * 4, LEN).unwrap();
    assert_eq!(memory.end_session().len(), 1);
    assert_eq!(memory.load(HostAddr::new(RegionId::CONTROL, 0)), Err(DmaFault));
    assert_eq!(memory.load(at(0)), Ok(0), "the application's region goes on");
    assert_eq!(memory.bind(RegionId(2), IOVA, LEN), Err(DmaFault), "the next host names only what it has mapped itself");
    assert!(matches!(memory.map(mapping(IOVA, LEN)), Err(MapRefused::Overlap { .. })), "in use");
    memory.unbind(R1);
    assert_eq!(memory.map(mapping(IOVA, LEN)).unwrap().len(), 1, "the dead host's unused mapping makes room");
    assert_eq!(memory.mapped(), 1);
}

#[test]
fn reset_forgets_names_and_dead_hosts() {
    let mut memory = memory();
    memory.end_session();
    memory.map(mapping(IOVA * 4, LEN)).unwrap();
    assert_eq!(memory.reset().len(), 1);
    assert_eq!(memory.load(at(0)), Err(DmaFault));
    assert!(memory.bind(R1, IOVA * 4, LEN).is_ok());
}

#[test]
fn handles_share_regions() {
    let mut memory = memory();
    let mut other = memory.handle();
    assert_eq!(memory.write(at(0), b"abcd", 0), Ok(Dma::Done));
    assert_eq!(other.load(at(0)), Ok(u32::from_le_bytes(*b"abcd")));
    memory.unbind(R1);
    assert_eq!(other.write(at(0), b"x", 0), Err(DmaFault));
}

/// The control core moves a region to and fro while another core reads it, and unmaps what nobody can be reading any more.
#[test]
fn a_region_moves_under_a_reading_core() {
    let mut memory = SoftMemory::new(4);
    let (mut reclaimer, mut cores) = toe_sync::epoch::domain(1);
    let (core, handle) = (cores.pop().unwrap(), memory.handle());
    let mut place = |round: u64| {
        // A large and a small one in turn: the base of one with the length of the other would be a wild access.
        let (iova, len) = if round.is_multiple_of(2) { (IOVA, PAGE) } else { (IOVA * 4, 4 * PAGE) };
        memory.map(mapping(iova, len)).unwrap();
        memory.bind(R1, iova, len).unwrap();
        memory.store(at(0), 7).unwrap();
        memory.unmap(if round.is_multiple_of(2) { IOVA * 4 } else { IOVA }, 4 * PAGE)
    };
    assert!(place(0).is_empty());
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| read(&handle, core));
        for round in (1..).take_while(|_| !reads.is_finished()) {
            let retired = place(round);
            let epoch = reclaimer.advance();
            while !reclaimer.all_passed(epoch) && !reads.is_finished() {
                std::thread::yield_now();
            }
            assert_eq!(retired.len(), 1);
            drop(retired);
        }
        assert!(reads.join().unwrap() > 0, "nothing was ever read");
    });
}

/// Reads the region's words, a burst an epoch; how many were there.
fn read(memory: &SoftMemory, mut core: toe_sync::epoch::Participant) -> usize {
    core.online();
    let mut there = 0;
    for _ in 0..2000 {
        let words = (0..4 * PAGE).step_by(1024).filter_map(|offset| memory.load(at(offset)).ok());
        there += words.inspect(|word| assert!(matches!(word, 0 | 7), "{word} is not the region's")).count();
        core.quiet();
    }
    core.offline();
    there
}

proptest! {
    #[test]
    fn accesses_succeed_exactly_inside(offset in prop_oneof![0..LEN + 64, any::<u64>()], len in 0usize..300) {
        let mut memory = memory();
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= LEN - PAGE);
        prop_assert_eq!(memory.write(at(offset), &vec![1; len], 0).is_ok(), inside);
        prop_assert_eq!(memory.fetch(at(offset), &mut vec![0; len], 0).is_ok(), inside);
        prop_assert_eq!(memory.slice(span(offset, len as u32)).is_ok(), inside);
    }
}
