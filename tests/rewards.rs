//! Rewards: every kind, against TRL's functions where there are such.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use collimate::reward::{
    Argument, Check, CommandReward, HttpReward, KINDS, OTHER_KINDS, Options, Reward, Rewards, Sample, Spec,
};
use collimate::{Error, Result};
use serde_json::{Map, Value, json};

/// A sample that owns its parts
struct Owned {
    prompt: Value,
    completion: Value,
    ids: Vec<u32>,
    columns: Map<String, Value>,
}

impl Owned {
    fn new(completion: &str, columns: Value) -> Self {
        let Value::Object(columns) = columns else { panic!("columns are an object") };
        Self { prompt: json!("p"), completion: json!(completion), ids: vec![1, 2, 3], columns }
    }

    fn sample(&self) -> Sample<'_> {
        Sample {
            prompt: &self.prompt,
            completion: &self.completion,
            completion_ids: &self.ids,
            columns: &self.columns,
            truncated: false,
        }
    }
}

fn build(spec: &str) -> Box<dyn Reward> {
    Spec::parse(spec).and_then(|spec| spec.build(Options::default())).unwrap()
}

const GO_ON: Check<'static> = &|| Ok(());

fn score(spec: &str, samples: &[Owned]) -> Vec<Option<f64>> {
    let samples: Vec<_> = samples.iter().map(Owned::sample).collect();
    build(spec).score(&samples, GO_ON).unwrap()
}

fn refusal(spec: &str) -> String {
    match Spec::parse(spec).and_then(|spec| spec.build(Options::default())) {
        Ok(_) => panic!("`{spec}` was accepted"),
        Err(error) => {
            assert_eq!(error.exit_code(), 2, "{error}");
            error.to_string()
        }
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("goldens/rewards/trl.json")).unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

/// Samples of a golden, as messages where TRL insists on them
fn samples(case: &Value) -> Vec<Owned> {
    let texts = strings(&case["completions"]);
    let solutions = case.get("solutions").map(strings);
    let ids = case.get("completion_ids").map(|ids| serde_json::from_value::<Vec<Vec<u32>>>(ids.clone()).unwrap());
    let sample = |(index, text): (usize, &&str)| {
        let columns = solutions.as_ref().map_or(json!({}), |solutions| json!({"solution": solutions[index]}));
        let mut owned = Owned::new("", columns);
        owned.completion = json!([{"role": "assistant", "content": text}]);
        if let Some(ids) = &ids {
            owned.ids.clone_from(&ids[index]);
        }
        owned
    };
    texts.iter().enumerate().map(sample).collect()
}

fn compare(spec: &str, case: &Value) -> Vec<String> {
    let samples = samples(case);
    let found = score(spec, &samples);
    let expected = numbers(&case["rewards"]);
    assert_eq!(found.len(), expected.len());
    let same = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        (a, b) => a == b,
    };
    let pairs = found.iter().zip(&expected).zip(&samples).filter(|((found, expected), _)| !same(**found, **expected));
    pairs
        .map(|((found, expected), sample)| {
            let (solution, text) = (&sample.columns["solution"], sample.sample().completion_text().into_owned());
            format!("{solution} and `{text}`: {found:?}, TRL {expected:?}")
        })
        .collect()
}

#[test]
fn accuracy_is_trls() {
    let golden = golden();
    let none: Vec<String> = Vec::new();
    assert_eq!(compare("accuracy_reward", &golden["accuracy"]), none);
    assert_eq!(compare("trl.rewards.reasoning_accuracy_reward", &golden["reasoning"]), none);
    assert_eq!(compare("get_cosine_scaled_reward:100", &golden["cosine"]), none);
}

/// What ours knows and math-verify under TRL's settings does not: digits without braces, the last of two boxes. What it
/// does not know: matrices, which are compared as text
#[test]
fn differences_from_math_verify_are_these() {
    let golden = golden();
    let case = &golden["beyond"];
    assert_eq!(numbers(&case["rewards"]), [Some(0.0), Some(0.0), Some(0.0), Some(1.0)]);
    let found = score("accuracy_reward", &samples(case));
    assert_eq!(found, [Some(1.0), Some(1.0), Some(1.0), Some(0.0)]);
}

