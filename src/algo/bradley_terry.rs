//! The Bradley–Terry model of preferences: a reward for each answer, and the odds that follow from their difference.

use candle_core::{Result, Tensor};

use crate::ops::log_sigmoid;

/// −log σ(r_w − r_l − m): the negative log-likelihood that the chosen answer wins by a margin m, 0 where there is none
///
/// Bradley and Terry 1952; as a loss with a margin Touvron et al. 2023, eq. 2, <https://arxiv.org/abs/2307.09288>.
/// Gradient: −σ(−(r_w − r_l − m)) with respect to r_w, and its opposite with respect to r_l.
///
/// # Shapes
/// rewards of the chosen and of the rejected answers (B,), margins (B,) → loss of each pair (B,)
pub fn bradley_terry(chosen: &Tensor, rejected: &Tensor, margin: Option<&Tensor>) -> Result<Tensor> {
    let difference = (chosen - rejected)?;
    let difference = match margin {
        Some(margin) => (difference - margin)?,
        None => difference,
    };
    log_sigmoid(&difference)?.neg()
}

/// (r_w + r_l)²: pulls the rewards of a pair, which their difference leaves free to drift together, towards zero
///
/// Eisenstein et al. 2023, eq. 2, <https://arxiv.org/abs/2312.09244>.
///
/// # Shapes
/// rewards of the chosen and of the rejected answers (B,) → penalty of each pair (B,)
pub fn centering(chosen: &Tensor, rejected: &Tensor) -> Result<Tensor> {
    (chosen + rejected)?.sqr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn var(values: &[f32]) -> Var {
        Var::from_slice(values, values.len(), &Device::Cpu).unwrap()
    }

    #[test]
    fn equal_rewards_cost_ln_2_with_gradient_one_half_and_a_margin_shifts_them() {
        let (chosen, rejected) = (var(&[0.3, 1.3]), var(&[0.3, 0.3]));
        let margin = Tensor::new(&[0.0_f32, 1.0], &Device::Cpu).unwrap();
        let loss = bradley_terry(&chosen, &rejected, Some(&margin)).unwrap();
        for value in loss.to_vec1::<f32>().unwrap() {
            assert!((value - std::f32::consts::LN_2).abs() < 1e-6);
        }
        let grads = loss.backward().unwrap();
        for (var, sign) in [(&chosen, -0.5), (&rejected, 0.5)] {
            for gradient in grads.get(var).unwrap().to_vec1::<f32>().unwrap() {
                assert!((gradient - sign).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn no_margin_is_a_margin_of_zero() {
        let (chosen, rejected) = (var(&[2.0, -40.0]), var(&[-1.0, 60.0]));
        let zero = Tensor::new(&[0.0_f32; 2], &Device::Cpu).unwrap();
        let with = bradley_terry(&chosen, &rejected, Some(&zero)).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bradley_terry(&chosen, &rejected, None).unwrap().to_vec1::<f32>().unwrap(), with);
        assert_eq!(with[1], 100.0, "far from its minimum the loss is linear");
    }
}
