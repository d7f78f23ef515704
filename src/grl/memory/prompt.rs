//! Prompt particles: one for each distinct prompt, with the count, mean and spread of its soft returns.
//!
//! The soft return of a rollout is b = R − τ Σ log(π/π_ref) under the current policy. It moves with the policy, so a
//! particle is *restated* from the rollouts that are still in the replay store whenever their log-ratios are recomputed;
//! a particle does not replace the store (it has lost the tokens, hence the targets).

use std::collections::{BTreeMap, HashMap};

use serde_json::json;

use crate::error::{Error, Result};
use crate::grl::arrays::{Arrays, Header, Owner};
use crate::grl::kernel::Point;

const KIND: &str = "prompt memory";

/// Where a particle comes from, which decides whether it can be evicted
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Rollouts of this run; evicted when the memory is full
    Experience,
    /// Put there by the user; never evicted or merged with experience
    Factual,
}

/// What came of adding a soft return
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upsert {
    /// A new particle, in place of this evicted one where the memory was full
    Added {
        /// The key of the evicted particle
        evicted: Option<u64>,
    },
    /// An existing particle counted one more
    Updated,
}

/// One particle, as it is read
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Particle<'a> {
    /// Identity and features
    pub point: Point<'a>,
    /// Soft returns behind it
    pub count: f64,
    /// Their mean
    pub mean: f64,
    /// The value of the particle: the mean, or (1/κ) log mean e^{κb}
    pub level: f64,
    /// Sum of their squared distances from the mean
    pub m2: f64,
    /// When it was last touched
    pub stamp: u32,
    /// Where it comes from
    pub origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Statistics {
    count: f64,
    mean: f64,
    m2: f64,
    level: f64,
}

/// A bounded set of prompt particles
#[derive(Debug, Clone, PartialEq)]
pub struct PromptMemory {
    dim: usize,
    capacity: usize,
    kappa: f64,
    pub(super) keys: Vec<u64>,
    pub(super) phi: Vec<f32>,
    statistics: Vec<Statistics>,
    pub(super) stamps: Vec<u32>,
    pub(super) origins: Vec<Origin>,
    index: HashMap<u64, usize>,
    /// Keys of particles that were merged into another; bounded by the capacity
    pub(super) aliases: BTreeMap<u64, u64>,
}

