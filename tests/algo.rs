//! Losses and schedules against PyTorch and transformers (`scripts/goldens/{algo,schedules}.py`).

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use collimate::algo::preference::dpo_sigmoid;
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

#[test]
fn dpo_sigmoid_in_value_and_gradient() {
    let goldens = golden("algo.json");
    for case in goldens["dpo_sigmoid"].as_array().unwrap() {
        let beta = case["beta"].as_f64().unwrap();
        // f64 runs the composed form, whose log-sum-exp cancels in the far tail; f32 the kernel, which does not
        for (double, tolerance) in [(true, (1e-12, 1e-13)), (false, (2e-5, 1e-11))] {
            let tensor = |values: Vec<f64>| {
                let tensor = Tensor::new(values, &Device::Cpu).unwrap();
                if double { tensor } else { tensor.to_dtype(candle_core::DType::F32).unwrap() }
            };
            let var = |name: &str| Var::from_tensor(&tensor(numbers(&case[name]))).unwrap();
            let (chosen, rejected) = (var("chosen"), var("rejected"));
            let loss = dpo_sigmoid(&chosen, &rejected, beta).unwrap();
            let f64s = |t: &Tensor| t.to_dtype(candle_core::DType::F64).unwrap().to_vec1::<f64>().unwrap();
            assert_close("loss", &f64s(&loss), &numbers(&case["loss"]), tolerance);
            let total = (loss * tensor(numbers(&case["weights"]))).unwrap().sum_all().unwrap();
            let grads = total.backward().unwrap();
            assert_close("chosen", &f64s(grads.get(&chosen).unwrap()), &numbers(&case["grad_chosen"]), tolerance);
            assert_close("rejected", &f64s(grads.get(&rejected).unwrap()), &numbers(&case["grad_rejected"]), tolerance);
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
