//! Exit codes: 1 for what failed, 2 for what the operator has to change first, and for `run` the
//! codes of env(1): 125 toectl itself, 126 not executable, 127 not found.

use std::fmt;
use std::process::ExitCode;

/// An error with an exit code of its own.
#[derive(Debug)]
pub struct Coded {
    code: u8,
    text: String,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Coded {}

/// Something outside toectl has to change before it can work.
pub fn environment(text: impl Into<String>) -> anyhow::Error {
    coded(2, text)
}

pub fn coded(code: u8, text: impl Into<String>) -> anyhow::Error {
    Coded { code, text: text.into() }.into()
}

pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(error.downcast_ref::<Coded>().map_or(1, |coded| coded.code))
}
