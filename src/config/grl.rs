//! The keys of GRL.

use super::keys::Range;
use super::{ValueNetwork, config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// What is asked of a response
    pub enum GrlMode {
        /// Path consistency, ½(R − τL − V)²: holds for responses of any policy
        Pcl = "pcl",
        /// Clipped token ratios on the stored behaviour log-probabilities, with V as baseline
        Clip = "clip",
        /// Two responses of one prompt against each other; V cancels
        Pair = "pair",
        /// Log-likelihood weighted by e^(A/τ)
        Awr = "awr",
    }
}

config_choice! {
    /// What the values of prompts are read off by
    pub enum ValueEstimator {
        /// Mean of a Gaussian process over prompts
        GaussianProcess = "gaussian_process" | "gp",
        /// Average weighted by likeness
        NadarayaWatson = "nadaraya_watson" | "nw",
        /// Unnormalised sum, the field of the original paper; it grows with every visit
        Sum = "sum",
        /// No field: the mean soft return of the response's own group, as trajectory balance (TBA, VarGrad) has it
        Group = "group" | "tba",
        /// No field: a value network that is learnt with the policy, as DRO has it
        Network = "network" | "dro",
    }
}

config_choice! {
    /// When two prompts are alike
    pub enum MemoryKernel {
        /// Where their features lie close, and more so where they are the same prompt
        Composite = "composite",
        /// Where their features lie close
        Rbf = "rbf",
        /// Where they are the same prompt
        Delta = "delta",
    }
}

config_choice! {
    /// Which prompts a step takes
    pub enum PromptAcquisition {
        /// The next of the epoch
        None = "none" | "no",
        /// Those whose value is least known, drawn by σ(x)/√tokens from a pool
        Deviation = "deviation",
    }
}

config_choice! {
    /// What a token of a steered model should be worth, by what comes next
    pub enum FieldBackup {
        /// E_π[q − τ log π/π_ref] of the next state
        ExpectedSarsa = "expected_sarsa",
        /// The same of the token that was taken
        Sarsa = "sarsa",
        /// τ log Σ π_ref e^(q/τ)
        SoftQ = "soft_q",
        /// max q, which is biased upwards where values are noisy
        HardQ = "hard_q",
    }
}

config_choice! {
    /// When two tokens are alike for a token field
    pub enum FieldTokens {
        /// Where they are the same token
        Identity = "identity",
        /// As far as their whitened embeddings point the same way
        Embedding = "embedding",
        /// Experimental: tokens as clouds around their embeddings, with a kernel that falls with distance
        Cloud = "cloud",
    }
}

config_keys! {
    /// The keys of GRL: a reinforcement field whose values over prompts lie in a particle memory
    pub struct GrlKeys {
        "Reinforcement field" {
            /// Weight of the KL to the reference model (`beta` of other trainers); its first value with kl_target
            tau: f64 = 0.05, Range::above(0.0);
            /// KL of a completion, in nats, that the weight is steered to; constant where not set
            kl_target: Option<f64> = None, Range::above(0.0);
            /// Completions over which the weight follows
            kl_horizon: f64 = 10000.0, Range::above(0.0);
            /// What is asked of a response
            mode: GrlMode = GrlMode::Pcl;
            /// Width of Huber's loss in place of the square, for `pcl`
            huber: Option<f64> = None, Range::above(0.0);
            /// ε, how far the ratio of a token may go, for `clip`
            cliprange: f64 = 0.2, Range::above(0.0);
            /// Largest weight of a response, for `awr`
            awr_max_weight: f64 = 20.0, Range::above(0.0);
        }
        "Replay" {
            /// Updates of the weights for each batch of new completions: the first on these, the others on replayed ones
            replay_ratio: usize = 4, Range::at_least(1.0);
            /// Completions that are kept for replay
            replay_capacity: usize = 4096, Range::at_least(1.0);
            /// Steps that a completion is kept for
            replay_max_age: usize = 16;
            /// Least share of the newest batch in a replayed one
            replay_fresh: f64 = 0.25, Range::within(0.0, 1.0);
        }
        "Particle memory" {
            /// What the values of prompts are read off by
            estimator: ValueEstimator = ValueEstimator::GaussianProcess;
            /// When two prompts are alike
            kernel: MemoryKernel = MemoryKernel::Composite;
            /// Prompts that are remembered
            memory_capacity: usize = 512, Range::at_least(1.0);
            /// Leave a response out of the value that it is compared with; for `nadaraya_watson` alone where not set
            leave_one_out: Option<bool> = None;
            /// Steps between two fits of the kernel by marginal likelihood
            kernel_fit_steps: usize = 8, Range::at_least(1.0);
            /// Deal the features out among the prompts, as a control: what is gained then is not due to their geometry
            feature_permutation: bool = false;
            /// Directions of the reference model's states that make the features of a prompt
            feature_dim: usize = 16, Range::at_least(1.0);
            /// Prompts that the features are fitted to
            feature_prompts: usize = 2048, Range::at_least(1.0);
            /// κ of the values: 0 for the mean, up to 1/tau for the soft maximum
            kappa: f64 = 0.0, Range::at_least(0.0);
            /// Take σ²/2τ off each reward, σ that of a process over the responses that were scored before
            reward_pessimism: bool = false;
            /// Do not ask for the reward of a completion that this process foretells within so much (standard deviation, noise
            /// included): train on its mean
            imputation: Option<f64> = None, Range::above(0.0);
            /// Most completions of a prompt: those whose value is least known get more of a step's completions, the others
            /// fewer. `num_generations` for all where not set
            adaptive_generations: Option<usize> = None, Range::at_least(2.0);
            /// Which prompts a step takes
            prompt_acquisition: PromptAcquisition = PromptAcquisition::None;
            /// Prompts of the pool, in batches
            acquisition_pool: usize = 4, Range::at_least(1.0);
        }
        "Token field" {
            /// How strongly a field over hidden states steers the decoder; above 0 the weights stay as they are, and the field
            /// alone learns
            eta: f64 = 0.0, Range::at_least(0.0);
            /// What a token should be worth, by what comes next
            field_backup: FieldBackup = FieldBackup::ExpectedSarsa;
            /// Share of an error that one visit takes away
            field_rate: f64 = 0.5, Range::above(0.0);
            /// Token particles that are remembered; the one not touched for longest leaves
            field_capacity: usize = 16384, Range::at_least(1.0);
            /// Particles that a state looks at, the nearest ones
            field_top_k: usize = 64, Range::at_least(1.0);
            /// Directions of the model's states that make the features of a state
            field_dim: usize = 32, Range::at_least(1.0);
            /// Length-scale of the kernel over states, as a share of their median distance
            field_length: f64 = 0.3, Range::above(0.0);
            /// Likeness from which two states with the same token are one particle
            field_merge: f64 = 0.98, Range::within(0.0, 1.0);
            /// Weight of the prompt's features beside those of the state; 0 lets prompts share what they find at like states
            field_prompt_weight: f64 = 1.0, Range::at_least(0.0);
            /// When two tokens are alike
            field_tokens: FieldTokens = FieldTokens::Identity;
            /// Width of a token's cloud, in the whitened embeddings' unit, for `field_tokens: cloud`
            field_cloud: f64 = 0.1, Range::at_least(0.0);
            /// Likeliest tokens that are read as clouds
            field_candidates: usize = 32, Range::at_least(1.0);
        }
        "Value network" {
            /// What estimates values where `estimator` is `network`
            value_network: ValueNetwork = ValueNetwork::Separate;
            /// Weight of its loss
            vf_coef: f64 = 0.1, Range::at_least(0.0);
        }
    }
}

