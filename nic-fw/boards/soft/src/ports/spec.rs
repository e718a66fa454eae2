//! `DRIVER:IFNAME[,option=value...]`, as operators write it.

use super::{DRIVERS, Driver};
use std::fmt;
use std::str::FromStr;

/// Most bytes of an interface name (IFNAMSIZ, less the terminating zero).
const IFNAME_MAX: usize = 15;

/// Which port to open. The driver's name, the interface and the names of the options have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    pub driver: String,
    pub interface: String,
    options: Vec<(String, String)>,
}

/// What is wrong with a specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("`{0}` is not DRIVER:IFNAME[,option=value...]")]
    Shape(String),
    #[error("unknown port driver `{0}`; there are: {known}", known = driver_names())]
    Driver(String),
    #[error("`{0}` is no interface name: 1 to 15 bytes without spaces, `/` and `:`")]
    Interface(String),
    #[error("driver `{driver}` has no option `{option}`; it has: {known}", known = option_names(driver))]
    Option { driver: String, option: String },
    #[error("option `{option}={value}`: expected {expected}")]
    Value { option: String, value: String, expected: String },
}

fn driver_names() -> String {
    let names: Vec<_> = DRIVERS.iter().map(|d| d.name).collect();
    names.join(", ")
}

fn option_names(driver: &str) -> String {
    let options = DRIVERS.iter().find(|d| d.name == driver).map_or(&[] as &[_], |d| d.options);
    let names: Vec<_> = options.iter().map(|(name, help)| format!("{name} ({help})")).collect();
    names.join(", ")
}

impl PortSpec {
    pub(super) fn driver(&self) -> Result<&'static Driver, SpecError> {
        DRIVERS.iter().find(|d| d.name == self.driver).ok_or_else(|| SpecError::Driver(self.driver.clone()))
    }

    /// The text of an option, if given.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Sets an option that has not been given.
    pub fn set_default(&mut self, name: &str, value: impl fmt::Display) {
        if self.option(name).is_none() && self.driver().is_ok_and(|d| d.options.iter().any(|(k, _)| *k == name)) {
            self.options.push((name.to_owned(), value.to_string()));
        }
    }

    /// A number from `min` to `max`, or `default`.
    pub fn number(&self, name: &str, default: u32, min: u32, max: u32) -> Result<u32, SpecError> {
        let Some(text) = self.option(name) else { return Ok(default) };
        text.parse().ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| SpecError::Value {
            option: name.to_owned(),
            value: text.to_owned(),
            expected: format!("a number from {min} to {max}"),
        })
    }

    /// A MAC address.
    pub fn mac(&self, name: &str) -> Result<Option<[u8; 6]>, SpecError> {
        let Some(text) = self.option(name) else { return Ok(None) };
        parse_mac(text).map(Some).ok_or_else(|| SpecError::Value {
            option: name.to_owned(),
            value: text.to_owned(),
            expected: "a unicast MAC address like 02:00:00:00:00:01".to_owned(),
        })
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split('-');
    let colons = !text.contains('-');
    let mut with_colons = text.split(':');
    for byte in &mut mac {
        let part = if colons { with_colons.next() } else { parts.next() }?;
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2)?;
    }
    let rest = if colons { with_colons.next() } else { parts.next() };
    // The lowest bit of the first byte marks a group address (IEEE 802.3).
    (rest.is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

impl FromStr for PortSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let shape = || SpecError::Shape(text.to_owned());
        let mut parts = text.split(',');
        let (driver, interface) = parts.next().and_then(|p| p.split_once(':')).ok_or_else(shape)?;
        let mut spec = Self { driver: driver.to_owned(), interface: interface.to_owned(), options: Vec::new() };
        let known = spec.driver()?.options;
        let bad_name = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
        if interface.is_empty() || interface.len() > IFNAME_MAX || interface.contains(bad_name) || matches!(interface, "." | "..") {
            return Err(SpecError::Interface(interface.to_owned()));
        }
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(shape)?;
            if !known.iter().any(|(k, _)| *k == name) {
                return Err(SpecError::Option { driver: spec.driver, option: name.to_owned() });
            }
            spec.options.push((name.to_owned(), value.to_owned()));
        }
        Ok(spec)
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.driver, self.interface)?;
        self.options.iter().try_for_each(|(k, v)| write!(f, ",{k}={v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn driver_interface_and_options() {
        let spec: PortSpec = "af_packet:veth0,rx_frames=64".parse().unwrap();
        assert_eq!((spec.driver.as_str(), spec.interface.as_str()), ("af_packet", "veth0"));
        assert_eq!(spec.number("rx_frames", 512, 16, 1024), Ok(64));
        assert_eq!(spec.to_string(), "af_packet:veth0,rx_frames=64");
    }

    #[test]
    fn unknown_driver_names_the_known_ones() {
        let error = "dpdk:eth0".parse::<PortSpec>().unwrap_err().to_string();
        assert!(error.contains("dpdk") && error.contains("af_packet") && error.contains("tap"), "{error}");
    }

    #[test]
    fn unknown_option_names_the_known_ones() {
        let error = "tap:t0,speed=1".parse::<PortSpec>().unwrap_err().to_string();
        assert!(error.contains("speed") && error.contains("mac"), "{error}");
    }

    #[test]
    fn bad_interface_names_are_refused() {
        for name in ["", "sixteen-bytes-xx", "a b", "a/b", "..", "a:b"] {
            let text = format!("tap:{name}");
            assert_eq!(text.parse::<PortSpec>(), Err(SpecError::Interface(name.to_owned())));
        }
        assert!("tap".parse::<PortSpec>().is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for value in ["0", "x", "-1", "4294967296"] {
            let spec: PortSpec = format!("af_packet:a,rx_frames={value}").parse().unwrap();
            assert!(spec.number("rx_frames", 512, 16, 1024).is_err(), "{value}");
        }
    }

    #[test]
    fn mac_addresses() {
        let mac = |text: &str| format!("tap:t,mac={text}").parse::<PortSpec>().unwrap().mac("mac");
        assert_eq!(mac("02:00:00:00:00:0a"), Ok(Some([2, 0, 0, 0, 0, 10])));
        for bad in ["01:00:00:00:00:0a", "00:00:00:00:00:00", "02:00", "02:00:00:00:00:0a:0b", "2:0:0:0:0:0", "", "zz:00:00:00:00:00"] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_default_gives_way_to_what_was_said() {
        let mut spec: PortSpec = "af_packet:a,rx_frames=64".parse().unwrap();
        spec.set_default("rx_frames", 128);
        assert_eq!(spec.number("rx_frames", 512, 16, 1024), Ok(64));
        let mut tap: PortSpec = "tap:a".parse().unwrap();
        tap.set_default("no_such_option", 128);
        assert_eq!(tap.option("no_such_option"), None);
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<PortSpec>();
        }
    }
}
