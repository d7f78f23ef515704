//! `collimate data`

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::args::count;
use super::output::{Output, has_colour};
use crate::data::{
    Dataset, Dropped, Format, Kind, LmOptions, PreferenceOptions, PromptOptions, ReadOptions, Row, RowReport, Span,
    Summary, Tokenizer, Truncation, lm_examples, lm_spans, preference_examples, preference_spans, prompt_examples,
    read_dataset, spans, summarize,
};
use crate::model::config::Gpt2Config;
use crate::model::hub::Hub;
use crate::{Error, Result};

/// What datasets hold, and the same rows in other forms
#[derive(Debug, clap::Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Data {
    /// What a dataset holds, which format it is taken for, and the tokens with their loss mask
    Inspect(InspectArgs),
    /// Between file types, columns and formats, in one part or two
    Convert(super::convert::ConvertArgs),
}

/// The arguments of `collimate data inspect`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case", group(clap::ArgGroup::new("source").required(true)))]
pub struct InspectArgs {
    /// Dataset: a file, a folder, or an id on the Hub
    #[arg(value_name = "DATASET", group = "source")]
    pub dataset: Option<String>,
    /// The same as a flag
    #[arg(long, value_name = "DATASET", group = "source")]
    pub dataset_name: Option<String>,
    /// Configuration of a dataset on the Hub
    #[arg(long, value_name = "NAME")]
    pub dataset_config: Option<String>,
    /// Split to look at
    #[arg(long, alias = "dataset_train_split", value_name = "SPLIT", default_value = "train")]
    pub split: String,
    /// Columns to rename: found name = expected name
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Model whose tokenizer and chat template are used: a folder, or an id on the Hub; without it, no tokens are shown
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: Option<String>,
    /// Longest sequence in tokens; longer ones are cut
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count)]
    pub max_length: usize,
    /// Rows to show
    #[arg(long, value_name = "N", default_value = "3", value_parser = count)]
    pub rows: usize,
    /// Print one JSON object
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

impl InspectArgs {
    /// The dataset, whichever way it was named
    pub fn source(&self) -> &str {
        self.dataset.as_deref().or(self.dataset_name.as_deref()).unwrap_or_default()
    }
}

/// `FOUND=EXPECTED` of `--columns`
pub(super) fn parse_columns(entries: &[String]) -> Result<BTreeMap<String, String>> {
    let parse = |entry: &String| match entry.split_once('=') {
        Some((found, expected)) if !found.is_empty() && !expected.is_empty() => {
            Ok((found.to_owned(), expected.to_owned()))
        }
        _ => Err(Error::usage(format!("`--columns` must be FOUND=EXPECTED, got `{entry}`"))
            .hint("for example `--columns question=prompt answer=completion`")),
    };
    entries.iter().map(parse).collect()
}

/// What is printed of a dataset
#[derive(Serialize)]
struct Report {
    files: Vec<PathBuf>,
    #[serde(flatten)]
    summary: Summary,
    /// Rows that became examples and rows that did not; without a tokenizer nothing is known of that
    #[serde(flatten)]
    account: Option<RowReport>,
    /// Examples that `max_length` may have cut, because they are as long as it allows
    #[serde(skip_serializing_if = "Option::is_none")]
    at_max_length: Option<usize>,
    examples: Vec<Example>,
}

/// One row as it is, or its tokens
#[derive(Serialize)]
struct Example {
    /// Unknown after more dropped rows than are listed
    place: Option<String>,
    #[serde(flatten)]
    content: Content,
}

/// Name and tokens of each sequence of an example
type Sequences = BTreeMap<&'static str, Vec<Span>>;

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content {
    Row(Map<String, Value>),
    #[serde(untagged)]
    Tokens(Sequences),
}

/// Runs `collimate data inspect`
pub fn inspect(args: InspectArgs) -> Result<()> {
    let columns = parse_columns(&args.columns)?;
    let hub = Hub::from_env(args.offline)?;
    let path = hub.dataset(args.source(), None, args.dataset_config.as_deref())?;
    let options = ReadOptions { split: args.split.clone(), config: args.dataset_config.clone(), columns };
    let dataset = read_dataset(&path, &options)?;
    let format = Format::of(&dataset, "text")?;
    let report = if let Some(name) = &args.model {
        let folder = hub.tokenizer(name, None)?;
        let tokenizer = Tokenizer::from_folder(&folder)?;
        tokens(&dataset, format, &tokenizer, max_length(&args, &folder, &tokenizer), args.rows)?
    } else {
        let example =
            |row: &Row| Example { place: Some(row.place.to_string()), content: Content::Row(row.fields.clone()) };
        Report {
            files: dataset.files.clone(),
            summary: summarize(&dataset, format, &[]),
            account: None,
            at_max_length: None,
            examples: dataset.rows.iter().take(args.rows).map(example).collect(),
        }
    };
    let mut output = Output::open();
    if args.json {
        output.line(&serde_json::to_string(&report).map_err(|cause| Error::run(cause.to_string()))?)?;
    } else {
        print(&report, &mut output)?;
    }
    output.flush()
}

