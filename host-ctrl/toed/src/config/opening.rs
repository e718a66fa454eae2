//! How connections begin: half-open ones, SYN cookies, and the ports that are chosen.

use super::{Options, count};
use anyhow::{Result, anyhow, bail};
use toe_engine::{Config, SynCookies};

/// What the options say, and the engine's defaults where they say nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opening {
    syn_backlog: Option<u32>,
    syn_cookies: SynCookies,
    ports: Option<(u16, u16)>,
}

impl Opening {
    pub fn new(o: &Options) -> Result<Self> {
        let syn_backlog = o.tcp_max_syn_backlog.map(|n| count("--tcp-max-syn-backlog", Some(n), n, 1 << 20)).transpose()?;
        let syn_cookies = match o.tcp_syncookies {
            Some(0) => SynCookies::Off,
            None | Some(1) => SynCookies::OnOverflow,
            Some(2) => SynCookies::Always,
            Some(other) => {
                bail!("--tcp-syncookies {other}: 0 (never), 1 (when a listener has as many half-open connections as it may) or 2 (always)")
            }
        };
        Ok(Self { syn_backlog, syn_cookies, ports: o.ip_local_port_range.as_deref().map(port_range).transpose()? })
    }

    pub fn apply(&self, base: Config) -> Config {
        Config {
            syn_backlog_max: self.syn_backlog.map_or(base.syn_backlog_max, |n| n as usize),
            syn_cookies: self.syn_cookies,
            ephemeral: self.ports.unwrap_or(base.ephemeral),
            ..base
        }
    }
}

fn port_range(text: &str) -> Result<(u16, u16)> {
    let bad = |why: &str| anyhow!("--ip-local-port-range {text}: {why}");
    let range = text.split_once('-').and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    match range.ok_or_else(|| bad("not FIRST-LAST, such as 32768-60999"))? {
        (0, _) => Err(bad("port 0 cannot be used; the first is 1")),
        (first, last) if first > last => Err(bad("the first port is above the last")),
        range => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_engine::Prefix;

    fn applied(o: &Options) -> Result<Config> {
        let address = Prefix::new(toe_abi::flow::v4_mapped([10, 0, 0, 1]), 24).expect("24 bits");
        Ok(Opening::new(o)?.apply(Config::new([2; 6], vec![address])))
    }

    #[test]
    fn what_is_said_is_applied() {
        let said = Options {
            tcp_max_syn_backlog: Some(7),
            tcp_syncookies: Some(2),
            ip_local_port_range: Some("1024 - 65535".into()),
            ..Options::default()
        };
        let c = applied(&said).expect("fine");
        assert_eq!((c.syn_backlog_max, c.syn_cookies, c.ephemeral), (7, SynCookies::Always, (1024, 65_535)));
        let c = applied(&Options::default()).expect("fine");
        assert_eq!((c.syn_backlog_max, c.syn_cookies, c.ephemeral), (1024, SynCookies::OnOverflow, (32_768, 60_999)));
    }

    #[test]
    fn nonsense_is_refused() {
        for range in ["", "5", "1-65536", "a-b", "1-2-3"] {
            assert!(port_range(range).is_err_and(|e| e.to_string().contains("not FIRST-LAST")), "{range}");
        }
        assert!(port_range("0-9").is_err_and(|e| e.to_string().contains("port 0")));
        assert!(port_range("9-8").is_err_and(|e| e.to_string().contains("above the last")));
        assert!(applied(&Options { tcp_syncookies: Some(3), ..Options::default() }).is_err());
        assert!(applied(&Options { tcp_max_syn_backlog: Some(0), ..Options::default() }).is_err());
    }
}
