//! The methods, on one rollout code and one replay store, and one run of one of them.

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

use super::below;
use super::critic::Critic;
use super::policy::Policy;
use super::problem::{DIM, Problem, TAU};
use crate::algo::policy::Clip;
use crate::error::Result;
use crate::grl::fit::{Fitted, Grid, fit_marginal_likelihood};
use crate::grl::kernel::{Kernel, Point as Place};
use crate::grl::loss::{Batch, Reduction, clip, pcl, reinforce};
use crate::grl::memory::PromptMemory;
use crate::grl::value::{Estimator, ValueField};

/// Where V(x) of the particle memory comes from
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// One mean for all prompts
    Mean,
    /// A Gaussian process with a fixed smooth kernel
    Smooth,
    /// A Gaussian process by identity alone
    Identity,
    /// A Gaussian process whose composite kernel is fitted every eight updates
    Composite,
    /// The same on features that were dealt out to other prompts: what is left of the gain is not due to geometry
    Permuted,
}

/// What is compared
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Clipped surrogate, four epochs, values from a network
    Ppo,
    /// The same with values from a smooth field
    PpoField,
    /// REINFORCE with the other responses' mean as baseline
    Rloo,
    /// Path consistency with values from a network
    Dro,
    /// Path consistency with the group's own mean (trajectory balance)
    Tba,
    /// Path consistency with values from a particle memory
    Grl(Field),
}

/// How a run goes
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Reward queries in all
    pub queries: usize,
    /// Reward queries between updates
    pub batch: usize,
    /// Responses to a prompt
    pub generations: usize,
    /// Gradient steps after each batch, of which the first sees the batch and the others replay
    pub steps: usize,
    /// Responses that are kept
    pub window: usize,
    /// Learning rate
    pub rate: f64,
}

/// Where a run stands
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Point {
    /// Reward queries so far
    pub queries: usize,
    /// (J − J_ref)/(J* − J_ref)
    pub score: f64,
    /// KL to the reference in nats
    pub kl: f64,
}

struct Sample {
    prompt: usize,
    response: Vec<usize>,
    reward: f64,
    behaviour: Vec<f64>,
    reference: Vec<f64>,
}

/// One run of one method
pub(super) struct Run<'p> {
    problem: &'p Problem,
    method: Method,
    settings: Settings,
    /// Prompts that are drawn
    trained: Vec<usize>,
    pub(super) policy: Policy<'p>,
    critic: Critic,
    samples: Vec<Sample>,
    /// Features that the field sees, one row for each prompt
    features: Vec<Vec<f32>>,
    fitted: Option<Fitted>,
    /// Of PPO
    field: Option<ValueField>,
    updates: usize,
    queries: usize,
    rng: Xoshiro256PlusPlus,
}

/// Runs a method and reports at every doubling of the queries
pub fn run(problem: &Problem, method: Method, settings: Settings, seed: u64) -> Result<Vec<Point>> {
    let mut run = Run::new(problem, method, settings, (0..problem.len()).collect(), seed);
    let mut points = Vec::new();
    let mut report = settings.batch.max(64);
    while run.queries < settings.queries {
        run.update()?;
        if run.queries >= report {
            let (objective, kl) = problem.objective(|x, step, previous| run.policy.row(x, step, previous));
            points.push(Point { queries: run.queries, score: problem.normalised(objective), kl });
            report *= 2;
        }
    }
    Ok(points)
}

