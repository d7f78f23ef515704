//! Trust region policy optimisation: the natural gradient, as far as a bound on the KL allows, then a line search.
//!
//! Schulman et al. 2015, <https://arxiv.org/abs/1502.05477>; the natural gradient: Kakade 2001. The Fisher matrix of the
//! policy is F = mean Jᵀ M J over the states, with J the network's Jacobian and M the Fisher matrix of the distribution in
//! the network's outputs, so that F v takes one pass forward along v and one back ([`algo::natural`](crate::algo::natural)).
//! The value network learns by regression, with Adam.

use super::actor_critic::{Batch, Networks};
use super::on_policy::{OnPolicy, Shared};
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::algo::advantage::normalize;
use crate::algo::distribution::{categorical_kl, gaussian_kl};
use crate::algo::natural::{categorical_fisher, conjugate_gradient, gaussian_fisher, trust_region_step};
use crate::algo::policy::{Clip, clipped_surrogate};
use crate::algo::value::explained_variance;
use crate::rl::env::{Episode, VectorEnv};
use crate::rl::observer::ActionSpace;
use crate::rl::optimizer::Adam;
use crate::rl::policy::Policy;
use crate::rl::random;
use crate::rl::rollout::Rollout;
use crate::rl::state::State;

/// Settings of TRPO; defaults are those of sb3-contrib
#[derive(Debug, Clone, PartialEq)]
pub struct TrpoOptions {
    /// Steps of each environment before an update
    pub n_steps: usize,
    /// Samples of a minibatch of the value network
    pub batch_size: usize,
    /// γ
    pub gamma: f64,
    /// λ
    pub gae_lambda: f64,
    /// Learning rate of the value network
    pub learning_rate: Schedule,
    /// How far the policy may move: KL(old ‖ new), mean over the states
    pub target_kl: f64,
    /// Largest number of Fisher products for a direction
    pub cg_max_steps: usize,
    /// c of F + cI
    pub cg_damping: f64,
    /// What a rejected step is multiplied by
    pub line_search_shrinking_factor: f64,
    /// Steps that are tried
    pub line_search_max_iter: usize,
    /// Passes of the value network over a rollout
    pub n_critic_updates: usize,
    /// Centre and scale the advantages of each rollout
    pub normalize_advantage: bool,
    /// Normalise observations and scale rewards
    pub normalize: bool,
    /// Widths of the hidden layers, of policy and value network each
    pub hidden: Vec<usize>,
    /// log σ at the start, for continuous actions
    pub log_std_init: f64,
}

impl Default for TrpoOptions {
    fn default() -> Self {
        Self {
            n_steps: 2048,
            batch_size: 128,
            gamma: 0.99,
            gae_lambda: 0.95,
            learning_rate: Schedule::constant(1e-3),
            target_kl: 0.01,
            cg_max_steps: 15,
            cg_damping: 0.1,
            line_search_shrinking_factor: 0.8,
            line_search_max_iter: 10,
            n_critic_updates: 10,
            normalize_advantage: true,
            normalize: false,
            hidden: vec![64, 64],
            log_std_init: 0.0,
        }
    }
}

/// The agent with its environments
pub struct Trpo {
    options: TrpoOptions,
    base: OnPolicy,
    rollout: Rollout,
    order: Vec<u32>,
    /// The whole rollout
    all: Batch,
    /// A minibatch of the value network
    batch: Batch,
    grads: Vec<f32>,
    adam: Adam,
}