impl PromptMemory {
    /// An empty memory for features of `dim` numbers. `kappa` is 0 for means; a κ > 0 makes each particle's value the
    /// soft mean (1/κ) log mean e^{κb}
    pub fn new(dim: usize, capacity: usize, kappa: f64) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::usage("a particle memory needs room for at least one particle"));
        }
        if !(kappa.is_finite() && kappa >= 0.0) {
            return Err(Error::usage(format!("kappa is {kappa}, expected a number from 0 to 1/tau")));
        }
        Ok(Self {
            dim,
            capacity,
            kappa,
            keys: Vec::new(),
            phi: Vec::new(),
            statistics: Vec::new(),
            stamps: Vec::new(),
            origins: Vec::new(),
            index: HashMap::new(),
            aliases: BTreeMap::new(),
        })
    }

    /// Particles
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Features of a particle
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The most particles it holds
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// κ of the particles' values
    pub fn kappa(&self) -> f64 {
        self.kappa
    }

    /// Where the particle of this prompt stands, the one it was merged into included
    pub fn position(&self, key: u64) -> Option<usize> {
        let key = self.aliases.get(&key).unwrap_or(&key);
        self.index.get(key).copied()
    }

    /// Particle `i`
    pub fn particle(&self, i: usize) -> Particle<'_> {
        let Statistics { count, mean, m2, level } = self.statistics[i];
        let point = Point::new(self.keys[i], &self.phi[i * self.dim..(i + 1) * self.dim]);
        Particle { point, count, mean, level, m2, stamp: self.stamps[i], origin: self.origins[i] }
    }

    /// All particles, in the order in which they came
    pub fn iter(&self) -> impl Iterator<Item = Particle<'_>> + Clone {
        (0..self.len()).map(|i| self.particle(i))
    }

    /// Soft returns behind all particles
    pub fn total_count(&self) -> f64 {
        self.statistics.iter().map(|s| s.count).sum()
    }

    /// Mean of all soft returns (of the particles' values, weighted by their counts)
    pub fn mean(&self) -> Option<f64> {
        let total = self.total_count();
        (total > 0.0).then(|| self.statistics.iter().map(|s| s.count * s.level).sum::<f64>() / total)
    }

    /// Variance of all soft returns around their mean, within prompts and between them
    pub fn variance(&self) -> Option<f64> {
        let total = self.total_count();
        let mean = self.statistics.iter().map(|s| s.count * s.mean).sum::<f64>() / total;
        let squares: f64 = self.statistics.iter().map(|s| s.m2 + s.count * (s.mean - mean).powi(2)).sum();
        (total > 0.0).then_some(squares / total)
    }

    /// Counts one soft return of a prompt. Where the memory is full, the oldest particle of experience makes room
    /// ([`PromptMemory::evict`] chooses better, beforehand)
    pub fn observe(&mut self, point: Point<'_>, b: f64, now: u32) -> Result<Upsert> {
        self.check(point, &[b])?;
        if let Some(i) = self.position(point.key) {
            self.statistics[i] = self.statistics[i].with(b, self.kappa);
            self.stamps[i] = now;
            return Ok(Upsert::Updated);
        }
        let evicted = self.push(point, Statistics::of(&[b], self.kappa), now, Origin::Experience)?;
        Ok(Upsert::Added { evicted })
    }

    /// Replaces what is known of a prompt by these soft returns; none of them takes the particle away, unless it is
    /// factual. This is how a refresh under a changed policy works, and how rollouts leave
    pub fn restate(&mut self, point: Point<'_>, soft_returns: &[f64], now: u32) -> Result<()> {
        self.check(point, soft_returns)?;
        match (self.position(point.key), soft_returns) {
            (Some(i), []) if self.origins[i] == Origin::Experience => self.remove_at(i),
            (_, []) => {}
            (Some(i), _) => {
                self.statistics[i] = Statistics::of(soft_returns, self.kappa);
                self.stamps[i] = now;
            }
            (None, _) => {
                self.push(point, Statistics::of(soft_returns, self.kappa), now, Origin::Experience)?;
            }
        }
        Ok(())
    }

    /// Marks the particle of a prompt as factual; `false` where there is none
    pub fn pin(&mut self, key: u64) -> bool {
        let position = self.position(key);
        if let Some(i) = position {
            self.origins[i] = Origin::Factual;
        }
        position.is_some()
    }

    fn check(&self, point: Point<'_>, soft_returns: &[f64]) -> Result<()> {
        if point.phi.len() != self.dim {
            let message = format!("a prompt has {} features, and the memory holds {}", point.phi.len(), self.dim);
            return Err(Error::usage(message));
        }
        if let Some(bad) = point.phi.iter().find(|x| !x.is_finite()) {
            return Err(Error::run(format!("a feature of prompt {:016x} is {bad}", point.key)));
        }
        if let Some(bad) = soft_returns.iter().find(|b| !b.is_finite()) {
            let message = format!("a soft return of prompt {:016x} is {bad}, expected a finite number", point.key);
            return Err(Error::run(message).hint("a reward function or a log-probability gave NaN or an infinity"));
        }
        Ok(())
    }

    fn push(&mut self, point: Point<'_>, statistics: Statistics, now: u32, origin: Origin) -> Result<Option<u64>> {
        let evicted = if self.len() < self.capacity { None } else { Some(self.evict_oldest()?) };
        self.index.insert(point.key, self.len());
        self.keys.push(point.key);
        self.phi.extend_from_slice(point.phi);
        self.statistics.push(statistics);
        self.stamps.push(now);
        self.origins.push(origin);
        Ok(evicted)
    }

    fn evict_oldest(&mut self) -> Result<u64> {
        let experience = (0..self.len()).filter(|&i| self.origins[i] == Origin::Experience);
        let Some(oldest) = experience.min_by_key(|&i| self.stamps[i]) else {
            let message = format!("all {} particles of the memory are factual, and there is no room", self.capacity);
            return Err(Error::usage(message).hint("raise the capacity or pin fewer prompts"));
        };
        let key = self.keys[oldest];
        self.remove_at(oldest);
        Ok(key)
    }

    /// Takes particle `i` away; those behind it move up, so that the order stays that of arrival
    pub(super) fn remove_at(&mut self, i: usize) {
        let key = self.keys.remove(i);
        self.phi.drain(i * self.dim..(i + 1) * self.dim);
        self.statistics.remove(i);
        self.stamps.remove(i);
        self.origins.remove(i);
        self.aliases.retain(|_, kept| *kept != key);
        self.index = self.keys.iter().enumerate().map(|(i, key)| (*key, i)).collect();
    }

    /// Adds particle `from` to particle `into`: counts add, features and values are averaged by count. Never by a signed
    /// weight, which would divide by zero or extrapolate
    pub(super) fn join(&mut self, into: usize, from: usize) {
        let (a, b) = (self.statistics[into], self.statistics[from]);
        let share = b.count / (a.count + b.count);
        for d in 0..self.dim {
            let (x, y) = (self.phi[into * self.dim + d], self.phi[from * self.dim + d]);
            self.phi[into * self.dim + d] = (f64::from(x) + share * (f64::from(y) - f64::from(x))) as f32;
        }
        self.statistics[into] = a.joined(b, self.kappa);
        self.stamps[into] = self.stamps[into].max(self.stamps[from]);
        let (kept, lost) = (self.keys[into], self.keys[from]);
        for target in self.aliases.values_mut().filter(|target| **target == lost) {
            *target = kept;
        }
        self.remove_at(from);
        self.aliases.insert(lost, kept);
    }

    /// The memory as flat arrays
    pub fn to_arrays(&self, owner: &Owner) -> Arrays {
        let extra = json!({ "dim": self.dim, "capacity": self.capacity, "kappa": self.kappa, "particles": self.len(), "aliases": self.aliases.len() });
        let column = |of: fn(&Statistics) -> f64| self.statistics.iter().map(of).collect::<Vec<f64>>();
        let origins: Vec<u32> = self.origins.iter().map(|origin| u32::from(*origin == Origin::Factual)).collect();
        Arrays::new(Header::new(KIND, owner, extra))
            .with("keys", self.keys.clone())
            .with_rows("phi", self.dim, self.phi.clone())
            .with("count", column(|s| s.count))
            .with("mean", column(|s| s.mean))
            .with("m2", column(|s| s.m2))
            .with("level", column(|s| s.level))
            .with("stamps", self.stamps.clone())
            .with("factual", origins)
            .with("alias_from", self.aliases.keys().copied().collect::<Vec<u64>>())
            .with("alias_into", self.aliases.values().copied().collect::<Vec<u64>>())
    }

    /// The memory in the bytes of a file, which must belong to `owner`
    pub fn from_bytes(bytes: &[u8], owner: &Owner) -> Result<Self> {
        let mut arrays = Arrays::from_bytes(bytes, KIND, owner)?;
        let [dim, capacity, particles, aliases] =
            ["dim", "capacity", "particles", "aliases"].map(|name| arrays.size(name));
        let (dim, capacity, particles, aliases) = (dim?, capacity?, particles?, aliases?);
        let kappa = arrays.header().extra.get("kappa").and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
        let mut memory = Self::new(dim, capacity, kappa)?;
        memory.keys = arrays.take("keys", particles)?;
        memory.phi = arrays.take("phi", particles.saturating_mul(dim))?;
        let [count, mean, m2, level] = ["count", "mean", "m2", "level"].map(|name| arrays.take::<f64>(name, particles));
        let (count, mean, m2, level) = (count?, mean?, m2?, level?);
        let rows = count.into_iter().zip(mean).zip(m2).zip(level);
        memory.statistics = rows.map(|(((count, mean), m2), level)| Statistics { count, mean, m2, level }).collect();
        memory.stamps = arrays.take("stamps", particles)?;
        let factual: Vec<u32> = arrays.take("factual", particles)?;
        memory.origins =
            factual.into_iter().map(|flag| if flag == 0 { Origin::Experience } else { Origin::Factual }).collect();
        let (from, into): (Vec<u64>, Vec<u64>) =
            (arrays.take("alias_from", aliases)?, arrays.take("alias_into", aliases)?);
        memory.aliases = from.into_iter().zip(into).collect();
        memory.index = memory.keys.iter().enumerate().map(|(i, key)| (*key, i)).collect();
        memory.check_content()?;
        Ok(memory)
    }

    fn check_content(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::usage(format!("the {KIND} is damaged: {what}")));
        if self.len() > self.capacity {
            return refuse(format!("{} particles in a memory for {}", self.len(), self.capacity));
        }
        if self.index.len() != self.len() {
            return refuse("two particles have one key".to_owned());
        }
        let finite = |s: &Statistics| s.mean.is_finite() && s.m2 >= 0.0 && s.m2.is_finite() && s.level.is_finite();
        if let Some(i) = (0..self.len()).find(|&i| !(self.statistics[i].count >= 1.0 && finite(&self.statistics[i]))) {
            return refuse(format!("particle {i} has statistics that no rewards give"));
        }
        if !self.phi.iter().all(|x| x.is_finite()) {
            return refuse("a feature is not finite".to_owned());
        }
        Ok(())
    }
}