impl<'p> Run<'p> {
    /// Before the first query
    pub(super) fn new(
        problem: &'p Problem,
        method: Method,
        settings: Settings,
        trained: Vec<usize>,
        seed: u64,
    ) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut features: Vec<Vec<f32>> =
            problem.prompts.iter().map(|x| x.iter().map(|x| *x as f32).collect()).collect();
        if method == Method::Grl(Field::Permuted) {
            for last in (1..features.len()).rev() {
                features.swap(last, below(&mut rng, last + 1));
            }
        }
        Self {
            problem,
            method,
            settings,
            trained,
            critic: Critic::new(&mut rng),
            policy: Policy::new(problem),
            samples: Vec::new(),
            features,
            fitted: None,
            field: None,
            updates: 0,
            queries: 0,
            rng,
        }
    }

    /// Until the queries are spent
    pub(super) fn finish(&mut self) -> Result<()> {
        while self.queries < self.settings.queries {
            self.update()?;
        }
        Ok(())
    }

    /// One batch of queries and what is learnt from it
    fn update(&mut self) -> Result<()> {
        self.sample();
        self.queries += self.settings.batch;
        match self.method {
            Method::Ppo => self.ppo(false)?,
            Method::PpoField => self.ppo(true)?,
            Method::Rloo => self.rloo()?,
            Method::Dro | Method::Tba | Method::Grl(_) => self.consistency(self.method)?,
        }
        self.updates += 1;
        Ok(())
    }

    fn sample(&mut self) {
        let Settings { batch, generations, window, .. } = self.settings;
        for _ in 0..batch / generations {
            let prompt = self.trained[below(&mut self.rng, self.trained.len())];
            for _ in 0..generations {
                let response = self.policy.sample(prompt, &mut self.rng);
                let reward = self.problem.reward(prompt, &response, &mut self.rng);
                let behaviour = self.policy.log_probs(prompt, &response);
                let reference = Policy::reference(self.problem, &response);
                self.samples.push(Sample { prompt, response, reward, behaviour, reference });
            }
        }
        let excess = self.samples.len().saturating_sub(window);
        self.samples.drain(..excess);
    }

    fn newest(&self) -> Vec<usize> {
        (self.samples.len() - self.settings.batch..self.samples.len()).collect()
    }

    /// One gradient step on these samples with ∂loss/∂log π from `loss`, which gets the batch and their soft returns
    fn step(&mut self, which: &[usize], loss: impl FnOnce(&Batch<'_>, &[f64]) -> Result<Vec<f64>>) -> Result<()> {
        let samples: Vec<&Sample> = which.iter().map(|i| &self.samples[*i]).collect();
        let log_probs: Vec<f64> = samples.iter().flat_map(|s| self.policy.log_probs(s.prompt, &s.response)).collect();
        let reference: Vec<f64> = samples.iter().flat_map(|s| s.reference.iter().copied()).collect();
        let lengths: Vec<usize> = samples.iter().map(|s| s.response.len()).collect();
        let batch = Batch::new(&log_probs, &reference, &lengths)?;
        let soft: Vec<f64> = batch.log_ratios().iter().zip(&samples).map(|(l, s)| s.reward - TAU * l).collect();
        let grad = loss(&batch, &soft)?;
        let responses: Vec<(usize, &[usize])> = samples.iter().map(|s| (s.prompt, &s.response[..])).collect();
        self.policy.descend(&responses, &grad, self.settings.rate);
        Ok(())
    }

    fn prompts(&self, which: &[usize]) -> Vec<[f64; DIM]> {
        which.iter().map(|i| self.problem.prompts[self.samples[*i].prompt]).collect()
    }

    fn soft_returns(&self, which: &[usize], under_present_policy: bool) -> Vec<f64> {
        let soft = |i: &usize| {
            let sample = &self.samples[*i];
            let present = under_present_policy.then(|| self.policy.log_probs(sample.prompt, &sample.response));
            let log_probs = present.as_ref().unwrap_or(&sample.behaviour);
            let ratio: f64 = log_probs.iter().zip(&sample.reference).map(|(p, r)| p - r).sum();
            sample.reward - TAU * ratio
        };
        which.iter().map(soft).collect()
    }

    /// Values of a field are those of all samples before this batch; the first batch has none but the mean, which
    /// standardisation removes
    fn ppo(&mut self, with_field: bool) -> Result<()> {
        let which = self.newest();
        let soft = self.soft_returns(&which, false);
        let value = |i: &usize| {
            let prompt = self.samples[*i].prompt;
            match &self.field {
                Some(field) => field.value(self.place(prompt)),
                None if with_field => 0.0,
                None => self.critic.value(&self.problem.prompts[prompt]),
            }
        };
        let mut advantages: Vec<f64> = soft.iter().zip(which.iter().map(value)).map(|(b, v)| b - v).collect();
        let n = advantages.len() as f64;
        let mean = advantages.iter().sum::<f64>() / n;
        let deviation = (advantages.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n).sqrt();
        for a in &mut advantages {
            *a = (*a - mean) / (deviation + 1e-8);
        }
        let behaviour: Vec<f64> = which.iter().flat_map(|i| self.samples[*i].behaviour.clone()).collect();
        let prompts = self.prompts(&which);
        for _ in 0..self.settings.steps {
            self.step(&which, |batch, _| {
                let bounds = Clip::symmetric(0.2);
                Ok(clip(batch, &behaviour, &advantages, &bounds, Reduction::SequenceMean)?.grad_log_probs)
            })?;
            for _ in 0..4 {
                self.critic.descend(&prompts, &soft);
            }
        }
        if with_field {
            self.field = Some(smooth().fit(&self.particles(false)?)?);
        }
        Ok(())
    }

    fn rloo(&mut self) -> Result<()> {
        let which = self.newest();
        let k = self.settings.generations;
        for _ in 0..self.settings.steps {
            self.step(&which, |batch, soft| {
                let others = |i: usize| {
                    let group = &soft[i / k * k..(i / k + 1) * k];
                    (group.iter().sum::<f64>() - soft[i]) / (k - 1) as f64
                };
                let advantages: Vec<f64> = (0..soft.len()).map(|i| soft[i] - others(i)).collect();
                Ok(reinforce(batch, &advantages, Reduction::SequenceMean)?.grad_log_probs)
            })?;
        }
        Ok(())
    }

    fn consistency(&mut self, method: Method) -> Result<()> {
        let values = if let Method::Grl(field) = method { Some(self.field_values(field)?) } else { None };
        for step in 0..self.settings.steps {
            let which = if step == 0 { self.newest() } else { self.replayed(method) };
            if method == Method::Dro {
                let (prompts, soft) = (self.prompts(&which), self.soft_returns(&which, true));
                for _ in 0..4 {
                    self.critic.descend(&prompts, &soft);
                }
            }
            let k = self.settings.generations;
            let rewards: Vec<f64> = which.iter().map(|i| self.samples[*i].reward).collect();
            let known: Option<Vec<f64>> = match (&values, method) {
                (Some(values), _) => Some(which.iter().map(|i| values[self.samples[*i].prompt]).collect()),
                (None, Method::Dro) => Some(self.prompts(&which).iter().map(|x| self.critic.value(x)).collect()),
                (None, _) => None,
            };
            self.step(&which, |batch, soft| {
                let group = |i: usize| soft[i / k * k..(i / k + 1) * k].iter().sum::<f64>() / k as f64;
                let values = known.unwrap_or_else(|| (0..soft.len()).map(group).collect());
                Ok(pcl(batch, &rewards, &values, TAU, None)?.grad_log_probs)
            })?;
        }
        Ok(())
    }

    fn replayed(&mut self, method: Method) -> Vec<usize> {
        let (n, k) = (self.samples.len(), self.settings.generations);
        if method == Method::Tba {
            let group = |_| below(&mut self.rng, n / k);
            let groups: Vec<usize> = (0..self.settings.batch / k).map(group).collect();
            return groups.into_iter().flat_map(|group| (0..k).map(move |i| group * k + i)).collect();
        }
        (0..self.settings.batch).map(|_| below(&mut self.rng, n)).collect()
    }

    /// A prompt as the field sees it
    pub(super) fn place(&self, prompt: usize) -> Place<'_> {
        Place::new(prompt as u64, &self.features[prompt])
    }

    /// A particle for each prompt, of the soft returns of all that is kept
    pub(super) fn particles(&self, under_present_policy: bool) -> Result<PromptMemory> {
        let all: Vec<usize> = (0..self.samples.len()).collect();
        let soft = self.soft_returns(&all, under_present_policy);
        let mut memory = PromptMemory::new(DIM, self.problem.len(), 0.0)?;
        for (sample, b) in self.samples.iter().zip(soft) {
            memory.observe(self.place(sample.prompt), b, self.updates as u32)?;
        }
        Ok(memory)
    }

    /// V(x) of every prompt from all that is kept, under the present policy
    fn field_values(&mut self, field: Field) -> Result<Vec<f64>> {
        let memory = self.particles(true)?;
        let estimator = match field {
            Field::Mean => return Ok(vec![memory.mean().unwrap_or(0.0); self.problem.len()]),
            Field::Smooth => smooth(),
            Field::Identity => Estimator::GaussianProcess { kernel: Kernel::Delta { variance: 4.0 }, noise: 1.0 },
            Field::Composite | Field::Permuted => {
                if self.updates.is_multiple_of(8) {
                    self.fitted = Some(fit_marginal_likelihood(&memory, &Grid::default())?);
                }
                self.fitted.as_ref().map_or_else(smooth, Fitted::estimator)
            }
        };
        let values = estimator.fit(&memory)?;
        Ok((0..self.problem.len()).map(|x| values.value(self.place(x))).collect())
    }
}

