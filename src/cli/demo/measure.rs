//! What the demo measures of a model: perplexity, ranking of pairs, and the sentiment of what it writes.

use std::path::Path;

use crate::data::{
    LmExample, LmOptions, PreferenceExample, PreferenceOptions, ReadOptions, Tokenizer, lm_examples,
    preference_examples, read_dataset,
};
use crate::model::gpt2::Gpt2;
use crate::reward::Lexicon;
use crate::rollout::{Finish, Options, Sampling, generate};
use crate::train::evaluate::{EvaluateOptions, evaluate_pairs, evaluate_texts};
use crate::{Error, Result};

/// Samples of each prompt
const PER_PROMPT: usize = 2;

/// Held-out rows as tokens, and prompts
pub(super) struct HeldOut {
    pub texts: Vec<LmExample>,
    pub pairs: Vec<PreferenceExample>,
    /// Prompts to write from
    pub prompts: Vec<String>,
    prompt_ids: Vec<Vec<u32>>,
    tokenizer: Tokenizer,
    /// Share of pairs whose label is the order of their gold scores: the most that can be expected of a model
    pub gold_accuracy: f64,
}

/// What a model wrote
pub(super) struct Sample {
    pub text: String,
    pub gold: f64,
    /// Ended by itself, within the limit
    pub ended: bool,
}

/// Figures of one model
pub(super) struct Figures {
    /// exp of the mean negative log-likelihood of held-out reviews, a token
    pub perplexity: f64,
    /// Share of pairs whose chosen side is the likelier one
    pub likelier: f64,
    /// Share of pairs whose chosen side has the larger implicit reward β·log(π/π_ref), where there is a reference; β
    /// does not matter to the order
    pub rewarded: Option<f64>,
    /// Those of each prompt together
    pub samples: Vec<Sample>,
}

impl HeldOut {
    /// Reads the test splits in `data`, in the tokens of the model in `model`
    pub fn read(data: &Path, model: &Path, prompts: usize, lexicon: &Lexicon) -> Result<Self> {
        let tokenizer = Tokenizer::from_folder(model)?;
        let texts = read_dataset(&data.join("sft.test.jsonl"), &ReadOptions::default())?;
        let pairs = read_dataset(&data.join("preferences.test.jsonl"), &ReadOptions::default())?;
        let text = |row: &crate::data::Row, column: &str| {
            row.fields.get(column).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        };
        let mut different = Vec::new();
        for row in &pairs.rows {
            let prompt = text(row, "prompt");
            if different.len() < prompts && !different.contains(&prompt) {
                different.push(prompt);
            }
        }
        let agrees =
            pairs.rows.iter().filter(|row| lexicon.score(&text(row, "chosen")) > lexicon.score(&text(row, "rejected")));
        Ok(Self {
            gold_accuracy: agrees.count() as f64 / pairs.rows.len() as f64,
            texts: lm_examples(&texts, &tokenizer, &LmOptions::default())?.examples,
            pairs: preference_examples(&pairs, &tokenizer, &PreferenceOptions::default())?.examples,
            prompt_ids: tokenizer.encode_batch(&different)?,
            prompts: different,
            tokenizer,
        })
    }

    /// Measures the model in a folder
    pub fn measure(&self, folder: &Path, reference: Option<&Path>, lexicon: &Lexicon, seed: u64) -> Result<Figures> {
        let load = |folder: &Path| Gpt2::load(folder)?.detached();
        let (model, reference) = (load(folder)?, reference.map(load).transpose()?);
        let texts = evaluate_texts(&model, &self.texts, &EvaluateOptions::default())?.metrics;
        let options = EvaluateOptions { reference: reference.as_ref(), beta: 1.0, batch_size: None };
        let pairs = evaluate_pairs(&model, &self.pairs, &options)?.metrics;
        Ok(Figures {
            perplexity: texts.get("perplexity").unwrap_or(f64::NAN),
            likelier: pairs.get("logps/accuracies").unwrap_or(f64::NAN),
            rewarded: pairs.get("rewards/accuracies"),
            samples: self.samples(&model, lexicon, seed)?,
        })
    }

    fn samples(&self, model: &Gpt2, lexicon: &Lexicon, seed: u64) -> Result<Vec<Sample>> {
        let stop =
            self.tokenizer.eos_id().ok_or_else(|| Error::run("the demo's tokenizer has no end-of-text token"))?;
        let options = Options {
            sampling: Sampling::default(),
            max_new_tokens: 100,
            per_prompt: PER_PROMPT,
            batch_size: 64,
            seed,
            stop: vec![stop],
        };
        let completions = generate(model, &self.prompt_ids, &options, &|| Ok(()))?.completions;
        let sample = |completion: crate::rollout::Completion| {
            let text = self.tokenizer.decode(&completion.ids, true)?;
            let text = text.trim().to_owned();
            Ok(Sample { gold: lexicon.score(&text), ended: completion.finish == Finish::Stop, text })
        };
        completions.into_iter().map(sample).collect()
    }
}

impl Figures {
    /// Mean gold score of the samples, and its standard error
    pub fn gold(&self) -> (f64, f64) {
        let n = self.samples.len() as f64;
        let mean = self.samples.iter().map(|sample| sample.gold).sum::<f64>() / n;
        let squares = self.samples.iter().map(|sample| (sample.gold - mean).powi(2)).sum::<f64>();
        (mean, (squares / (n - 1.0) / n).sqrt())
    }

    /// Samples of a prompt, by its index
    pub fn samples_of(&self, prompt: usize) -> &[Sample] {
        &self.samples[prompt * PER_PROMPT..(prompt + 1) * PER_PROMPT]
    }

    /// Share of samples that ended by themselves
    pub fn ended(&self) -> f64 {
        self.samples.iter().filter(|sample| sample.ended).count() as f64 / self.samples.len() as f64
    }

    /// Different samples
    pub fn different(&self) -> usize {
        self.samples.iter().map(|sample| &sample.text).collect::<std::collections::BTreeSet<_>>().len()
    }
}
