//! Learning-rate schedules of the Hugging Face Trainer.

use std::f64::consts::PI;

/// How the learning rate falls over a run, after a linear warm-up
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// To 0 in a straight line
    Linear,
    /// To 0 along half a cosine
    Cosine,
    /// Not at all, and without warm-up
    Constant,
    /// Not at all after the warm-up
    ConstantWithWarmup,
}

impl Schedule {
    /// Factor on the base learning rate at update `step` (from 0) of `total`, with `warmup` updates of warm-up
    pub fn factor(self, step: u64, warmup: u64, total: u64) -> f64 {
        if self == Self::Constant {
            return 1.0;
        }
        if step < warmup {
            return step as f64 / warmup.max(1) as f64;
        }
        let after = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Linear => (1.0 - after).max(0.0),
            Self::Cosine => (0.5 * (1.0 + (PI * after).cos())).max(0.0),
            Self::Constant | Self::ConstantWithWarmup => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn ends_and_middle() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            assert_eq!(schedule.factor(0, 4, 12), 0.0);
            assert_eq!(schedule.factor(2, 4, 12), 0.5);
            assert_eq!(schedule.factor(4, 4, 12), 1.0);
            assert!((schedule.factor(8, 4, 12) - 0.5).abs() < 1e-15);
            assert!(schedule.factor(12, 4, 12).abs() < 1e-15);
        }
        assert_eq!(Schedule::Linear.factor(1, 0, 4), 0.75);
        assert_eq!(Schedule::Constant.factor(0, 4, 12), 1.0);
        assert_eq!(Schedule::ConstantWithWarmup.factor(1, 4, 12), 0.25);
        assert_eq!(Schedule::ConstantWithWarmup.factor(9, 4, 12), 1.0);
    }
}
