//! A device tree: what a board is told of itself may be anything.

use toe_arch::fdt;

pub fn run(data: &[u8]) {
    let _ = fdt::uart(data);
    if let Ok(machine) = fdt::machine(data) {
        super::acpi::look_at(&machine);
    }
}
