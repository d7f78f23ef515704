//! From files to token ids: rows, formats, chat templates, the tokeniser, examples with masks, and the order of an epoch.
//!
//! The path is [`read_dataset`] (rows with their place) → [`lm_examples`], [`preference_examples`] or
//! [`prompt_examples`] (token ids as TRL makes them, with a [`RowReport`] of what was left out and why) → [`Sampler`].
//! Not responsible for: finding a dataset on the Hub, batching and padding, or printing.

mod convert;
mod encoder;
mod files;
mod format;
mod inspect;
mod json;
mod pack;
mod parquet;
mod parquet_write;
mod preference;
mod reader;
mod record;
mod report;
mod sampler;
mod sequences;
mod template;
mod template_python;
mod tokenize;
mod tokenized;
mod tokenizer;
mod tokenizer_files;
mod write;

pub use convert::{convert, name as kind_name, split_by_prompt, to_chatml};
pub use format::{Format, Kind, extract_prompt};
pub use inspect::{LengthStats, Span, Summary, lm_spans, preference_spans, spans, summarize};
pub use pack::{Packing, pack};
pub use preference::{
    PreferenceExample, PreferenceOptions, UnpairedExample, framed_preference_examples, preference_examples,
    unpaired_examples,
};
pub use reader::{Dataset, ReadOptions, read_dataset, read_split, splits};
pub use record::{Place, Row};
pub use report::{Dropped, Prepared, RowReport};
pub use sampler::{Sampler, Strategy};
pub use sequences::{PairExample, RowSequences, SequenceEncoder, pair_examples, row_sequences};
pub use template::{ChatTemplate, RenderOptions};
pub use tokenize::{LmExample, LmOptions, PromptExample, PromptOptions, Truncation, lm_examples, prompt_examples};
pub use tokenizer::Tokenizer;
pub use write::write_dataset;