#[test]
fn formats_and_lengths_are_trls() {
    let golden = golden();
    for spec in ["think_format_reward", "trl.rewards.think_format_reward", "format:think"] {
        let none: Vec<String> = Vec::new();
        assert_eq!(compare(spec, &golden["think"]), none);
    }
    let of_lengths = |spec: &str, lengths: &Value| {
        let lengths = lengths.as_array().unwrap().iter().map(|length| length.as_u64().unwrap() as usize);
        let samples: Vec<_> =
            lengths.map(|length| Owned { ids: vec![1; length], ..Owned::new("", json!({})) }).collect();
        score(spec, &samples)
    };
    let overlong = &golden["overlong"];
    let found = of_lengths("get_soft_overlong_punishment:100:20", &overlong["lengths"]);
    assert_eq!(found, numbers(&overlong["rewards"]));
    let found = of_lengths("trl.rewards.get_soft_overlong_punishment", &overlong["default_lengths"]);
    assert_eq!(found, numbers(&overlong["default_rewards"]));
    assert_eq!(of_lengths("length", &overlong["lengths"]), numbers(&overlong["lengths"]));

    let repetition = &golden["repetition"];
    let ids: Vec<Vec<u32>> = serde_json::from_value(repetition["completion_ids"].clone()).unwrap();
    let samples: Vec<_> = ids.into_iter().map(|ids| Owned { ids, ..Owned::new("", json!({})) }).collect();
    assert_eq!(score("get_repetition_penalty_reward", &samples), numbers(&repetition["default"]));
    assert_eq!(score("get_repetition_penalty_reward:2:-0.5", &samples), numbers(&repetition["rewards"]));
}

#[test]
fn texts_are_searched_and_matched() {
    let samples = [
        Owned::new("The good dog", json!({"answer": "Paris"})),
        Owned::new(" 42\n", json!({"answer": 42, "key": "x"})),
        Owned::new("b", json!({"answer": ["a", "b"], "key": "b"})),
        Owned::new("b", json!({"answer": null, "key": "B"})),
    ];
    let truth = |values: [u8; 4]| values.map(|value| Some(f64::from(value))).to_vec();
    assert_eq!(score("contains:good dog", &samples), truth([1, 0, 0, 0]));
    assert_eq!(score("contains:a:b", &samples), truth([0, 0, 0, 0]), "only the first colon divides");
    assert_eq!(score(r"regex:^\s*\d{1,2}\s*$", &samples), truth([0, 1, 0, 0]));
    assert_eq!(score("regex:(?<!bad )dog|(?i)THE", &samples), truth([1, 0, 0, 0]));
    assert_eq!(score("exact_match", &samples), [Some(0.0), Some(1.0), Some(1.0), None]);
    assert_eq!(score("exact_match:key", &samples[1..]), [Some(0.0), Some(1.0), Some(0.0)]);
    let messages =
        Owned { completion: json!([{"role": "assistant", "content": "good dog"}]), ..Owned::new("", json!({})) };
    assert_eq!(score("contains:good", &[messages]), [Some(1.0)]);
    let lexicon = concat!("lexicon:", env!("CARGO_MANIFEST_DIR"), "/data/reviews/lexicon.json");
    assert_eq!(score(lexicon, &samples[..1]), [Some(2.0 / 6.0)]);
}