impl GrlKeys {
    /// Whether an update takes whole groups of responses to one prompt
    pub fn needs_groups(&self) -> bool {
        self.mode == GrlMode::Pair || self.estimator == ValueEstimator::Group
    }

    fn check(&self) -> Result<()> {
        if self.kappa > 1.0 / self.tau {
            return Err(Error::usage(format!("`kappa` must be at most 1/tau, {}, got {}", 1.0 / self.tau, self.kappa)));
        }
        let by_variance = [
            ("prompt_acquisition: deviation", self.prompt_acquisition == PromptAcquisition::Deviation),
            ("adaptive_generations", self.adaptive_generations.is_some()),
        ];
        for (name, _) in by_variance.into_iter().filter(|(_, asked)| *asked) {
            if self.estimator != ValueEstimator::GaussianProcess {
                return Err(Error::usage(format!(
                    "`{name}` needs a variance, which `estimator: {}` does not give",
                    self.estimator
                ))
                .hint("set `estimator: gaussian_process`"));
            }
        }
        if self.feature_permutation && self.kernel == MemoryKernel::Delta {
            return Err(Error::usage("`feature_permutation` does nothing with `kernel: delta`").hint("leave it out"));
        }
        if self.value_network == ValueNetwork::Field {
            return Err(Error::usage("`value_network: field` is for `ppo`")
                .hint("set `estimator: gaussian_process`, which is a field"));
        }
        if self.eta > 0.0 {
            self.check_field()?;
        }
        if self.huber.is_some() && self.mode != GrlMode::Pcl {
            return Err(Error::usage(format!("`huber` does nothing in mode `{}`", self.mode)).hint("leave it out"));
        }
        Ok(())
    }

    /// With weights that stay as they are, only particles learn, and what is for weights is left without a meaning
    fn check_field(&self) -> Result<()> {
        let nothing = |what: &str| {
            Err(Error::usage(format!("{what} does nothing with `eta` above 0: the weights stay as they are"))
                .hint("leave it out, or set `eta: 0`"))
        };
        if self.mode != GrlMode::Pcl {
            return nothing(&format!("mode `{}`", self.mode));
        }
        if self.huber.is_some() {
            return nothing("`huber`");
        }
        if matches!(self.estimator, ValueEstimator::Group | ValueEstimator::Network) {
            return Err(Error::usage(format!(
                "`eta` above 0 needs a field over prompts, not `estimator: {}`",
                self.estimator
            ))
            .hint("set `estimator: gaussian_process`"));
        }
        if self.field_rate > 1.0 {
            let rate = self.field_rate;
            return Err(Error::usage(format!("`field_rate` must be at most 1, got {rate}"))
                .hint("it is a share of an error: 1 takes all of it away at one visit, and more would overshoot"));
        }
        Ok(())
    }
}
