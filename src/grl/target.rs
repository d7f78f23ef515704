//! Targets of one step: what Q(s, a) should be, given what comes next.
//!
//! With a temperature τ the step cost of leaving the reference is part of the return: Q*(s, a) = r + γ V*(s′) and
//! V*(s) = τ log Σ_a π_ref(a) e^{Q*(s, a)/τ}. For the policy π = π_ref e^{(Q−V)/τ} the expected-SARSA and the soft target
//! are one and the same; τ → 0 gives the hard maximum.

use serde::{Deserialize, Serialize};

/// How the value of the next state enters
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backup {
    /// Q(s′, a′) − τ log(π/π_ref)(a′) of the action that was taken
    Sarsa,
    /// E_π[Q(s′, ·) − τ log(π/π_ref)]
    ExpectedSarsa,
    /// τ log Σ π_ref e^{Q/τ}
    SoftQ,
    /// max Q: the maximum of noisy estimates is biased upwards; see [`double_q`]
    HardQ,
}

/// What is known of the next state
#[derive(Debug, Clone, Copy)]
pub struct Next<'a> {
    /// Q(s′, ·)
    pub q: &'a [f64],
    /// log π(·|s′); read by SARSA and expected SARSA
    pub log_policy: &'a [f64],
    /// log π_ref(·|s′); read wherever τ > 0
    pub log_reference: &'a [f64],
    /// a′; read by SARSA
    pub action: usize,
}

impl Backup {
    /// y = r + γ (value of the next state); `None` after the last step
    pub fn target(self, reward: f64, gamma: f64, next: Option<Next<'_>>, tau: f64) -> f64 {
        next.map_or(reward, |next| reward + gamma * self.value(next, tau))
    }

    fn value(self, next: Next<'_>, tau: f64) -> f64 {
        // At τ = 0 the log-ratios are not looked at: they may be infinite, and nothing may change in the last bit
        let cost = |a: usize| if tau == 0.0 { 0.0 } else { tau * (next.log_policy[a] - next.log_reference[a]) };
        match self {
            Self::Sarsa if tau == 0.0 => next.q[next.action],
            Self::Sarsa => next.q[next.action] - cost(next.action),
            Self::ExpectedSarsa => {
                let probable = (0..next.q.len()).map(|a| (a, next.log_policy[a].exp())).filter(|(_, p)| *p > 0.0);
                probable.map(|(a, p)| p * (next.q[a] - cost(a))).sum()
            }
            Self::SoftQ => soft_value(next.q, next.log_reference, tau),
            Self::HardQ => hard_value(next.q),
        }
    }
}

/// max Q
pub fn hard_value(q: &[f64]) -> f64 {
    q.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// τ log Σ_a π_ref(a) e^{Q(a)/τ}: at most max Q, and at least max Q + τ log π_ref(argmax Q); the maximum over the
/// reference's support at τ = 0
pub fn soft_value(q: &[f64], log_reference: &[f64], tau: f64) -> f64 {
    if tau == 0.0 {
        let supported = q.iter().zip(log_reference).filter(|(_, log)| **log > f64::NEG_INFINITY);
        return supported.fold(f64::NEG_INFINITY, |largest, (q, _)| largest.max(*q));
    }
    let scores = || q.iter().zip(log_reference).map(|(q, log)| log + q / tau);
    let largest = scores().fold(f64::NEG_INFINITY, f64::max);
    tau * (largest + scores().map(|score| (score - largest).exp()).sum::<f64>().ln())
}

/// log π(a) = log π_ref(a) + (Q(a) − V)/τ: the policy that is best at temperature τ > 0
pub fn boltzmann(q: &[f64], log_reference: &[f64], tau: f64) -> Vec<f64> {
    let value = soft_value(q, log_reference, tau);
    q.iter().zip(log_reference).map(|(q, log)| log + (q - value) / tau).collect()
}

/// The double-Q value of the next state: one field chooses the action, another says what it is worth
pub fn double_q(chooses: &[f64], values: &[f64]) -> f64 {
    let better = |best: usize, a: usize| if chooses[a] > chooses[best] { a } else { best };
    values[(1..chooses.len()).fold(0, better)]
}
