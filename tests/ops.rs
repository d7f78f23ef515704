//! Every differentiable operation against finite differences in f64, and its f32 kernel against the composed form.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use collimate::ops::{self, Activation, Dropout, GradientSums, Heads, Ragged, Weight};

/// Reproducible numbers of order 1
fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1_u32 << 31) * 2.0 - 1.0
    };
    (0..n).map(|_| next() * 1.5).collect()
}

type Inputs = Vec<(Vec<usize>, Vec<f64>)>;

/// Σ f(x)·r for a fixed r, with gradients of all inputs
fn run(inputs: &Inputs, dtype: DType, f: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> (Vec<f64>, f64, Vec<Vec<f64>>) {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|(shape, x)| {
            let x = Tensor::from_slice(x, shape.as_slice(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            Var::from_tensor(&x).unwrap()
        })
        .collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let r = Tensor::from_vec(numbers(y.elem_count(), 99), y.shape(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let loss = y.mul(&r).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let gradients = vars.iter().map(|v| flat(grads.get(v).expect("a gradient for every input"))).collect();
    (flat(&y), loss.to_dtype(DType::F64).unwrap().to_scalar().unwrap(), gradients)
}

fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-3_f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{what}[{i}]: {g} instead of {w} (scale {scale})");
    }
}

/// The composed form's gradient against central differences, the kernel's value and gradient against the composed form
fn check(what: &str, inputs: Inputs, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let (value, _, gradients) = run(&inputs, DType::F64, &f);
    for (i, (_, x)) in inputs.iter().enumerate() {
        let h = 1e-5;
        let numeric: Vec<f64> = (0..x.len())
            .map(|j| {
                let at = |delta: f64| {
                    let mut moved = inputs.clone();
                    moved[i].1[j] += delta;
                    run(&moved, DType::F64, &f).1
                };
                (at(h) - at(-h)) / (2.0 * h)
            })
            .collect();
        assert_close(&format!("{what}: composed gradient {i}"), &gradients[i], &numeric, 1e-7);
    }
    let (kernel_value, _, kernel_gradients) = run(&inputs, DType::F32, &f);
    assert_close(&format!("{what}: kernel value"), &kernel_value, &value, 1e-6);
    for (i, (got, want)) in kernel_gradients.iter().zip(&gradients).enumerate() {
        assert_close(&format!("{what}: kernel gradient {i}"), got, want, 2e-6);
    }
}

fn input(shape: &[usize], seed: u64) -> (Vec<usize>, Vec<f64>) {
    (shape.to_vec(), numbers(shape.iter().product(), seed))
}

#[test]
fn log_sigmoid() {
    let x = vec![0.0, -0.0, 1e-3, -1e-3, 3.0, -3.0, 30.0, -30.0];
    check("log_sigmoid", vec![(vec![8], x)], |t| ops::log_sigmoid(&t[0]));
}

#[test]
fn log_sigmoid_at_the_ends_of_the_range() {
    let x = Var::from_slice(&[0.0_f32, 200.0, -200.0, f32::MAX, f32::MIN], 5, &Device::Cpu).unwrap();
    let y = ops::log_sigmoid(&x).unwrap();
    assert_eq!(y.to_vec1::<f32>().unwrap(), [-std::f32::consts::LN_2, 0.0, -200.0, 0.0, f32::MIN]);
    let g = y.backward().unwrap().get(&x).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(g, [0.5, 0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn activations() {
    use Activation::{Gelu, GeluTanh, Relu, Silu, Tanh};
    for kind in [GeluTanh, Gelu, Silu, Tanh, Relu] {
        let mut x = numbers(61, 1);
        // Both tails, and 0 where there is a slope
        x.extend([8.0, -8.0, if kind == Relu { 0.5 } else { 0.0 }]);
        check(&format!("{kind:?}"), vec![(vec![64], x)], |t| ops::activation(kind, &t[0]));
    }
}

#[test]
fn linear() {
    check("linear", vec![input(&[5, 7], 1), input(&[7, 3], 2), input(&[3], 3)], |t| ops::linear(&t[0], &t[1], &t[2]));
}

#[test]
fn layer_norm() {
    for (n, c) in [(3, 5), (2, 40), (1, 33), (1, 1)] {
        check("layer_norm", vec![input(&[n, c], 1), input(&[c], 2), input(&[c], 3)], |t| {
            ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)
        });
    }
}

#[test]
fn layer_norm_far_from_zero_keeps_its_digits() {
    let x: Vec<f32> = (0..64).map(|i| 1000.0 + (i % 7) as f32 * 0.25).collect();
    let x32 = Tensor::from_vec(x, (1, 64), &Device::Cpu).unwrap();
    let (w, b) =
        (Tensor::ones(64, DType::F32, &Device::Cpu).unwrap(), Tensor::zeros(64, DType::F32, &Device::Cpu).unwrap());
    let y = ops::layer_norm(&x32, &w, &b, 1e-5).unwrap().flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    let f64s = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let want = ops::layer_norm(&f64s(&x32), &f64s(&w), &f64s(&b), 1e-5).unwrap().flatten_all().unwrap();
    assert_close("layer_norm", &y.to_vec1().unwrap(), &want.to_vec1().unwrap(), 1e-5);
}

#[test]
fn embedding() {
    check("embedding", vec![input(&[6, 3], 1), input(&[4, 3], 2)], |t| {
        ops::embedding(&t[0], &t[1], &[5, 0, 5, 2], &[0, 1, 2, 0])
    });
}

#[test]
fn embedding_refuses_what_the_model_does_not_have() {
    let t = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let error = |ids: &[u32], positions: &[u32]| {
        ops::embedding(&t((6, 3)), &t((4, 3)), ids, positions).unwrap_err().to_string()
    };
    assert!(error(&[6], &[0]).contains("token id 6"));
    assert!(error(&[0], &[4]).contains("position 4"));
}

fn shared_prefix() -> Ragged {
    let mut layout = Ragged::new();
    layout.push(2, None).unwrap();
    let prompt = layout.push(3, None).unwrap();
    layout.push(1, Some(prompt)).unwrap();
    layout.push(4, Some(prompt)).unwrap();
    layout.push(1, None).unwrap();
    layout
}

#[test]
fn causal_attention() {
    let layout = Arc::new(shared_prefix());
    for dropout in [None, Some(Dropout { p: 0.3, key: 7 })] {
        let heads = Heads { count: 2, dim: 3, scale: 0.5, dropout };
        check("causal_attention", vec![input(&[layout.rows(), 18], 1)], |t| {
            ops::causal_attention(&t[0], &layout, heads)
        });
    }
}

#[test]
fn causal_attention_across_blocks() {
    // Longer than a block of query rows, with a prefix longer than one too
    let mut layout = Ragged::new();
    let prompt = layout.push(70, None).unwrap();
    layout.push(130, Some(prompt)).unwrap();
    layout.push(64, None).unwrap();
    let layout = Arc::new(layout);
    let heads = Heads { count: 1, dim: 8, scale: 0.35, dropout: Some(Dropout { p: 0.1, key: 3 }) };
    let inputs = vec![input(&[layout.rows(), 24], 5)];
    let f = |t: &[Tensor]| ops::causal_attention(&t[0], &layout, heads);
    let (want, _, want_grad) = run(&inputs, DType::F64, &f);
    let (got, _, got_grad) = run(&inputs, DType::F32, &f);
    assert_close("value", &got, &want, 1e-6);
    assert_close("gradient", &got_grad[0], &want_grad[0], 5e-6);
}

#[test]
fn a_shared_prefix_equals_whole_sequences() {
    let rows = numbers(5 * 18, 4);
    let heads = Heads { count: 2, dim: 3, scale: 0.5, dropout: None };
    let attend = |layout: Ragged, x: Vec<f64>| {
        let x = Tensor::from_vec(x, (layout.rows(), 18), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        ops::causal_attention(&x, &Arc::new(layout), heads).unwrap().to_vec2::<f32>().unwrap()
    };
    let mut shared = Ragged::new();
    let prompt = shared.push(3, None).unwrap();
    shared.push(1, Some(prompt)).unwrap();
    shared.push(1, Some(prompt)).unwrap();
    let got = attend(shared, rows.clone());
    let row = |i: usize| rows[i * 18..(i + 1) * 18].to_vec();
    let whole = [row(0), row(1), row(2), row(3), row(0), row(1), row(2), row(4)].concat();
    let want = attend(Ragged::from_lengths([4, 4]).unwrap(), whole);
    for (got, want) in got.iter().zip([&want[0], &want[1], &want[2], &want[3], &want[7]]) {
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-6);
        }
    }
}

/// A weight inside candle's graph
fn tracked(values: &Tensor) -> Weight {
    Weight { values: values.clone(), sum: None }
}

#[test]
fn a_head_outside_the_graph_sums_its_gradient_in_place() {
    let (shape_h, shape_w) = ([4, 5], [7, 5]);
    let tensor = |shape: [usize; 2], seed| {
        Tensor::from_vec(numbers(shape[0] * shape[1], seed), &shape, &Device::Cpu)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap()
    };
    let (h, w) = (Var::from_tensor(&tensor(shape_h, 1)).unwrap(), Var::from_tensor(&tensor(shape_w, 2)).unwrap());
    let loss = |w: &Weight| {
        let p = ops::token_log_probs(&h, w, &[0, 2, 3], &[4, 0, 1], 0.9).unwrap();
        (p.log_probs.sum_all().unwrap() + p.entropy.sum_all().unwrap()).unwrap()
    };
    let grads = loss(&tracked(&w)).backward().unwrap();
    let want: Vec<f32> = grads.get(&w).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let sums = Arc::new(GradientSums::new(1));
    let outside = Weight { values: w.as_tensor().detach(), sum: Some((sums.clone(), 0)) };
    for passes in 1..3 {
        let again = loss(&outside).backward().unwrap();
        assert_eq!(again.get(&h).unwrap().to_vec2::<f32>().unwrap(), grads.get(&h).unwrap().to_vec2::<f32>().unwrap());
        sums.read(0, |got| {
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want * passes as f32).abs() < 1e-6, "{got} {want} after {passes}");
            }
        })
        .unwrap();
    }
    sums.reset();
    assert!(sums.read(0, |_| ()).is_none());
}