/// F v of the policy in the states of a batch that went through [`Networks::forward`]; `scratch` holds all parameters
fn fisher_product(
    networks: &Networks,
    actions: &ActionSpace,
    rows: usize,
    batch: &mut Batch,
    v: &[f64],
    scratch: &mut [f32],
    out: &mut [f64],
) {
    let tangent: Vec<f32> = v.iter().map(|v| *v as f32).collect();
    let mut moved = networks.policy.directional(&networks.params, &tangent, rows, &batch.features, &batch.policy);
    let width = networks.policy.outputs();
    let share = 1.0 / rows as f64;
    match actions {
        ActionSpace::Discrete(_) => {
            let (mut row, mut image, mut probabilities) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
            for (logits, moved) in batch.policy.outputs().chunks_exact(width).zip(moved.chunks_exact_mut(width)) {
                softmax(logits, &mut probabilities);
                row.iter_mut().zip(&*moved).for_each(|(row, moved)| *row = f64::from(*moved));
                categorical_fisher(&probabilities, &row, &mut image);
                moved.iter_mut().zip(&image).for_each(|(moved, image)| *moved = (image * share) as f32);
            }
        }
        ActionSpace::Continuous { .. } => {
            let log_std: Vec<f64> = networks.params[networks.log_std.clone()].iter().map(|s| f64::from(*s)).collect();
            let (mut row, mut image) = (vec![0.0; 2 * width], vec![0.0; 2 * width]);
            row[width..].copy_from_slice(&v[networks.log_std.clone()]);
            for moved in moved.chunks_exact_mut(width) {
                row.iter_mut().zip(&*moved).for_each(|(row, moved)| *row = f64::from(*moved));
                gaussian_fisher(&log_std, &row, &mut image);
                moved.iter_mut().zip(&image).for_each(|(moved, image)| *moved = (image * share) as f32);
            }
            // One σ for all states: every state gives the same, and a mean of equals is one of them
            out[networks.log_std.clone()].copy_from_slice(&image[width..]);
        }
    }
    networks.policy.backward(&networks.params, rows, &batch.features, &moved, &mut batch.policy, scratch);
    out[..networks.policy.end()].iter_mut().zip(&*scratch).for_each(|(out, grad)| *out = f64::from(*grad));
}

fn softmax(logits: &[f32], probabilities: &mut [f64]) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    probabilities.iter_mut().zip(logits).for_each(|(p, z)| *p = (f64::from(*z) - f64::from(top)).exp());
    let sum: f64 = probabilities.iter().sum();
    for p in probabilities {
        *p /= sum;
    }
}

/// What a step of the policy came to
struct PolicyStep {
    loss: f64,
    kl: f64,
    entropy: f64,
    grad_norm: f64,
    /// Of the longest step that the bound allows; 0 where none was taken
    fraction: f64,
}

impl Trpo {
    /// Networks are drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// A rollout of a single step, whose advantage has no spread
    pub fn new(env: Box<dyn VectorEnv>, options: TrpoOptions, seed: u64) -> Result<Self> {
        let shared = Shared {
            gamma: options.gamma,
            normalize: options.normalize,
            hidden: &options.hidden,
            log_std_init: options.log_std_init,
        };
        let base = OnPolicy::new(env, shared, seed)?;
        let rollout = base.rollout(options.n_steps)?;
        Ok(Self {
            grads: vec![0.0; base.networks.params.len()],
            adam: Adam::new(base.networks.params.len() - base.networks.log_std.end, 1e-5),
            order: (0..rollout.len() as u32).collect(),
            all: Batch::new(rollout.len(), &base.networks),
            batch: Batch::new(options.batch_size.min(rollout.len()), &base.networks),
            rollout,
            base,
            options,
        })
    }

