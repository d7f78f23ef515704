//! Times of a step, for the metrics under `time/`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::metrics::Window;

static PROCESS_START: OnceLock<Instant> = OnceLock::new();

/// Notes the start of the process; called first thing in `main`
pub fn mark_process_start() {
    PROCESS_START.get_or_init(Instant::now);
}

/// Seconds since the start of the process (`time/since_start`)
pub fn since_process_start() -> f64 {
    PROCESS_START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Largest resident memory of this process so far, in MB; None where the system does not say
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kb| kb / 1024.0)
}

/// A part of a step
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Part {
    Generate,
    Score,
    Reference,
    Forward,
    Backward,
    Optimizer,
}

impl Part {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Generate, "time/generate"),
        (Self::Score, "time/score"),
        (Self::Reference, "time/reference"),
        (Self::Forward, "time/forward"),
        (Self::Backward, "time/backward"),
        (Self::Optimizer, "time/optimizer"),
    ];
}

/// Measures steps from the end of one to the end of the next, everything inside, and the parts of each
#[derive(Debug)]
pub struct StepClock {
    last_end: Instant,
    spent: [Option<Duration>; Part::ALL.len()],
}

impl Default for StepClock {
    fn default() -> Self {
        Self::new()
    }
}

impl StepClock {
    /// The first step begins now
    pub fn new() -> Self {
        Self { last_end: Instant::now(), spent: Default::default() }
    }

    /// Runs `work` on the account of a part; several times within a step add up
    pub fn time<R>(&mut self, part: Part, work: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = work();
        self.add(part, begin.elapsed());
        result
    }

    /// Puts a time measured elsewhere on the account of a part
    pub fn add(&mut self, part: Part, time: Duration) {
        let spent = &mut self.spent[part as usize];
        *spent = Some(spent.unwrap_or_default() + time);
    }

    /// Ends the step: adds `time/step`, the parts that occurred and, over `tokens` real tokens, `tokens_per_second`
    pub fn finish_step(&mut self, tokens: u64, window: &mut Window) {
        let now = Instant::now();
        let step = now.duration_since(self.last_end).as_secs_f64();
        self.last_end = now;
        window.add("time/step", step);
        for (part, name) in Part::ALL {
            if let Some(spent) = self.spent[part as usize].take() {
                window.add(name, spent.as_secs_f64());
            }
        }
        if tokens > 0 {
            window.add_ratio("tokens_per_second", tokens as f64, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_within_a_step_and_start_anew_with_the_next() {
        for (i, (part, _)) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, i, "the table must follow the declaration");
        }
        let (mut clock, mut window) = (StepClock::new(), Window::new());
        clock.add(Part::Forward, Duration::from_secs(1));
        clock.add(Part::Forward, Duration::from_secs(2));
        clock.finish_step(0, &mut window);
        assert_eq!(clock.time(Part::Backward, || 5), 5);
        clock.finish_step(100, &mut window);
        let means = window.take();
        assert_eq!(means.get("time/forward"), Some(3.0));
        assert!(means.get("time/backward").unwrap() <= means.get("time/step").unwrap() * 2.0);
        assert!(means.get("tokens_per_second").unwrap() > 0.0);
        assert_eq!(means.get("time/optimizer"), None);
    }

    #[test]
    fn a_step_is_everything_between_two_ends() {
        let (mut clock, mut window) = (StepClock::new(), Window::new());
        std::thread::sleep(Duration::from_millis(20));
        clock.finish_step(10, &mut window);
        let means = window.take();
        let step = means.get("time/step").unwrap();
        assert!(step >= 0.02);
        assert_eq!(means.get("tokens_per_second"), Some(10.0 / step));
    }
}
