//! Losses and schedules against PyTorch and transformers (`scripts/goldens/{algo,schedules}.py`).

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use collimate::algo::preference;
use collimate::optim::Schedule;
use serde_json::Value;

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/goldens/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn assert_close(what: &str, got: &[f64], want: &[f64], (relative, absolute): (f64, f64)) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= relative * want.abs() + absolute, "{what}[{i}]: {got}, expected {want}");
    }
}

/// The loss that a golden names, on its inputs
fn loss(case: &Value, inputs: &[Var]) -> candle_core::Result<Tensor> {
    let number = |name: &str| case["params"][name].as_f64().unwrap();
    let (name, first) = (case["name"].as_str().unwrap(), inputs[0].as_tensor());
    let second = inputs.get(1).map_or(first, |var| var.as_tensor());
    match name {
        "sigmoid" => preference::dpo_sigmoid(first, second, number("beta")),
        "cdpo" => preference::cdpo(first, second, number("beta"), number("eps")),
        "robust" => preference::robust(first, second, number("beta"), number("eps")),
        "hinge" => preference::hinge(first, second, number("beta")),
        "ipo" => preference::ipo(first, second, number("beta")),
        "exo_pair" => preference::exo_pair(first, second, number("beta"), number("eps")),
        "nca_pair" => preference::nca_pair(first, second, number("beta")),
        "bco_pair" => preference::bco_pair(first, second, number("beta")),
        "sppo_hard" => preference::sppo_hard(first, second, number("beta")),
        "aot" => preference::aot(first, second, &inputs[2], &inputs[3], number("beta"), number("eps")),
        "aot_unpaired" => preference::aot_unpaired(first, second, number("beta"), number("eps")),
        "apo_zero" => preference::apo_zero(first, second, number("beta")),
        "apo_down" => preference::apo_down(first, second, number("beta")),
        "discopop" => preference::discopop(first, second, number("beta"), number("tau")),
        "forward_kl" => preference::forward_kl(first),
        "js_divergence" => preference::js_divergence(first),
        "alpha_divergence" => preference::alpha_divergence(first, number("alpha")),
        "kto_desirable" => preference::kto_desirable(first, number("kl"), number("beta")),
        "kto_undesirable" => preference::kto_undesirable(first, number("kl"), number("beta")),
        "orpo" => preference::orpo(&preference::log_odds_ratio(first, second)?, number("beta")),
        "simpo" => preference::simpo(first, second, number("beta"), number("gamma"), number("eps")),
        "alpha_reward" => {
            let reward = |x: &Tensor| preference::alpha_reward(x, number("alpha"));
            reward(first)? - reward(second)?
        }
        other => panic!("{other}"),
    }
}

#[test]
fn preference_losses_in_value_and_gradient() {
    let goldens = golden("algo.json");
    for case in goldens["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        // f64 runs the composed forms, whose log-sum-exp cancels in the far tail; f32 the kernels, which do not
        for (double, tolerance) in [(true, (1e-10, 1e-13)), (false, (1e-4, 2e-6))] {
            let tensor = |values: Vec<f64>| {
                let tensor = Tensor::new(values, &Device::Cpu).unwrap();
                if double { tensor } else { tensor.to_dtype(candle_core::DType::F32).unwrap() }
            };
            let inputs: Vec<Var> = case["inputs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|input| Var::from_tensor(&tensor(numbers(input))).unwrap())
                .collect();
            let losses = loss(case, &inputs).unwrap();
            let f64s = |t: &Tensor| t.to_dtype(candle_core::DType::F64).unwrap().to_vec1::<f64>().unwrap();
            assert_close(name, &f64s(&losses), &numbers(&case["loss"]), tolerance);
            let total = (losses * tensor(numbers(&case["weights"]))).unwrap().sum_all().unwrap();
            let grads = total.backward().unwrap();
            for (i, (input, want)) in inputs.iter().zip(case["grads"].as_array().unwrap()).enumerate() {
                let got = grads.get(input).map_or_else(|| vec![0.0; inputs[0].elem_count()], f64s);
                assert_close(&format!("{name}, gradient of input {i}"), &got, &numbers(want), tolerance);
            }
        }
    }
}

#[test]
fn schedules_are_those_of_transformers() {
    let goldens = golden("schedules.json");
    let peak = goldens["peak"].as_f64().unwrap();
    for case in goldens["cases"].as_array().unwrap() {
        let number = |name: &str| case["kwargs"].get(name).and_then(Value::as_f64);
        let name = case["name"].as_str().unwrap();
        let schedule = match name {
            "linear" => Schedule::Linear,
            "constant" => Schedule::Constant,
            "constant_with_warmup" => Schedule::ConstantWithWarmup,
            "cosine" => Schedule::Cosine { cycles: number("num_cycles").unwrap_or(0.5), floor: 0.0 },
            "cosine_with_min_lr" => Schedule::Cosine { cycles: 0.5, floor: number("min_lr_rate").unwrap() },
            "cosine_with_restarts" => Schedule::CosineWithRestarts { cycles: number("num_cycles").unwrap() },
            "polynomial" => {
                Schedule::Polynomial { end: number("lr_end").unwrap() / peak, power: number("power").unwrap() }
            }
            "inverse_sqrt" => Schedule::InverseSqrt { timescale: number("timescale") },
            other => panic!("{other}"),
        };
        let (warmup, total) = (case["warmup"].as_u64().unwrap(), case["total"].as_u64().unwrap());
        for (step, want) in numbers(&case["factors"]).into_iter().enumerate() {
            let got = schedule.factor(step as u64, warmup, total);
            assert!((got - want).abs() < 1e-12, "{name} step {step} of {total}, warm-up {warmup}: {got}, not {want}");
        }
    }
}