#[test]
fn math_answers_are_found_where_people_put_them() {
    let gsm8k = "Half of 48 is 48/2 = <<48/2=24>>24.\nTogether 48+24 = <<48+24=72>>72.\n#### 72";
    for (answer, text, expected) in [
        (gsm8k, "She sold 24, so 72.\n#### 72", 1.0),
        (gsm8k, "The answer is 72.", 1.0),
        (gsm8k, "The answer is $72.00 and that is that", 1.0),
        (gsm8k, "the answer: 24 + 48 = 72 clips", 1.0),
        (gsm8k, "<answer>72</answer> of 100", 1.0),
        (gsm8k, "**72**", 1.0),
        (gsm8k, "\\boxed{72} by 48 and 24", 1.0),
        (gsm8k, "#### 72 clips", 1.0),
        (gsm8k, "48 + 24 = 73", 0.0),
        (gsm8k, "-72", 0.0),
        (gsm8k, "", 0.0),
        (gsm8k, "I do not know", 0.0),
        ("x\n#### 1,234", "That makes $1234", 1.0),
        ("#### -5", "It falls to -5", 1.0),
        ("#### 5", "From 10-5", 1.0),
        ("#### 0.5", "so 1/2", 1.0),
        ("#### 20%", "20%", 1.0),
        ("$\\frac{3}{4}$", "0.75", 1.0),
        ("7", "It was version 2.7.", 0.0),
        ("7", "He had $5 and then he had $7", 1.0),
        ("7", "With $x = 5$ it is 7", 1.0),
        ("12", "so it is $3 \\cdot 4$", 1.0),
        ("Paris", "Paris", 1.0),
        ("(B)", "b", 1.0),
    ] {
        let found = score("math_answer", &[Owned::new(text, json!({"answer": answer}))]);
        assert_eq!(found, [Some(expected)], "`{answer}` and `{text}`");
    }
    assert_eq!(score("math_answer", &[Owned::new("3", json!({"solution": null, "q": 1}))]), [None]);
    assert_eq!(score("math_answer:gold", &[Owned::new("3", json!({"answer": 4, "gold": 3}))]), [Some(1.0)]);
}

