//! What a full memory keeps: merging of particles that lie on one point, and eviction of those that tell least.

use crate::error::Result;
use crate::grl::kernel::{Kernel, Point};
use crate::grl::linalg::{Cholesky, Symmetric, dot};
use crate::grl::memory::{Origin, PromptMemory};

/// How particles are weighed against each other when a memory must shrink
#[derive(Debug, Clone, PartialEq)]
pub struct Eviction<'a> {
    /// The field's kernel
    pub kernel: &'a Kernel,
    /// Variance of one soft return around its prompt's value
    pub noise: f64,
    /// A particle that was last touched `n` updates ago counts decayⁿ; 1 looks at information alone
    pub decay: f64,
}

impl PromptMemory {
    /// Joins particles of one origin whose kernel correlation exceeds `threshold`; gives the number of joins
    ///
    /// The identity part of a composite kernel lowers the correlation of different prompts, so they merge only where the
    /// kernel says that prompts have hardly anything of their own.
    pub fn merge(&mut self, kernel: &Kernel, threshold: f64) -> usize {
        let mut merged = 0;
        let mut first = 0;
        while first < self.len() {
            let mut second = first + 1;
            while second < self.len() && self.aliases.len() < self.capacity() {
                let (a, b) = (self.particle(first), self.particle(second));
                if a.origin == b.origin && kernel.correlation(a.point, b.point) > threshold {
                    self.join(first, second);
                    merged += 1;
                } else {
                    second += 1;
                }
            }
            first += 1;
        }
        merged
    }

    /// Makes room for `room` more particles and gives the evicted keys
    ///
    /// Those go first without which the Gaussian process's variance, averaged over `probe`, grows least, weighted by age.
    /// Removing observation i raises the variance at x by [C k(x)]_i² / C_ii with C = (K + D)⁻¹, so one factor serves all.
    pub fn evict(&mut self, room: usize, probe: &[Point<'_>], rule: &Eviction<'_>, now: u32) -> Result<Vec<u64>> {
        let excess = (self.len() + room).saturating_sub(self.capacity());
        if excess == 0 {
            return Ok(Vec::new());
        }
        let gains = self.information(probe, rule)?;
        let age = |i: usize| f64::from(now.saturating_sub(self.stamps[i]));
        let mut candidates: Vec<(f64, usize)> = (0..self.len())
            .filter(|&i| self.origins[i] == Origin::Experience)
            .map(|i| (gains[i] * rule.decay.powf(age(i)), i))
            .collect();
        candidates
            .sort_by(|a, b| a.0.total_cmp(&b.0).then(self.stamps[a.1].cmp(&self.stamps[b.1])).then(a.1.cmp(&b.1)));
        let mut leaving: Vec<usize> = candidates.into_iter().take(excess).map(|(_, i)| i).collect();
        leaving.sort_unstable();
        let keys = leaving.iter().map(|&i| self.keys[i]).collect();
        for i in leaving.into_iter().rev() {
            self.remove_at(i);
        }
        Ok(keys)
    }

    /// By how much the mean variance over `probe` would grow without each particle
    fn information(&self, probe: &[Point<'_>], rule: &Eviction<'_>) -> Result<Vec<f64>> {
        let points: Vec<Point<'_>> = self.iter().map(|particle| particle.point).collect();
        let mut matrix = Symmetric::from_fn(points.len(), |i, j| rule.kernel.value(points[i], points[j]));
        matrix.add_diagonal(|i| rule.noise / self.particle(i).count);
        let factor = Cholesky::new(&matrix)?;
        let mut gains = vec![0.0; points.len()];
        for x in probe {
            let row: Vec<f64> = points.iter().map(|point| rule.kernel.value(*x, *point)).collect();
            for (gain, c) in gains.iter_mut().zip(factor.solve(&row)) {
                *gain += c * c / probe.len() as f64;
            }
        }
        for (i, gain) in gains.iter_mut().enumerate() {
            let mut unit = vec![0.0; points.len()];
            unit[i] = 1.0;
            let column = factor.solve_lower(&unit);
            *gain /= dot(&column, &column);
        }
        Ok(gains)
    }
}
