//! Supervised fine-tuning: the likelihood of texts, completions or answers.

use super::collate::Batch;
use super::objective::{Objective, Outcome, Pass, Split};
use super::session::Session;
use super::step_loop;
use crate::Result;
use crate::config::{CommandSpec, Context, SftKeys, TrainKeys, Values, to_yaml};
use crate::data::{LmExample, LmOptions, Sampler, Strategy, lm_examples};
use crate::model::Trainable;
use crate::model::gpt2::Gpt2;
use crate::run::{Metrics, Part, StepClock};

/// The command `sft`
pub const SFT: CommandSpec = CommandSpec {
    name: "sft",
    about: "Supervised fine-tuning on texts, prompts with completions, or conversations",
    groups: &[TrainKeys::KEYS, SftKeys::KEYS],
    defaults: &[("learning_rate", "2e-5")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, sft) = (TrainKeys::from_values(values)?, SftKeys::from_values(values)?);
    let resolved = to_yaml(train.to_values().into_iter().chain(sft.to_values()))?;
    let mut session = Session::open(train, resolved, context)?;
    if session.keys.cache_dir.is_some() {
        tracing::info!(
            "`cache_dir` changes nothing: it keeps reference log-probabilities, and there is no reference here"
        );
    }
    if let Some(token) = &sft.eos_token {
        session.source.tokenizer.set_eos_token(token)?;
    }
    if let Some(name) = &sft.chat_template_path {
        let template = session.chat_template(name)?;
        session.source.tokenizer.set_chat_template(&template)?;
    }
    let options = LmOptions {
        text_field: sft.dataset_text_field,
        completion_only_loss: sft.completion_only_loss,
        assistant_only_loss: sft.assistant_only_loss,
        max_length: Some(session.max_length()),
        truncation: session.truncation(),
    };
    let mut examples = [Vec::new(), Vec::new()];
    let datasets = [("train", Some(session.train_rows()?)), ("eval", session.eval_rows()?)];
    for ((name, dataset), examples) in datasets.into_iter().zip(&mut examples) {
        let Some(dataset) = dataset else { continue };
        let prepared = lm_examples(&dataset, &session.source.tokenizer, &options)?;
        session.source.check_tokens(prepared.examples.iter().map(|example| example.ids.as_slice()))?;
        session.note_rows(name, &prepared.report);
        *examples = prepared.examples;
    }
    let [mut train, eval] = examples;
    if sft.shuffle_dataset {
        // An epoch that no run reaches lends its order
        let order = Sampler::new(Strategy::Random, &vec![1; train.len()], session.keys.seed, 1).epoch(u64::MAX);
        train = order.into_iter().map(|i| train[i].clone()).collect();
    }
    let model = session.load_model()?;
    let view = model.detached()?;
    step_loop::train(&mut Sft { model, view, train, eval }, session)
}

struct Sft {
    model: Gpt2,
    /// The same weights without gradients
    view: Gpt2,
    train: Vec<LmExample>,
    eval: Vec<LmExample>,
}

impl Sft {
    fn examples(&self, split: Split) -> &[LmExample] {
        match split {
            Split::Train => &self.train,
            Split::Eval => &self.eval,
        }
    }
}

impl Objective for Sft {
    fn model(&self) -> &dyn Trainable {
        &self.model
    }

    fn lengths(&self, split: Split) -> Vec<usize> {
        self.examples(split).iter().map(|example| example.ids.len()).collect()
    }

    /// Tokens that carry loss. In training a text's first token counts too, though nothing predicts it: the reference
    /// divides a GPT-2's loss by all its labels, and its learning rates are meant for that. Evaluation is a true mean.
    fn weight(&self, split: Split, rows: &[usize]) -> f64 {
        let first = usize::from(split == Split::Eval);
        let count = |&row: &usize| self.examples(split)[row].loss[first..].iter().filter(|carries| **carries).count();
        rows.iter().map(count).sum::<usize>() as f64
    }

    /// L = −Σ log p(token | tokens before) / loss tokens of the step
    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        clock.time(Part::Forward, || {
            let examples = self.examples(pass.split);
            let model = if pass.split == Split::Train { &self.model } else { &self.view };
            let batch = Batch::of_texts(pass.rows.iter().map(|&row| &examples[row]))?;
            let hidden = model.hidden(&batch.ids, &batch.layout, pass.dropout)?; // (N, C)
            let p = model.token_log_probs(&hidden, &batch.rows, &batch.targets, 1.0)?; // (M,)
            let loss = (p.log_probs.sum_all()?.neg()? / pass.denominator)?;
            let mut metrics = Metrics::new();
            metrics.set("entropy", f64::from(p.entropy.mean_all()?.to_scalar::<f32>()?));
            let correct = p.top1.iter().filter(|top1| **top1).count();
            metrics.set("mean_token_accuracy", correct as f64 / p.top1.len() as f64);
            Outcome::new(loss, metrics, batch.tokens)
        })
    }
}
