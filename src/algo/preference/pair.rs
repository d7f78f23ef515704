//! Losses on the two log-ratios of a pair.

use candle_core::{Result, Tensor};

use super::{sigmoid, smoothed};
use crate::ops::log_sigmoid;

/// The reward that a policy implies: r = β(log π − log π_ref)
///
/// Rafailov et al. 2023, eq. 5, without the prompt's constant.
///
/// # Shapes
/// log-ratio (B,) → (B,)
pub fn implicit_reward(log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    log_ratio * beta
}

/// βΔ, Δ = Δ_w − Δ_l
fn margin(chosen: &Tensor, rejected: &Tensor, beta: f64) -> Result<Tensor> {
    (chosen - rejected)? * beta
}

/// DPO: −log σ(β(Δ_w − Δ_l)), Δ = log π(y|x) − log π_ref(y|x) summed over the completion
///
/// Rafailov et al. 2023, eq. 7, <https://arxiv.org/abs/2305.18290>. At the start, where π = π_ref, the loss is ln 2 and
/// the gradient with respect to Δ_w is −β/2. With means over tokens in place of sums it is the length-normalised DPO of
/// Tülu 3 (Lambert et al. 2024, eq. 6, <https://arxiv.org/abs/2411.15124>), TRL's `sigmoid_norm`.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn dpo_sigmoid(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    log_sigmoid(&margin(chosen_log_ratio, rejected_log_ratio, beta)?)?.neg()
}

/// Conservative DPO: −(1 − ε) log σ(βΔ) − ε log σ(−βΔ)
///
/// Mitchell 2023, <https://ericmitchell.ai/cdpo.pdf>: each label is wrong with probability ε. Its minimum lies at
/// βΔ = log((1 − ε)/ε), not at infinity.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn cdpo(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64, label_smoothing: f64) -> Result<Tensor> {
    smoothed(&margin(chosen_log_ratio, rejected_log_ratio, beta)?, label_smoothing)
}

/// Robust DPO: (−(1 − ε) log σ(βΔ) + ε log σ(−βΔ))/(1 − 2ε)
///
/// Chowdhury et al. 2024, eq. 12, <https://arxiv.org/abs/2403.00409>: unbiased where labels are flipped with probability
/// ε < ½.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn robust(
    chosen_log_ratio: &Tensor,
    rejected_log_ratio: &Tensor,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor> {
    let x = margin(chosen_log_ratio, rejected_log_ratio, beta)?;
    let clean = (log_sigmoid(&x)? * (label_smoothing - 1.0))?;
    let flipped = (log_sigmoid(&x.neg()?)? * label_smoothing)?;
    (clean + flipped)? / (1.0 - 2.0 * label_smoothing)
}

/// Hinge: max(0, 1 − βΔ)
///
/// Zhao et al. 2023 (SLiC), <https://arxiv.org/abs/2305.10425>, in the form of Liu et al. 2024 (RSO),
/// <https://arxiv.org/abs/2309.06657>.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn hinge(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    margin(chosen_log_ratio, rejected_log_ratio, beta)?.affine(-1.0, 1.0)?.relu()
}

/// IPO: (Δ̄_w − Δ̄_l − 1/(2τ))², Δ̄ the mean of the log-ratio over the completion's tokens
///
/// Azar et al. 2024, eq. 17, <https://arxiv.org/abs/2310.12036>. Its minimum is at the finite difference 1/(2τ). The
/// paper leaves the sum over tokens open; like TRL the trainers here hand in means, so that τ does not depend on length.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn ipo(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, tau: f64) -> Result<Tensor> {
    ((chosen_log_ratio - rejected_log_ratio)? - 0.5 / tau)?.sqr()
}

/// EXO on pairs: KL(p‖q) of p = (σ(βΔ), σ(−βΔ)) against q = (1 − ε, ε)
///
/// Ji et al. 2024, eq. 16, <https://arxiv.org/abs/2402.00856>: the reverse of the KL that DPO minimises. ε must be above
/// 0; the paper takes 1e-3.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn exo_pair(
    chosen_log_ratio: &Tensor,
    rejected_log_ratio: &Tensor,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor> {
    let x = margin(chosen_log_ratio, rejected_log_ratio, beta)?;
    let term = |x: &Tensor, label: f64| {
        let log_p = log_sigmoid(x)?;
        log_p.exp()? * (log_p - label.ln())?
    };
    term(&x, 1.0 - label_smoothing)? + term(&x.neg()?, label_smoothing)?
}

/// NCA on pairs: −log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l), r = βΔ
///
/// Chen et al. 2024, <https://arxiv.org/abs/2402.05369>: noise contrast of each completion for itself, which keeps the
/// likelihood of the chosen one from falling.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn nca_pair(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    let (chosen, rejected) = ((chosen_log_ratio * beta)?, (rejected_log_ratio * beta)?);
    let down = (log_sigmoid(&chosen.neg()?)? + log_sigmoid(&rejected.neg()?)?)?;
    log_sigmoid(&chosen)?.neg()? - (down * 0.5)?
}

/// BCO on pairs: −log σ(r_w) − log σ(−r_l), r = βΔ
///
/// Jung et al. 2024, <https://arxiv.org/abs/2404.04656>, without its reward shift, as TRL has it.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn bco_pair(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    let (chosen, rejected) = ((chosen_log_ratio * beta)?, (rejected_log_ratio * beta)?);
    log_sigmoid(&chosen)?.neg()? - log_sigmoid(&rejected.neg()?)?
}

/// SPPO with hard labels: (Δ_w − 1/(2β))² + (Δ_l + 1/(2β))²
///
/// Wu et al. 2024, eq. 4.7, <https://arxiv.org/abs/2405.00675>, with win probabilities 1 and 0.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn sppo_hard(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    (chosen_log_ratio - 0.5 / beta)?.sqr()? + (rejected_log_ratio + 0.5 / beta)?.sqr()?
}

/// APO-zero: 1 − σ(βΔ_w) + σ(βΔ_l)
///
/// D'Oosterlinck et al. 2024, eq. 7, <https://arxiv.org/abs/2408.06266>: for chosen answers better than the model's own.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn apo_zero(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    // 1 − σ(x) = σ(−x)
    sigmoid(&(chosen_log_ratio * -beta)?)? + sigmoid(&(rejected_log_ratio * beta)?)?
}

/// APO-down: σ(βΔ_w) + 1 − σ(β(Δ_w − Δ_l))
///
/// D'Oosterlinck et al. 2024, eq. 8, <https://arxiv.org/abs/2408.06266>: for chosen answers worse than the model's own.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn apo_down(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    sigmoid(&(chosen_log_ratio * beta)?)? + sigmoid(&margin(chosen_log_ratio, rejected_log_ratio, -beta)?)?
}

/// DiscoPOP: (1 − m)·(−log σ(x)) + m·e^{−x}, x = βΔ, m = σ(x/τ)
///
/// Lu et al. 2024, eq. 5, <https://arxiv.org/abs/2406.08414> (log-ratio modulated loss); the paper takes τ = 0.05.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn discopop(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64, tau: f64) -> Result<Tensor> {
    let x = margin(chosen_log_ratio, rejected_log_ratio, beta)?;
    let modulation = (&x / tau)?;
    let logistic = (log_sigmoid(&x)?.neg()? * sigmoid(&modulation.neg()?)?)?;
    // m·e^{−x} = e^{log m − x}: finite where e^{−x} alone is not
    let exponential = (log_sigmoid(&modulation)? - x)?.exp()?;
    logistic + exponential
}
