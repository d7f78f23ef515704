//! Rewards: every kind, against TRL's functions where there are such.

use collimate::Result;
use collimate::reward::{Options, Reward, Rewards, Sample, Spec};
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

fn go_on() -> Result<()> {
    Ok(())
}

fn score(spec: &str, samples: &[Owned]) -> Vec<Option<f64>> {
    let samples: Vec<_> = samples.iter().map(Owned::sample).collect();
    build(spec).score(&samples, &go_on).unwrap()
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
        let late = reward.score(&[owned.sample()], &go_on).unwrap_err();
        assert_eq!((early.exit_code(), early.to_string()), (2, late.to_string()));
        assert!(parts.iter().all(|part| early.to_string().contains(part)), "{early}");
    }
    assert!(build("length").check_row(&owned.columns).is_ok());
    let nested = Owned::new("x", json!({"answer": {"a": 1}}));
    assert!(build("exact_match").score(&[nested.sample()], &go_on).is_err());
}

/// A reward that says what it is told
struct Says(&'static str, Vec<Option<f64>>);

impl Reward for Says {
    fn name(&self) -> &str {
        self.0
    }

    fn score(&mut self, _: &[Sample<'_>], _: collimate::reward::Check<'_>) -> Result<Vec<Option<f64>>> {
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
    let scores = rewards.score(&samples, &go_on).unwrap();
    assert_eq!(scores.total, [Some(3.5), Some(-1.0), None]);
    assert_eq!(scores.by_function[0], [Some(1.0), None, None]);
    assert_eq!(Rewards::new(vec![one(), two()], None).unwrap().score(&samples, &go_on).unwrap().total[0], Some(4.0));
    assert_eq!(rewards.score(&[], &go_on).unwrap().by_function, [vec![], vec![]] as [Vec<Option<f64>>; 2]);

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
        let error = rewards.score(&samples, &go_on).unwrap_err();
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
