//! What a person reads of the model: how well it meets what was measured, and what it says of other machines.

use toe_datapath::Placement;

use crate::measure::Measured;
use crate::measure::points::Point;
use crate::model::search::{self, Objective};
use crate::model::{AppPlace, CALIBRATION, Mix, Model, placement_file};
use crate::report::is_over;
use crate::traffic::connections_text;

/// The check, then the best placement for each number of cores.
pub fn all(measured: &Measured, cores: &[usize], objective: Objective) -> String {
    let model = Model::of(measured);
    let best: String = cores.iter().map(|&n| best(&model, n, objective)).collect();
    format!("{}\n{best}", check(measured, &model))
}

fn app_place(measured: &Measured) -> AppPlace {
    if measured.app_apart { AppPlace::Apart } else { AppPlace::Ctxq }
}

/// Predicted against measured, for every placement that had a CPU for each thread.
fn check(measured: &Measured, model: &Model) -> String {
    let mut text = String::from("Model against measurement: nanoseconds per unit, and the core that the model says is the slowest.\n\n");
    text += &format!("  {:<34}{:<16}{:>10}{:>10}{:>9}  {}\n", "", "placement", "model", "measured", "error", "slowest core");
    let mut errors = Vec::new();
    let checked = |p: &&Point| !p.is_fused() && p.shape != CALIBRATION && !is_over(measured, p);
    for point in measured.points.iter().filter(checked) {
        let (Some(mix), Some(placement)) = (model.mix(point), &point.placement) else { continue };
        let said = model.predict(placement, mix, app_place(measured));
        let is = point.ns.median();
        let error = said.ns / is - 1.0;
        errors.push(error.abs());
        let stages = stages(placement, said.core);
        text += &format!("  {:<34}{:<16}{:>10.0}{is:>10.0}{:>+8.0}%  {}\n", load(mix), point.shape, said.ns, 100.0 * error, stages);
    }
    text + &verdict(&errors)
}

fn verdict(errors: &[f64]) -> String {
    if errors.is_empty() {
        return "  Nothing to check: there was no placement on several cores with a CPU for each.\n".into();
    }
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    let most = errors.iter().copied().fold(0.0, f64::max);
    format!(
        "  Off by {:.0}% on average, {:.0}% at most. '{CALIBRATION}' is what the model was calibrated on. Above 0: it was faster than the model says,\n  \
         as replicas with less to do take more than their share, or a core's cache holds more when it has less to do. Below 0: slower, as cores\n  \
         share caches, memory or (SMT) an execution unit, other programs use the CPUs, batches are smaller than on one core, or too little is\n  \
         outstanding to keep all cores busy.\n",
        100.0 * mean,
        100.0 * most
    )
}

fn load(mix: &Mix) -> String {
    format!("{}, {}", mix.load, connections_text(mix.connections))
}

fn best(model: &Model, cores: usize, objective: Objective) -> String {
    let Some(placement) = search::best(model, cores, objective) else {
        return format!("\n{cores} cores: the calibration has no load to find a placement for.\n");
    };
    let used = placement.cores().len();
    let spare = if used < cores { format!(" ({used} are enough)") } else { String::new() };
    let mut text = format!("\n{cores} cores{spare}, best placement that was found; applications on other CPUs:\n\n");
    text +=
        &format!("  {:<34}{:>14}{:>10}{:>17}{:>13}   {}\n", "", "1000 units/s", "Gbit/s", "ratio to fused", "'auto' has", "slowest core");
    for mix in &model.mixes {
        text += &forecast_row(model, mix, &placement, &Placement::auto(cores));
    }
    text + "\n" + &indented(&placement_file::write(&placement))
}

fn forecast_row(model: &Model, mix: &Mix, placement: &Placement, auto: &Placement) -> String {
    let (said, of_auto) = (model.predict(placement, mix, AppPlace::Apart), model.predict(auto, mix, AppPlace::Apart));
    let ratio = |ns: f64| mix.fused_alone_ns() / ns;
    let (rate, gbit_per_s) = (1e6 / said.ns, f64::from(mix.unit_bytes) * 8.0 / said.ns);
    let stages = stages(placement, said.core);
    format!("  {:<34}{rate:>14.0}{gbit_per_s:>10.1}{:>17.2}{:>13.2}   {stages}\n", load(mix), ratio(said.ns), ratio(of_auto.ns))
}

fn stages(placement: &Placement, core: usize) -> String {
    let stages: Vec<String> = placement.cores()[core].stages.iter().map(ToString::to_string).collect();
    stages.join(" ")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{measured, point};

    #[test]
    fn the_check_says_how_far_off_the_model_is() {
        // All on one core: 400 ns, 9 of them the application's. The column of auto 2 has four of the seven stages.
        let said = 4.0 / 7.0 * 391.0;
        let auto = |cores: usize, ns: f64| point(&format!("auto {cores}"), Some(Placement::auto(cores)), ns);
        let m = measured(vec![point("fused", None, 500.0), auto(1, 400.0), auto(2, said * 1.25), auto(4, 1.0)]);
        let text = check(&m, &Model::of(&m));
        assert!(text.contains("-20%  pre.0 protocol.0 post.0 dma.0") && text.contains("Off by 20% on average"), "{text}");
        assert!(!text.contains("auto 4"), "more threads than CPUs: {text}");
    }

    #[test]
    fn every_number_of_cores_gets_a_placement_that_can_be_read() {
        let m = measured(vec![point("fused", None, 500.0), point(CALIBRATION, Some(Placement::auto(1)), 400.0)]);
        let text = all(&m, &[2, 3], Objective::Both);
        assert!(text.contains("2 cores, best") && text.contains("3 cores, best") && text.contains("[[core]]"), "{text}");
        assert!(text.contains("Nothing to check"), "{text}");
        assert!(all(&m, &[2], Objective::Many).contains("no load"));
    }
}
