//! The keys that every training command has. Names and defaults are TRL's unless the help says so.

use super::convert::Map;
use super::keys::Range;
use super::mixture::DatasetPart;
use super::steps::{Resume, Steps};
use super::{config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// Shape of the learning rate over the steps
    pub enum LrScheduler {
        /// Falls in a straight line to 0
        Linear = "linear",
        /// Falls along half a cosine to 0
        Cosine = "cosine",
        /// Several half cosines (`num_cycles`)
        CosineWithRestarts = "cosine_with_restarts",
        /// Falls to `lr_end` as a power (`power`)
        Polynomial = "polynomial",
        /// Stays, no warm-up
        Constant = "constant",
        /// Stays after the warm-up
        ConstantWithWarmup = "constant_with_warmup",
        /// Falls as one over the root of the step (`timescale`)
        InverseSqrt = "inverse_sqrt",
        /// Falls along half a cosine to `min_lr` or `min_lr_rate`
        CosineWithMinLr = "cosine_with_min_lr",
    }
    refused {
        "reduce_lr_on_plateau" => "the schedules are functions of the step alone",
        "greedy" => "the schedules are functions of the step alone",
        "cosine_warmup_with_min_lr" => "this schedule is not built; `cosine_with_min_lr` is near",
        "warmup_stable_decay" => "this schedule is not built",
    }
}

impl LrScheduler {
    /// The names that `lr_scheduler_kwargs` may hold for it
    pub const fn kwargs(self) -> &'static [&'static str] {
        match self {
            Self::Linear | Self::Constant | Self::ConstantWithWarmup => &[],
            Self::Cosine | Self::CosineWithRestarts => &["num_cycles"],
            Self::Polynomial => &["lr_end", "power"],
            Self::InverseSqrt => &["timescale"],
            Self::CosineWithMinLr => &["num_cycles", "min_lr", "min_lr_rate"],
        }
    }
}

config_choice! {
    /// How rows are drawn for the batches
    pub enum SamplingStrategy {
        /// A new random order each epoch
        Random = "random",
        /// The order of the dataset
        Sequential = "sequential",
        /// Random, rows of like length together
        GroupByLength = "group_by_length",
    }
    refused { "batch_rebalance" => "it balances batches between devices, and there is one" }
}

config_choice! {
    /// When something is done: never, every so many steps, at the end of each epoch
    pub enum Strategy {
        /// Never
        No = "no",
        /// Every so many steps
        Steps = "steps",
        /// At the end of each epoch
        Epoch = "epoch",
    }
    refused { "best" => "the final model is the last one; compare checkpoints by their `eval_` metrics" }
}

config_choice! {
    /// Which side of a sequence is kept when it is too long
    pub enum TruncationMode {
        /// The first tokens
        KeepStart = "keep_start",
        /// The last tokens
        KeepEnd = "keep_end",
    }
}

config_choice! {
    /// Where metrics go besides `metrics.jsonl`
    pub enum Tracker {
        /// Event files under `runs/`
        Tensorboard = "tensorboard" | "all",
        /// Nowhere
        None = "none",
    }
    refused {
        "wandb" => "metrics go to `metrics.jsonl` and TensorBoard files",
        "mlflow" => "metrics go to `metrics.jsonl` and TensorBoard files",
        "trackio" => "metrics go to `metrics.jsonl` and TensorBoard files",
        "comet_ml" => "metrics go to `metrics.jsonl` and TensorBoard files",
        "neptune" => "metrics go to `metrics.jsonl` and TensorBoard files",
        "clearml" => "metrics go to `metrics.jsonl` and TensorBoard files",
        "swanlab" => "metrics go to `metrics.jsonl` and TensorBoard files",
    }
}

