//! One program for all targets. Built for fuzzing (`cargo xtask fuzz`) it is libFuzzer on the target that `TOE_FUZZ_TARGET` names
//! then; built as usual it runs the inputs it is given: `toe-fuzz [--steps] TARGET FILE...`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    const RUN: fn(&[u8]) = toe_fuzz::target(env!("TOE_FUZZ_TARGET")).expect("the name of a target").run;
    RUN(data);
});

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--steps") {
        args.remove(0);
        toe_fuzz::show_steps();
    }
    let Some((target, files)) = args.split_first().and_then(|(name, files)| Some((toe_fuzz::target(name)?, files))) else {
        eprintln!("usage: toe-fuzz [--steps] TARGET FILE...\n\n  --steps      tell each event before it happens\n\ntargets:");
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
