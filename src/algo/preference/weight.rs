//! Weights of tokens and pairs that go with any of the losses.

/// LD-DPO: 1 for the first min(n_w, n_l) tokens of each completion, α for the rest of the longer one
///
/// Liu et al. 2025, <https://arxiv.org/abs/2409.06411>: what one answer says more than the other counts less, so that
/// length alone earns less. α = 1 is DPO, α = 0 leaves the excess out.
///
/// # Shapes
/// token counts of both completions → weights (n_w,) and (n_l,)
pub fn ld_weights(counts: [usize; 2], alpha: f32) -> [Vec<f32>; 2] {
    let shared = counts[0].min(counts[1]);
    counts.map(|count| (0..count).map(|token| if token < shared { 1.0 } else { alpha }).collect())
}

/// WPO: e^{m_w}·e^{m_l}, m the mean over tokens of log π(t) − log Σ_v π(v)²
///
/// Zhou et al. 2024, eq. 2 with the alignment of section 3.2, <https://arxiv.org/abs/2406.11827>: how likely the policy
/// itself would write the pair, 1 where it is as likely as what the policy writes on average. A constant for gradients.
pub fn wpo_weight(means: [f64; 2]) -> f64 {
    (means[0] + means[1]).exp()
}
