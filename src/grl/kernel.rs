//! How alike two points are: by identity, by distance, or both.

use serde::{Deserialize, Serialize};

/// What a kernel compares: an identity (the hash of a prompt, a token, a state of a grid) and a feature vector
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point<'a> {
    /// The identity; two points with the same key are the same point
    pub key: u64,
    /// The features; empty where only the identity counts
    pub phi: &'a [f32],
}

impl<'a> Point<'a> {
    /// A point with features
    pub fn new(key: u64, phi: &'a [f32]) -> Self {
        Self { key, phi }
    }

    /// A point that has only an identity
    pub fn id(key: u64) -> Self {
        Self { key, phi: &[] }
    }
}

/// A positive semi-definite kernel k(z, z′)
///
/// All arithmetic is in f64 on features stored in f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// s · 1[key = key′]. By identity: a delta on floating-point features would never fire
    Delta {
        /// s
        variance: f64,
    },
    /// s · exp(−|φ − φ′|² / 2ℓ²)
    Rbf {
        /// s
        variance: f64,
        /// ℓ
        length: f64,
    },
    /// s · exp(−Σ_d (φ_d − φ′_d)² / 2ℓ_d²): one length-scale for each direction
    Ard {
        /// s
        variance: f64,
        /// ℓ_d
        lengths: Vec<f64>,
    },
    /// s · φᵀφ′
    Linear {
        /// s
        variance: f64,
    },
    /// s_f · exp(−|φ − φ′|² / 2ℓ²) + s_d · 1[key = key′]: values that vary smoothly, plus what is particular to each point.
    /// The second part keeps the field right where the geometry says nothing
    Composite {
        /// s_f
        smooth: f64,
        /// ℓ
        length: f64,
        /// s_d
        delta: f64,
    },
}

impl Kernel {
    /// k(a, b)
    pub fn value(&self, a: Point<'_>, b: Point<'_>) -> f64 {
        let same = f64::from(u8::from(a.key == b.key));
        match self {
            Self::Delta { variance } => variance * same,
            Self::Rbf { variance, length } => variance * rbf(a.phi, b.phi, *length),
            Self::Ard { variance, lengths } => {
                let pairs = a.phi.iter().zip(b.phi).zip(lengths);
                let scaled: f64 =
                    pairs.map(|((a, b), length)| ((f64::from(*a) - f64::from(*b)) / length).powi(2)).sum();
                variance * (-0.5 * scaled).exp()
            }
            Self::Linear { variance } => {
                variance * a.phi.iter().zip(b.phi).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            }
            Self::Composite { smooth, length, delta } => {
                let smooth = if *smooth == 0.0 { 0.0 } else { smooth * rbf(a.phi, b.phi, *length) };
                smooth + delta * same
            }
        }
    }

    /// k(a, b) / √(k(a, a) k(b, b)): 1 for one and the same point whatever the variance. 0 where a point has no variance
    pub fn correlation(&self, a: Point<'_>, b: Point<'_>) -> f64 {
        let norm = (self.value(a, a) * self.value(b, b)).sqrt();
        if norm > 0.0 { self.value(a, b) / norm } else { 0.0 }
    }

    /// Whether two points of different keys can be the same point for this kernel: true for those that fall with distance
    pub fn falls_with_distance(&self) -> bool {
        matches!(self, Self::Rbf { .. } | Self::Ard { .. } | Self::Composite { .. })
    }

    /// Whether points of different keys never touch
    pub fn is_identity(&self) -> bool {
        match self {
            Self::Delta { .. } => true,
            Self::Composite { smooth, .. } => *smooth == 0.0,
            Self::Rbf { .. } | Self::Ard { .. } | Self::Linear { .. } => false,
        }
    }
}

fn rbf(a: &[f32], b: &[f32], length: f64) -> f64 {
    (-0.5 * squared_distance(a, b) / (length * length)).exp()
}

/// |a − b|² in f64
pub fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [f32; 2] = [1.0, 2.0];
    const B: [f32; 2] = [0.5, 4.0];

    #[test]
    fn each_kernel_is_its_formula() {
        let (a, b) = (Point::new(1, &A), Point::new(2, &B));
        let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-15, "{got}, expected {want}");
        close(Kernel::Delta { variance: 2.0 }.value(a, b), 0.0);
        close(Kernel::Delta { variance: 2.0 }.value(a, Point::new(1, &B)), 2.0);
        close(Kernel::Rbf { variance: 2.0, length: 0.5 }.value(a, b), 2.0 * (-4.25_f64 / 0.5).exp());
        close(Kernel::Ard { variance: 1.0, lengths: vec![0.5, 2.0] }.value(a, b), (-1.0_f64).exp());
        close(Kernel::Linear { variance: 3.0 }.value(a, b), 25.5);
        let composite = Kernel::Composite { smooth: 0.7, length: 1.0, delta: 0.3 };
        close(composite.value(a, b), 0.7 * (-2.125_f64).exp());
        close(composite.value(a, a), 1.0);
        close(composite.correlation(a, a), 1.0);
    }

    #[test]
    fn a_point_without_variance_is_like_nothing() {
        assert_eq!(Kernel::Linear { variance: 1.0 }.correlation(Point::new(1, &[0.0]), Point::new(2, &[1.0])), 0.0);
        assert_eq!(Kernel::Delta { variance: 0.0 }.correlation(Point::id(1), Point::id(1)), 0.0);
    }
}
