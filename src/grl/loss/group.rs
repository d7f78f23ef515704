//! Baselines from the other responses to the same prompt.

use std::collections::HashMap;

/// For each response the mean soft return of its group, without its own where `leave_one_out`: with path consistency this is
/// trajectory balance with VarGrad's log-partition (Bartoldson et al. 2025, <https://arxiv.org/abs/2503.18929>), without
/// the own one it is RLOO
///
/// A response that is alone in its group is its own mean.
pub fn group_means(soft_returns: &[f64], groups: &[u32], leave_one_out: bool) -> Vec<f64> {
    let mut sums: HashMap<u32, (f64, f64)> = HashMap::new();
    for (b, group) in soft_returns.iter().zip(groups) {
        let (sum, count) = sums.entry(*group).or_default();
        *sum += b;
        *count += 1.0;
    }
    let mean = |(b, group): (&f64, &u32)| {
        let (sum, count) = sums[group];
        if leave_one_out && count > 1.0 { (sum - b) / (count - 1.0) } else { sum / count }
    };
    soft_returns.iter().zip(groups).map(mean).collect()
}