impl Statistics {
    /// Of at least one soft return
    fn of(soft_returns: &[f64], kappa: f64) -> Self {
        let count = soft_returns.len() as f64;
        let mean = soft_returns.iter().sum::<f64>() / count;
        let m2 = soft_returns.iter().map(|b| (b - mean).powi(2)).sum();
        let level = if kappa == 0.0 { mean } else { soft_mean(soft_returns.iter().map(|b| (1.0, *b)), kappa) };
        Self { count, mean, m2, level }
    }

    /// One more (Welford)
    fn with(self, b: f64, kappa: f64) -> Self {
        let count = self.count + 1.0;
        let mean = self.mean + (b - self.mean) / count;
        let m2 = self.m2 + (b - self.mean) * (b - mean);
        let level = if kappa == 0.0 { mean } else { soft_mean([(self.count, self.level), (1.0, b)], kappa) };
        Self { count, mean, m2, level }
    }

    /// Those of two particles together (Chan, Golub and LeVeque)
    fn joined(self, other: Self, kappa: f64) -> Self {
        let count = self.count + other.count;
        let apart = other.mean - self.mean;
        let mean = self.mean + apart * other.count / count;
        let m2 = self.m2 + other.m2 + apart * apart * self.count * other.count / count;
        let level =
            if kappa == 0.0 { mean } else { soft_mean([(self.count, self.level), (other.count, other.level)], kappa) };
        Self { count, mean, m2, level }
    }
}

/// (1/κ) log Σ w e^{κb} / Σ w, which is the weighted mean for κ = 0 and grows with κ towards the largest
pub fn soft_mean(weighted: impl IntoIterator<Item = (f64, f64)> + Clone, kappa: f64) -> f64 {
    let total: f64 = weighted.clone().into_iter().map(|(w, _)| w).sum();
    if kappa == 0.0 {
        return weighted.into_iter().map(|(w, b)| w * b).sum::<f64>() / total;
    }
    let largest = weighted.clone().into_iter().fold(f64::NEG_INFINITY, |largest, (_, b)| largest.max(b));
    let sum: f64 = weighted.into_iter().map(|(w, b)| w * (kappa * (b - largest)).exp()).sum();
    // A weight of -1 takes a value out again, which may leave nothing but rounding
    largest + (sum / total).max(f64::MIN_POSITIVE).ln() / kappa
}
