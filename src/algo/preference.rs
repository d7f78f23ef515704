//! Losses on pairs of a chosen and a rejected completion.

use candle_core::{Result, Tensor};

use crate::ops::log_sigmoid;

/// DPO with the sigmoid loss: −log σ(β(Δ_w − Δ_l)), Δ = log π(y|x) − log π_ref(y|x) summed over the completion
///
/// Rafailov et al. 2023, eq. 7, <https://arxiv.org/abs/2305.18290>. At the start, where π = π_ref, the loss is ln 2 and
/// the gradient with respect to Δ_w is −β/2.
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each pair (B,)
pub fn dpo_sigmoid(chosen_log_ratio: &Tensor, rejected_log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    log_sigmoid(&((chosen_log_ratio - rejected_log_ratio)? * beta)?)?.neg()
}

/// The reward that a policy implies: r = β(log π − log π_ref)
///
/// Rafailov et al. 2023, eq. 5, without the prompt's constant.
///
/// # Shapes
/// log-ratio (B,) → (B,)
pub fn implicit_reward(log_ratio: &Tensor, beta: f64) -> Result<Tensor> {
    log_ratio * beta
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn dpo_starts_at_ln_2_with_gradient_half_beta() {
        let chosen = Var::from_slice(&[0.0_f32], 1, &Device::Cpu).unwrap();
        let rejected = Var::from_slice(&[0.0_f32], 1, &Device::Cpu).unwrap();
        let loss = dpo_sigmoid(&chosen, &rejected, 0.1).unwrap();
        assert_eq!(loss.to_vec1::<f32>().unwrap(), [std::f32::consts::LN_2]);
        let grads = loss.backward().unwrap();
        assert_eq!(grads.get(&chosen).unwrap().to_vec1::<f32>().unwrap(), [-0.05]);
        assert_eq!(grads.get(&rejected).unwrap().to_vec1::<f32>().unwrap(), [0.05]);
    }
}
