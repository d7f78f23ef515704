//! Loops over rows: exponentials, sums, layer norm, GELU, AdamW. Lane counts are fixed, so sums are reproducible.

use super::simd;

const LANES: usize = 32;

/// √(2/π)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// e^x with relative error below 2e-7 (Cephes' `expf`: Cody–Waite reduction, degree-5 polynomial); 0 below −87.3
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.3, 88.0);
    // Adding and subtracting 1.5·2^23 rounds to the nearest integer without a call
    let n = (clamped * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    let r = clamped - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    // SAFETY: n lies within −126..=127 after the clamp
    let e = unsafe { n.to_int_unchecked::<i32>() };
    let y = p * f32::from_bits(((e + 127) << 23) as u32);
    if x < -87.3 { 0.0 } else { y }
}

#[inline(always)]
fn sum_lanes(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f(value);
        }
    }
    let mut total: f32 = lanes.iter().sum();
    for &value in rest {
        total += f(value);
    }
    total
}

#[inline(always)]
fn dot_lanes(x: &[f32], y: &[f32]) -> f32 {
    let y = &y[..x.len()];
    let mut lanes = [0.0_f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
    for (a, b) in xs.zip(ys) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    let mut total: f32 = lanes.iter().sum();
    for (a, b) in x_rest.iter().zip(y_rest) {
        total += a * b;
    }
    total
}

#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum_lanes(x, |v| v) / n;
    // Two passes: the one-pass form E[x²] − E[x]² cancels when the mean is large
    let variance = sum_lanes(x, |v| (v - mean) * (v - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

simd! {
    /// Σ x_i y_i
    pub fn dot(x: &[f32], y: &[f32]) -> f32 {
        dot_lanes(x, y)
    }

    /// Σ x_i² in f64 over blocks, for gradient norms
    pub fn sum_squares(x: &[f32]) -> f64 {
        x.chunks(4096).map(|block| f64::from(dot_lanes(block, block))).sum()
    }

    /// max x_i; −∞ for an empty slice
    pub fn max(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane = if value > *lane { value } else { *lane };
            }
        }
        rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
    }

    /// x ← e^(x−shift); returns the sum
    pub fn exp_shifted(x: &mut [f32], shift: f32) -> f32 {
        for value in x.iter_mut() {
            *value = exp(*value - shift);
        }
        sum_lanes(x, |v| v)
    }

    /// x ← scale · e^(x−shift)
    pub fn exp_scaled(x: &mut [f32], shift: f32, scale: f32) {
        for value in x.iter_mut() {
            *value = scale * exp(*value - shift);
        }
    }

    /// (Σ e^(x−shift), Σ x·e^(x−shift), Σ x): what log-sum-exp, entropy and mean logit need, in one pass
    pub fn exp_sums(x: &[f32], shift: f32) -> (f32, f32, f32) {
        let (mut sum, mut weighted, mut plain) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0_f32; LANES]);
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for i in 0..LANES {
                let e = exp(chunk[i] - shift);
                sum[i] += e;
                // Relative to the shift: keeps the product small where logits are far from 0
                weighted[i] += e * (chunk[i] - shift);
                plain[i] += chunk[i];
            }
        }
        for (i, &value) in rest.iter().enumerate() {
            let e = exp(value - shift);
            sum[i] += e;
            weighted[i] += e * (value - shift);
            plain[i] += value;
        }
        (sum.iter().sum(), weighted.iter().sum(), plain.iter().sum())
    }

    /// Gradient of a·log p(target) + b·H with respect to the logits, in place: x holds logits on entry.
    ///
    /// d/dz_j = a(δ_j,target − p_j) − b·p_j(log p_j + H); `lse` is the row's log-sum-exp, `entropy` its H.
    pub fn log_prob_backward(x: &mut [f32], lse: f32, entropy: f32, a: f32, b: f32) {
        if b == 0.0 {
            for value in x.iter_mut() {
                *value = -a * exp(*value - lse);
            }
        } else {
            for value in x.iter_mut() {
                let log_p = *value - lse;
                *value = -exp(log_p) * (a + b * (log_p + entropy));
            }
        }
    }

    /// x ← s·x
    pub fn scale(x: &mut [f32], s: f32) {
        for value in x.iter_mut() {
            *value *= s;
        }
    }

    /// y ← y + x
    pub fn add(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    /// y ← y + s·x
    pub fn add_scaled(y: &mut [f32], x: &[f32], s: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += s * x;
        }
    }

    /// Softmax backward of one row: dp ← p·(dp − d)·s with d = Σ p·dp computed by the caller
    pub fn softmax_backward(p: &[f32], dp: &mut [f32], d: f32, s: f32) {
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - d) * s;
        }
    }

    /// One row of layer norm: y = (x − μ)/√(σ² + ε)·w + b
    pub fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32]) {
        let (mean, inverse) = moments(x, eps);
        for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
            *y = (x - mean) * inverse * w + b;
        }
    }

    /// Backward of one row of layer norm; `dw` and `db` accumulate
    pub fn layer_norm_backward(x: &[f32], w: &[f32], g: &[f32], eps: f32, dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
        let n = x.len();
        let (w, g, dx, dw, db) = (&w[..n], &g[..n], &mut dx[..n], &mut dw[..n], &mut db[..n]);
        let (mean, inverse) = moments(x, eps);
        for i in 0..n {
            dw[i] += g[i] * (x[i] - mean) * inverse;
            db[i] += g[i];
            dx[i] = g[i] * w[i];
        }
        let mean_g = sum_lanes(dx, |v| v) / n as f32;
        let mean_gx = (dot_lanes(dx, x) - mean * mean_g * n as f32) * inverse / n as f32;
        for i in 0..n {
            dx[i] = inverse * (dx[i] - mean_g - (x[i] - mean) * inverse * mean_gx);
        }
    }

    /// GELU in the tanh form: ½x(1 + tanh(√(2/π)(x + 0.044715x³))) = x·σ(2u)
    pub fn gelu_tanh(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            let u = SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
            *y = x / (1.0 + exp(-2.0 * u));
        }
    }

    /// g ← g · its slope at x
    pub fn gelu_tanh_backward(x: &[f32], g: &mut [f32]) {
        for (g, &x) in g.iter_mut().zip(x) {
            let u = SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
            let du = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x);
            let s = 1.0 / (1.0 + exp(-2.0 * u));
            *g *= s + x * s * (1.0 - s) * 2.0 * du;
        }
    }

    /// Decoupled AdamW on one block, PyTorch's order of operations.
    ///
    /// `step_size` = lr/(1 − β₁ᵗ), `root_correction` = √(1 − β₂ᵗ), `decay` = 1 − lr·λ, `clip` multiplies the gradient.
    pub fn adamw(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: &AdamwConstants) {
        let n = p.len();
        let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
        for i in 0..n {
            let gi = g[i] * c.clip;
            let mi = c.beta1 * m[i] + (1.0 - c.beta1) * gi;
            let vi = c.beta2 * v[i] + (1.0 - c.beta2) * gi * gi;
            m[i] = mi;
            v[i] = vi;
            p[i] = p[i] * c.decay - c.step_size * mi / (vi.sqrt() / c.root_correction + c.epsilon);
        }
    }
}

