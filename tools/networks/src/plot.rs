//! Pairs of bars as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

const LABEL: (&str, u32) = ("sans-serif", 14);
const COLOURS: [RGBColor; 2] = [RGBColor(0x1b, 0x6c, 0xa8), RGBColor(0xc2, 0x4d, 0x2c)];
const WIDTH: u32 = 900;
const ROW: u32 = 34;

/// A name and two values beside each other.
#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    pub values: [f64; 2],
}

/// Writes an SVG with a line of two bars for each; `series` says what the bars are.
pub fn bars(bars: &[Bar], caption: &str, series: [&str; 2], path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    draw(bars, caption, series, path).map_err(|error| anyhow!("{error}"))
}

fn draw(bars: &[Bar], caption: &str, series: [&str; 2], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let rows = bars.len().max(1);
    let root = SVGBackend::new(path, (WIDTH, 120 + ROW * rows as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = bars.iter().flat_map(|bar| bar.values).filter(|v| v.is_finite()).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(330)
        .build_cartesian_2d(0.0..most * 1.15, 0.0..rows as f64)?;
    // Names are drawn by hand: a row is no number.
    chart.configure_mesh().disable_y_mesh().disable_y_axis().label_style(LABEL).draw()?;
    for (which, (colour, name)) in COLOURS.iter().zip(series).enumerate() {
        let boxes = bars.iter().enumerate().map(|(i, bar)| {
            let top = (rows - i) as f64 - 0.15 - 0.35 * which as f64;
            Rectangle::new([(0.0, top), (bar.values[which], top - 0.32)], colour.filled())
        });
        chart.draw_series(boxes)?.label(name).legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.filled()));
    }
    for (i, bar) in bars.iter().enumerate() {
        let (_, y) = chart.backend_coord(&(0.0, (rows - i) as f64 - 0.35));
        root.draw(&Text::new(bar.name.clone(), (14, y), LABEL))?;
    }
    chart.configure_series_labels().label_font(LABEL).background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_written_into_a_new_folder() {
        let folder = std::env::temp_dir().join(format!("toe-networks-{}", std::process::id()));
        let path = folder.join("new").join("plot.svg");
        let bar = Bar { name: "loss=1%".into(), values: [0.9, f64::NAN] };
        let written = bars(&[bar], "shares", ["a", "b"], &path).and_then(|()| Ok(std::fs::read_to_string(&path)?));
        let _ = std::fs::remove_dir_all(&folder);
        assert!(written.is_ok_and(|svg| svg.contains("loss=1%") && svg.contains("</svg>")));
    }
}
