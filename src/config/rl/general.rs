//! Keys that several kinds of agents take.

use super::{EntropyWeight, Falling, RlAgent};
use crate::config::{Map, Range, Resume, config_keys};
use crate::{Error, Result};

config_keys! {
    /// Keys of several kinds of agents
    pub struct RlKeys {
        "Run" {
            /// Agent
            agent: RlAgent = RlAgent::Ppo;
            /// Id of the environment, as `collimate rl envs` lists them, or `gym:ID` of an installed Gymnasium
            env: String = "CartPole-v1".to_owned();
            /// Arguments of the environment
            env_kwargs: Map<String> = Map::default();
            /// Truncate episodes after so many steps, instead of what the id says
            max_episode_steps: Option<usize> = None, Range::within(1.0, 4_000_000_000.0);
            /// Environments that are stepped together
            n_envs: usize = 1, Range::at_least(1.0);
            /// Steps of all environments together; updates of cql and iql
            total_timesteps: u64 = 100_000, Range::at_least(1.0);
            /// Seed of networks, actions and environments
            seed: u64 = 0;
            /// Folder of the run
            output_dir: String = String::new();
            /// Replace the run that `output_dir` holds
            overwrite_output_dir: bool = false;
            /// Iterations between two rows of metrics
            log_interval: usize = 1, Range::at_least(1.0);
        }
        "Evaluation" {
            /// Steps of all environments between two evaluations; none where not set
            eval_freq: Option<u64> = None, Range::at_least(1.0);
            /// Episodes of an evaluation, played without chance
            n_eval_episodes: usize = 5, Range::at_least(1.0);
        }
        "Checkpoints" {
            /// Steps of all environments between two checkpoints; none where not set
            save_steps: Option<u64> = None, Range::at_least(1.0);
            /// Checkpoints that stay; all where not set
            save_total_limit: Option<usize> = None, Range::at_least(1.0);
            /// Go on at the newest checkpoint of `output_dir`, or at this one
            resume_from_checkpoint: Resume = Resume::No;
        }
        "Learning" {
            /// Learning rate of networks, step size of tables
            learning_rate: Falling = Falling::constant(3e-4);
            /// γ
            gamma: f64 = 0.99, Range::within(0.0, 1.0);
        }
        "Steps" {
            /// Steps of each environment before an update of a2c, trpo and ppo; of a return of dqn, td3 and sac
            n_steps: usize = 2048, Range::at_least(1.0);
        }
        "Networks" {
            /// Widths of the hidden layers
            net_arch: Vec<usize> = vec![64, 64], Range::at_least(1.0);
            /// Samples of a minibatch
            batch_size: usize = 64, Range::at_least(2.0);
            /// Largest norm of the gradients
            max_grad_norm: f64 = 0.5, Range::above(0.0);
        }
        "Entropy" {
            /// Weight of the entropy; sac also takes `auto`
            ent_coef: EntropyWeight = EntropyWeight::Fixed(0.0);
        }
        "Exploration" {
            /// Share of the run over which ε falls
            exploration_fraction: f64 = 0.1, Range::within(0.0, 1.0);
            /// ε at first
            exploration_initial_eps: f64 = 1.0, Range::within(0.0, 1.0);
            /// ε then
            exploration_final_eps: f64 = 0.05, Range::within(0.0, 1.0);
        }
    }
}

impl RlKeys {
    fn check(&self) -> Result<()> {
        if self.output_dir.is_empty() {
            return Err(Error::usage("`output_dir` is not set").hint("for example `--output_dir runs/cartpole`"));
        }
        Ok(())
    }
}
