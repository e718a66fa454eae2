//! One program for all targets. Built for fuzzing (`cargo xtask fuzz`) it is libFuzzer, with the target's name in `TOE_FUZZ_TARGET`; built
//! as usual it runs the inputs it is given: `toe-fuzz TARGET FILE...`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static CHOSEN: std::sync::LazyLock<fn(&[u8])> = std::sync::LazyLock::new(|| {
        let name = std::env::var("TOE_FUZZ_TARGET").expect("TOE_FUZZ_TARGET names a target");
        toe_fuzz::target(&name).unwrap_or_else(|| panic!("no target {name}")).run
    });
    CHOSEN(data);
});

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((target, files)) = args.split_first().and_then(|(name, files)| Some((toe_fuzz::target(name)?, files))) else {
        eprintln!("usage: toe-fuzz TARGET FILE...\n\ntargets:");
        for t in toe_fuzz::TARGETS {
            eprintln!("  {:<12} {}", t.name, t.about);
        }
        return ExitCode::from(2);
    };
    for file in files {
        match std::fs::read(file) {
            Ok(input) => {
                println!("{file}");
                (target.run)(&input);
            }
            Err(error) => {
                eprintln!("toe-fuzz: cannot read {file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}