/// The smooth kernel that is not fitted
fn smooth() -> Estimator {
    Estimator::GaussianProcess { kernel: Kernel::Rbf { variance: 4.0, length: 0.7 }, noise: 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn final_point(method: Method, generations: usize, steps: usize) -> Point {
        let problem = Problem::new(1, 48, true);
        let settings = Settings { queries: 1024, batch: 64, generations, steps, window: 512, rate: 0.08 };
        let points = run(&problem, method, settings, 1).unwrap();
        assert_eq!(points.iter().map(|point| point.queries).collect::<Vec<_>>(), [64, 128, 256, 512, 1024]);
        assert_eq!(points, run(&problem, method, settings, 1).unwrap(), "{method:?} does not repeat");
        points[4]
    }

    #[test]
    fn every_method_learns_and_repeats() {
        for (method, generations, steps) in [
            (Method::Ppo, 1, 4),
            (Method::PpoField, 1, 4),
            (Method::Rloo, 4, 1),
            (Method::Dro, 1, 4),
            (Method::Tba, 4, 4),
            (Method::Grl(Field::Mean), 1, 4),
            (Method::Grl(Field::Smooth), 1, 4),
            (Method::Grl(Field::Identity), 2, 4),
            (Method::Grl(Field::Composite), 2, 4),
            (Method::Grl(Field::Permuted), 2, 4),
        ] {
            let point = final_point(method, generations, steps);
            assert!(point.score > 0.35 && point.score < 1.0 && point.kl > 0.5, "{method:?}: {point:?}");
        }
    }
}