/// `max_length`, no longer than the positions of the model, where they are known
fn max_length(args: &InspectArgs, folder: &Path, tokenizer: &Tokenizer) -> usize {
    // Of a model on the Hub only the tokenizer was fetched
    let positions = Gpt2Config::load(folder).ok().map(|config| config.n_positions);
    positions.or(tokenizer.model_max_length()).map_or(args.max_length, |longest| longest.min(args.max_length))
}

/// Prepares all rows as training would and shows the tokens of the first ones
fn tokens(dataset: &Dataset, format: Format, tokenizer: &Tokenizer, max_length: usize, rows: usize) -> Result<Report> {
    let limit = Some(max_length);
    let (lengths, account, shown): (Vec<usize>, RowReport, Vec<Sequences>) = match format.kind {
        Kind::TokenizedPreference | Kind::Preference | Kind::ImplicitPreference => {
            let options = PreferenceOptions { max_length: limit, truncation: Truncation::KeepStart };
            let prepared = preference_examples(dataset, tokenizer, &options)?;
            let pairs = prepared.examples.iter();
            let lengths = pairs.clone().map(|pair| pair.prompt.len() + pair.chosen.len().max(pair.rejected.len()));
            let both = |pair| -> Result<_> {
                let [chosen, rejected] = preference_spans(pair, tokenizer)?;
                Ok(BTreeMap::from([("chosen", chosen), ("rejected", rejected)]))
            };
            (lengths.collect(), prepared.report.clone(), pairs.take(rows).map(both).collect::<Result<_>>()?)
        }
        Kind::PromptOnly => {
            let prepared = prompt_examples(dataset, tokenizer, &PromptOptions { max_prompt_length: limit })?;
            let prompts = prepared.examples.iter().map(|example| &example.ids);
            let prompt = |ids: &Vec<u32>| -> Result<_> {
                Ok(BTreeMap::from([("prompt", spans(ids, &vec![false; ids.len()], tokenizer)?)]))
            };
            let shown = prompts.clone().take(rows).map(prompt).collect::<Result<_>>()?;
            (prompts.map(Vec::len).collect(), prepared.report.clone(), shown)
        }
        Kind::Tokenized | Kind::UnpairedPreference | Kind::PromptCompletion | Kind::LanguageModeling => {
            let options = LmOptions { max_length: limit, ..LmOptions::default() };
            let prepared = lm_examples(dataset, tokenizer, &options)?;
            let texts = prepared.examples.iter();
            let lengths = texts.clone().map(|example| example.ids.len()).collect();
            let text = |example| -> Result<_> { Ok(BTreeMap::from([("tokens", lm_spans(example, tokenizer)?)])) };
            (lengths, prepared.report.clone(), texts.take(rows).map(text).collect::<Result<_>>()?)
        }
    };
    let mut places = places(dataset, &account.dropped).take(rows).collect::<Vec<_>>().into_iter();
    let examples = shown.into_iter().map(|tokens| Example { place: places.next(), content: Content::Tokens(tokens) });
    Ok(Report {
        files: dataset.files.clone(),
        summary: summarize(dataset, format, &lengths),
        examples: examples.collect(),
        account: Some(account),
        at_max_length: Some(lengths.iter().filter(|length| **length >= max_length).count()),
    })
}

/// Places of the rows that became examples, as far as they are certain: only the first dropped rows are on record
fn places<'a>(dataset: &'a Dataset, dropped: &'a [Dropped]) -> impl Iterator<Item = String> + 'a {
    let known: HashSet<String> = dropped.iter().flat_map(|dropped| &dropped.first).map(ToString::to_string).collect();
    let cut_off = dropped.iter().filter(|dropped| dropped.count > dropped.first.len());
    let ends: HashSet<String> = cut_off.filter_map(|dropped| dropped.first.last()).map(ToString::to_string).collect();
    let certain = dataset.rows.iter().map(|row| row.place.to_string()).take_while(move |place| !ends.contains(place));
    certain.filter(move |place| !known.contains(place))
}