config_keys! {
    /// The keys that every training command has
    pub struct TrainKeys {
        "Model" {
            /// Model to train: a folder, or an id on the Hub
            model_name_or_path: Option<String> = None;
            /// Branch, tag or commit on the Hub
            model_revision: String = "main".to_owned();
            /// Start from random weights: only config.json and the tokenizer of the model are read
            from_scratch: bool = false;
            /// Train without the dropout that the model's config.json asks for
            disable_dropout: bool = false;
        }
        "Data" {
            /// Dataset: a file (.jsonl, .json, .csv, .parquet, also .gz), a folder, or an id on the Hub
            dataset_name: Option<String> = None;
            /// Configuration of a dataset on the Hub
            dataset_config: Option<String> = None;
            /// Datasets to train on together, in place of dataset_name; each with path, split, columns, fraction
            datasets: Vec<DatasetPart> = Vec::new();
            /// Hold so many of the rows out for evaluation; below 1, their share
            test_split_size: Option<f64> = None, Range::above(0.0);
            /// Split to train on, or a part of one such as train[:10%]
            dataset_train_split: String = "train".to_owned();
            /// Split to evaluate on
            dataset_test_split: String = "test".to_owned();
            /// Another dataset to evaluate on, in place of the test split
            eval_dataset: Option<String> = None;
            /// Columns to rename: found name = expected name
            columns: Map<String> = Map::default();
            /// Longest sequence in tokens; longer ones are cut, `null` cuts none
            max_length: Option<usize> = Some(1024), Range::at_least(1.0);
            /// Which side of a sequence is kept when it is too long
            truncation_mode: TruncationMode = TruncationMode::KeepStart;
            /// How rows are drawn for the batches
            train_sampling_strategy: SamplingStrategy = SamplingStrategy::Random;
            /// Token that pads; the tokenizer's own, else its end-of-text token, where not set
            pad_token: Option<String> = None;
            /// Folder that keeps tokenised rows and reference log-probabilities between runs
            cache_dir: Option<String> = None;
            /// Never ask the network (also HF_HUB_OFFLINE=1)
            offline: bool = false;
        }
        "Optimisation" {
            /// Peak learning rate of AdamW
            learning_rate: f64 = 5e-5, Range::at_least(0.0);
            /// Shape of the learning rate over the steps
            lr_scheduler_type: LrScheduler = LrScheduler::Linear;
            /// Numbers that the schedule takes, such as num_cycles=2
            lr_scheduler_kwargs: Map<f64> = Map::default();
            /// Steps of linear warm-up; below 1, their share of all steps
            warmup_steps: f64 = 0.0, Range::at_least(0.0);
            /// Passes over the dataset
            num_train_epochs: f64 = 3.0, Range::above(0.0);
            /// Optimiser steps, in place of num_train_epochs; -1 leaves it to the epochs
            max_steps: i64 = -1, Range::at_least(-1.0);
            /// Rows of one forward pass
            per_device_train_batch_size: usize = 8, Range::at_least(1.0);
            /// Forward passes of one optimiser step
            gradient_accumulation_steps: usize = 1, Range::at_least(1.0);
            /// Decoupled weight decay; biases and layer norms are spared
            weight_decay: f64 = 0.0, Range::at_least(0.0);
            /// AdamW's decay of the mean
            adam_beta1: f64 = 0.9, Range::within_below(0.0, 1.0);
            /// AdamW's decay of the square
            adam_beta2: f64 = 0.999, Range::within_below(0.0, 1.0);
            /// AdamW's term in the denominator
            adam_epsilon: f64 = 1e-8, Range::at_least(0.0);
            /// Norm to which gradients are clipped; 0 clips nothing
            max_grad_norm: f64 = 1.0, Range::at_least(0.0);
            /// Compute in bfloat16 where that is safe (TRL: true)
            bf16: bool = false;
            /// Accepted without effect: activations are kept, the result is the same (TRL: true)
            gradient_checkpointing: bool = false;
        }
        "Evaluation" {
            /// When to evaluate
            eval_strategy: Strategy = Strategy::No;
            /// Steps between evaluations, below 1 a share of all; logging_steps where not set
            eval_steps: Option<Steps> = None;
            /// Evaluate before the first step as well
            eval_on_start: bool = false;
            /// Rows of one forward pass in evaluation
            per_device_eval_batch_size: usize = 8, Range::at_least(1.0);
        }
        "Output" {
            /// Run folder
            output_dir: String = "trainer_output".to_owned();
            /// Start afresh in a run folder that is not empty
            overwrite_output_dir: bool = false;
            /// Go on from a checkpoint folder, or with `true` from the newest one in output_dir
            resume_from_checkpoint: Resume = Resume::No;
            /// When to write a row of metrics
            logging_strategy: Strategy = Strategy::Steps;
            /// Steps between rows of metrics; below 1, their share of all steps
            logging_steps: Steps = Steps(10.0);
            /// Write a row for the first step as well
            logging_first_step: bool = false;
            /// When to write a checkpoint
            save_strategy: Strategy = Strategy::Steps;
            /// Steps between checkpoints; below 1, their share of all steps
            save_steps: Steps = Steps(500.0);
            /// Checkpoints to keep, the newest; all where not set
            save_total_limit: Option<usize> = None, Range::at_least(1.0);
            /// Where metrics go besides metrics.jsonl (TRL: none)
            report_to: Vec<Tracker> = vec![Tracker::Tensorboard];
        }
        "Run" {
            /// Seed of everything that is drawn
            seed: u64 = 42;
            /// Processor threads; RAYON_NUM_THREADS, else all, where not set
            threads: Option<usize> = None, Range::at_least(1.0);
            /// Warnings and errors only, no progress
            quiet: bool = false;
        }
    }
}

