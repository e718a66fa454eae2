//! `toectl limit`: what an application gets of the card.

use anyhow::Result;
use toed::admin::{Request, Share};
use toed::rate;

use crate::cli;
use crate::run_dir::RunDir;
use crate::show::{ask, print};

pub fn limit(dir: &RunDir, options: &cli::Limit) -> Result<()> {
    let cli::Limit { pid, region, share } = options;
    let request = Request::SetShare { pid: *pid, region: *region, weight: share.weight, rate_kbps: share.rate };
    let Share { weight, rate_kbps } = ask(dir, request)?;
    print(&format!("weight {weight}, rate {}\n", rate::text(rate_kbps)))
}
