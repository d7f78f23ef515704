//! The field over prompts as a picture: particles in a plane, and the parts that the field falls into.

use std::path::Path;

use super::keep::{MEMORY, PARTICLES, Record, read};
use crate::Result;
use crate::grl::concepts::concepts;
use crate::grl::eigen::Eigen;
use crate::grl::linalg::{Symmetric, dot};
use crate::grl::memory::PromptMemory;
use crate::grl::value::ValueField;

/// Parts that are looked for, and leading directions of the kernel matrix that they are looked for in
const PARTS: usize = 5;
const DIRECTIONS: usize = 16;

/// Particles of a memory in the plane in which their features vary most
#[derive(Debug, Clone)]
pub struct Landscape {
    /// The particles
    pub places: Vec<Place>,
    /// The share of the features' variance that the plane shows
    pub shown: f64,
    /// Groups of particles, those first that the field owes most to
    pub parts: Vec<Part>,
}

/// One particle
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it lies in the plane
    pub at: (f64, f64),
    /// V of its prompt
    pub value: f64,
    /// The prompt
    pub prompt: String,
}

/// A group of particles that the kernel holds together
#[derive(Debug, Clone)]
pub struct Part {
    /// Positions of its particles
    pub members: Vec<usize>,
    /// Its share of the field's squared norm
    pub share: f64,
}

impl Landscape {
    /// Reads the memory in a run folder or checkpoint. The reference model is not needed: a particle keeps its features.
    /// None where the folder has no memory, or one whose prompts have no features (`kernel: delta`)
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        if !folder.join(PARTICLES).is_file() {
            return Ok(None);
        }
        let record = Record::read(folder)?;
        let memory = read(&folder.join(MEMORY), |bytes| PromptMemory::from_bytes(bytes, &record.owner()))?;
        if memory.dim() < 2 || memory.len() < 3 {
            return Ok(None);
        }
        let field = record.estimator.fit(&memory)?;
        let prompt = |key| record.particle(key).map(|particle| particle.prompt.clone()).unwrap_or_default();
        let (plane, shown) = plane(&memory)?;
        let places = memory.iter().zip(plane);
        let places = places.map(|(particle, at)| Place {
            at,
            value: field.value(particle.point),
            prompt: prompt(particle.point.key),
        });
        Ok(Some(Self { places: places.collect(), shown, parts: parts(&field)? }))
    }
}

/// Coordinates along the two leading directions of the features, and the share of their variance that these two hold
fn plane(memory: &PromptMemory) -> Result<(Vec<(f64, f64)>, f64)> {
    let (n, dim) = (memory.len() as f64, memory.dim());
    let mut mean = vec![0.0; dim];
    for particle in memory.iter() {
        mean.iter_mut().zip(particle.point.phi).for_each(|(mean, x)| *mean += f64::from(*x) / n);
    }
    let centred = memory.iter().map(|particle| {
        let phi = particle.point.phi.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean);
        phi.collect::<Vec<f64>>()
    });
    let rows: Vec<Vec<f64>> = centred.collect();
    let covariance = Symmetric::from_fn(dim, |i, j| rows.iter().map(|row| row[i] * row[j]).sum::<f64>() / n);
    let eigen = Eigen::new(&covariance)?;
    let total: f64 = eigen.values.iter().map(|value| value.max(0.0)).sum();
    let shown = if total > 0.0 { (eigen.values[0] + eigen.values[1]).max(0.0) / total } else { 1.0 };
    let at = |row: &Vec<f64>| (dot(row, &eigen.vectors[0]), dot(row, &eigen.vectors[1]));
    Ok((rows.iter().map(at).collect(), shown))
}

/// The spectral parts of a field that is a sum over its particles
fn parts(field: &ValueField) -> Result<Vec<Part>> {
    let Some(weights) = field.coefficients() else { return Ok(Vec::new()) };
    let particles: Vec<_> = field.memory().iter().map(|particle| particle.point).collect();
    let kernel = field.estimator().kernel();
    let gram = Symmetric::from_fn(particles.len(), |i, j| kernel.value(particles[i], particles[j]));
    let found = concepts(&gram, weights, DIRECTIONS, PARTS)?;
    let total = found.squared_norm;
    let share = |activation: f64| if total > 0.0 { activation / total } else { 0.0 };
    let part =
        |concept: crate::grl::concepts::Concept| Part { share: share(concept.activation), members: concept.members };
    Ok(found.concepts.into_iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grl::kernel::{Kernel, Point};
    use crate::grl::value::Estimator;

    /// Two crowds of prompts on the unit circle, worth 1 and -1
    fn memory() -> PromptMemory {
        let mut memory = PromptMemory::new(3, 16, 0.0).unwrap();
        for i in 0..8_u64 {
            let angle = 0.1 * (i / 2) as f64 + if i % 2 == 0 { 0.0 } else { 3.0 };
            let phi = [angle.cos() as f32, angle.sin() as f32, 0.0];
            memory.observe(Point::new(i, &phi), if i % 2 == 0 { 1.0 } else { -1.0 }, 0).unwrap();
        }
        memory
    }

    #[test]
    fn a_plane_keeps_the_distances_of_features_that_lie_in_one() {
        let memory = memory();
        let (places, shown) = plane(&memory).unwrap();
        assert!((shown - 1.0).abs() < 1e-12);
        let points: Vec<_> = memory.iter().map(|particle| particle.point).collect();
        for (i, a) in places.iter().enumerate() {
            for (j, b) in places.iter().enumerate() {
                let between = (a.0 - b.0).hypot(a.1 - b.1);
                let expected = crate::grl::kernel::squared_distance(points[i].phi, points[j].phi).sqrt();
                assert!((between - expected).abs() < 1e-6, "{i} and {j}: {between} for {expected}");
            }
        }
    }

    #[test]
    fn crowds_are_parts() {
        let kernel = Kernel::Rbf { variance: 1.0, length: 0.5 };
        let field = Estimator::GaussianProcess { kernel, noise: 0.1 }.fit(&memory()).unwrap();
        let parts = parts(&field).unwrap();
        // No part holds prompts of both crowds, and together they hold each prompt once
        for part in &parts {
            assert!(part.members.iter().all(|at| at % 2 == part.members[0] % 2), "{parts:?}");
        }
        let mut all: Vec<usize> = parts.iter().flat_map(|part| part.members.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
        let shares: f64 = parts.iter().map(|part| part.share).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    }
}