/// What AdamW's inner loop needs of a step
#[derive(Clone, Copy, Debug)]
pub struct AdamwConstants {
    /// β₁
    pub beta1: f32,
    /// β₂
    pub beta2: f32,
    /// ε
    pub epsilon: f32,
    /// lr/(1 − β₁ᵗ)
    pub step_size: f32,
    /// √(1 − β₂ᵗ)
    pub root_correction: f32,
    /// 1 − lr·λ
    pub decay: f32,
    /// Factor on the gradient
    pub clip: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_library_everywhere() {
        for i in -8800..8800 {
            let x = i as f32 * 0.01;
            let want = f64::from(x).exp();
            let got = f64::from(exp(x));
            if x >= -87.3 {
                assert!((got - want).abs() <= 3e-7 * want, "exp({x}) = {got}, not {want}");
            } else {
                assert_eq!(got, 0.0);
            }
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_agree_with_f64_at_every_length() {
        for n in 0..100 {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 19) as f32 - 9.0) * 0.3).collect();
            let y: Vec<f32> = (0..n).map(|i| ((i * 17 % 23) as f32 - 11.0) * 0.2).collect();
            let want: f64 = x.iter().zip(&y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&x, &y)) - want).abs() < 1e-4);
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let (sum, weighted, plain) = exp_sums(&x, 1.0);
            let e: Vec<f64> = x.iter().map(|v| (f64::from(*v) - 1.0).exp()).collect();
            assert!((f64::from(sum) - e.iter().sum::<f64>()).abs() < 1e-4 * (1.0 + f64::from(sum)));
            let want: f64 = x.iter().zip(&e).map(|(x, e)| (f64::from(*x) - 1.0) * e).sum();
            assert!((f64::from(weighted) - want).abs() < 1e-3);
            assert!((f64::from(plain) - x.iter().map(|v| f64::from(*v)).sum::<f64>()).abs() < 1e-4);
        }
    }
}
