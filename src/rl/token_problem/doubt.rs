//! Whether the field knows what it does not know: its forecasts of V^π(x) for prompts that were never asked, beside those
//! of simpler doubters. V^π is known exactly here.
//!
//! Prompts with a large first feature are *foreign*: none of them is trained on. Of the others a quarter is held out.
//! Doubters that have no scale of their own get the one that fits a fifth of the trained prompts, held out for that.

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

use super::arms::Arm;
use super::critic::Critic;
use super::methods::Run;
use super::problem::{DIM, Problem};
use crate::error::Result;
use crate::grl::calibration::{Forecast, calibration};
use crate::grl::fit::{Grid, fit_marginal_likelihood};
use crate::grl::kernel::{Kernel, Point};
use crate::grl::memory::{Particle, PromptMemory};
use crate::grl::value::{Estimator, Prediction, ValueField};

/// The first feature above which a prompt is foreign: about a third of a unit sphere in four dimensions
const FOREIGN: f64 = 0.25;

/// One in so many familiar prompts is held out, and one in so many trained ones sets the scale
const HELD_OUT: usize = 4;
const SCALING: u64 = 5;

const HEADS: usize = 5;
const HEAD_STEPS: usize = 300;

/// Names of the doubters, the field first
pub const DOUBTERS: [&str; 5] = ["field", "constant", "count", "ensemble", "laplace"];

/// Forecasts of one run
#[derive(Debug, Clone)]
pub struct Doubts {
    /// Of each of [`DOUBTERS`], for all prompts below
    pub forecasts: [Vec<Forecast>; DOUBTERS.len()],
    /// Whether each prompt lies where others were trained on
    pub familiar: Vec<bool>,
}

/// Trains a field on some prompts and asks it, and the others, about the rest
pub fn doubts(problem: &Problem, arm: &Arm, queries: usize, rate: f64, seed: u64) -> Result<Doubts> {
    let is_familiar = |x: &usize| problem.prompts[*x][0] <= FOREIGN;
    let is_held_out = |x: &usize| x.is_multiple_of(HELD_OUT);
    let trained = (0..problem.len()).filter(|x| is_familiar(x) && !is_held_out(x)).collect();
    let mut run = Run::new(problem, arm.method, arm.settings(queries, rate), trained, seed);
    run.finish()?;
    let memory = run.particles(true)?;
    let asked: Vec<usize> = (0..problem.len()).filter(|x| !is_familiar(x) || is_held_out(x)).collect();
    let truths: Vec<f64> =
        asked.iter().map(|&x| problem.value(x, |step, previous| run.policy.row(x, step, previous))).collect();
    let field = fit_marginal_likelihood(&memory, &Grid::default())?.estimator().fit(&memory)?;
    let predictions: Vec<Prediction> = asked.iter().map(|x| field.predict(run.place(*x))).collect();
    let of_field: Vec<(f64, f64)> =
        predictions.iter().map(|one| (one.mean, one.variance.unwrap_or(one.prior_variance))).collect();

    let (rest, scaling) = split(&memory, SCALING)?;
    let noise = within(&memory);
    let smaller = fit_marginal_likelihood(&rest, &Grid::default())?.estimator().fit(&rest)?;
    let constant = scale(&scaling, noise, |point| (smaller.value(point), 1.0));
    let counted = |prediction: &Prediction, x: usize| {
        let seen = memory.position(x as u64).map_or(0.0, |at| memory.particle(at).count);
        (prediction.mean, constant / (1.0 + seen))
    };
    let of_constant = predictions.iter().map(|one| (one.mean, constant)).collect();
    let of_count = predictions.iter().zip(&asked).map(|(one, x)| counted(one, *x)).collect();

    let heads = Heads::new(&rest, seed);
    let spread = scale(&scaling, noise, |point| heads.forecast(point));
    let places: Vec<Point<'_>> = asked.iter().map(|x| run.place(*x)).collect();
    let of_heads = places.iter().map(|point| heads.forecast(*point)).map(|(mean, v)| (mean, v * spread)).collect();
    let of_layer = LastLayer::new(&heads.0[0], &rest, &scaling)?.forecasts(&places);

    let all = [of_field, of_constant, of_count, of_heads, of_layer];
    let forecasts = all.map(|one: Vec<(f64, f64)>| {
        let pairs = one.into_iter().zip(&truths);
        pairs.map(|((mean, variance), truth)| Forecast { mean, variance, truth: *truth }).collect()
    });
    Ok(Doubts { forecasts, familiar: asked.iter().map(is_familiar).collect() })
}

/// Particles whose key leaves no remainder, as a list, and the memory of the others
fn split(memory: &PromptMemory, one_in: u64) -> Result<(PromptMemory, Vec<Particle<'_>>)> {
    let mut rest = memory.clone();
    let mut apart = Vec::new();
    for particle in memory.iter() {
        // The key's low bits decide about holding out already
        if (particle.point.key / HELD_OUT as u64).is_multiple_of(one_in) {
            rest.restate(particle.point, &[], 0)?;
            apart.push(particle);
        }
    }
    Ok((rest, apart))
}

/// Variance of single soft returns around their prompts' means
fn within(memory: &PromptMemory) -> f64 {
    let squares: f64 = memory.iter().map(|particle| particle.m2).sum();
    let repeats: f64 = memory.iter().map(|particle| particle.count - 1.0).sum();
    squares / repeats.max(1.0)
}

