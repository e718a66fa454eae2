//! What the user sees while something takes time: a spinner with the present line on a terminal,
//! plain lines elsewhere. Either way, one line per step with its time stays. Steps may run side by side.

use std::io::IsTerminal;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The spinners of all steps under way, below what stays.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));

/// Prints what stays, above all spinners and in one piece.
fn print(text: &str) {
    BARS.suspend(|| println!("{text}"));
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    Ok,
    Failed,
    Skipped,
}

impl Mark {
    const fn word(self) -> &'static str {
        match self {
            Mark::Ok => "ok",
            Mark::Failed => "FAILED",
            Mark::Skipped => "skipped",
        }
    }
}

/// One step under way.
#[derive(Debug)]
pub struct Step {
    name: String,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    pub fn begin(name: impl Into<String>) -> Step {
        let name = name.into();
        let start = Instant::now();
        if !std::io::stdout().is_terminal() {
            print(&format!("  ...      {name}"));
            return Step { name, start, bar: None };
        }
        let bar = BARS.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed:>5}  {prefix}  {wide_msg:.dim}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        Step { name, start, bar: Some(bar) }
    }

    /// What it is doing just now; seen on a terminal only.
    pub fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.trim().to_owned());
        }
    }

    /// Ends it with a line that stays, or more.
    pub fn end(self, mark: Mark, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.start.elapsed().as_secs_f64();
        let colon = if result.is_empty() { "" } else { ": " };
        print(&format!("  {:<7} {seconds:>6.1} s  {}{colon}{result}", mark.word(), self.name));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