    fn step_policy(&mut self) -> PolicyStep {
        let Self { options, base, rollout, all, grads, .. } = self;
        let (rows, params) = (rollout.len(), base.networks.log_std.end);
        all.gather(rollout, &(0..rows as u32).collect::<Vec<_>>());
        if options.normalize_advantage {
            normalize(&mut all.advantages);
        }
        base.networks.forward(rows, &base.actions, all);
        let loss = surrogate(all, rows);
        all.grad_entropies.fill(0.0);
        all.grad_values.fill(0.0);
        base.networks.backward(rows, &base.actions, all, grads);
        let gradient: Vec<f64> = grads[..params].iter().map(|grad| -f64::from(*grad)).collect();
        let grad_norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let entropy = all.mean_entropy(rows);
        let unmoved = PolicyStep { loss, kl: 0.0, entropy, grad_norm, fraction: 0.0 };

        let mut product = |v: &[f64], out: &mut [f64]| {
            fisher_product(&base.networks, &base.actions, rows, all, v, grads, out);
            out.iter_mut().zip(v).for_each(|(out, v)| *out += options.cg_damping * v);
        };
        let mut direction = vec![0.0; params];
        conjugate_gradient(&mut product, &gradient, options.cg_max_steps, 1e-10, &mut direction);
        let mut image = vec![0.0; params];
        product(&direction, &mut image);
        let Some(longest) = trust_region_step(&direction, &image, options.target_kl) else { return unmoved };

        let before = base.networks.params[..params].to_vec();
        let old_outputs = all.policy.outputs().to_vec();
        let mut fraction = 1.0;
        for _ in 0..options.line_search_max_iter {
            for ((param, before), direction) in base.networks.params[..params].iter_mut().zip(&before).zip(&direction) {
                *param = (f64::from(*before) + fraction * longest * direction) as f32;
            }
            base.networks.policy.forward(&base.networks.params, rows, &all.features, &mut all.policy);
            base.networks.log_probs(rows, &base.actions, all);
            let new = surrogate(all, rows);
            let kl = match base.actions {
                ActionSpace::Discrete(_) => categorical_kl(&old_outputs, all.policy.outputs(), rows),
                ActionSpace::Continuous { .. } => {
                    let log_std = base.networks.log_std.clone();
                    let (old, new) = (&before[log_std.clone()], &base.networks.params[log_std]);
                    gaussian_kl((&old_outputs[..], old), (all.policy.outputs(), new), rows)
                }
            };
            if kl < options.target_kl && new < loss {
                return PolicyStep { loss: new, kl, entropy: all.mean_entropy(rows), grad_norm, fraction };
            }
            fraction *= options.line_search_shrinking_factor;
        }
        base.networks.params[..params].copy_from_slice(&before);
        unmoved
    }

    /// Mean squared error of the value network over its updates
    fn fit_values(&mut self, learning_rate: f64) -> f64 {
        let Self { options, base, rollout, batch, grads, .. } = self;
        let first = base.networks.log_std.end;
        let (mut sum, mut updates) = (0.0, 0.0);
        for _ in 0..options.n_critic_updates {
            random::shuffle(&mut base.rng, &mut self.order);
            for order in self.order.chunks(options.batch_size) {
                let rows = order.len();
                batch.gather(rollout, order);
                let loss = base.networks.value_gradients(rows, batch, 1.0, grads);
                self.adam.step(&mut base.networks.params[first..], &grads[first..], learning_rate, f64::INFINITY);
                (sum, updates) = (sum + loss, updates + 1.0);
            }
        }
        sum / updates
    }
}

/// -mean ρA, and its gradient in log π
fn surrogate(batch: &mut Batch, rows: usize) -> f64 {
    let unbounded = Clip::symmetric(f64::INFINITY);
    let Batch { log_probs, old_log_probs, advantages, grad_log_probs, .. } = batch;
    clipped_surrogate(&unbounded, log_probs, old_log_probs, advantages, None, rows as f64, grad_log_probs).loss
}

