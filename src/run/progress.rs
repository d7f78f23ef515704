//! Progress on stderr: a bar on a terminal, a line a logged step elsewhere, nothing when quiet.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::info;

use super::metrics::{EVAL_PREFIX, Metrics};

/// The bar on the screen, which whoever writes to stderr must move out of the way
static ON_SCREEN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows how far a run is
#[derive(Debug)]
pub struct Progress {
    show: Show,
    total: u64,
    begin: (Instant, u64),
    evaluations: Evaluations,
    figures: String,
    last_line: Option<Instant>,
}

/// What evaluations took and are going to take: they come rarely, and would spoil the pace of the steps
#[derive(Debug, Default)]
struct Evaluations {
    took: Duration,
    done: u32,
    ahead: u64,
}

/// Lines come no faster than this, however short the steps are
const LINE_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum Show {
    Bar(ProgressBar),
    Lines,
    Nothing,
}

impl Progress {
    /// A run of `total` steps of which `done` lie behind (after a resume)
    pub fn new(total: u64, done: u64, quiet: bool) -> Self {
        let smart_terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let show = match (quiet, smart_terminal) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Bar(bar(total, done)),
            (false, false) => Show::Lines,
        };
        let begin = (Instant::now(), done);
        Self { show, total, begin, evaluations: Evaluations::default(), figures: String::new(), last_line: None }
    }

    /// So many steps are done
    pub fn step(&self, step: u64) {
        if let Show::Bar(bar) = &self.show {
            bar.set_message(format!("{}{}", self.figures, self.time_left(step)));
            bar.set_position(step);
        }
    }

    /// The metrics of a logged step
    pub fn log(&mut self, step: u64, metrics: &Metrics) {
        self.figures = figures(metrics);
        match &self.show {
            Show::Bar(_) => self.step(step),
            Show::Lines if self.is_line_due(step) => {
                info!("step {step}/{}{}{}", self.total, self.figures, self.time_left(step));
                self.last_line = Some(Instant::now());
            }
            Show::Lines | Show::Nothing => {}
        }
    }

    /// An evaluation is done, and so many are still to come
    pub fn evaluated(&mut self, took: Duration, ahead: u64) {
        self.evaluations.took += took;
        self.evaluations.done += 1;
        self.evaluations.ahead = ahead;
    }

    fn is_line_due(&self, step: u64) -> bool {
        step == self.total || self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL)
    }

    /// `  2m 3s left`, from the pace of this start: that of its steps, and that of its evaluations
    fn time_left(&self, step: u64) -> String {
        let (begin, done) = self.begin;
        let (behind, ahead) = (step.saturating_sub(done), self.total.saturating_sub(step));
        if behind == 0 {
            return String::new();
        }
        let evaluations = &self.evaluations;
        let stepping = begin.elapsed().saturating_sub(evaluations.took).as_secs_f64();
        let evaluating = evaluations.took.as_secs_f64() / f64::from(evaluations.done.max(1));
        let left = stepping / behind as f64 * ahead as f64 + evaluating * evaluations.ahead as f64;
        format!("  {} left", humantime::format_duration(Duration::from_secs(left.round() as u64)))
    }
}

impl Drop for Progress {
    /// The bar stays as it is, and what is written next starts on a line of its own
    fn drop(&mut self) {
        if let Show::Bar(bar) = &self.show {
            bar.set_message(std::mem::take(&mut self.figures));
            bar.abandon();
            if let Ok(mut on_screen) = ON_SCREEN.lock() {
                *on_screen = None;
            }
            let _ = io::stderr().write_all(b"\n");
        }
    }
}

fn bar(total: u64, done: u64) -> ProgressBar {
    // No colours, so that there is nothing for NO_COLOR to take away
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len}{msg}").expect("a valid template");
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style);
    bar.set_position(done);
    if let Ok(mut on_screen) = ON_SCREEN.lock() {
        *on_screen = Some(bar.clone());
    }
    bar
}

/// What whoever waits wants to know, under the names that trainers log; of several the first that is there counts
const FIGURES: [(&str, &[&str], usize); 5] = [
    ("loss", &["loss"], 4),
    ("accuracy", &["accuracy", "rewards/accuracies"], 3),
    ("reward", &["reward"], 3),
    ("KL", &["objective/kl"], 2),
    ("tokens/s", &["tokens_per_second"], 0),
];

fn figures(metrics: &Metrics) -> String {
    let held_out = metrics.iter().any(|(name, _)| name.starts_with(EVAL_PREFIX));
    let (prefix, mut text) = if held_out { (EVAL_PREFIX, "  held out:".to_owned()) } else { ("", String::new()) };
    for (label, names, digits) in FIGURES {
        let found = names.iter().find_map(|name| metrics.get(&format!("{prefix}{name}")));
        let _ = match (found, label) {
            (Some(value), "tokens/s") => write!(text, "  {value:.digits$} {label}"),
            (Some(value), _) => write!(text, "  {label} {value:.digits$}"),
            (None, _) => Ok(()),
        };
    }
    text
}

/// Standard error for everyone who logs while a bar may be on the screen; give it to `tracing_subscriber` as
/// `.with_writer(|| Stderr)`
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let on_screen = ON_SCREEN.lock().ok().and_then(|bar| bar.clone());
        match on_screen {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_name_what_is_there() {
        let metrics: Metrics = [("loss", 3.456_78), ("tokens_per_second", 1234.4)].into_iter().collect();
        assert_eq!(figures(&metrics), "  loss 3.4568  1234 tokens/s");
        let online = [("objective/kl", 6.128), ("loss", 0.5), ("reward", 1.25), ("kl", 0.1)].into_iter().collect();
        assert_eq!(figures(&online), "  loss 0.5000  reward 1.250  KL 6.13");
        let held_out = [("eval_loss", 0.5), ("eval_accuracy", 0.75)].into_iter().collect();
        assert_eq!(figures(&held_out), "  held out:  loss 0.5000  accuracy 0.750");
        assert_eq!(figures(&Metrics::new()), "");
    }

    fn hidden(total: u64, begin: (Instant, u64), last_line: Option<Instant>) -> Progress {
        let evaluations = Evaluations::default();
        Progress { show: Show::Nothing, total, begin, evaluations, figures: String::new(), last_line }
    }

    #[test]
    fn time_left_counts_the_steps_of_this_start_only() {
        let begin = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let progress = hidden(130, (begin, 100), None);
        assert_eq!(progress.time_left(110), "  3m 20s left");
        assert_eq!(progress.time_left(100), "");
    }

    #[test]
    fn time_left_counts_evaluations_apart_from_steps() {
        let begin = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let mut progress = hidden(30, (begin, 0), None);
        // 40 s for 10 steps and 60 s for two evaluations, of which one more is to come
        progress.evaluated(Duration::from_secs(20), 2);
        progress.evaluated(Duration::from_secs(40), 1);
        assert_eq!(progress.time_left(10), "  1m 50s left");
    }

    #[test]
    fn lines_come_at_a_bounded_rate_and_the_last_one_always() {
        let now = Instant::now();
        assert!(hidden(10, (now, 0), None).is_line_due(1));
        let just_written = hidden(10, (now, 0), Some(now));
        assert!(!just_written.is_line_due(2) && just_written.is_line_due(10));
        assert!(hidden(10, (now, 0), now.checked_sub(LINE_INTERVAL)).is_line_due(2));
    }
}
