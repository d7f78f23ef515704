//! What becomes of rows that are odd, wrong or useless: counted drops, errors with a place, and an empty result.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::io::Write as _;
use std::path::Path;

use collimate::Error;
use collimate::data::{
    Dataset, Format, Kind, LmOptions, PreferenceOptions, PromptOptions, ReadOptions, RowReport, Tokenizer, Truncation,
    lm_examples, lm_spans, pair_examples, preference_examples, preference_spans, prompt_examples, read_dataset,
    summarize, unpaired_examples,
};
use serde_json::{Value, json};

fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/data/tokenizer")).unwrap()
}

fn dataset(rows: &[Value]) -> Dataset {
    let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    for row in rows {
        writeln!(file, "{row}").unwrap();
    }
    read_dataset(file.path(), &ReadOptions::default()).unwrap()
}

fn lm_error(rows: &[Value]) -> Error {
    lm_examples(&dataset(rows), &tokenizer(), &LmOptions::default()).unwrap_err()
}

fn preference_error(rows: &[Value]) -> Error {
    preference_examples(&dataset(rows), &tokenizer(), &PreferenceOptions::default()).unwrap_err()
}

/// Reasons with their counts and the lines of the first rows
fn drops(report: &RowReport) -> Vec<(&str, usize, Vec<usize>)> {
    let lines = |places: &[collimate::data::Place]| places.iter().map(|place| place.line).collect();
    report.dropped.iter().map(|dropped| (dropped.reason.as_str(), dropped.count, lines(&dropped.first))).collect()
}

#[test]
fn rows_against_the_format_are_errors_with_their_line() {
    let text = json!({"text": "a"});
    let pair = json!({"prompt": "a", "completion": "b"});
    let chat = json!({"messages": [{"role": "user", "content": "a"}]});
    let cases = [
        (vec![text.clone(), json!({"text": 3})], ".jsonl:2: `text` is a number, expected a string"),
        (
            vec![text.clone(), json!({"text": null})],
            ".jsonl:2: null in `text`, though the dataset is in the language modelling",
        ),
        (
            vec![text.clone(), pair.clone()],
            ".jsonl:2: no column `text`, though the dataset is in the language modelling format",
        ),
        (vec![pair.clone(), text.clone()], "this row has `text`"),
        (
            vec![pair.clone(), json!({"prompt": "a"})],
            ".jsonl:2: no column `completion`, though the dataset is in the prompt-completion",
        ),
        (vec![chat.clone(), text.clone()], ".jsonl:2: `text` is a text, but the other columns and rows hold lists"),
        (vec![text, json!({"text": ["a"]})], ".jsonl:2: `text` is a list, but the other columns and rows hold texts"),
        (vec![chat.clone(), json!({"messages": ["a"]})], ".jsonl:2: `messages`[0]: expected a message, found a string"),
        (
            vec![chat.clone(), json!({"messages": [{"content": "a"}]})],
            "`messages`[0]: `role` is missing, expected a string",
        ),
        (vec![chat, json!({"messages": [{"role": "user", "content": 1}]})], "`messages`[0]: `content` is a number"),
        (
            vec![json!({"prompt": [{"role": "user", "content": "a"}], "completion": "b"})],
            ".jsonl:1: `completion` is a text, but the other columns and rows hold lists of messages",
        ),
        (vec![json!({"input_ids": [1, 340]})], ".jsonl:1: `input_ids` holds 340, expected ids from 0 to 339"),
        (vec![json!({"input_ids": [1, 2], "labels": [1]})], ".jsonl:1: `labels` has 1 entries, `input_ids` 2"),
        (vec![json!({"input_ids": [1, 2], "labels": [1, 3]})], "expected the same id or -100"),
        (vec![json!({"input_ids": ["a"]})], ".jsonl:1: `input_ids` holds a string, expected a list of integers"),
    ];
    for (rows, expected) in cases {
        let error = lm_error(&rows);
        assert!(error.message().contains(expected), "{error}\n  expected {expected}");
        assert_eq!(error.exit_code(), 2);
    }
    let mixed = json!({"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"});
    let message = preference_error(&[mixed]).message().to_string();
    assert!(message.contains("`prompt` is a list, but the other columns and rows hold texts"), "{message}");
    let implicit = json!({"chosen": "a b", "rejected": "a c"});
    let explicit = json!({"prompt": "a", "chosen": "b", "rejected": "c"});
    let message = preference_error(&[implicit, explicit]).message().to_string();
    assert!(message.ends_with(".jsonl:2: has a `prompt`, which the first row lacks"), "{message}");
}

