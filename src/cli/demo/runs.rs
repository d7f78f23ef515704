//! The runs of the demo, each as the command line would start it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::config::{CommandSpec, Context, OnlineKeys, Value, Values};
use crate::error::Kind;
use crate::train::{dpo::DPO, grl::GRL, grpo::GRPO, ppo::PPO, reward::REWARD, sft::SFT};

/// Of every run, and of what the models write in the end
pub(super) const SEED: u64 = 42;
/// Steps of a run that asks the reward model, and reviews that it has judged in each
const STEPS: usize = 40;
pub(super) const BATCH: usize = 64;
/// What each such run may ask
pub(super) const QUERIES: usize = STEPS * BATCH;
/// Preferences that the reward model and DPO learn from
pub(super) const PAIRS: usize = 1000;

/// What a run learns from
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Reviews to imitate
    Reviews,
    /// Preferences between two reviews
    Preferences,
    /// Prompts, and a judge of what the model makes of them
    Judge,
}

/// One of the runs
pub(super) struct Stage {
    /// Its folder
    pub name: &'static str,
    /// Its name in tables and figures
    pub label: &'static str,
    /// What it does
    pub about: &'static str,
    /// What it learns from
    pub source: Source,
    spec: CommandSpec,
    /// Folder of the model that it starts from
    start: &'static str,
    /// Keys beside those of all runs
    own: &'static [(&'static str, &'static str)],
}

/// All runs in their order
pub(super) static STAGES: [Stage; 6] = [
    Stage {
        name: "sft",
        label: "SFT",
        about: "supervised fine-tuning on 600 reviews",
        source: Source::Reviews,
        spec: SFT,
        start: "default/base",
        own: &[("learning_rate", "5e-4"), ("num_train_epochs", "2")],
    },
    Stage {
        name: "reward",
        label: "reward model",
        about: "a reward model from 1000 preferences between two reviews",
        source: Source::Preferences,
        spec: REWARD,
        start: "default/base",
        own: &[("center_rewards_coefficient", "0.01"), ("learning_rate", "5e-4"), ("num_train_epochs", "4")],
    },
    Stage {
        name: "dpo",
        label: "DPO",
        about: "DPO on the same preferences",
        source: Source::Preferences,
        spec: DPO,
        start: "sft",
        own: &[
            ("beta", "0.3"),
            ("learning_rate", "5e-4"),
            ("num_train_epochs", "2"),
            ("precompute_ref_log_probs", "true"),
        ],
    },
    Stage {
        name: "ppo",
        label: "PPO",
        about: "PPO against the reward model",
        source: Source::Judge,
        spec: PPO,
        start: "sft",
        own: &[
            ("kl_coef", "0.05"),
            ("kl_target", "12"),
            ("kl_horizon", "500"),
            ("num_ppo_epochs", "2"),
            ("num_mini_batches", "2"),
            ("vf_coef", "0.5"),
            ("learning_rate", "5e-4"),
        ],
    },
    Stage {
        name: "grpo",
        label: "GRPO",
        about: "GRPO against the reward model",
        source: Source::Judge,
        spec: GRPO,
        start: "sft",
        own: &[
            ("num_generations", "8"),
            ("beta", "0.05"),
            // The KL of the whole review: its fixed point is that of PPO's
            ("kl_estimator", "sequence_k2"),
            ("scale_rewards", "none"),
            ("learning_rate", "5e-4"),
        ],
    },
    Stage {
        name: "grl",
        label: "GRL",
        about: "GRL against the reward model",
        source: Source::Judge,
        spec: GRL,
        start: "sft",
        own: &[("num_generations", "2"), ("tau", "0.1"), ("replay_ratio", "3"), ("learning_rate", "5e-4")],
    },
];

/// Where the files of a demo lie, as the command line would name them
fn place(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

impl Stage {
    /// Runs it within the demo's folder; returns how long it took
    pub fn train(&self, folder: &Path) -> Result<Duration> {
        let begin = Instant::now();
        let keys = self.keys(folder);
        let words =
            keys.iter().flat_map(|(key, values)| [format!("--{key}")].into_iter().chain(values.iter().cloned()));
        let command_line = ["collimate", self.spec.name].map(str::to_owned).into_iter().chain(words).collect();
        let run = || (self.spec.run)(&self.values(folder)?, &Context { command_line });
        run().map_err(|error| match error.kind() {
            Kind::Signal(_) => error.hint("`collimate demo` begins anew"),
            _ => error.context(format_args!("{} in `{}`", self.label, place(folder, self.name))),
        })?;
        Ok(begin.elapsed())
    }

    /// Whether it gives a model that writes
    pub fn writes(&self) -> bool {
        self.spec.name != REWARD.name
    }

    /// What the run generates, and who judges it
    pub fn online_keys(&self, folder: &Path) -> Result<OnlineKeys> {
        OnlineKeys::from_values(&self.values(folder)?)
    }

    fn values(&self, folder: &Path) -> Result<Values> {
        // Whoever hides the log lines hides the progress as well
        let quiet = (!tracing::enabled!(tracing::Level::INFO)).then(|| ("quiet".to_owned(), Value::Bool(true)));
        let flags = self.keys(folder).into_iter().map(|(key, values)| {
            let value = match <[String; 1]>::try_from(values) {
                Ok([one]) => Value::Text(one),
                Err(several) => Value::List(several.into_iter().map(Value::Text).collect()),
            };
            (key.to_owned(), value)
        });
        Ok(self.spec.load(None, flags.chain(quiet))?.0)
    }

    /// Keys and their values, in the order of the command line
    fn keys(&self, folder: &Path) -> Vec<(&'static str, Vec<String>)> {
        let (data, held_out) = match self.source {
            Source::Reviews | Source::Judge => ("default/reviews/sft.train.jsonl", "default/reviews/sft.test.jsonl"),
            Source::Preferences => {
                ("default/reviews/preferences.train.jsonl", "default/reviews/preferences.test.jsonl")
            }
        };
        let one = |key: &'static str, value: &str| (key, vec![value.to_owned()]);
        let mut keys = vec![
            one("model_name_or_path", &place(folder, self.start)),
            one("dataset_name", &place(folder, data)),
            one("output_dir", &place(folder, self.name)),
            one("overwrite_output_dir", "true"),
        ];
        if self.source == Source::Judge {
            let lexicon = format!("lexicon:{}", place(folder, "default/reviews/lexicon.json"));
            keys.extend([
                // The lexicon weighs nothing: it stands by as the judge whom nobody can flatter
                ("reward_funcs", vec![place(folder, "reward"), lexicon]),
                ("reward_weights", vec!["1".to_owned(), "0".to_owned()]),
                one("temperature", "1.0"),
                one("max_completion_length", "64"),
                one("per_device_train_batch_size", &BATCH.to_string()),
                one("max_steps", &STEPS.to_string()),
                one("lr_scheduler_type", "constant"),
                one("log_completions", "true"),
                one("logging_steps", "2"),
            ]);
        } else {
            keys.extend([
                one("eval_dataset", &place(folder, held_out)),
                one("max_length", "128"),
                one("per_device_train_batch_size", "16"),
                one("per_device_eval_batch_size", "16"),
                one("eval_strategy", "epoch"),
                one("logging_steps", "5"),
            ]);
        }
        keys.extend(self.own.iter().map(|(key, value)| one(key, value)));
        keys.extend([one("save_strategy", "no"), one("offline", "true"), one("seed", &SEED.to_string())]);
        keys
    }
}
