//! Learning-rate schedules of the Hugging Face Trainer, each after a linear warm-up from 0.

use std::f64::consts::PI;

/// How the learning rate changes over a run
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// To 0 in a straight line
    Linear,
    /// To `floor` (a share of the peak) along `cycles` cosines; ½ a cycle goes down once
    Cosine {
        /// `num_cycles`
        cycles: f64,
        /// `min_lr_rate`
        floor: f64,
    },
    /// Several falling half cosines
    CosineWithRestarts {
        /// `num_cycles`
        cycles: f64,
    },
    /// To `end` (a share of the peak) as a power of what remains
    Polynomial {
        /// `lr_end` over the peak
        end: f64,
        /// Exponent
        power: f64,
    },
    /// Not at all, and without warm-up
    Constant,
    /// Not at all after the warm-up
    ConstantWithWarmup,
    /// As 1/√step
    InverseSqrt {
        /// Steps over which it falls to 1/√2; the warm-up, or 10 000 without one, where None
        timescale: Option<f64>,
    },
}

impl Schedule {
    /// Factor on the peak learning rate at update `step` (from 0) of `total`, with `warmup` updates of warm-up
    pub fn factor(self, step: u64, warmup: u64, total: u64) -> f64 {
        if self == Self::Constant {
            return 1.0;
        }
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let since = (step - warmup) as f64;
        let progress = since / total.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Linear => (1.0 - progress).max(0.0),
            Self::Cosine { cycles, floor } => {
                let wave = 0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos());
                (wave * (1.0 - floor) + floor).max(0.0)
            }
            Self::CosineWithRestarts { .. } if progress >= 1.0 => 0.0,
            Self::CosineWithRestarts { cycles } => 0.5 * (1.0 + (PI * (cycles * progress).fract()).cos()),
            Self::Polynomial { end, .. } if step > total => end,
            Self::Polynomial { end, power } => (1.0 - end) * (1.0 - progress).powf(power) + end,
            Self::InverseSqrt { timescale } => {
                let timescale = timescale.unwrap_or(if warmup > 0 { warmup as f64 } else { 10_000.0 });
                1.0 / ((step as f64 + timescale - warmup as f64) / timescale).sqrt()
            }
            Self::Constant | Self::ConstantWithWarmup => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    const COSINE: Schedule = Schedule::Cosine { cycles: 0.5, floor: 0.0 };

    #[test]
    fn ends_and_middle() {
        for schedule in [Schedule::Linear, COSINE, Schedule::Polynomial { end: 0.0, power: 1.0 }] {
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