#[test]
fn missing_columns_are_told_with_the_nearest_name() {
    let error = lm_error(&[json!({"texts": "a", "n": 1})]);
    assert!(
        error.message().contains("has the columns `texts` and `n`, but `text`, `messages`, or `prompt`"),
        "{error}"
    );
    assert_eq!(error.hint_text(), Some("map a column with `columns: {texts: text}`"));
    let error = preference_error(&[json!({"prompt": "a", "choosen": "b", "rejected": "c"})]);
    assert_eq!(error.hint_text(), Some("map a column with `columns: {choosen: chosen}`"));
}

#[test]
fn rows_that_can_teach_nothing_are_dropped_and_counted() {
    let options = LmOptions { max_length: Some(4), ..LmOptions::default() };
    let rows = [
        json!({"prompt": "The sky is blue and the sea is green", "completion": " yes"}),
        json!({"prompt": "a", "completion": "b"}),
        json!({"prompt": "", "completion": ""}),
        json!({"prompt": "The answer is yes, no, or perhaps", "completion": " no"}),
    ];
    let prepared = lm_examples(&dataset(&rows), &tokenizer(), &options).unwrap();
    let (cut, none) = ("no completion token left within `max_length`", "no token to learn from");
    assert_eq!(drops(&prepared.report), [(cut, 2, vec![1, 4]), (none, 1, vec![3])]);
    assert_eq!((prepared.report.read, prepared.report.used, prepared.examples.len()), (4, 1, 1));

    let chats = [json!({"messages": []}), json!({"messages": [{"role": "user", "content": "a"}]})];
    let prepared = lm_examples(&dataset(&chats), &tokenizer(), &options).unwrap();
    assert_eq!(drops(&prepared.report), [("a conversation without messages", 1, vec![1])]);
}

#[test]
fn preference_rows_that_cannot_serve_are_dropped_and_counted() {
    let long = "The sky is blue and the sea is green";
    let pairs = [
        json!({"prompt": "a", "chosen": " b", "rejected": " b"}),
        json!({"prompt": long, "chosen": " yes", "rejected": " no"}),
        json!({"prompt": "The s", "chosen": "ky", "rejected": "ea"}),
    ];
    let options = PreferenceOptions { max_length: Some(6), truncation: Truncation::KeepStart };
    let prepared = preference_examples(&dataset(&pairs), &tokenizer(), &options).unwrap();
    assert_eq!(drops(&prepared.report), [("the prompt alone fills `max_length`", 1, vec![2])]);
    assert_eq!((prepared.report.equal_pairs, prepared.report.boundary_moved), (1, 1));

    let implicit = [json!({"chosen": "", "rejected": "a"}), json!({"chosen": "a b", "rejected": "a c"})];
    let prepared = preference_examples(&dataset(&implicit), &tokenizer(), &options).unwrap();
    assert_eq!((prepared.report.used, prepared.report.dropped[0].count), (1, 1));

    let error = preference_examples(&dataset(&pairs[1..2]), &tokenizer(), &options).unwrap_err();
    assert!(error.message().contains("none of the 1 rows of"), "{error}");
    assert!(error.message().ends_with("can be used: 1 × the prompt alone fills `max_length`"), "{error}");
    assert!(error.hint_text().unwrap().contains(".jsonl:1"), "{error}");
}

#[test]
fn a_text_prompt_beside_messages_is_the_one_they_begin_with() {
    let user = json!({"role": "user", "content": "hello"});
    let answer = |text: &str| json!({"role": "assistant", "content": text});
    let (chosen, rejected) = (json!([user, answer("a")]), json!([user, answer("b")]));
    let examples = |row: Value| {
        preference_examples(&dataset(&[row]), &tokenizer(), &PreferenceOptions::default()).unwrap().examples
    };
    let beside = examples(json!({"prompt": "hello", "chosen": chosen, "rejected": rejected}));
    assert_eq!(beside, examples(json!({"chosen": chosen, "rejected": rejected})));
}