/// A policy writes whatever it likes
#[test]
fn wild_mathematics_ends_quickly() {
    let wild = [
        "(".repeat(900),
        "{".repeat(100_000),
        "\\frac".repeat(190),
        "\\sqrt".repeat(190),
        "sin".repeat(330),
        "2^-".repeat(330) + "1",
        "1".repeat(999),
        "1+".repeat(490) + "1",
        "1,".repeat(499) + "1",
        "(1,".repeat(300),
        "(1,".repeat(150) + "1" + &")".repeat(150),
        "9^{9^{9^{9}}}".to_owned(),
        "170!!!".to_owned(),
        "\\".repeat(999),
        "x=".repeat(400),
        "\u{1f600}$\u{1f600}$".repeat(50),
        "$".repeat(9999),
        "\\boxed{".repeat(9999),
    ];
    let begin = std::time::Instant::now();
    for text in &wild {
        for around in [format!("\\boxed{{{text}}}"), format!("the answer is ${text}$"), text.clone()] {
            for spec in ["accuracy_reward:answer", "math_answer"] {
                let other = score(spec, &[Owned::new(&around, json!({"answer": "$\\sqrt{5}$"}))]);
                assert_eq!(other, [Some(0.0)], "{around:.80}");
                score(spec, &[Owned::new("\\boxed{2}", json!({"answer": around}))]);
                score(spec, &[Owned::new(&around, json!({"answer": around}))]);
            }
        }
    }
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

#[test]
fn what_is_no_reward_is_refused_with_a_way_out() {
    for (spec, parts) in [
        ("lenght", &["unknown reward `lenght`", "did you mean `length`?", "doctor --rewards"][..]),
        ("exactmatch:answer", &["did you mean `exact_match`?"]),
        ("my_lib.rewards.helpful", &["Python function", "command:python judge.py"]),
        ("trl.rewards.no_such_reward", &["Python function"]),
        ("scripts/tasks/measure.py", &["is a file", "command:python3 scripts/tasks/measure.py"]),
        ("clippy.toml", &["is a file", "command:./clippy.toml"]),
        ("no-such-thing", &["unknown reward", "a folder of a reward model must exist"]),
        ("contains:", &["lacks its argument", "contains:WORD"]),
        ("regex", &["lacks its argument", "regex:PATTERN"]),
        ("regex:(", &["`regex:(`"]),
        ("length:3", &["takes no argument"]),
        ("format:json", &["expected `format:think`"]),
        ("lexicon:/no/such/file", &["cannot read `/no/such/file`"]),
        ("get_soft_overlong_punishment:10:20", &["0 ≤ CACHE ≤ MAX"]),
        ("get_soft_overlong_punishment:many", &["MAX:CACHE", "`many`"]),
        ("get_repetition_penalty_reward:2:1", &["PENALTY ≤ 0"]),
        ("get_cosine_scaled_reward:0", &["from 1 up"]),
        ("command:", &["names no program"]),
        ("command:sh -c 'echo", &["quote"]),
        ("command:/no/such/judge --fast", &["cannot start the reward `/no/such/judge`", "hint: "]),
        ("http://", &["http://"]),
    ] {
        let message = refusal(spec);
        assert!(parts.iter().all(|part| message.contains(part)), "{spec}: {message}");
    }
}

#[test]
fn doctor_lists_every_kind() {
    let output = Command::new(env!("CARGO_BIN_EXE_collimate")).args(["doctor", "--rewards"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((output.status.code(), lines.len()), (Some(0), KINDS.len() + OTHER_KINDS.len()), "{text}");
    for (kind, line) in KINDS.iter().zip(&lines) {
        assert!(line.starts_with(&kind.form()) && line.contains(kind.about), "{line}");
        let argument = match kind.argument {
            Argument::Required(_) => ":1",
            _ => "",
        };
        assert!(matches!(Spec::parse(&format!("{}{argument}", kind.name)), Ok(Spec::BuiltIn(..))), "{line}");
    }
    for start in ["exact_match[:COLUMN] ", "regex:PATTERN ", "command:PROGRAM ARGS ", "http://", "FOLDER or ORG/NAME "]
    {
        assert_eq!(lines.iter().filter(|line| line.starts_with(start)).count(), 1, "{text}");
    }
}

#[test]
fn models_are_left_to_the_caller() {
    let name = |text: &str| match Spec::parse(text) {
        Ok(Spec::Model(name)) => name,
        _ => panic!("`{text}` is no model"),
    };
    for text in ["org/reward-model-1.5", "./runs/reward", "/models/reward", "../reward", env!("CARGO_MANIFEST_DIR")] {
        assert_eq!(name(text), text);
    }
}

#[test]
fn a_missing_column_is_named() {
    let owned = Owned::new("x", json!({"prompt": "p", "text": "t"}));
    for (spec, parts) in [
        ("exact_match", &["`answer`, `solution`", "found `prompt`, `text`", "exact_match:COLUMN"][..]),
        ("math_answer:gold", &["needs the column `gold`"]),
        ("accuracy_reward", &["needs the column `solution`"]),
    ] {
        let mut reward = build(spec);
        let early = reward.check_row(&owned.columns).unwrap_err();
        let late = reward.score(&[owned.sample()], GO_ON).unwrap_err();
        assert_eq!((early.exit_code(), early.to_string()), (2, late.to_string()));
        assert!(parts.iter().all(|part| early.to_string().contains(part)), "{early}");
    }
    assert!(build("length").check_row(&owned.columns).is_ok());
    let nested = Owned::new("x", json!({"answer": {"a": 1}}));
    assert!(build("exact_match").score(&[nested.sample()], GO_ON).is_err());
}

/// A reward that says what it is told
struct Says(&'static str, Vec<Option<f64>>);

impl Reward for Says {
    fn name(&self) -> &str {
        self.0
    }

    fn score(&mut self, _: &[Sample<'_>], _: Check<'_>) -> Result<Vec<Option<f64>>> {
        Ok(self.1.clone())
    }
}

#[test]
fn rewards_add_up_over_those_that_can_judge() {
    let one = || -> Box<dyn Reward> { Box::new(Says("a", vec![Some(1.0), None, None])) };
    let two = || -> Box<dyn Reward> { Box::new(Says("a", vec![Some(3.0), Some(-2.0), None])) };
    let owned: Vec<_> = (0..3).map(|_| Owned::new("x", json!({}))).collect();
    let samples: Vec<_> = owned.iter().map(Owned::sample).collect();
    let mut rewards = Rewards::new(vec![one(), two()], Some(&[2.0, 0.5])).unwrap();
    assert_eq!(rewards.names(), ["a", "a_2"]);
    let scores = rewards.score(&samples, GO_ON).unwrap();
    assert_eq!(scores.total, [Some(3.5), Some(-1.0), None]);
    assert_eq!(scores.by_function[0], [Some(1.0), None, None]);
    assert_eq!(Rewards::new(vec![one(), two()], None).unwrap().score(&samples, GO_ON).unwrap().total[0], Some(4.0));
    assert_eq!(rewards.score(&[], GO_ON).unwrap().by_function, [vec![], vec![]] as [Vec<Option<f64>>; 2]);

    let message = |result: Result<Rewards>| match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    assert!(message(Rewards::new(vec![one()], Some(&[1.0, 2.0]))).contains("2 values for 1 rewards"));
    assert!(message(Rewards::new(vec![one()], Some(&[f64::NAN]))).contains("finite"));
    assert!(message(Rewards::new(vec![], None)).contains("`reward_funcs` is empty"));
}

#[test]
fn no_value_passes_that_is_not_one() {
    let owned = [Owned::new("fine", json!({})), Owned::new("strange", json!({}))];
    let samples: Vec<_> = owned.iter().map(Owned::sample).collect();
    let ask = |values: Vec<Option<f64>>| {
        let mut rewards = Rewards::new(vec![Box::new(Says("odd", values))], None).unwrap();
        let error = rewards.score(&samples, GO_ON).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        error.to_string()
    };
    for (value, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        let message = ask(vec![None, Some(value)]);
        assert!(message.contains(&format!("`odd` is {word} for sample 2 of 2")), "{message}");
        assert!(message.contains("completion `strange`") && message.contains("`null`"), "{message}");
    }
    assert!(ask(vec![Some(1.0)]).contains("1 values for 2 samples"));
    assert!(ask(vec![Some(1.0); 3]).contains("3 values for 2 samples"));
}

#[test]
fn a_config_is_parsed_before_anything_is_loaded() {
    let mut loaded = Vec::new();
    let mut load = |specs: &[&str]| {
        let specs: Vec<String> = specs.iter().map(|spec| (*spec).to_owned()).collect();
        Rewards::from_config(&specs, None, Options::default(), |name| {
            loaded.push(name.to_owned());
            Ok(Box::new(Says("model", vec![])))
        })
        .map(|rewards| rewards.names().to_vec())
    };
    assert_eq!(
        load(&["org/model", "length", "get_soft_overlong_punishment"]).unwrap(),
        ["model", "length", "soft_overlong_punishment_reward"]
    );
    assert!(load(&["org/other", "lenght"]).is_err());
    assert_eq!(loaded, ["org/model"]);
}

/// Hardly a wait between attempts
fn hasty(retries: u32) -> Options {
    Options { timeout: Duration::from_secs(20), retries, backoff: Duration::from_millis(1) }
}

/// For those that never answer
fn impatient(retries: u32) -> Options {
    Options { timeout: Duration::from_secs(1), ..hasty(retries) }
}

fn command(script: &str, options: Options) -> CommandReward {
    let quoted = script.replace('\'', r"'\''");
    CommandReward::start(&format!("sh -c '{quoted}'"), options).unwrap()
}

fn two() -> [Owned; 2] {
    [Owned::new("first", json!({"answer": "Paris"})), Owned::new("second", json!({"answer": "Rome"}))]
}

fn ask(reward: &mut dyn Reward, owned: &[Owned]) -> Result<Vec<Option<f64>>> {
    let samples: Vec<_> = owned.iter().map(Owned::sample).collect();
    reward.score(&samples, GO_ON)
}

fn failure(reward: &mut dyn Reward) -> String {
    let error = ask(reward, &two()).unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");
    error.to_string()
}

#[test]
fn a_child_reads_every_column_and_may_not_judge() {
    let script = r#"while read -r line; do case "$line" in
        *'"completion":"first","completion_ids":[1,2,3],"truncated":false,"answer":"Paris"'*) echo ' -2.5e-1 ';;
        *) echo null;; esac; done"#;
    let mut reward = command(script, Options::default());
    assert_eq!(reward.name(), "command");
    assert_eq!(ask(&mut reward, &two()).unwrap(), [Some(-0.25), None]);
}

#[test]
fn a_child_stays_up() {
    let mut reward = command("n=0; while read -r line; do n=$((n+1)); echo $n; done", Options::default());
    assert_eq!(ask(&mut reward, &two()).unwrap(), [Some(1.0), Some(2.0)]);
    assert_eq!(ask(&mut reward, &two()).unwrap(), [Some(3.0), Some(4.0)]);
}

/// Far more than the pipes hold, in both directions, with a child that says much on stderr too
#[test]
fn a_large_batch_does_not_block() {
    let long = "x".repeat(8000);
    let owned: Vec<_> = (0..300).map(|_| Owned::new(&long, json!({}))).collect();
    let script = "much=$(printf '%01000d' 0); while read -r line; do echo $much >&2; echo 0.${much}1; done";
    let values = ask(&mut command(script, Options::default()), &owned).unwrap();
    assert_eq!(values, vec![Some(0.0); 300]);
}

#[test]
fn a_child_that_fails_is_reported_with_what_it_said() {
    let cases = [
        (
            "read -r line; echo 0.5; echo 'CUDA is a lie' >&2; exit 3",
            &["exited with status 3 after 1 of 2 answers, the last of 2 attempts", "on stdout: `0.5`", "CUDA is a lie"]
                [..],
        ),
        ("exit 0", &["exited with status 0 after 0 of 2 answers", "printed nothing on stdout"]),
        ("read -r line; kill -9 $$", &["was ended by signal 9"]),
        (
            "echo loading the model; cat >/dev/null",
            &["neither a number nor `null`, after 0 of 2", "`loading the model`"],
        ),
        ("read -r line; echo; cat >/dev/null", &["neither a number nor `null`", "on stdout: ``"]),
        ("read -r line; echo true; cat >/dev/null", &["`true`"]),
        ("for i in 1 2 3 4 5 6 7 8 9; do echo \"line $i\" >&2; done; exit 1", &["line 2", "line 9"]),
        ("head -c 200000 /dev/zero | tr '\\0' 'x'; sleep 600", &["neither a number", "xxx…"]),
        ("while :; do echo nonsense; done", &["`nonsense`"]),
    ];
    for (script, parts) in cases {
        let message = failure(&mut command(script, hasty(1)));
        assert!(parts.iter().all(|part| message.contains(part)), "{script}: {message}");
        assert!(message.contains("the last of 2 attempts") && message.contains("the child `sh`"), "{message}");
        assert!(!message.contains("line 1\n"), "only the end of stderr: {message}");
        assert!(message.len() < 2000, "{message}");
    }
}

#[test]
fn a_child_that_hangs_is_reported_with_what_it_said() {
    let cases = [
        (
            "read -r line; echo 1; sleep 600",
            &["said nothing for 1 s after 1 of 2 answers\n", "on stdout: `1`", "flushes"][..],
        ),
        ("echo soon >&2; sleep 600", &["said nothing for 1 s after 0 of 2 answers\n", "    soon"]),
        ("exec >&-; sleep 600", &["closed its stdout after 0 of 2 answers\n"]),
        ("exec <&-; echo 1; sleep 600", &["said nothing for 1 s after 1 of 2 answers\n"]),
    ];
    std::thread::scope(|scope| {
        for (script, parts) in cases {
            scope.spawn(move || {
                let message = failure(&mut command(script, impatient(0)));
                assert!(parts.iter().all(|part| message.contains(part)), "{script}: {message}");
            });
        }
    });
}

/// The sum of a child that answers twice would be half right; nothing of it may be used
#[test]
fn answers_that_nobody_asked_for_end_it() {
    let mut reward = command("while read -r line; do echo 1; echo 0; done", hasty(3));
    let first = ask(&mut reward, &two());
    std::thread::sleep(Duration::from_millis(200));
    let error = first.and_then(|_| ask(&mut reward, &two())).unwrap_err();
    assert!(error.message().contains("printed more lines than it was sent"), "{error}");
}

#[test]
fn a_child_that_dies_once_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let script = format!(
        "if [ -e {0} ]; then while read -r line; do echo 7; done; else : > {0}; read -r line; echo 0; exit 1; fi",
        mark.display()
    );
    let mut reward = command(&script, hasty(1));
    assert_eq!(ask(&mut reward, &two()).unwrap(), [Some(7.0), Some(7.0)], "nothing of the first attempt is kept");
    std::fs::remove_file(&mark).unwrap();
    let mut reward = command(&script, hasty(0));
    assert!(failure(&mut reward).contains("exited with status 1 after 1 of 2 answers\n"));
    assert_eq!(ask(&mut reward, &two()).unwrap(), [Some(7.0), Some(7.0)], "a failed batch leaves no dead child behind");
}

#[test]
fn nan_from_a_child_is_an_error_that_names_the_sample() {
    let reward = command("while read -r line; do echo NaN; done", hasty(1));
    let mut rewards = Rewards::new(vec![Box::new(reward)], None).unwrap();
    let owned = two();
    let samples: Vec<_> = owned.iter().map(Owned::sample).collect();
    let error = rewards.score(&samples, GO_ON).unwrap_err();
    assert!(error.message().contains("`command` is NaN for sample 1 of 2: prompt `p`, completion `first`"), "{error}");
}

fn is_alive(pid: &str) -> bool {
    let status = Command::new("kill").args(["-0", pid]).stderr(std::process::Stdio::null()).status();
    // One that nobody has reaped yet is dead
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.unwrap().success() && !state.contains(") Z ")
}

/// Two numbers per batch: the child's process id, and that of a process which it started
const FAMILY: &str = "sleep 600 & while read -r line; do echo $$; read -r line; echo $!; done";

#[test]
fn children_and_what_they_started_end_with_the_reward() {
    for (script, gentle) in [(FAMILY.to_owned(), true), (format!("trap '' TERM HUP; {FAMILY}; sleep 600"), false)] {
        let mut reward = command(&script, Options::default());
        let pids: Vec<String> =
            ask(&mut reward, &two()).unwrap().into_iter().map(|pid| format!("{}", pid.unwrap())).collect();
        assert!(pids.iter().all(|pid| is_alive(pid)));
        drop(reward);
        std::thread::sleep(Duration::from_millis(100));
        assert!(pids.iter().all(|pid| !is_alive(pid)), "{gentle}: {pids:?}");
    }
}

/// Ctrl-C goes to the process group in the foreground, which a child must not be in
#[cfg(target_os = "linux")]
#[test]
fn a_child_has_a_process_group_of_its_own() {
    let mut reward =
        command("while read -r line; do echo $$; read -r line; cut -d' ' -f5 /proc/$$/stat; done", Options::default());
    let values = ask(&mut reward, &two()).unwrap();
    assert_eq!(values[0], values[1]);
}

#[test]
fn a_signal_does_not_wait_for_a_child() {
    let owned = two();
    let samples: Vec<_> = owned.iter().map(Owned::sample).collect();
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let script =
        format!("if [ -e {0} ]; then while read -r line; do echo 1; done; else : > {0}; sleep 600; fi", mark.display());
    let mut reward = command(&script, Options::default());
    let begin = Instant::now();
    let stop = || if begin.elapsed() > Duration::from_millis(100) { Err(Error::signal(2, "stopped")) } else { Ok(()) };
    assert_eq!(reward.score(&samples, &stop).unwrap_err().exit_code(), 130);
    assert!(begin.elapsed() < Duration::from_secs(5));
    while !mark.exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the first child never ran");
        reward.score(&samples, &|| if mark.exists() { Err(Error::signal(2, "stopped")) } else { Ok(()) }).unwrap_err();
    }
    assert_eq!(ask(&mut reward, &owned).unwrap(), [Some(1.0), Some(1.0)], "the next batch has a child of its own");
}

/// A server that gives these answers in turn, the last one for ever: status and headers, body, wait before it
fn server(answers: &[(&str, &str, u64)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:secret@{}/judge?key=secret", listener.local_addr().unwrap());
    let answers: Vec<_> = answers.iter().map(|(a, b, wait)| ((*a).to_owned(), (*b).to_owned(), *wait)).collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok() && !line.trim().is_empty() {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            requests.lock().unwrap().push(String::from_utf8(body).unwrap());
            let (head, body, wait) = answers.get(count).unwrap_or_else(|| answers.last().unwrap());
            std::thread::sleep(Duration::from_millis(*wait));
            let length = body.len();
            // A client that has stopped waiting is part of the tests
            write!(stream, "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").ok();
        }
    });
    (url, seen)
}

