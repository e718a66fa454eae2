//! Figures: one number for each repetition; the median counts, and the least and the most are shown with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One number a repetition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(Vec<f64>);

impl Figures {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        }
    }

    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Number by number.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        self.0.iter().copied().map(f).collect()
    }

    /// Each number with the other's of the same repetition.
    pub fn with(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        self.0.iter().zip(&other.0).map(|(&a, &b)| f(a, b)).collect()
    }
}

impl FromIterator<f64> for Figures {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// Median (least-most), with as many digits as the median needs.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = f.width().unwrap_or(0);
        if self.0.is_empty() {
            return write!(f, "{:>width$}", "-");
        }
        let digits = f.precision().unwrap_or_else(|| digits(self.median()));
        let text = format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median(), self.least(), self.most());
        write!(f, "{text:>width$}")
    }
}

/// Digits behind the point: three that count.
fn digits(value: f64) -> usize {
    match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts() {
        let figures = |values: &[f64]| values.iter().copied().collect::<Figures>();
        assert_eq!(figures(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(figures(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(figures(&[]).median().is_nan());
        assert_eq!(figures(&[300.0, 100.0, 200.0]).to_string(), "200 (100-300)");
        assert_eq!(format!("{:>20}", figures(&[1.25, 1.0])), "    1.12 (1.00-1.25)");
        assert_eq!(format!("{:.1}", figures(&[1.25])), "1.2 (1.2-1.2)");
        assert_eq!(format!("{:>3}", figures(&[])), "  -");
        assert_eq!(figures(&[1.0, 9.0]).with(&figures(&[2.0, 3.0]), |a, b| a / b), figures(&[0.5, 3.0]));
    }
}