#[test]
fn prompts_without_tokens_or_room_are_dropped() {
    let rows = [json!({"prompt": ""}), json!({"prompt": "a"}), json!({"prompt": "The sky is blue"})];
    let options = PromptOptions { max_prompt_length: Some(2) };
    let prepared = prompt_examples(&dataset(&rows), &tokenizer(), &options).unwrap();
    assert_eq!(prepared.examples[0].row.place.line, 2);
    assert_eq!(
        drops(&prepared.report),
        [("a prompt without tokens", 1, vec![1]), ("the prompt leaves no room for a completion", 1, vec![3])]
    );
}

#[test]
fn a_failing_template_names_the_row() {
    let mut tokenizer = tokenizer();
    tokenizer.set_chat_template("{{ raise_exception('no system') if messages[0].role == 'system' }}ab").unwrap();
    let chat = |role: &str| json!({"messages": [{"role": role, "content": "a"}]});
    let rows = dataset(&[chat("user"), chat("system")]);
    let error = lm_examples(&rows, &tokenizer, &LmOptions::default()).unwrap_err();
    assert!(error.message().ends_with(".jsonl:2: the chat template refuses the conversation: no system"), "{error}");
}

#[test]
fn reports_read_as_json() {
    let rows = [json!({"prompt": "", "completion": ""}), json!({"prompt": "a", "completion": " b"})];
    let rows = dataset(&rows);
    let report = lm_examples(&rows, &tokenizer(), &LmOptions::default()).unwrap().report;
    let place = format!("{}:1", rows.path.display());
    assert_eq!(
        serde_json::to_value(report).unwrap(),
        json!({
            "read": 2, "used": 1, "boundary_moved": 0, "equal_pairs": 0,
            "dropped": [{"reason": "no token to learn from", "count": 1, "first": [place]}]
        })
    );
}

#[test]
fn spans_show_whole_characters_and_the_loss() {
    let tokenizer = tokenizer();
    let rows = dataset(&[json!({"prompt": "é🙂", "completion": "🙂 b"})]);
    let example = lm_examples(&rows, &tokenizer, &LmOptions::default()).unwrap().examples.remove(0);
    let spans = lm_spans(&example, &tokenizer).unwrap();
    let shown: Vec<(&str, bool)> = spans.iter().map(|span| (span.text.as_str(), span.carries_loss)).collect();
    assert_eq!(shown, [("é", false), ("🙂", false), ("🙂", true), (" b", true), ("<|endoftext|>", true)]);
    assert_eq!(spans.iter().flat_map(|span| span.ids.clone()).collect::<Vec<_>>(), example.ids);

    let rows = dataset(&[json!({"prompt": "a", "chosen": " b", "rejected": " b c"})]);
    let pair = preference_examples(&rows, &tokenizer, &PreferenceOptions::default()).unwrap().examples.remove(0);
    let [chosen, rejected] = preference_spans(&pair, &tokenizer).unwrap();
    assert_eq!((chosen[0].carries_loss, chosen.last().unwrap().carries_loss), (false, true));
    assert!(rejected.len() > chosen.len());

    let format = Format::of(&rows, "text").unwrap();
    assert_eq!(format, Format { kind: Kind::Preference, conversational: false });
    let summary = summarize(&rows, format, &[chosen.len(), rejected.len()]);
    assert_eq!((summary.rows, summary.columns.len(), summary.lengths.unwrap().max), (1, 3, rejected.len()));
    assert_eq!(summary.format.to_string(), "preference, standard");
}