#[test]
fn a_server_judges_a_batch() {
    for body in [r#"{"rewards": [0.5, null]}"#, "[0.5, null]", r#"{"rewards": [5e-1, null], "note": "x"}"#] {
        let (url, seen) = server(&[("200 OK", body, 0)]);
        let mut reward = HttpReward::new(&url, hasty(0)).unwrap();
        assert_eq!(reward.name(), "http");
        assert_eq!(ask(&mut reward, &two()).unwrap(), [Some(0.5), None]);
        let sent: Value = serde_json::from_str(&seen.lock().unwrap()[0]).unwrap();
        let expected = json!({"samples": [
            {"prompt": "p", "completion": "first", "completion_ids": [1, 2, 3], "truncated": false, "answer": "Paris"},
            {"prompt": "p", "completion": "second", "completion_ids": [1, 2, 3], "truncated": false, "answer": "Rome"},
        ]});
        assert_eq!(sent, expected);
    }
}

#[test]
fn a_server_that_fails_is_asked_again_and_then_reported() {
    let ok = ("200 OK", "[1, 2]", 0);
    let busy = ("503 Busy", "try later", 0);
    for (answers, requests) in [(vec![busy, busy, ok], 3), (vec![("200 OK", "[1]", 0), ok], 2), (vec![ok], 1)] {
        let (url, seen) = server(&answers);
        let values = ask(&mut HttpReward::new(&url, hasty(2)).unwrap(), &two()).unwrap();
        assert_eq!((values, seen.lock().unwrap().len()), (vec![Some(1.0), Some(2.0)], requests));
    }
    for (answer, parts, requests) in [
        (("500 Oops", "Traceback: no such column", 0), &["status 500", "`Traceback: no such column`"][..], 2),
        (("404 Not Found", "", 0), &["status 404"], 1),
        (("422 What", "{\"detail\": \"field required\"}", 0), &["status 422", "field required"], 1),
        (("200 OK", "<html>Sign in</html>", 0), &["no JSON", "Sign in"], 2),
        (("200 OK", "{\"scores\": [1, 2]}", 0), &["no list `rewards`"], 2),
        (("200 OK", "[1, 2, 3]", 0), &["3 rewards for 2 samples"], 2),
        (("200 OK", "[1, \"2\"]", 0), &["reward 2 of 2 is neither a number nor `null`", "\"2\""], 2),
        (("200 OK", "[true, 1]", 0), &["reward 1 of 2", "`true`"], 2),
        (("200 OK", "[1, 2]", 3000), &["no answer within 1 s"], 2),
    ] {
        let (url, seen) = server(&[answer]);
        let mut reward = HttpReward::new(&url, if answer.2 > 0 { impatient(1) } else { hasty(1) }).unwrap();
        let message = failure(&mut reward);
        assert!(parts.iter().all(|part| message.contains(part)), "{answer:?}: {message}");
        assert!(message.contains("/judge`") && !message.contains("secret"), "{message}");
        assert_eq!(message.contains("the last of 2 attempts"), requests == 2, "{message}");
        // One that waits for its answer takes no second connection meanwhile
        assert!(seen.lock().unwrap().len() <= requests);
    }
}

