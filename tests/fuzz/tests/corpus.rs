//! Every input of the corpus, and damaged copies of each: one case a target.

use std::path::Path;

/// Splitmix64, for damage that is the same each time.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn replay(name: &str) {
    let target = toe_fuzz::target(name).expect("a target of this name");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = folder.read_dir().expect("a corpus").map(|f| f.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no inputs in {}", folder.display());
    let mut seed = 1;
    for file in files {
        println!("{}", file.display());
        let input = std::fs::read(&file).expect("readable");
        (target.run)(&input);
        for _ in 0..4 {
            let mut damaged = input.clone();
            for _ in 0..=random(&mut seed) % 4 {
                let at = random(&mut seed) as usize % damaged.len().max(1);
                if let Some(byte) = damaged.get_mut(at) {
                    *byte = random(&mut seed) as u8;
                }
            }
            (target.run)(&damaged);
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_has_a_case() {
            let cases = [$(stringify!($name)),*];
            assert_eq!(toe_fuzz::TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), cases);
        }
    };
}

targets!(frame tcp engine card stack app library device_tree acpi ivshmem pci vfio_user virtio);
