//! BitFlip: turn the bits of a word into those of another, one a step. Of 2ⁿ words one is rewarded, so that chance finds
//! it for small n only.
//!
//! Andrychowicz et al. 2017, section 3.1, <https://arxiv.org/abs/1707.01495>.

use std::ops::Range;

use super::native::{Dynamics, discrete};
use super::rng::Pcg64;
use super::{Actions, Goals, Space, VecStep};

pub(crate) struct BitFlip {
    bits: usize,
    /// (N, 2 · bits): the word, and the one that it should become
    words: Vec<f32>,
}

impl BitFlip {
    pub(crate) fn new(num_envs: usize, bits: usize) -> Self {
        Self { bits, words: vec![0.0; num_envs * 2 * bits] }
    }
}

impl Dynamics for BitFlip {
    fn observation_space(&self) -> Space {
        Space::vector(&vec![0.0; 2 * self.bits], &vec![1.0; 2 * self.bits])
    }

    fn action_space(&self) -> Space {
        Space::Discrete { n: self.bits as u32 }
    }

    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]) {
        let words = &mut self.words[2 * self.bits * i..][..2 * self.bits];
        // A word that needs no change is no task
        loop {
            words.fill_with(|| rng.integers(0, 2) as f32);
            if words[..self.bits] != words[self.bits..] {
                break;
            }
        }
        observation.copy_from_slice(words);
    }

    fn step(&mut self, actions: Actions<'_>, _rngs: &mut [Pcg64], out: &mut VecStep) {
        for (i, action) in discrete(actions).iter().enumerate() {
            let words = &mut self.words[2 * self.bits * i..][..2 * self.bits];
            words[*action as usize] = 1.0 - words[*action as usize];
            let (word, wanted) = words.split_at(self.bits);
            (out.rewards[i], out.terminated[i]) = judge(word, wanted);
            out.final_obs[2 * self.bits * i..][..2 * self.bits].copy_from_slice(words);
        }
    }

    fn goals(&self) -> Option<&dyn Goals> {
        Some(self)
    }
}

fn judge(word: &[f32], wanted: &[f32]) -> (f64, bool) {
    if word == wanted { (0.0, true) } else { (-1.0, false) }
}

impl Goals for BitFlip {
    fn achieved(&self) -> Range<usize> {
        0..self.bits
    }

    fn desired(&self) -> Range<usize> {
        self.bits..2 * self.bits
    }

    fn judge(&self, achieved: &[f32], desired: &[f32]) -> (f64, bool) {
        judge(achieved, desired)
    }
}