fn print(report: &Report, output: &mut Output) -> Result<()> {
    let summary = &report.summary;
    let files: Vec<String> = report.files.iter().map(|file| file.display().to_string()).collect();
    let mut table = vec![
        ("files", files.join(", ")),
        ("format", summary.format.to_string()),
        ("columns", summary.columns.iter().map(|name| visible(name)).collect::<Vec<_>>().join(", ")),
        ("rows", summary.rows.to_string()),
    ];
    if let Some(account) = &report.account {
        table.push(("examples", account.used.to_string()));
        for Dropped { reason, count, first } in &account.dropped {
            let first: Vec<String> = first.iter().map(ToString::to_string).collect();
            table.push(("dropped", format!("{count}: {reason} ({})", first.join(", "))));
        }
    }
    if let Some(lengths) = &summary.lengths {
        let (min, median, p95, max) = (lengths.min, lengths.median, lengths.p95, lengths.max);
        let of = format!("min {min}, median {median}, 95% {p95}, max {max}, mean {:.1}", lengths.mean);
        table.push(("tokens", format!("{of}, total {}", lengths.total)));
    }
    if let Some(count) = report.at_max_length.filter(|count| *count > 0) {
        table.push(("full length", format!("{count} examples reach `max_length`, and may be cut there")));
    }
    output.table(&table)?;
    let colour = has_colour();
    for (i, example) in report.examples.iter().enumerate() {
        output.line("")?;
        let place = example.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        output.line(&format!("example {}{place}", i + 1))?;
        match &example.content {
            Content::Row(fields) => {
                for (name, value) in fields {
                    let text = value.as_str().map_or_else(|| value.to_string(), visible);
                    output.line(&format!("  {}: {text}", visible(name)))?;
                }
            }
            Content::Tokens(sequences) => {
                for (name, spans) in sequences {
                    let name = if sequences.len() > 1 { format!("{name}: ") } else { String::new() };
                    output.line(&format!("  {name}{}", paint(spans, colour)))?;
                }
            }
        }
    }
    let carries_loss = |example: &Example| match &example.content {
        Content::Row(_) => false,
        Content::Tokens(sequences) => sequences.values().flatten().any(|span| span.carries_loss),
    };
    if report.examples.iter().any(carries_loss) {
        let legend = if colour { "green" } else { "[in brackets]" };
        output.line("")?;
        output.line(&format!("tokens that carry loss are {legend}; `|` stands between tokens"))?;
    }
    Ok(())
}

/// Tokens with `|` between them; those that carry loss green, the others dim, or in brackets where there is no colour
fn paint(spans: &[Span], colour: bool) -> String {
    const GREEN: &str = "\u{1b}[32m";
    const DIM: &str = "\u{1b}[2m";
    const PLAIN: &str = "\u{1b}[0m";
    let mut painted = String::new();
    for (i, span) in spans.iter().enumerate() {
        let text = visible(&span.text);
        let bar = if i > 0 { "|" } else { "" };
        let _ = match (colour, span.carries_loss) {
            (true, true) => write!(painted, "{DIM}{bar}{PLAIN}{GREEN}{text}{PLAIN}"),
            (true, false) => write!(painted, "{DIM}{bar}{text}{PLAIN}"),
            (false, true) => write!(painted, "{bar}[{text}]"),
            (false, false) => write!(painted, "{bar}{text}"),
        };
    }
    painted
}

/// A text on one line: what would move the cursor, or not be seen, as an escape
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Zero-width marks, line separators and changes of direction are no control characters to Unicode
        let unseen =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || unseen || c == '\\' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_show_their_boundaries_and_their_loss() {
        let span = |text: &str, carries_loss| Span { text: text.to_owned(), ids: vec![0], carries_loss };
        let tokens = [span("Q:\n", false), span(" a", true), span("\u{1b}[31m", true)];
        assert_eq!(paint(&tokens, false), "Q:\\n|[ a]|[\\u{1b}[31m]");
        let colours = "\u{1b}[2mQ:\\n\u{1b}[0m\u{1b}[2m|\u{1b}[0m\u{1b}[32m a\u{1b}[0m";
        assert_eq!(paint(&tokens[..2], true), colours);
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        assert_eq!(visible("a\tb\r\n\\ ü 漢 e\u{301} \u{202e}"), "a\\tb\\r\\n\\\\ ü 漢 e\u{301} \\u{202e}");
    }

    #[test]
    fn columns_are_pairs() {
        let parse = |entry: &str| parse_columns(&[entry.to_owned()]);
        assert_eq!(parse("q=prompt").unwrap(), BTreeMap::from([("q".to_owned(), "prompt".to_owned())]));
        for bad in ["q", "=prompt", "q="] {
            assert!(parse(bad).unwrap_err().message().contains(bad));
        }
    }
}
