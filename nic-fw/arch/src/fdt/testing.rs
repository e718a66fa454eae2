//! Writes device trees, for tests: one like that of QEMU's `virt` machine, to be spoilt.

use super::blob::{HEADER, MAGIC};
use std::vec::Vec;

/// A tree under construction.
#[derive(Default)]
pub struct Builder {
    structure: Vec<u8>,
    strings: Vec<u8>,
    pub reserved: Vec<(u64, u64)>,
}

impl Builder {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.structure.extend(bytes);
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    pub fn node(&mut self, name: &str, inside: impl FnOnce(&mut Self)) -> &mut Self {
        self.word(1);
        self.bytes(&[name.as_bytes(), &[0]].concat());
        inside(self);
        self.word(2);
        self
    }

    pub fn property(&mut self, name: &str, value: &[u8]) -> &mut Self {
        let offset = self.strings.len() as u32;
        self.strings.extend([name.as_bytes(), &[0]].concat());
        self.word(3);
        self.word(value.len() as u32);
        self.word(offset);
        self.bytes(value);
        self
    }

    pub fn words(&mut self, name: &str, words: &[u32]) -> &mut Self {
        self.property(name, &words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())
    }

    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.property(name, &[text.as_bytes(), &[0]].concat())
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.word(9);
        let reserved: Vec<u8> =
            self.reserved.iter().chain([&(0, 0)]).flat_map(|(base, len)| [base.to_be_bytes(), len.to_be_bytes()]).flatten().collect();
        let structure_at = HEADER + reserved.len();
        let strings_at = structure_at + self.structure.len();
        let total = strings_at + self.strings.len();
        let lens = [self.strings.len(), self.structure.len()];
        let header = [MAGIC as usize, total, structure_at, strings_at, HEADER, 17, 16, 0, lens[0], lens[1]];
        let header = header.iter().flat_map(|word| (*word as u32).to_be_bytes());
        header.chain(reserved).chain(self.structure).chain(self.strings).collect()
    }
}

/// As QEMU's `virt` machine describes itself, cut down to what we read.
pub fn virt(cores: u32) -> Builder {
    let mut tree = Builder::default();
    tree.node("", |root| {
        root.words("#address-cells", &[2]).words("#size-cells", &[2]);
        root.node("psci", |n| {
            n.text("method", "smc").property("compatible", b"arm,psci-1.0\0arm,psci-0.2\0arm,psci\0");
        });
        root.node("memory@40000000", |n| {
            n.words("reg", &[0, 0x4000_0000, 0, 0x1000_0000]).text("device_type", "memory");
        });
        root.node("pcie@10000000", |n| {
            n.words("#address-cells", &[3]).words("#size-cells", &[2]).words("bus-range", &[0, 0xff]);
            let io = [0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000];
            let low = [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000];
            let high = [0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0];
            n.words("ranges", &[io, low, high].concat());
            n.words("reg", &[0x40, 0x1000_0000, 0, 0x1000_0000]).text("compatible", "pci-host-ecam-generic");
        });
        root.node("pl011@9000000", |n| {
            n.words("reg", &[0, 0x900_0000, 0, 0x1000]).property("compatible", b"arm,pl011\0arm,primecell\0");
        });
        root.node("intc@8000000", |n| {
            n.words("reg", &[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0xf6_0000]).words("#redistributor-regions", &[1]);
            n.text("compatible", "arm,gic-v3").property("ranges", b"").words("#size-cells", &[2]).words("#address-cells", &[2]);
            n.node("its@8080000", |n| {
                n.words("reg", &[0, 0x808_0000, 0, 0x2_0000]).text("compatible", "arm,gic-v3-its");
            });
        });
        root.node("cpus", |n| {
            n.words("#size-cells", &[0]).words("#address-cells", &[1]);
            for core in 0..cores {
                n.node(&std::format!("cpu@{core}"), |n| {
                    n.words("reg", &[core]).text("device_type", "cpu").text("enable-method", "psci");
                });
            }
        });
        root.node("timer", |n| {
            let line = |number| [1, number, 0x104];
            n.words("interrupts", &[line(13), line(14), line(11), line(10)].concat());
            n.property("compatible", b"arm,armv8-timer\0arm,armv7-timer\0");
        });
        root.node("chosen", |n| {
            n.text("bootargs", "tests only=timer").text("stdout-path", "/pl011@9000000");
            n.property("rng-seed", &[7; 40]);
        });
    });
    tree
}
