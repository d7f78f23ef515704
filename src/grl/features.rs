//! From hidden states of the frozen reference model to features in which distance means something.
//!
//! Raw states of a language model all point the same way (cosines above 0.96), so that a kernel on them is a constant.
//! They are pooled over tokens, centred, whitened on their leading directions and set on the unit sphere; few directions,
//! because in many all points of a sphere are equally far apart.

use serde_json::json;

use crate::error::{Error, Result};
use crate::grl::arrays::{Arrays, Header, Owner};
use crate::grl::eigen::Eigen;
use crate::grl::linalg::{Symmetric, dot};

const KIND: &str = "feature map";

/// Below this share of the largest variance a direction holds nothing but rounding
const LEAST_VARIANCE: f64 = 1e-10;

/// φ = W(h − μ), then φ/|φ|
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureMap {
    width: usize,
    dim: usize,
    mean: Vec<f64>,
    /// `dim` rows of `width`: u_jᵀ/√λ_j
    projection: Vec<f64>,
    normalise: bool,
}

impl FeatureMap {
    /// Fits mean and whitening to the rows of `states`, `width` numbers each. Covariances are those of PCA: divided by
    /// rows − 1
    pub fn fit(states: &[f32], width: usize, dim: usize, normalise: bool) -> Result<Self> {
        if width == 0 || !states.len().is_multiple_of(width) {
            return Err(Error::run(format!("{} numbers are no rows of {width}", states.len())));
        }
        let rows = states.len() / width;
        if dim == 0 || dim > width {
            return Err(Error::usage(format!("{dim} features from states of width {width}, expected 1 to {width}")));
        }
        if rows < 2 {
            let message = format!("a feature map cannot be fitted to {rows} prompts");
            return Err(
                Error::usage(message).hint("whitening needs many more prompts than features, at best thousands")
            );
        }
        if let Some(at) = states.iter().position(|x| !x.is_finite()) {
            return Err(Error::run(format!("the hidden state of prompt {} is not finite", at / width)));
        }
        let mut mean = vec![0.0; width];
        for row in states.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / rows as f64);
        }
        // One centred column after the other, so that a covariance is one product of two columns
        let column = |d: usize| (0..rows).map(|row| f64::from(states[row * width + d]) - mean[d]).collect();
        let columns: Vec<Vec<f64>> = (0..width).map(column).collect();
        let covariance = Symmetric::from_fn(width, |i, j| dot(&columns[i], &columns[j]) / (rows - 1) as f64);
        let eigen = Eigen::new(&covariance)?;
        let floor = eigen.values[0] * LEAST_VARIANCE;
        let varying = eigen.values.iter().filter(|value| **value > floor && **value > 0.0).count();
        if varying < dim {
            let message = format!("the hidden states of {rows} prompts vary in {varying} directions, fewer than {dim}");
            return Err(Error::usage(message).hint("ask for fewer features, or fit on more and different prompts"));
        }
        let scaled = eigen.values.iter().zip(&eigen.vectors).take(dim);
        let projection = scaled.flat_map(|(value, u)| u.iter().map(|x| x / value.sqrt())).collect();
        Ok(Self { width, dim, mean, projection, normalise })
    }

    /// Numbers of a hidden state
    pub fn width(&self) -> usize {
        self.width
    }

    /// Features
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The features of one hidden state. The mean state itself has no direction and stays at 0
    pub fn apply(&self, state: &[f32]) -> Result<Vec<f32>> {
        if state.len() != self.width {
            let message =
                format!("a hidden state has {} numbers, and the feature map takes {}", state.len(), self.width);
            return Err(Error::usage(message).hint("the map was fitted to another model"));
        }
        let centred: Vec<f64> = state.iter().zip(&self.mean).map(|(x, mean)| f64::from(*x) - mean).collect();
        let phi: Vec<f64> = self.projection.chunks_exact(self.width).map(|row| dot(row, &centred)).collect();
        let norm = if self.normalise { dot(&phi, &phi).sqrt() } else { 1.0 };
        let scale = if norm > 0.0 { 1.0 / norm } else { 1.0 };
        Ok(phi.into_iter().map(|x| (x * scale) as f32).collect())
    }

    /// The map as flat arrays
    pub fn to_arrays(&self, owner: &Owner) -> Arrays {
        let extra = json!({ "width": self.width, "dim": self.dim, "normalise": self.normalise });
        Arrays::new(Header::new(KIND, owner, extra)).with("mean", self.mean.clone()).with_rows(
            "projection",
            self.width,
            self.projection.clone(),
        )
    }

    /// The map in the bytes of a file, which must belong to `owner`
    pub fn from_bytes(bytes: &[u8], owner: &Owner) -> Result<Self> {
        let mut arrays = Arrays::from_bytes(bytes, KIND, owner)?;
        let (width, dim) = (arrays.size("width")?, arrays.size("dim")?);
        let normalise = arrays.header().extra.get("normalise") == Some(&json!(true));
        let (mean, projection) = (arrays.take("mean", width)?, arrays.take("projection", width.saturating_mul(dim))?);
        Ok(Self { width, dim, mean, projection, normalise })
    }
}

/// The mean over a prompt's tokens of (layer 1 + last layer)/2, which is what a feature map is fitted to
///
/// # Shapes
/// two layers (T, width), flat → (width,)
pub fn pool(first: &[f32], last: &[f32], width: usize) -> Result<Vec<f32>> {
    if width == 0 || first.is_empty() || first.len() != last.len() || !first.len().is_multiple_of(width) {
        let message =
            format!("hidden states of {} and {} numbers are no tokens of width {width}", first.len(), last.len());
        return Err(Error::run(message));
    }
    let tokens = (first.len() / width) as f64;
    let mut sums = vec![0.0; width];
    for (first, last) in first.chunks_exact(width).zip(last.chunks_exact(width)) {
        for ((sum, a), b) in sums.iter_mut().zip(first).zip(last) {
            *sum += f64::from(*a) + f64::from(*b);
        }
    }
    Ok(sums.into_iter().map(|sum| (sum / (2.0 * tokens)) as f32).collect())
}
