//! `--cc` and its options: which algorithm, and the settings of those that run here.

use super::Options;
use anyhow::{Context, Result, ensure};
use toe_abi::flow::cc;
use toe_engine::rates::{DctcpParams, Params, TimelyParams};

/// The number of an algorithm that `option` names.
pub(super) fn algorithm(option: &str, name: &str) -> Result<u8> {
    cc::number(name).with_context(|| format!("{option} {name}: unknown; there are {}", cc::NAMES.join(", ")))
}

/// A part of a whole.
fn part(option: &str, value: Option<f64>, default: f64) -> Result<f64> {
    let value = value.unwrap_or(default);
    ensure!(value > 0.0 && value <= 1.0, "{option} {value}: must be above 0 and at most 1");
    Ok(value)
}

/// Of algorithms by rates.
pub(super) fn rates(o: &Options) -> Result<Params> {
    let d = Params::default();
    let granularity_us = o.cc_control_granularity.unwrap_or(d.granularity_us);
    ensure!((1..=1_000_000).contains(&granularity_us), "--cc-control-granularity {granularity_us}: must be from 1 to 1000000");
    let interval_rtts = o.cc_control_interval.unwrap_or(d.interval_rtts);
    ensure!((1..=1000).contains(&interval_rtts), "--cc-control-interval {interval_rtts}: must be from 1 to 1000");
    let link_gbps = o.tcp_link_bw.unwrap_or(d.link_kbps / 1_000_000);
    ensure!((1..=4000).contains(&link_gbps), "--tcp-link-bw {link_gbps}: must be from 1 to 4000");
    Ok(Params {
        granularity_us,
        interval_rtts,
        link_kbps: link_gbps * 1_000_000,
        dctcp: dctcp(o, d.dctcp)?,
        timely: timely(o, d.timely)?,
        const_kbps: o.cc_const_rate.unwrap_or(d.const_kbps),
    })
}

fn dctcp(o: &Options, d: DctcpParams) -> Result<DctcpParams> {
    let mimd = o.cc_dctcp_mimd.unwrap_or(d.mimd);
    ensure!((0.0..=1.0).contains(&mimd), "--cc-dctcp-mimd {mimd}: must be from 0 to 1");
    Ok(DctcpParams {
        weight: part("--cc-dctcp-weight", o.cc_dctcp_weight, d.weight)?,
        mimd,
        min_kbps: o.cc_dctcp_min.unwrap_or(d.min_kbps),
    })
}

fn timely(o: &Options, d: TimelyParams) -> Result<TimelyParams> {
    let t = TimelyParams {
        low_us: o.cc_timely_tlow.unwrap_or(d.low_us),
        high_us: o.cc_timely_thigh.unwrap_or(d.high_us),
        step_kbps: o.cc_timely_step.unwrap_or(d.step_kbps),
        init_kbps: o.cc_timely_init.unwrap_or(d.init_kbps),
        alpha: part("--cc-timely-alpha", o.cc_timely_alpha, d.alpha)?,
        beta: part("--cc-timely-beta", o.cc_timely_beta, d.beta)?,
        min_rtt_us: o.cc_timely_minrtt.unwrap_or(d.min_rtt_us),
        min_kbps: o.cc_timely_minrate.unwrap_or(d.min_kbps),
    };
    ensure!(t.low_us <= t.high_us, "--cc-timely-tlow {}: must not be above --cc-timely-thigh {}", t.low_us, t.high_us);
    ensure!(t.min_rtt_us > 0, "--cc-timely-minrtt 0: must be at least 1");
    Ok(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn params(args: &[&str]) -> Result<Params> {
        rates(&Options::try_parse_from([&["toed"], args].concat()).expect("they are options"))
    }

    #[test]
    fn names_and_units_are_flextoes() {
        let all = "--cc-control-granularity 50 --cc-control-interval 3 --tcp-link-bw 100 --cc-dctcp-weight 0.5 --cc-dctcp-mimd 0.1 \
            --cc-dctcp-min 7 --cc-const-rate 8 --cc-timely-tlow 1 --cc-timely-thigh 2 --cc-timely-step 3 --cc-timely-init 4 \
            --cc-timely-alpha 0.2 --cc-timely-beta 0.3 --cc-timely-minrtt 5 --cc-timely-minrate 6";
        let timely = TimelyParams { low_us: 1, high_us: 2, step_kbps: 3, init_kbps: 4, alpha: 0.2, beta: 0.3, min_rtt_us: 5, min_kbps: 6 };
        let want = Params {
            granularity_us: 50,
            interval_rtts: 3,
            link_kbps: 100_000_000,
            dctcp: DctcpParams { weight: 0.5, mimd: 0.1, min_kbps: 7 },
            timely,
            const_kbps: 8,
        };
        assert_eq!(params(&all.split_whitespace().collect::<Vec<_>>()).expect("fine"), want);
        assert_eq!(params(&[]).expect("fine"), Params::default());
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for (option, value) in [
            ("--cc-control-granularity", "0"),
            ("--cc-control-interval", "0"),
            ("--tcp-link-bw", "0"),
            ("--tcp-link-bw", "5000"),
            ("--cc-dctcp-weight", "0"),
            ("--cc-dctcp-weight", "NaN"),
            ("--cc-dctcp-mimd", "1.5"),
            ("--cc-timely-alpha", "1.1"),
            ("--cc-timely-beta", "0"),
            ("--cc-timely-tlow", "151"),
            ("--cc-timely-minrtt", "0"),
        ] {
            let e = params(&[option, value]).expect_err(option).to_string();
            assert!(e.contains(option) && e.contains(value.trim_end_matches('0')), "{option} {value}: {e}");
        }
    }

    #[test]
    fn every_algorithm_has_a_name_that_is_taken() {
        for (number, name) in cc::NAMES.iter().enumerate() {
            assert_eq!(algorithm("--cc", name).ok(), Some(number as u8));
        }
        assert!(algorithm("--cc", "bbr").expect_err("unknown").to_string().contains("timely"));
    }
}
