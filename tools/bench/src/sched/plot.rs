//! The figures as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::table::Series;
use toe_lab::spread::Spread;

const SIZE: (u32, u32) = (900, 540);
const LABEL: (&str, u32) = ("sans-serif", 15);
const COLOURS: [RGBColor; 3] = [RGBColor(0x1b, 0x6c, 0xa8), RGBColor(0xc2, 0x4d, 0x2c), RGBColor(0x3b, 0x7d, 0x3a)];

/// Writes an SVG: a line through the medians of each load, a bar from least to most at each size.
pub fn write(series: &[Series], path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    draw(series, path).map_err(|error| anyhow!("{error}"))
}

fn draw(series: &[Series], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let points = series.iter().flat_map(|series| &series.figures);
    let (mut flows, mut top) = (10, 0.0f64);
    for (size, figures) in points {
        (flows, top) = (flows.max(*size), top.max(Spread::of(figures).most));
    }
    let mut chart = ChartBuilder::on(&root)
        .caption("Cost of a decision of the scheduler", ("sans-serif", 22))
        .margin(16)
        .margin_right(40)
        .x_label_area_size(48)
        .y_label_area_size(56)
        .build_cartesian_2d((8.0..f64::from(flows) * 1.25).log_scale(), 0.0..top * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(LABEL)
        .axis_desc_style(LABEL)
        .x_desc("flows, all with data to send")
        .y_desc("ns for next and sent (median, least to most)")
        .x_label_formatter(&|flows| format!("{flows:.0}"))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .draw()?;
    for (series, colour) in series.iter().zip(COLOURS) {
        let spreads: Vec<(f64, Spread)> = series.figures.iter().map(|(flows, figures)| (f64::from(*flows), Spread::of(figures))).collect();
        chart
            .draw_series(LineSeries::new(spreads.iter().map(|(flows, spread)| (*flows, spread.median)), colour.stroke_width(2)))?
            .label(series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        let bars = spreads.iter().map(|(flows, spread)| PathElement::new([(*flows, spread.least), (*flows, spread.most)], colour));
        chart.draw_series(bars)?;
    }
    chart
        .configure_series_labels()
        .label_font(LABEL)
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_written_into_a_new_folder() {
        let folder = std::env::temp_dir().join(format!("toe-sched-{}", std::process::id()));
        let path = folder.join("new").join("plot.svg");
        let series = Series { name: "by turns", figures: vec![(10, vec![20.0, 21.0]), (1000, vec![30.0, 35.0])] };
        let written = write(&[series], &path).and_then(|()| Ok(std::fs::read_to_string(&path)?));
        let _ = std::fs::remove_dir_all(&folder);
        assert!(written.is_ok_and(|svg| svg.contains("by turns") && svg.contains("</svg>")));
    }
}
