//! Messages of the server of a window: a number, and perhaps a descriptor.

use arbitrary::Unstructured;
use toe_link::ivshmem::Membership;

pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let mut members = Membership::default();
    let mut given = 0_u32;
    while !u.is_empty() {
        let Ok((kind, value, with_fd)) = u.arbitrary::<(u8, i64, bool)>() else { return };
        // Mostly small numbers, which are those that mean something.
        let value = if kind < 200 { i64::from(value as i8) } else { value };
        given += u32::from(with_fd);
        let left = members.take(value, with_fd.then_some(given));
        if let Ok(Some(peer)) = left {
            assert!(members.vectors_of(peer).is_empty(), "{peer} has left");
        }
        for peer in members.others() {
            assert!(Some(peer) != members.id() && !members.vectors_of(peer).is_empty(), "{peer}");
        }
        if left.is_err() {
            return;
        }
    }
}