#[test]
fn nobody_at_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let message = failure(&mut HttpReward::new(&format!("http://{free}/judge"), hasty(1)).unwrap());
    assert!(message.contains("cannot be reached") && message.contains(&free.to_string()), "{message}");
}

#[test]
fn nan_from_a_server_is_an_error_that_names_the_sample() {
    for (word, shown) in [("NaN", "NaN"), ("Infinity", "inf"), ("-Infinity", "-inf")] {
        let body = format!("{{\"rewards\": [1.0, {word}]}}");
        let (url, _) = server(&[("200 OK", &body, 0)]);
        let mut rewards = Rewards::new(vec![Box::new(HttpReward::new(&url, hasty(0)).unwrap())], None).unwrap();
        let owned = two();
        let samples: Vec<_> = owned.iter().map(Owned::sample).collect();
        let error = rewards.score(&samples, GO_ON).unwrap_err();
        assert!(error.message().contains(&format!("`http` is {shown} for sample 2 of 2")), "{error}");
    }
}

#[test]
fn a_signal_does_not_wait_for_a_server() {
    let (url, _) = server(&[("200 OK", "[1, 2]", 10_000)]);
    let mut reward = HttpReward::new(&url, Options::default()).unwrap();
    let owned = two();
    let samples: Vec<_> = owned.iter().map(Owned::sample).collect();
    let begin = Instant::now();
    let stop = || if begin.elapsed() > Duration::from_millis(100) { Err(Error::signal(15, "stopped")) } else { Ok(()) };
    assert_eq!(reward.score(&samples, &stop).unwrap_err().exit_code(), 143);
    assert!(begin.elapsed() < Duration::from_secs(5));
}