#[test]
fn token_log_probs() {
    let (rows, targets) = ([0, 2, 2, 3], [4, 0, 6, 1]);
    for temperature in [1.0, 0.7] {
        check("token_log_probs", vec![input(&[4, 5], 1), input(&[7, 5], 2)], |t| {
            let p = ops::token_log_probs(&t[0], &tracked(&t[1]), &rows, &targets, temperature)?;
            Tensor::stack(&[p.log_probs, p.entropy], 0)
        });
    }
}

#[test]
fn token_log_probs_side_figures() {
    let h = Tensor::new(&[[1.0_f32], [0.0]], &Device::Cpu).unwrap();
    let w = Tensor::new(&[[1.0_f32], [3.0], [3.0], [-1.0]], &Device::Cpu).unwrap();
    let p = ops::token_log_probs(&h, &tracked(&w), &[0, 0, 0, 1, 1], &[0, 1, 2, 0, 3], 1.0).unwrap();
    // Among equal logits the first is the top one
    assert_eq!(p.top1, [false, true, false, true, false]);
    assert_eq!(p.mean_logits, [1.5, 1.5, 1.5, 0.0, 0.0]);
    let entropy = p.entropy.to_vec1::<f32>().unwrap();
    assert!((entropy[3] - 4.0_f32.ln()).abs() < 1e-6);
}

#[test]
fn dropout_keeps_the_expectation_and_repeats_itself() {
    let x = Var::ones(100_000, DType::F32, &Device::Cpu).unwrap();
    let dropout = Dropout { p: 0.1, key: 42 };
    let y = ops::dropout(&x, dropout).unwrap();
    let values = y.to_vec1::<f32>().unwrap();
    let kept = values.iter().filter(|v| **v != 0.0).count();
    // 5 standard deviations of a binomial
    assert!((kept as f64 - 90_000.0).abs() < 5.0 * (100_000.0_f64 * 0.09).sqrt(), "{kept}");
    assert!(values.iter().all(|v| *v == 0.0 || (*v - 1.0 / 0.9).abs() < 1e-6));
    assert_eq!(ops::dropout(&x, dropout).unwrap().to_vec1::<f32>().unwrap(), values);
    assert_ne!(ops::dropout(&x, dropout.site(1)).unwrap().to_vec1::<f32>().unwrap(), values);
    assert_eq!(y.backward().unwrap().get(&x).unwrap().to_vec1::<f32>().unwrap(), values);
}