/// The factor on variances with which z² is 1 on average; the error of a particle's own mean does not count
fn scale(particles: &[Particle<'_>], noise: f64, forecast: impl Fn(Point<'_>) -> (f64, f64)) -> f64 {
    let ratio = |particle: &Particle<'_>| {
        let (mean, variance) = forecast(particle.point);
        ((particle.mean - mean).powi(2) - noise / particle.count) / variance
    };
    let mean = particles.iter().map(ratio).sum::<f64>() / particles.len().max(1) as f64;
    mean.max(1e-3)
}

fn features(point: Point<'_>) -> [f64; DIM] {
    std::array::from_fn(|d| f64::from(point.phi[d]))
}

/// Networks that differ in their start alone
struct Heads(Vec<Critic>);

impl Heads {
    fn new(memory: &PromptMemory, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x68_6561_6473);
        let prompts: Vec<[f64; DIM]> = memory.iter().map(|particle| features(particle.point)).collect();
        let targets: Vec<f64> = memory.iter().map(|particle| particle.mean).collect();
        let head = || {
            let mut critic = Critic::new(&mut rng);
            for _ in 0..HEAD_STEPS {
                critic.descend(&prompts, &targets);
            }
            critic
        };
        Self(std::iter::repeat_with(head).take(HEADS).collect())
    }

    /// Mean and variance over the heads
    fn forecast(&self, point: Point<'_>) -> (f64, f64) {
        let x = features(point);
        let values: Vec<f64> = self.0.iter().map(|head| head.value(&x)).collect();
        let mean = values.iter().sum::<f64>() / HEADS as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (mean, squares / (HEADS - 1) as f64)
    }
}

/// A Gaussian process that is linear in a network's last hidden layer: Laplace's approximation of that layer
struct LastLayer<'h> {
    head: &'h Critic,
    field: ValueField,
}

impl<'h> LastLayer<'h> {
    /// With the weight and noise variances, on a grid, under which the particles apart are likeliest
    fn new(head: &'h Critic, memory: &PromptMemory, apart: &[Particle<'_>]) -> Result<Self> {
        let width = head.layer(&[0.0; DIM]).len();
        let mut lifted = PromptMemory::new(width, memory.len().max(1), 0.0)?;
        for particle in memory.iter() {
            let phi = head.layer(&features(particle.point));
            // As many soft returns as there were, at their mean
            for _ in 0..particle.count as usize {
                lifted.observe(Point::new(particle.point.key, &phi), particle.mean, 0)?;
            }
        }
        let total = memory.variance().unwrap_or(1.0).max(1e-6);
        let mut best: Option<(f64, Self)> = None;
        for (share, noise) in [0.01, 0.1, 1.0].iter().flat_map(|a| [0.1, 0.3, 1.0].map(|b| (*a, b * total))) {
            let kernel = Kernel::Linear { variance: share * total };
            let layer = Self { head, field: Estimator::GaussianProcess { kernel, noise }.fit(&lifted)? };
            let forecasts = apart.iter().map(|particle| {
                let (mean, variance) = layer.forecast(particle.point);
                Forecast { mean, variance: variance + noise / particle.count, truth: particle.mean }
            });
            let forecasts: Vec<Forecast> = forecasts.collect();
            let badness = calibration(&forecasts)?.negative_log_likelihood;
            if best.as_ref().is_none_or(|(least, _)| badness < *least) {
                best = Some((badness, layer));
            }
        }
        let found = best.ok_or_else(|| crate::Error::run("there is no prompt to choose the variances by"))?;
        Ok(found.1)
    }

    fn forecast(&self, point: Point<'_>) -> (f64, f64) {
        let phi = self.head.layer(&features(point));
        let one = self.field.predict(Point::new(point.key, &phi));
        (one.mean, one.variance.unwrap_or(one.prior_variance).max(1e-9))
    }

    fn forecasts(&self, places: &[Point<'_>]) -> Vec<(f64, f64)> {
        places.iter().map(|point| self.forecast(*point)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::token_problem::arms::ARMS;

    #[test]
    fn every_doubter_answers_for_prompts_that_were_never_asked() {
        let problem = Problem::new(2, 96, true);
        let arm = ARMS.iter().find(|arm| arm.name == "grl").unwrap();
        let doubts = doubts(&problem, arm, 512, 0.08, 2).unwrap();
        let foreign = doubts.familiar.iter().filter(|yes| !**yes).count();
        assert!(foreign > 10 && foreign < doubts.familiar.len(), "{foreign}");
        for (name, forecasts) in DOUBTERS.iter().zip(&doubts.forecasts) {
            assert_eq!(forecasts.len(), doubts.familiar.len());
            let figures = calibration(forecasts).unwrap();
            assert!(figures.z_scale > 0.1 && figures.z_scale < 20.0, "{name}: {figures:?}");
        }
        // The field doubts what lies far from all it has seen
        let mean = |familiar: bool| {
            let some: Vec<f64> = doubts.forecasts[0]
                .iter()
                .zip(&doubts.familiar)
                .filter(|(_, yes)| **yes == familiar)
                .map(|(one, _)| one.variance)
                .collect();
            some.iter().sum::<f64>() / some.len() as f64
        };
        assert!(mean(false) > mean(true));
    }
}
