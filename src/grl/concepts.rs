//! Concepts: how a field over prompts falls into parts. For reports; nothing is learnt from them.
//!
//! With K = Σ λ_j u_j u_jᵀ over the particles and Q⁺ = Σ w_i k(z_i, ·), the field's squared norm wᵀKw is the sum over
//! directions of λ_j (u_jᵀw)², so each direction has a share of it.

use crate::error::{Error, Result};
use crate::grl::eigen::Eigen;
use crate::grl::linalg::{Symmetric, dot};

/// One group of particles
#[derive(Debug, Clone, PartialEq)]
pub struct Concept {
    /// Positions of its particles
    pub members: Vec<usize>,
    /// Σ λ_j (u_jᵀw)² over the directions that lie mostly on its particles
    pub activation: f64,
    /// Those directions, numbered by falling eigenvalue
    pub directions: Vec<usize>,
}

/// A field's parts
#[derive(Debug, Clone, PartialEq)]
pub struct Concepts {
    /// The groups, by falling activation
    pub concepts: Vec<Concept>,
    /// What the directions left out add: the squared norm is the sum of all activations and this
    pub residual: f64,
    /// wᵀKw
    pub squared_norm: f64,
}

const MOST_ROUNDS: usize = 100;

/// Groups the particles by k-means on their rows of the `directions` leading eigenvectors, scaled by √λ, into at most
/// `groups` groups, and gives each direction to the group that holds most of its squared length
pub fn concepts(gram: &Symmetric, weights: &[f64], directions: usize, groups: usize) -> Result<Concepts> {
    let n = gram.order();
    if n == 0 || weights.len() != n || groups == 0 {
        let message = format!("{groups} concepts of a field with {n} particles and {} weights", weights.len());
        return Err(Error::usage(message));
    }
    let eigen = Eigen::new(gram)?;
    let directions = directions.min(n);
    let row = |i: usize| (0..directions).map(|j| eigen.vectors[j][i] * eigen.values[j].max(0.0).sqrt()).collect();
    let rows: Vec<Vec<f64>> = (0..n).map(row).collect();
    let labels = k_means(&rows, groups.min(n));
    let found = labels.iter().max().map_or(0, |largest| largest + 1);
    let members = |label: usize| (0..n).filter(|&i| labels[i] == label).collect();
    let mut concepts: Vec<Concept> =
        (0..found).map(|label| Concept { members: members(label), activation: 0.0, directions: Vec::new() }).collect();
    let activation = |j: usize| eigen.values[j] * dot(&eigen.vectors[j], weights).powi(2);
    for j in 0..directions {
        let share = |concept: &Concept| concept.members.iter().map(|&i| eigen.vectors[j][i].powi(2)).sum::<f64>();
        let shares: Vec<f64> = concepts.iter().map(share).collect();
        let owner = (1..found).fold(0, |best, i| if shares[i] > shares[best] { i } else { best });
        concepts[owner].activation += activation(j);
        concepts[owner].directions.push(j);
    }
    concepts.sort_by(|a, b| b.activation.total_cmp(&a.activation));
    let residual = (directions..n).map(activation).sum();
    Ok(Concepts { concepts, residual, squared_norm: gram.quadratic(weights) })
}

/// Lloyd's rounds from centres chosen one after the other as far as possible from those before (no random start); labels
/// without a gap
fn k_means(rows: &[Vec<f64>], groups: usize) -> Vec<usize> {
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let nearest = |row: &[f64], centres: &[Vec<f64>]| {
        let distances: Vec<f64> = centres.iter().map(|centre| apart(row, centre)).collect();
        (1..centres.len())
            .fold((0, distances[0]), |best, i| if distances[i] < best.1 { (i, distances[i]) } else { best })
    };
    let mut centres = vec![rows[0].clone()];
    while centres.len() < groups {
        let distance = |i: usize| nearest(&rows[i], &centres).1;
        let farthest = (1..rows.len()).fold(0, |best, i| if distance(i) > distance(best) { i } else { best });
        if distance(farthest) == 0.0 {
            break;
        }
        centres.push(rows[farthest].clone());
    }
    let mut labels = vec![usize::MAX; rows.len()];
    for _ in 0..MOST_ROUNDS {
        let next: Vec<usize> = rows.iter().map(|row| nearest(row, &centres).0).collect();
        if next == labels {
            break;
        }
        labels = next;
        for (label, centre) in centres.iter_mut().enumerate() {
            let members: Vec<&Vec<f64>> =
                rows.iter().zip(&labels).filter(|(_, at)| **at == label).map(|(row, _)| row).collect();
            if !members.is_empty() {
                let mean = |d: usize| members.iter().map(|row| row[d]).sum::<f64>() / members.len() as f64;
                *centre = (0..centre.len()).map(mean).collect();
            }
        }
    }
    let mut used: Vec<usize> = labels.clone();
    used.sort_unstable();
    used.dedup();
    labels.iter().map(|label| used.binary_search(label).unwrap_or_default()).collect()
}
