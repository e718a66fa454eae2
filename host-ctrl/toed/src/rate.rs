//! Rates as operators write them: `100mbit`, `2.5gbit`, `unlimited`. In programs they are kbit/s, and 0 is no limit.

/// Units, and how many kbit/s each is.
const UNITS: [(&str, u64); 3] = [("kbit", 1), ("mbit", 1_000), ("gbit", 1_000_000)];
const EXAMPLES: &str = "such as 500kbit, 100mbit, 2.5gbit or unlimited";

/// Reads a rate; an error says what is wrong with it.
pub fn parse(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    if ["0", "unlimited"].contains(&lower.as_str()) {
        return Ok(0);
    }
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    if number.is_empty() {
        return Err(format!("a rate begins with a digit, {EXAMPLES}"));
    }
    let unit = unit.trim_start();
    let (_, kbps) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(|| match unit {
        "" => format!("a unit is missing, {EXAMPLES}"),
        _ => format!("'{unit}' is no unit of a rate; there are kbit, mbit and gbit (bits per second)"),
    })?;
    match scaled(number, kbps)? {
        0 => Err("nothing could be sent at that rate; 'unlimited' takes a limit away".into()),
        rate => Ok(rate),
    }
}

/// `number` times `unit`, exactly.
fn scaled(number: &str, unit: u64) -> Result<u64, String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(format!("'{number}' is not a number"));
    }
    let too_large = || format!("{number} is too large");
    let whole = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(too_large)?;
    let fraction = fraction.trim_end_matches('0');
    // No unit has more decimals than this.
    let parts = u32::try_from(fraction.len()).ok().filter(|n| *n <= 6).map(|n| 10u64.pow(n));
    let part = parts.and_then(|parts| {
        let product = fraction.parse::<u64>().unwrap_or(0) * unit;
        product.is_multiple_of(parts).then(|| product / parts)
    });
    let part = part.ok_or_else(|| format!("{number} is finer than 1 kbit/s"))?;
    whole.checked_add(part).ok_or_else(too_large)
}

/// A rate as [`parse`] reads it.
pub fn text(kbps: u64) -> String {
    let Some((name, unit)) = UNITS.into_iter().rev().find(|(_, unit)| kbps >= *unit) else { return "unlimited".into() };
    let decimals = unit.ilog10() as usize;
    let number = format!("{}.{:0decimals$}", kbps / unit, kbps % unit);
    format!("{}{name}", number.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read_as_written() {
        for (text, kbps) in [
            ("100mbit", 100_000),
            ("2.5gbit", 2_500_000),
            ("500kbit", 500),
            ("0.001mbit", 1),
            ("1.000000gbit", 1_000_000),
            ("10 Gbit", 10_000_000),
            ("0", 0),
            ("Unlimited", 0),
            ("007kbit", 7),
        ] {
            assert_eq!(parse(text), Ok(kbps), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_rate_is_said() {
        for (text, word) in [
            ("", "begins with a digit"),
            ("-5mbit", "begins with a digit"),
            ("mbit", "begins with a digit"),
            ("100", "a unit is missing"),
            ("0.5", "a unit is missing"),
            ("100mb", "'mb' is no unit"),
            ("100mbps", "'mbps' is no unit"),
            ("1e3kbit", "'e3kbit' is no unit"),
            ("1,5gbit", "',5gbit' is no unit"),
            (".5gbit", "'.5' is not a number"),
            ("5.gbit", "'5.' is not a number"),
            ("1.2.3gbit", "'1.2.3' is not a number"),
            ("0.5kbit", "finer than 1 kbit/s"),
            ("1.0005mbit", "finer than 1 kbit/s"),
            ("1.00000000000000000000000001gbit", "finer than 1 kbit/s"),
            ("99999999999999999999kbit", "too large"),
            ("18446744073709551615gbit", "too large"),
            ("0mbit", "'unlimited' takes a limit away"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn rates_are_written_briefly() {
        let texts = [0, 1, 999, 1000, 1500, 100_000, 2_500_000, 1_234_567].map(text);
        assert_eq!(texts, ["unlimited", "1kbit", "999kbit", "1mbit", "1.5mbit", "100mbit", "2.5gbit", "1.234567gbit"]);
    }

    proptest! {
        #[test]
        fn a_rate_written_is_the_rate_read(kbps: u64) {
            prop_assert_eq!(parse(&text(kbps)), Ok(kbps));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = parse(&text);
        }
    }
}