impl TrainKeys {
    fn check(&self) -> Result<()> {
        if self.max_steps == 0 {
            return Err(Error::usage("`max_steps` must be -1 (as `num_train_epochs` says) or at least 1, got `0`"));
        }
        if self.warmup_steps >= 1.0 && self.warmup_steps.fract() != 0.0 {
            return Err(Error::usage(format!(
                "`warmup_steps` must be a whole number, or a share of all steps below 1, got `{}`",
                self.warmup_steps
            )));
        }
        if self.test_split_size.is_some() && self.eval_dataset.is_some() {
            return Err(Error::usage("`test_split_size` and `eval_dataset` both name rows to evaluate on")
                .hint("leave one of them out"));
        }
        if self.report_to.len() > 1 && self.report_to.contains(&Tracker::None) {
            return Err(Error::usage("`report_to` must be `none` or name trackers, got both"));
        }
        let allowed = self.lr_scheduler_type.kwargs();
        match self.lr_scheduler_kwargs.iter().find(|(name, _)| !allowed.contains(name)) {
            Some((name, _)) => {
                let error = Error::usage(format!(
                    "`lr_scheduler_kwargs` holds `{name}`, which the schedule `{}` does not take",
                    self.lr_scheduler_type
                ));
                Err(match allowed {
                    [] => error.hint("leave out `lr_scheduler_kwargs`"),
                    names => error.hint(format!("it takes `{}`", names.join("`, `"))),
                })
            }
            None => Ok(()),
        }
    }

    /// The model, which must be given
    pub fn model(&self) -> Result<&str> {
        given("model_name_or_path", self.model_name_or_path.as_deref())
    }

    /// The datasets of a mixture, where the request names any
    pub fn mixture(&self) -> Option<&[DatasetPart]> {
        (!self.datasets.is_empty()).then_some(&self.datasets[..])
    }

    /// The dataset, which must be given
    pub fn dataset(&self) -> Result<&str> {
        given("dataset_name", self.dataset_name.as_deref())
    }

    /// The number of optimiser steps that `max_steps` asks for, where it does
    pub fn step_limit(&self) -> Option<usize> {
        usize::try_from(self.max_steps).ok()
    }

    /// Steps of warm-up in a run of `total` steps
    pub fn warmup(&self, total: usize) -> usize {
        if self.warmup_steps < 1.0 { Steps(self.warmup_steps).of(total) } else { self.warmup_steps as usize }
    }

    /// Steps between evaluations
    pub fn steps_between_evaluations(&self) -> Steps {
        self.eval_steps.unwrap_or(self.logging_steps)
    }

    /// Whether TensorBoard files are written
    pub fn tensorboard(&self) -> bool {
        self.report_to.contains(&Tracker::Tensorboard)
    }
}

fn given<'v>(key: &str, value: Option<&'v str>) -> Result<&'v str> {
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Error::usage(format!("`{key}` is not set")).hint(format!("add `--{key} PATH_OR_ID`")))
}
