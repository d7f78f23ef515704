//! Q⁺(s, a) = Σ w_i k_s(s, s_i) k_a(a, a_i): a weighted field over states and actions, and the rules that change it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::grl::kernel::{Kernel, Point};
use crate::grl::linalg::Cholesky;

/// A state and an action; in the field's terms one point z
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StateAction<'a> {
    /// s
    pub state: Point<'a>,
    /// a, or its parameter θ
    pub action: Point<'a>,
}

/// The step size of kernel TD
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepSize {
    /// α
    Constant(f64),
    /// 1/n at the n-th visit of a point: the running mean
    InverseCount,
}

/// How an experience changes the field
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryUpdate {
    /// The original paper's Algorithm 1 with w_new = r, as it stands. Repeated visits make it diverge: it adds rewards, not
    /// errors. Kept so that its figures can be compared
    Legacy {
        /// λ: share of the new weight that like particles get
        association: f64,
        /// Particles with a smaller kernel value get nothing
        threshold: f64,
        /// γ_w: all weights shrink by it
        decay: f64,
        /// τ_merge: particles more alike become one; none where it is 1 or more
        merge: f64,
        /// τ_prune: particles with a smaller |w| go
        prune: f64,
    },
    /// Functional stochastic gradient: δ = y − Q⁺(z); w += αδ at the particle of z, which is added where there is none
    KernelTd {
        /// α
        step: StepSize,
        /// Errors of at most this size add no particle
        novelty: f64,
    },
    /// A Gaussian process on the targets: a point seen several times counts as one particle with noise σ_n²/n
    GaussianProcess {
        /// σ_n²
        noise: f64,
        /// Whether a new target replaces that of its point (a table's value) or is averaged with it (a sample)
        replace: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
struct FieldParticle {
    state_key: u64,
    action_key: u64,
    state: Vec<f32>,
    action: Vec<f32>,
    weight: f64,
    count: f64,
    target: f64,
}

impl FieldParticle {
    fn at(&self) -> StateAction<'_> {
        StateAction {
            state: Point::new(self.state_key, &self.state),
            action: Point::new(self.action_key, &self.action),
        }
    }
}

/// A bounded weighted field; the first particle makes room
#[derive(Debug, Clone)]
pub struct Field {
    states: Kernel,
    actions: Kernel,
    update: MemoryUpdate,
    capacity: usize,
    particles: Vec<FieldParticle>,
    index: HashMap<(u64, u64), usize>,
    /// Of K + D, where the update is a Gaussian process
    factor: Cholesky,
    /// Changes to the factor since it was computed from the matrix
    changes: usize,
}

/// Kernel correlation from which two points are one particle
const SAME: f64 = 1.0 - 1e-6;

/// The least number of changes after which a factor is computed afresh
const FRESH_AFTER: usize = 64;

impl Field {
    /// An empty field
    pub fn new(states: Kernel, actions: Kernel, update: MemoryUpdate, capacity: usize) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::usage("a field needs room for at least one particle"));
        }
        let (particles, index, factor) = (Vec::new(), HashMap::new(), Cholesky::empty());
        Ok(Self { states, actions, update, capacity, particles, index, factor, changes: 0 })
    }

    /// Particles
    pub fn len(&self) -> usize {
        self.particles.len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.particles.is_empty()
    }

    /// The weights, in the order of the particles
    pub fn weights(&self) -> Vec<f64> {
        self.particles.iter().map(|particle| particle.weight).collect()
    }

    /// Point `i` of the field
    pub fn point(&self, i: usize) -> StateAction<'_> {
        self.particles[i].at()
    }

    /// k(z, z′)
    pub fn kernel(&self, a: StateAction<'_>, b: StateAction<'_>) -> f64 {
        let states = self.states.value(a.state, b.state);
        if states == 0.0 { 0.0 } else { states * self.actions.value(a.action, b.action) }
    }

    /// Q⁺(z)
    pub fn value(&self, z: StateAction<'_>) -> f64 {
        let legacy = matches!(self.update, MemoryUpdate::Legacy { .. });
        if self.states.is_identity() && self.actions.is_identity() && !legacy {
            // All other terms are 0, and each point has one particle: a table is looked up, not summed
            let own = self.index.get(&(z.state.key, z.action.key)).map(|&i| &self.particles[i]);
            return own.map_or(0.0, |particle| particle.weight * self.kernel(z, particle.at()));
        }
        self.particles.iter().map(|particle| particle.weight * self.kernel(z, particle.at())).sum()
    }

    /// Applies the update rule to a target (a reward for the legacy rule) and gives the error y − Q⁺(z) before it
    pub fn learn(&mut self, z: StateAction<'_>, target: f64) -> Result<f64> {
        if !target.is_finite() {
            let (state, action) = (z.state.key, z.action.key);
            return Err(Error::run(format!("the target of state {state:016x}, action {action} is {target}")));
        }
        let error = target - self.value(z);
        match self.update.clone() {
            MemoryUpdate::Legacy { association, threshold, decay, merge, prune } => {
                self.associate(z, target, association, threshold);
                self.particles.iter_mut().for_each(|particle| particle.weight *= decay);
                self.merge_by_weight(merge);
                self.particles.retain(|particle| particle.weight.abs() >= prune);
                self.reindex();
            }
            MemoryUpdate::KernelTd { step, novelty } => {
                let found = self.find(z);
                if found.is_none() && error.abs() <= novelty {
                    return Ok(error);
                }
                let i = found.unwrap_or_else(|| self.push(z, 0.0));
                let particle = &mut self.particles[i];
                particle.count += 1.0;
                particle.weight += match step {
                    StepSize::Constant(alpha) => alpha * error,
                    StepSize::InverseCount => error / particle.count,
                };
            }
            MemoryUpdate::GaussianProcess { noise, replace } => self.regress(z, target, noise, replace)?,
        }
        Ok(error)
    }

    /// The particle of z: the same keys, or a place that the kernel cannot tell from it
    fn find(&self, z: StateAction<'_>) -> Option<usize> {
        if let Some(&i) = self.index.get(&(z.state.key, z.action.key)) {
            return Some(i);
        }
        let tells_places = self.states.falls_with_distance() || self.actions.falls_with_distance();
        let is_place = |kernel: &Kernel, a: Point<'_>, b: Point<'_>| {
            a.key == b.key || kernel.falls_with_distance() && kernel.correlation(a, b) >= SAME
        };
        tells_places.then_some(())?;
        self.particles.iter().position(|particle| {
            let at = particle.at();
            is_place(&self.states, z.state, at.state) && is_place(&self.actions, z.action, at.action)
        })
    }

    fn push(&mut self, z: StateAction<'_>, weight: f64) -> usize {
        if self.len() == self.capacity {
            self.particles.remove(0);
            if self.factor.order() > 0 {
                self.factor.remove(0);
            }
            self.reindex();
        }
        self.index.insert((z.state.key, z.action.key), self.len());
        self.particles.push(FieldParticle {
            state_key: z.state.key,
            action_key: z.action.key,
            state: z.state.phi.to_vec(),
            action: z.action.phi.to_vec(),
            weight,
            count: 0.0,
            target: 0.0,
        });
        self.len() - 1
    }

    fn reindex(&mut self) {
        let keys = self.particles.iter().enumerate().map(|(i, p)| ((p.state_key, p.action_key), i));
        self.index = keys.collect();
    }

    /// Steps 1 to 5 of the legacy rule: like particles get a share of the new weight, and a new particle is appended
    fn associate(&mut self, z: StateAction<'_>, weight: f64, association: f64, threshold: f64) {
        let alike: Vec<f64> = self.particles.iter().map(|particle| self.kernel(z, particle.at())).collect();
        for (particle, alike) in self.particles.iter_mut().zip(alike) {
            if alike > threshold {
                particle.weight += association * alike * weight;
            }
        }
        self.push(z, weight);
    }

    /// Step 6b, weights as shares. Two weights that cancel have no weighted mean, and stay apart
    fn merge_by_weight(&mut self, threshold: f64) {
        if threshold >= 1.0 {
            return;
        }
        let mut i = 0;
        while i < self.len() {
            let mut j = i + 1;
            while j < self.len() {
                let (a, b) = (&self.particles[i], &self.particles[j]);
                let total = a.weight + b.weight;
                if self.kernel(a.at(), b.at()) > threshold && total != 0.0 {
                    let share = b.weight / total;
                    let b = self.particles.remove(j);
                    let a = &mut self.particles[i];
                    let places = a.state.iter_mut().zip(&b.state).chain(a.action.iter_mut().zip(&b.action));
                    places.for_each(|(x, y)| *x = (f64::from(*x) * (1.0 - share) + f64::from(*y) * share) as f32);
                    a.weight = total;
                } else {
                    j += 1;
                }
            }
            i += 1;
        }
    }

    /// (K + D) w = y, with the factor grown or changed by a rank where that works
    fn regress(&mut self, z: StateAction<'_>, target: f64, noise: f64, replace: bool) -> Result<()> {
        let same = self.index.get(&(z.state.key, z.action.key)).copied();
        let fits = if let Some(i) = same {
            let particle = &mut self.particles[i];
            if replace {
                particle.target = target;
                true
            } else {
                let before = particle.count;
                particle.count += 1.0;
                particle.target += (target - particle.target) / particle.count;
                self.factor.add_to_diagonal(i, noise / (before + 1.0) - noise / before)
            }
        } else {
            let i = self.push(z, 0.0);
            self.particles[i].target = target;
            self.particles[i].count = 1.0;
            let column: Vec<f64> = self.particles[..i].iter().map(|particle| self.kernel(z, particle.at())).collect();
            self.factor.append(&column, self.kernel(z, z) + noise)
        };
        self.changes += 1;
        // Each change of the factor rounds once more, so it is computed afresh from time to time
        if !fits || self.changes > self.len().max(FRESH_AFTER) {
            self.factor = self.factored(noise)?;
            self.changes = 0;
        }
        let targets: Vec<f64> = self.particles.iter().map(|particle| particle.target).collect();
        for (particle, weight) in self.particles.iter_mut().zip(self.factor.solve(&targets)) {
            particle.weight = weight;
        }
        Ok(())
    }

    fn factored(&self, noise: f64) -> Result<Cholesky> {
        let mut matrix = self.gram();
        matrix.add_diagonal(|i| noise / self.particles[i].count);
        Cholesky::new(&matrix)
    }

    /// K over the particles
    pub fn gram(&self) -> crate::grl::linalg::Symmetric {
        let entry = |i: usize, j: usize| self.kernel(self.particles[i].at(), self.particles[j].at());
        crate::grl::linalg::Symmetric::from_fn(self.len(), entry)
    }
}