impl Agent for Trpo {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        self.base.collect(&mut self.rollout)?;
        self.rollout.finish(self.options.gamma, self.options.gae_lambda);
        let learning_rate = self.options.learning_rate.at(self.base.progress(total));
        let step = self.step_policy();
        let value_loss = self.fit_values(learning_rate);
        Ok(vec![
            ("policy_loss", step.loss),
            ("value_loss", value_loss),
            ("entropy", step.entropy),
            ("approx_kl", step.kl),
            ("explained_variance", explained_variance(&self.rollout.values, &self.rollout.returns)),
            ("grad_norm", step.grad_norm),
            ("step_fraction", step.fraction),
            ("learning_rate", learning_rate),
        ])
    }

    fn timesteps(&self) -> u64 {
        self.base.timesteps
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        std::mem::take(&mut self.base.episodes)
    }

    fn policy(&self) -> Policy {
        self.base.policy()
    }

    fn persist(&mut self, state: &mut State) -> Result<()> {
        state.value("order", &mut self.order)?;
        self.adam.persist(state)?;
        self.base.persist(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::env::rng::Pcg64;
    use crate::rl::env::{MakeOptions, make_vec};
    use crate::rl::observer::Observer;

    const ROWS: usize = 5;

    /// Each state's actions with their probabilities: all classes, or the points of a quadrature that is exact here
    fn actions(networks: &Networks, space: &ActionSpace, outputs: &[f32]) -> Vec<(usize, f32, f64)> {
        match space {
            ActionSpace::Discrete(classes) => {
                let mut probabilities = vec![0.0; *classes];
                softmax(outputs, &mut probabilities);
                probabilities.into_iter().enumerate().map(|(action, p)| (action, 0.0, p)).collect()
            }
            ActionSpace::Continuous { .. } => {
                // Gauss and Hermite's three points, exact to the fifth degree; squares of scores have the fourth
                let std = networks.params[networks.log_std.start].exp();
                let points = [(-3.0_f32.sqrt(), 1.0 / 6.0), (0.0, 2.0 / 3.0), (3.0_f32.sqrt(), 1.0 / 6.0)];
                points.into_iter().map(|(z, p)| (0, outputs[0] + std * z, p)).collect()
            }
        }
    }

    #[test]
    fn fisher_products_are_those_of_the_mean_square_of_scores() {
        for space in [ActionSpace::Discrete(3), ActionSpace::Continuous { low: vec![-1.0], high: vec![1.0] }] {
            let env = make_vec("Pendulum-v1", 1, &MakeOptions::default()).unwrap();
            let observer = Observer::new(&env.spec().observation_space, false);
            let mut rng = Pcg64::new(3);
            let mut networks = Networks::new(&observer, &space, &[4], -0.3, &mut rng);
            networks.policy.init_uniform(&mut networks.params, &mut rng);
            let params = networks.log_std.end;
            let mut batch = Batch::new(ROWS, &networks);
            batch.features.iter_mut().for_each(|x| *x = rng.uniform(-2.0, 2.0) as f32);
            networks.forward(ROWS, &space, &mut batch);
            let v: Vec<f64> = (0..params).map(|_| rng.uniform(-1.0, 1.0)).collect();
            let (mut scratch, mut found) = (vec![0.0; networks.params.len()], vec![f64::NAN; params]);
            fisher_product(&networks, &space, ROWS, &mut batch, &v, &mut scratch, &mut found);

            let mut expected = vec![0.0; params];
            for row in 0..ROWS {
                let mut one = Batch::new(1, &networks);
                one.features.copy_from_slice(&batch.features[row * 3..(row + 1) * 3]);
                networks.forward(1, &space, &mut one);
                for (class, number, p) in actions(&networks, &space, one.policy.outputs()) {
                    (one.discrete[0], one.continuous[0]) = (class, number);
                    networks.forward(1, &space, &mut one);
                    one.grad_log_probs[0] = 1.0;
                    networks.backward(1, &space, &mut one, &mut scratch);
                    let along: f64 = scratch.iter().zip(&v).map(|(score, v)| f64::from(*score) * v).sum();
                    for (sum, score) in expected.iter_mut().zip(&scratch) {
                        *sum += p * f64::from(*score) * along / ROWS as f64;
                    }
                }
            }
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((found - expected).abs() < 2e-5, "{space:?}, {at}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn a_step_stays_within_the_bound_and_raises_the_objective() {
        for id in ["CartPole-v1", "Pendulum-v1"] {
            let env = make_vec(id, 2, &MakeOptions::default()).unwrap();
            let options = TrpoOptions { n_steps: 256, ..TrpoOptions::default() };
            let mut agent = Trpo::new(env, options, 1).unwrap();
            let figures = agent.iterate(10_000).unwrap();
            let figure = |wanted: &str| figures.iter().find(|(name, _)| *name == wanted).expect("it is logged").1;
            let kl = figure("approx_kl");
            assert!(kl > 0.002 && kl < 0.01, "{id}: a KL of {kl}");
            assert!(figure("policy_loss") < -1e-3 && figure("step_fraction") > 0.3, "{id}: {figures:?}");
        }
    }
}
