//! The figures as a table.

use toe_lab::spread::Spread;

/// One load at all sizes: flows, and a figure for each repetition.
pub struct Series {
    pub name: &'static str,
    pub figures: Vec<(u32, Vec<f64>)>,
}

/// A line for each load and size, with the ratio to the load's first size.
pub fn table(series: &[Series]) -> String {
    let mut text =
        format!("\n  {:<38}{:>10}{:>28}{:>10}\n", "ns for a decision (next and sent)", "flows", "median (least - most)", "ratio");
    for Series { name, figures } in series {
        let spreads = figures.iter().map(|(flows, figures)| (flows, Spread::of(figures)));
        let base = figures.first().map_or(f64::NAN, |(_, figures)| Spread::of(figures).median);
        for (flows, spread) in spreads {
            text += &format!("  {name:<38}{flows:>10}{:>28}{:>9.2}x\n", spread.to_string(), spread.median / base);
        }
    }
    let runs = series.first().and_then(|series| series.figures.first()).map_or(0, |(_, figures)| figures.len());
    text + &format!("  Processor time, {runs} repetitions in turns; each decision names another flow. Ratio: to the fewest flows.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_and_a_ratio_for_each_size() {
        let text = table(&[Series { name: "all", figures: vec![(10, vec![20.0, 30.0, 40.0]), (100, vec![45.0, 60.0, 70.0])] }]);
        assert!(text.contains("30.0 (20.0 - 40.0)     1.00x") && text.contains("60.0 (45.0 - 70.0)     2.00x"), "{text}");
        assert!(text.contains("3 repetitions"), "{text}");
    }
}
