//! The particle memory of a run and the field that is fitted to it.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::config::{GrlKeys, MemoryKernel, ValueEstimator};
use crate::grl::fit::{Fitted, Grid, fit_marginal_likelihood};
use crate::grl::kernel::{Kernel, Point};
use crate::grl::memory::{Eviction, PromptMemory};
use crate::grl::value::{Estimator, Prediction, ValueField};

/// Particles, kernel and field
#[derive(Clone)]
pub struct Values {
    memory: PromptMemory,
    rule: Rule,
    fitted: Fitted,
    field: Option<ValueField>,
}

/// What the keys say of values
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Rule {
    estimator: Kind,
    /// Whether different prompts can be alike, and whether one prompt is more than its features
    smooth: bool,
    delta: bool,
    leave_one_out: bool,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Kind {
    Sum,
    Average,
    Process,
}

impl Values {
    /// No particle yet; without features the kernel is one of identity
    pub fn new(keys: &GrlKeys, dim: usize) -> Result<Self> {
        let kernel = if dim == 0 { MemoryKernel::Delta } else { keys.kernel };
        let estimator = match keys.estimator {
            ValueEstimator::Sum => Kind::Sum,
            ValueEstimator::NadarayaWatson => Kind::Average,
            // Of the last two the field is not asked for a baseline; it is kept for those who look at the memory
            ValueEstimator::GaussianProcess | ValueEstimator::Group | ValueEstimator::Network => Kind::Process,
        };
        let rule = Rule {
            estimator,
            smooth: kernel != MemoryKernel::Delta,
            delta: kernel != MemoryKernel::Rbf,
            leave_one_out: keys.leave_one_out.unwrap_or(estimator == Kind::Average),
        };
        let fitted = Fitted { smooth: 0.0, length: 1.0, delta: 0.0, noise: 1.0, log_likelihood: None };
        let memory = PromptMemory::new(dim, keys.memory_capacity, keys.kappa)?;
        Ok(Self { memory, rule, fitted, field: None })
    }

    /// Puts back particles and hyperparameters
    pub fn restore(&mut self, memory: PromptMemory, fitted: Fitted) -> Result<()> {
        self.memory = memory;
        self.fitted = fitted;
        self.refit()
    }

    /// The particles
    pub fn memory(&self) -> &PromptMemory {
        &self.memory
    }

    /// The kernel's hyperparameters
    pub fn fitted(&self) -> &Fitted {
        &self.fitted
    }

    /// What reads values off the particles
    pub fn estimator(&self) -> Estimator {
        if self.rule.estimator == Kind::Process {
            return self.fitted.estimator();
        }
        // A weight, not a variance: 1 for one and the same prompt
        let Fitted { smooth, length, delta, .. } = self.fitted;
        let total = smooth + delta;
        let (smooth, delta) = match (self.rule.smooth, self.rule.delta) {
            (true, true) if total > 0.0 => (smooth / total, delta / total),
            (true, true) => (0.5, 0.5),
            (smooth, _) => (f64::from(u8::from(smooth)), f64::from(u8::from(!smooth))),
        };
        let kernel = Kernel::Composite { smooth, length, delta };
        match self.rule.estimator {
            Kind::Sum => Estimator::Sum { kernel },
            Kind::Average | Kind::Process => Estimator::NadarayaWatson { kernel },
        }
    }

    /// Fits the kernel by marginal likelihood
    pub fn fit_kernel(&mut self) -> Result<()> {
        if self.memory.is_empty() {
            return Ok(());
        }
        let fractions = match (self.rule.smooth, self.rule.delta) {
            (true, true) => Grid::default().fractions,
            (true, false) => vec![(0.8, 0.0), (0.6, 0.0), (0.3, 0.0), (0.05, 0.0)],
            (false, _) => vec![(0.0, 0.8), (0.0, 0.6), (0.0, 0.3), (0.0, 0.05)],
        };
        let mut grid = Grid { fractions, ..Grid::default() };
        if !self.rule.smooth {
            grid.lengths.truncate(1);
        }
        self.fitted = fit_marginal_likelihood(&self.memory, &grid)?;
        Ok(())
    }

    /// Makes room for prompts that are not in the memory yet, at the cost of those that tell least about these
    pub fn make_room(&mut self, coming: &[Point<'_>], now: u32) -> Result<()> {
        let new = coming.iter().filter(|point| self.memory.position(point.key).is_none()).count();
        let room = new.min(self.memory.capacity());
        let estimator = self.estimator();
        let rule = Eviction { kernel: estimator.kernel(), noise: self.fitted.noise, decay: 0.95 };
        self.memory.evict(room, coming, &rule, now)?;
        Ok(())
    }

    /// Replaces what is known of a prompt; none takes it away
    pub fn restate(&mut self, point: Point<'_>, soft_returns: &[f64], now: u32) -> Result<()> {
        self.memory.restate(point, soft_returns, now)
    }

    /// Fits the field to the particles as they are
    pub fn refit(&mut self) -> Result<()> {
        self.field = if self.memory.is_empty() { None } else { Some(self.estimator().fit(&self.memory)?) };
        Ok(())
    }

    /// V(x) for a response with soft return b; 0 before anything is known
    pub fn baseline(&self, x: Point<'_>, b: f64) -> f64 {
        match &self.field {
            None => 0.0,
            Some(field) if self.rule.leave_one_out => field.leave_one_out(x, b),
            Some(field) => field.value(x),
        }
    }

    /// V(x) with the evidence behind it
    pub fn predict(&self, x: Point<'_>) -> Option<Prediction> {
        self.field.as_ref().map(|field| field.predict(x))
    }

    /// V(x) without b
    pub fn without(&self, x: Point<'_>, b: f64) -> f64 {
        self.field.as_ref().map_or(0.0, |field| field.leave_one_out(x, b))
    }
}