#[test]
fn tokenised_pairs_are_taken_as_they_are() {
    let texts = [json!({"prompt": "the sky is", "chosen": " blue", "rejected": " made of stone"})];
    let options = PreferenceOptions::default();
    let expected = preference_examples(&dataset(&texts), &tokenizer(), &options).unwrap().examples;
    let pair = &expected[0];
    let ids = [json!({"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected})];
    assert_eq!(preference_examples(&dataset(&ids), &tokenizer(), &options).unwrap().examples, expected);
    let whole = pair_examples(&dataset(&texts), &tokenizer(), 100).unwrap().examples;
    assert_eq!(pair_examples(&dataset(&ids), &tokenizer(), 100).unwrap().examples, whole, "after their prompt");
    let ids = [json!({"chosen_ids": whole[0].chosen, "rejected_ids": whole[0].rejected})];
    assert_eq!(pair_examples(&dataset(&ids), &tokenizer(), 100).unwrap().examples, whole);
    assert_eq!(Format::of(&dataset(&ids), "text").unwrap().to_string(), "tokenised preference");
}

/// Rows of the shape of datasets that TRL's documentation uses, each for the trainer that it is used with
#[test]
fn ready_made_datasets_load_unchanged() {
    let mut tokenizer = tokenizer();
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    tokenizer.set_chat_template(template).unwrap();
    let user = json!({"role": "user", "content": "where is the heron?"});
    let says = |text: &str| json!({"role": "assistant", "content": text});
    let (good, bad) = (says("by the mill"), says("nowhere"));
    let pairs = [
        // trl-lib/ultrafeedback_binarized
        json!({"chosen": [user, good], "rejected": [user, bad], "score_chosen": 8.0, "score_rejected": 2.5}),
        // trl-lib/tldr-preference, trl-lib/lm-human-preferences-sentiment
        json!({"prompt": "SUBREDDIT: r/birds\n\nTL;DR:", "chosen": " A heron.", "rejected": " A bird", "info": {"id": "t3"}}),
        // trl-lib/hh-rlhf-helpful-base
        json!({"prompt": [user], "chosen": [good], "rejected": [bad]}),
        // Anthropic/hh-rlhf
        json!({"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: what"}),
        // trl-internal-testing/descriptiveness-sentiment-trl-style: a text beside messages that repeat it
        json!({"prompt": "where is the heron?", "chosen": [user, good], "rejected": [user, bad]}),
        // insub/imdb_prefix20_forDPO_gpt2-large-imdb-FT_siebert_sentiment-roberta-large-english
        json!({"text": "The film", "chosen": "The film was good", "rejected": "The film was bad"}),
    ];
    for row in pairs {
        let rows = dataset(std::slice::from_ref(&row));
        let pair = &preference_examples(&rows, &tokenizer, &PreferenceOptions::default()).unwrap().examples[0];
        assert!(!pair.chosen.is_empty() && pair.chosen != pair.rejected, "{row}");
        assert_eq!(pair_examples(&rows, &tokenizer, 200).unwrap().examples.len(), 1, "{row}");
    }
    let texts = [
        // trl-lib/Capybara
        (json!({"messages": [user, good], "source": "Dove", "num_turns": 1}), false),
        // trl-lib/tldr
        (json!({"prompt": "SUBREDDIT: r/birds\n\nTL;DR:", "completion": " A heron."}), true),
        // stanfordnlp/imdb
        (json!({"text": "A fine film.", "label": 1}), false),
    ];
    for (row, prompted) in texts {
        let prepared = lm_examples(&dataset(std::slice::from_ref(&row)), &tokenizer, &LmOptions::default()).unwrap();
        assert_eq!(prepared.examples[0].loss.contains(&false), prompted, "{row}");
    }
    // trl-lib/kto-mix-14k
    let row = json!({"prompt": [user], "completion": [good], "label": true});
    let liked = unpaired_examples(&dataset(&[row]), &tokenizer, &PreferenceOptions::default()).unwrap();
    assert!(liked.examples[0].label);
    // trl-lib/ultrafeedback-prompt, trl-lib/DeepMath-103K
    for row in [json!({"prompt": [user]}), json!({"prompt": [user], "solution": "\\boxed{2}"})] {
        let prompts =
            prompt_examples(&dataset(std::slice::from_ref(&row)), &tokenizer, &PromptOptions::default()).unwrap();
        assert_eq!(prompts.examples[0].row.fields.len(), row.as_object().unwrap().len());
    }
}
