//! `collimate chat`, `generate --stream` and two models side by side, from a pipe.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use training::{Outcome, command, outcome, text};

fn piped(words: &[&str], input: &str) -> Outcome {
    let mut child = command(words).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

const SHORT: [&str; 4] = ["--max_new_tokens", "12", "--seed", "3"];

fn chat(flags: &[&str], input: &str) -> Outcome {
    piped(&[&["chat", "--model", "model"], &SHORT[..], flags].concat(), input)
}

/// One completion of a prompt by `generate`
fn completion(prompt: &str, seed: &str) -> String {
    let words =
        ["generate", "--model", "model", "--prompt", prompt, "--json", "--max_new_tokens", "12", "--seed", seed];
    let found = outcome(command(&words));
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let line: Value = serde_json::from_str(&found.stdout).unwrap();
    line["completion"].as_str().unwrap().to_owned()
}

#[test]
fn an_answer_is_the_completion_of_the_rendered_conversation() {
    let first = completion("<user>where is the wren?<|endoftext|>\n<assistant>", "3");
    let found = chat(&[], "where is the wren?\n");
    assert_eq!((found.code, found.stdout.trim_end()), (Some(0), first.trim()), "{}", found.stderr);

    // The second message sees the first one and its answer; its draws have a seed of their own
    let second = format!(
        "<system>Be brief.<|endoftext|>\n<user>where is the wren?<|endoftext|>\n<assistant>{}<|endoftext|>\n<user>why?<|endoftext|>\n\
         <assistant>",
        chat(&["--system", "Be brief."], "where is the wren?\n").stdout.trim()
    );
    let expected = completion(&second, "4");
    let found = chat(&["--system", "Be brief."], "where is the wren?\nwhy?\n");
    assert!(found.stdout.trim_end().ends_with(expected.trim()), "{:?} does not end with {expected:?}", found.stdout);
}

#[test]
fn commands_change_the_conversation() {
    let greedy = ["--temperature", "0"];
    let alone = chat(&greedy, "why?\n").stdout;
    let after_reset = chat(&greedy, "where is the wren?\n/reset\nwhy?\n").stdout;
    assert!(after_reset.ends_with(&alone) && after_reset.len() > alone.len());
    let told = chat(&[&greedy[..], &["--system", "Be brief."]].concat(), "why?\n").stdout;
    assert_eq!(chat(&greedy, "/system Be brief.\nwhy?\n").stdout, told);
    assert_ne!(told, alone);
    assert_eq!(chat(&greedy, "why?\n/exit\nwhere?\n").stdout, alone);
    let unknown = chat(&greedy, "/quti\n");
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""));
    assert!(unknown.stderr.contains("error: unknown command `/quti`"), "{}", unknown.stderr);
}

#[test]
fn formats_without_a_template_are_plain_text() {
    let dialogue = completion("\n\nHuman: hello\n\nAssistant:", "3");
    let found = chat(&["--format", "dialogue"], "hello\n").stdout;
    assert_eq!(found.trim_end(), dialogue.split("\n\nHuman:").next().unwrap().trim());
    let first = completion("Question:", "3");
    let found = chat(&["--format", "continue"], "Question:\n").stdout;
    assert_eq!(found, format!("{first}\n"));
}

#[test]
fn an_endless_conversation_forgets_its_beginning() {
    let found = chat(&["--format", "dialogue"], &"tell me about the heron\n".repeat(12));
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    assert!(found.stderr.contains("oldest turns are forgotten"), "{}", found.stderr);
    let long = chat(&[], &format!("{}\n", "heron ".repeat(400)));
    assert_eq!(long.code, Some(2));
    assert!(long.stderr.contains("leaves no room for an answer"), "{}", long.stderr);
}

#[test]
fn a_streamed_text_is_the_whole_one() {
    let words = ["generate", "--model", "model", "--prompt", "The heron", "--max_new_tokens", "20", "--seed", "5"];
    let whole = outcome(command(&words));
    let streamed = outcome(command(&[&words[..], &["--stream"]].concat()));
    assert_eq!((streamed.code, &streamed.stdout), (Some(0), &whole.stdout), "{}", streamed.stderr);
    let refused = outcome(command(&[&words[..], &["--stream", "--json"]].concat()));
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}

#[test]
fn two_models_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let other = training::model(folder.path(), &[]);
    let words = ["generate", "--model", "model", "--model_b", text(&other), "--prompt", "The heron"];
    let found = outcome(command(&[&words[..], &SHORT[..]].concat()));
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let expected = completion("The heron", "3").replace('\n', "\n  |");
    assert_eq!(found.stdout, format!("The heron\nA |{expected}\nB |{expected}\n"));
    let found = outcome(command(&[&words[..], &SHORT[..], &["--json", "--num_return_sequences", "2"]].concat()));
    let lines: Vec<Value> = found.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let models: Vec<&str> = lines.iter().map(|line| line["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["model", "model", text(&other), text(&other)]);
    assert_eq!(lines[0]["token_ids"], lines[2]["token_ids"]);
}
