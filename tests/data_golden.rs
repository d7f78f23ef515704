//! Token ids, masks and rendered chats against those that TRL 1.16 and transformers make (scripts/goldens/data.py).

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use collimate::data::{
    ChatTemplate, Dataset, LmOptions, PreferenceOptions, PromptOptions, ReadOptions, RenderOptions, Tokenizer,
    Truncation, extract_prompt, lm_examples, preference_examples, prompt_examples, read_dataset,
};
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/data")
}

fn golden(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join(name)).unwrap()).unwrap()
}

fn tokenizer(case: &Value) -> Tokenizer {
    let mut tokenizer = Tokenizer::from_folder(&goldens().join("tokenizer")).unwrap();
    if let Some(template) = case["template"].as_str() {
        tokenizer.set_chat_template(template).unwrap();
    }
    tokenizer
}

/// The case's rows by way of a file, as a user's rows come
fn dataset(case: &Value) -> Dataset {
    let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    for row in case["rows"].as_array().unwrap() {
        writeln!(file, "{row}").unwrap();
    }
    read_dataset(file.path(), &ReadOptions::default()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn length_and_truncation(options: &Value) -> (Option<usize>, Truncation) {
    let max_length = options["max_length"].as_u64().map_or(1024, |length| length as usize);
    let truncation = match options["truncation_mode"].as_str() {
        Some("keep_end") => Truncation::KeepEnd,
        _ => Truncation::KeepStart,
    };
    (Some(max_length), truncation)
}

#[test]
fn supervised_examples_are_those_of_trl() {
    for case in golden("tokenize.json")["sft"].as_array().unwrap() {
        let name = &case["name"];
        let (max_length, truncation) = length_and_truncation(&case["options"]);
        let options = LmOptions {
            text_field: case["options"]["dataset_text_field"].as_str().unwrap_or("text").to_string(),
            completion_only_loss: case["options"]["completion_only_loss"].as_bool(),
            assistant_only_loss: false,
            max_length,
            truncation,
        };
        let prepared = lm_examples(&dataset(case), &tokenizer(case), &options).unwrap();
        let expected = case["examples"].as_array().unwrap();
        assert_eq!(prepared.examples.len(), expected.len(), "{name}");
        assert_eq!(prepared.report.used, expected.len(), "{name}");
        for (example, expected) in prepared.examples.iter().zip(expected) {
            assert_eq!(example.ids, ids(&expected["ids"]), "{name}");
            let loss: Vec<bool> = expected["labels"].as_array().unwrap().iter().map(|id| *id != -100).collect();
            assert_eq!(example.loss, loss, "{name}");
        }
    }
}

#[test]
fn preference_examples_are_those_of_trl() {
    for case in golden("tokenize.json")["dpo"].as_array().unwrap() {
        let name = &case["name"];
        let (max_length, truncation) = length_and_truncation(&case["options"]);
        let options = PreferenceOptions { max_length, truncation };
        let prepared = preference_examples(&dataset(case), &tokenizer(case), &options).unwrap();
        let expected = case["examples"].as_array().unwrap();
        assert_eq!(prepared.examples.len(), expected.len(), "{name}");
        for (example, expected) in prepared.examples.iter().zip(expected) {
            assert_eq!(example.prompt, ids(&expected["prompt"]), "{name}");
            let sides = [(example.chosen_sequence(), "chosen"), (example.rejected_sequence(), "rejected")];
            for ((prompt, completion), side) in sides {
                assert_eq!([prompt, completion].concat(), ids(&expected[side]["ids"]), "{name} {side}");
                let completion_tokens = ids(&expected[side]["completion"]).iter().sum::<u32>() as usize;
                assert_eq!(completion.len(), completion_tokens, "{name} {side}");
            }
        }
    }
}

#[test]
fn prompts_are_those_of_trl() {
    for case in golden("tokenize.json")["prompts"].as_array().unwrap() {
        let dataset = dataset(case);
        let prepared = prompt_examples(&dataset, &tokenizer(case), &PromptOptions::default()).unwrap();
        for ((example, expected), row) in
            prepared.examples.iter().zip(case["examples"].as_array().unwrap()).zip(&dataset.rows)
        {
            assert_eq!(example.ids, ids(expected), "{}", case["name"]);
            assert_eq!(&example.row, row);
        }
        assert_eq!(prepared.report.used, dataset.rows.len());
    }
}

#[test]
fn extracted_prompts_are_those_of_trl() {
    for case in golden("tokenize.json")["extracted"].as_array().unwrap() {
        let text = |part: &str, name: &str| case[part][name].as_str().unwrap().to_string();
        let (chosen, rejected) = (text("row", "chosen"), text("row", "rejected"));
        let (prompt, chosen, rejected) = extract_prompt(&chosen, &rejected).unwrap();
        assert_eq!(prompt, text("parts", "prompt"));
        assert_eq!(chosen, text("parts", "chosen"));
        assert_eq!(rejected, text("parts", "rejected"));
    }
}

#[test]
fn chats_are_rendered_as_by_transformers() {
    let golden = golden("templates.json");
    let tokens: Vec<(String, String)> = golden["special_tokens"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, token)| (name.clone(), token.as_str().unwrap().to_string()))
        .collect();
    let mut refused = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let template = ChatTemplate::new(golden["templates"][name].as_str().unwrap(), tokens.clone()).unwrap();
        let options = RenderOptions {
            add_generation_prompt: case["add_generation_prompt"] == true,
            continue_final_message: case["continue_final_message"] == true,
            tools: Some(&case["tools"]).filter(|tools| !tools.is_null()),
            kwargs: None,
        };
        let rendered = template.render(case["messages"].as_array().unwrap(), &options);
        if let Some(text) = case["text"].as_str() {
            assert_eq!(rendered.unwrap(), text, "{name} {options:?}");
        } else {
            rendered.unwrap_err();
            refused += 1;
        }
    }
    assert!(refused > 0);
}
