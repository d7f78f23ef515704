//! Supervised fine-tuning: the likelihood of texts, completions or answers.

use super::collate::Batch;
use super::objective::{Objective, Outcome, Pass, Split};
use super::session::Session;
use super::step_loop;
use crate::config::{CommandSpec, Context, PackingStrategy, SftKeys, SftLoss, TrainKeys, Values, to_yaml};
use crate::data::{
    Dataset, LmExample, LmOptions, Packing, Sampler, Strategy, Tokenizer, Truncation, lm_examples, pack,
};
use crate::model::Trainable;
use crate::model::gpt2::Gpt2;
use crate::run::{Metrics, Part, StepClock};
use crate::{Error, Result};

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
    session.adapt_tokenizer(sft.eos_token.as_deref(), sft.chat_template_path.as_deref())?;
    let packings = sft.packings();
    let whole = LmOptions {
        text_field: sft.dataset_text_field,
        completion_only_loss: sft.completion_only_loss,
        assistant_only_loss: sft.assistant_only_loss,
        max_length: Some(session.max_length()),
        truncation: session.truncation(),
    };
    let mut rows = [Rows::default(), Rows::default()];
    for ((split, packing), rows) in Split::BOTH.into_iter().zip(packings).zip(&mut rows) {
        let options = LmOptions {
            // Packing cuts where it must, and `bfd` always keeps the start
            max_length: whole.max_length.filter(|_| packing.is_none_or(|packing| packing == PackingStrategy::Bfd)),
            truncation: if packing.is_some() { Truncation::KeepStart } else { whole.truncation },
            ..whole.clone()
        };
        let prepare = |rows: &Dataset, tokenizer: &Tokenizer| lm_examples(rows, tokenizer, &options);
        let mut examples = session.examples(split, &format!("texts {options:?}"), prepare)?;
        if examples.is_empty() {
            continue;
        }
        session.source.check_tokens(examples.iter().map(|example| example.ids.as_slice()))?;
        if sft.shuffle_dataset && split == Split::Train {
            examples = shuffled(&examples, session.keys.seed);
        }
        *rows = Rows::new(examples, packing, session.max_length())?;
    }
    let model = session.load_model()?;
    let view = model.detached()?;
    step_loop::train(&mut Sft { model, view, rows, loss: sft.loss_type }, session)
}

fn shuffled(examples: &[LmExample], seed: u64) -> Vec<LmExample> {
    // An epoch that no run reaches lends its order
    let order = Sampler::new(Strategy::Random, &vec![1; examples.len()], seed, 1).epoch(u64::MAX);
    order.into_iter().map(|i| examples[i].clone()).collect()
}

/// What a batch counts as its rows: one sequence each, or several that do not see each other
#[derive(Default)]
struct Rows {
    rows: Vec<Vec<LmExample>>,
    /// Whether the first token of a sequence is left out of the loss's divisor
    true_mean: bool,
}

impl Rows {
    fn new(examples: Vec<LmExample>, packing: Option<PackingStrategy>, length: usize) -> Result<Self> {
        let Some(packing) = packing else {
            return Ok(Self { rows: examples.into_iter().map(|example| vec![example]).collect(), true_mean: false });
        };
        let rule = match packing {
            PackingStrategy::Bfd => Packing::BestFit,
            PackingStrategy::BfdSplit => Packing::BestFitSplit,
            PackingStrategy::Wrapped => Packing::Wrapped,
        };
        let rows = pack(&examples, length, rule);
        // A row that carries no loss teaches nothing, and a batch of such rows would divide by 0
        let rows: Vec<_> = rows.into_iter().filter(|row| row.iter().any(learns)).collect();
        let tokens: usize = examples.iter().map(|example| example.ids.len()).sum();
        tracing::info!(
            "packed {} texts of {tokens} tokens into {} rows of at most {length}",
            examples.len(),
            rows.len()
        );
        if rows.is_empty() {
            return Err(Error::usage(format!("no token to learn from is left in rows of {length} tokens"))
                .hint("raise `max_length`"));
        }
        Ok(Self { rows, true_mean: packing != PackingStrategy::Wrapped })
    }
}

fn learns(example: &LmExample) -> bool {
    example.loss.iter().skip(1).any(|carries| *carries)
}

struct Sft {
    model: Gpt2,
    /// The same weights without gradients
    view: Gpt2,
    /// Training and held-out rows
    rows: [Rows; 2],
    loss: SftLoss,
}

impl Sft {
    fn rows(&self, split: Split) -> &Rows {
        &self.rows[usize::from(split == Split::Eval)]
    }
}

impl Objective for Sft {
    fn model(&self) -> &dyn Trainable {
        &self.model
    }

    fn lengths(&self, split: Split) -> Vec<usize> {
        let length = |row: &Vec<LmExample>| row.iter().map(|example| example.ids.len()).sum();
        self.rows(split).rows.iter().map(length).collect()
    }

    /// Tokens that carry loss. In training a text's first token counts too, though nothing predicts it: the reference
    /// divides a GPT-2's loss by all its labels, and its learning rates are meant for that. Evaluation is a true mean,
    /// and so is the loss of packed rows, of whose sequences the reference takes the first labels away.
    fn weight(&self, split: Split, rows: &[usize]) -> f64 {
        let all = self.rows(split);
        let first = usize::from(split == Split::Eval || all.true_mean);
        let count = |example: &LmExample| example.loss[first..].iter().filter(|carries| **carries).count();
        rows.iter().flat_map(|&row| &all.rows[row]).map(count).sum::<usize>() as f64
    }

    /// L = −Σ w_t log p(token t | tokens before) / loss tokens of the step, w_t = 1, or for `dft` p(token t) as a constant
    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        clock.time(Part::Forward, || {
            let rows = &self.rows(pass.split).rows;
            let model = if pass.split == Split::Train { &self.model } else { &self.view };
            let batch = Batch::of_texts(pass.rows.iter().flat_map(|&row| &rows[row]))?;
            let hidden = model.hidden(&batch.ids, &batch.layout, pass.dropout)?; // (N, C)
            let p = model.token_log_probs(&hidden, &batch.rows, &batch.targets, 1.0)?; // (M,)
            let losses = match self.loss {
                SftLoss::Nll => p.log_probs.clone(),
                // Wu et al. 2025, <https://arxiv.org/abs/2508.05629>
                SftLoss::Dft => (&p.log_probs * p.log_probs.detach().exp()?)?,
            };
            let loss = (losses.sum_all()?.neg()? / pass.denominator)?;
            let mut metrics = Metrics::new();
            metrics.set("entropy", f64::from(p.entropy.mean_all()?.to_scalar::<f32>()?));
            let correct = p.top1.iter().filter(|top1| **top1).count();
            metrics.set("mean_token_accuracy", correct as f64 / p.top1.len() as f64);
            Outcome::new(loss, metrics, batch.tokens)
        })
    }
}
