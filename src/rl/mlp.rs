//! Multi-layer perceptrons on flat slices: a network is a layout inside its agent's parameter vector, so that one
//! optimiser step and one norm cover all networks of an agent.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::env::rng::Pcg64;
use super::random::orthogonal;
use crate::ops::kernels::aligned::Aligned;
use crate::ops::kernels::panels::{self, Scratch};
use crate::ops::kernels::{mlp, vector};

/// What stands between the layers
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// tanh
    Tanh,
    /// max(x, 0)
    Relu,
}

impl Activation {
    /// g ← g · slope at the outputs y
    fn backward(self, y: &[f32], g: &mut [f32]) {
        match self {
            Self::Tanh => mlp::tanh_backward(y, g),
            Self::Relu => mlp::relu_backward(y, g),
        }
    }
}

/// One affine layer: y = x Wᵀ + b, with W (outputs, inputs)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Numbers in
    pub inputs: usize,
    /// Numbers out
    pub outputs: usize,
    /// Where W lies in the parameters
    pub weight: Range<usize>,
    /// Where b lies in the parameters
    pub bias: Range<usize>,
}

/// The layout of a network
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mlp {
    layers: Vec<Layer>,
    activation: Activation,
}

/// What a forward pass leaves for the way back, for up to so many rows
///
/// A batch that is large enough lies in panels ([`panels`]), a small one in rows.
#[derive(Debug, Clone)]
pub struct MlpCache {
    /// The inputs, where they lie in panels
    inputs: Aligned,
    outputs: Vec<Aligned>,
    gradients: [Aligned; 2],
    /// The last layer's outputs in rows
    result: Vec<f32>,
    /// How many of them the last pass gave
    filled: usize,
    /// The gradient in the inputs, in rows
    by_inputs: Vec<f32>,
    scratch: Scratch,
}

impl MlpCache {
    /// What the last forward pass gave, (rows, outputs)
    pub fn outputs(&self) -> &[f32] {
        &self.result[..self.filled]
    }
}

impl Mlp {
    /// Layers of these widths, inputs first, whose parameters begin at `start`
    pub fn new(widths: &[usize], activation: Activation, start: usize) -> Self {
        let mut at = start;
        let layer = |pair: &[usize]| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let weight = at..at + inputs * outputs;
            let bias = weight.end..weight.end + outputs;
            at = bias.end;
            Layer { inputs, outputs, weight, bias }
        };
        Self { layers: widths.windows(2).map(layer).collect(), activation }
    }

    /// Its layers, the first one first
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What stands between its layers
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Where its parameters end
    pub fn end(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.bias.end)
    }

    /// Numbers in
    pub fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    /// Numbers out
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    /// Orthogonal weights, √2 times in the hidden layers and `gain` times in the last one; biases 0
    pub fn init_orthogonal(&self, params: &mut [f32], gain: f64, rng: &mut Pcg64) {
        for (at, layer) in self.layers.iter().enumerate() {
            let gain = if at + 1 == self.layers.len() { gain } else { 2.0_f64.sqrt() };
            orthogonal(layer.outputs, layer.inputs, gain, rng, &mut params[layer.weight.clone()]);
            params[layer.bias.clone()].fill(0.0);
        }
    }

    /// Weights and biases uniform within ±1/√inputs, PyTorch's own start of a linear layer
    pub fn init_uniform(&self, params: &mut [f32], rng: &mut Pcg64) {
        for layer in &self.layers {
            let bound = 1.0 / (layer.inputs as f64).sqrt();
            for param in &mut params[layer.weight.start..layer.bias.end] {
                *param = rng.uniform(-bound, bound) as f32;
            }
        }
    }

    /// Buffers for up to `rows` rows
    pub fn cache(&self, rows: usize) -> MlpCache {
        let widest = self.layers.iter().map(|layer| layer.inputs.max(layer.outputs)).max().unwrap_or(0);
        let buffer = |width: usize| Aligned::new(panels::space(rows, width));
        MlpCache {
            inputs: buffer(self.inputs()),
            outputs: self.layers.iter().map(|layer| buffer(layer.outputs)).collect(),
            gradients: [buffer(widest), buffer(widest)],
            result: vec![0.0; rows * self.outputs()],
            filled: 0,
            by_inputs: vec![0.0; rows * self.inputs()],
            scratch: Scratch::default(),
        }
    }

    /// The outputs, (rows, outputs)
    pub fn forward<'c>(&self, params: &[f32], rows: usize, x: &[f32], cache: &'c mut MlpCache) -> &'c [f32] {
        let MlpCache { inputs, outputs, result, filled, scratch, .. } = cache;
        *filled = rows * self.outputs();
        let lies_in_panels = panels::pays(rows);
        if lies_in_panels {
            panels::gather(rows, self.inputs(), x, inputs);
        }
        for (at, layer) in self.layers.iter().enumerate() {
            let (before, after) = outputs.split_at_mut(at);
            let first = if lies_in_panels { &**inputs } else { x };
            let x = before.last().map_or(first, |x| x);
            let (w, b) = (&params[layer.weight.clone()], &params[layer.bias.clone()]);
            let is_hidden = at + 1 < self.layers.len();
            let rectify = is_hidden && self.activation == Activation::Relu;
            let y = if lies_in_panels {
                let y = &mut after[0][..panels::space(rows, layer.outputs)];
                panels::linear(rows, x, w, b, rectify, y, scratch);
                y
            } else {
                let y = &mut after[0][..rows * layer.outputs];
                mlp::linear(rows, x, w, b, y);
                if rectify {
                    mlp::relu(y);
                }
                y
            };
            if is_hidden && self.activation == Activation::Tanh {
                mlp::tanh(y);
            }
        }
        let last = &outputs[self.layers.len() - 1];
        if lies_in_panels {
            panels::scatter(rows, self.outputs(), last, result);
        } else {
            result[..*filled].copy_from_slice(&last[..*filled]);
        }
        cache.outputs()
    }

    /// The way back after [`Mlp::forward`] with the same rows: overwrites this network's part of `grads`
    pub fn backward(
        &self,
        params: &[f32],
        rows: usize,
        x: &[f32],
        grad_outputs: &[f32],
        cache: &mut MlpCache,
        grads: &mut [f32],
    ) {
        self.way_back(params, rows, x, grad_outputs, cache, Some(grads));
    }

    /// The way back with the parameters held, for a network that is looked through and does not learn: the gradient in
    /// the inputs, (rows, inputs), after [`Mlp::forward`] with the same rows
    pub fn backward_inputs<'c>(
        &self,
        params: &[f32],
        rows: usize,
        grad_outputs: &[f32],
        cache: &'c mut MlpCache,
    ) -> &'c [f32] {
        self.way_back(params, rows, &[], grad_outputs, cache, None);
        let MlpCache { gradients, by_inputs, .. } = cache;
        let by_inputs = &mut by_inputs[..rows * self.inputs()];
        if panels::pays(rows) {
            panels::scatter(rows, self.inputs(), &gradients[0], by_inputs);
        } else {
            by_inputs.copy_from_slice(&gradients[0][..rows * self.inputs()]);
        }
        by_inputs
    }

    /// From the last layer to the first, into `grads`, or else into the inputs, whose gradient is left in the first buffer
    fn way_back(
        &self,
        params: &[f32],
        rows: usize,
        x: &[f32],
        grad_outputs: &[f32],
        cache: &mut MlpCache,
        mut grads: Option<&mut [f32]>,
    ) {
        let MlpCache { inputs, outputs, gradients: [current, next], scratch, .. } = cache;
        let lies_in_panels = panels::pays(rows);
        if lies_in_panels {
            panels::gather(rows, self.outputs(), grad_outputs, current);
        } else {
            current[..grad_outputs.len()].copy_from_slice(grad_outputs);
        }
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let (w, below) = (&params[layer.weight.clone()], at.checked_sub(1).map(|below| &*outputs[below]));
            let x = below.unwrap_or(if lies_in_panels { inputs } else { x });
            if let Some(grads) = &mut grads {
                let (dw, db) = grads[layer.weight.start..layer.bias.end].split_at_mut(layer.weight.len());
                if lies_in_panels {
                    panels::linear_backward_weights(rows, x, current, dw, db, scratch);
                } else {
                    mlp::linear_backward(rows, x, w, current, dw, db, None);
                }
                if at == 0 {
                    return;
                }
            }
            if lies_in_panels {
                // ReLU's slope is 0 or 1: it is applied while the sums are in registers
                let mask = below.filter(|_| self.activation == Activation::Relu);
                panels::linear_backward_input(rows, layer.inputs, w, current, mask, next, scratch);
            } else {
                mlp::linear_backward_input(rows, layer.inputs, w, current, next);
            }
            let n = if lies_in_panels { panels::space(rows, layer.inputs) } else { rows * layer.inputs };
            if let Some(y) = below.filter(|_| !lies_in_panels || self.activation != Activation::Relu) {
                self.activation.backward(&y[..n], &mut next[..n]);
            }
            std::mem::swap(current, next);
        }
    }

    /// How the outputs move as the parameters move along `tangent`, J v, after [`Mlp::forward`] with the same rows
    ///
    /// # Shapes
    /// params, tangent alike; x (rows, inputs) → (rows, outputs)
    pub fn directional(&self, params: &[f32], tangent: &[f32], rows: usize, x: &[f32], cache: &MlpCache) -> Vec<f32> {
        let lies_in_panels = panels::pays(rows);
        let mut scratch = Scratch::default();
        let mut affine = |x: &[f32], w: &[f32], b: &[f32]| {
            if lies_in_panels {
                let mut y = vec![0.0; panels::space(rows, b.len())];
                panels::linear(rows, x, w, b, false, &mut y, &mut scratch);
                y
            } else {
                let mut y = vec![0.0; rows * b.len()];
                mlp::linear(rows, x, w, b, &mut y);
                y
            }
        };
        let mut moved: Option<Vec<f32>> = None;
        for (at, layer) in self.layers.iter().enumerate() {
            let first = if lies_in_panels { &*cache.inputs } else { x };
            let x = if at == 0 { first } else { &*cache.outputs[at - 1] };
            // d(Wx + b) = dW x + db + W dx
            let mut y = affine(x, &tangent[layer.weight.clone()], &tangent[layer.bias.clone()]);
            if let Some(dx) = &moved {
                vector::add(&mut y, &affine(dx, &params[layer.weight.clone()], &vec![0.0; layer.outputs]));
            }
            if at + 1 < self.layers.len() {
                let outputs = &cache.outputs[at][..y.len()];
                self.activation.backward(outputs, &mut y);
            }
            moved = Some(y);
        }
        let moved = moved.unwrap_or_default();
        if !lies_in_panels {
            return moved;
        }
        let mut outputs = vec![0.0; rows * self.outputs()];
        panels::scatter(rows, self.outputs(), &moved, &mut outputs);
        outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::random::standard_normal;

    #[test]
    fn gradients_are_the_differences_of_the_loss() {
        for activation in [Activation::Tanh, Activation::Relu] {
            let mlp = Mlp::new(&[3, 5, 4, 2], activation, 2);
            let mut params = vec![0.0; mlp.end()];
            let mut rng = Pcg64::new(1);
            mlp.init_uniform(&mut params, &mut rng);
            let x: Vec<f32> = (0..12).map(|_| standard_normal(&mut rng) as f32).collect();
            let weights: Vec<f32> = (0..8).map(|_| standard_normal(&mut rng) as f32).collect();
            let mut cache = mlp.cache(4);
            let mut loss = |params: &[f32]| -> f64 {
                let y = mlp.forward(params, 4, &x, &mut cache);
                y.iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
            };
            let mut numeric = vec![0.0; params.len()];
            for at in 2..params.len() {
                let mut moved = params.clone();
                moved[at] += 1e-2;
                let above = loss(&moved);
                moved[at] -= 2e-2;
                numeric[at] = (above - loss(&moved)) / 2e-2;
            }
            let mut grads = vec![0.0; params.len()];
            mlp.forward(&params, 4, &x, &mut cache);
            mlp.backward(&params, 4, &x, &weights, &mut cache, &mut grads);
            // A kink of relu within the difference shows in few places; a wrong formula shows everywhere
            let wrong = (2..params.len()).filter(|&at| (f64::from(grads[at]) - numeric[at]).abs() > 2e-3).count();
            assert!(wrong <= 2, "{activation:?}: {wrong} of {} gradients differ", params.len());
            let by_inputs = mlp.backward_inputs(&params, 4, &weights, &mut cache).to_vec();
            for (at, found) in by_inputs.iter().enumerate() {
                let mut at_step = |step: f32| -> f64 {
                    let mut moved = x.clone();
                    moved[at] += step;
                    let y = mlp.forward(&params, 4, &moved, &mut cache);
                    y.iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
                };
                let numeric = (at_step(1e-3) - at_step(-1e-3)) / 2e-3;
                assert!((f64::from(*found) - numeric).abs() < 2e-3, "{activation:?}: input {at}");
            }
        }
    }

    /// Eight rows at a time lie in rows, forty in panels
    #[test]
    fn a_large_batch_is_its_rows() {
        let near = |found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{a} for {b}"));
        };
        for activation in [Activation::Tanh, Activation::Relu] {
            let mlp = Mlp::new(&[3, 50, 20, 2], activation, 1);
            let (mut params, mut rng) = (vec![0.0; mlp.end()], Pcg64::new(3));
            mlp.init_uniform(&mut params, &mut rng);
            let mut normal = |n: usize| (0..n).map(|_| standard_normal(&mut rng) as f32).collect::<Vec<f32>>();
            let (x, g, tangent) = (normal(120), normal(80), normal(params.len()));
            let (mut all, mut few) = (mlp.cache(40), mlp.cache(8));
            mlp.forward(&params, 40, &x, &mut all);
            let moved = mlp.directional(&params, &tangent, 40, &x, &all);
            let (mut grads, mut sum, mut part) = (tangent.clone(), vec![0.0; params.len()], vec![0.0; params.len()]);
            mlp.backward(&params, 40, &x, &g, &mut all, &mut grads);
            let by_inputs = mlp.backward_inputs(&params, 40, &g, &mut all).to_vec();
            for (eight, (x, g)) in x.chunks_exact(24).zip(g.chunks_exact(16)).enumerate() {
                let rows = 16 * eight..16 * (eight + 1);
                near(&all.outputs()[rows.clone()], mlp.forward(&params, 8, x, &mut few));
                near(&moved[rows], &mlp.directional(&params, &tangent, 8, x, &few));
                near(&by_inputs[24 * eight..24 * (eight + 1)], mlp.backward_inputs(&params, 8, g, &mut few));
                mlp.backward(&params, 8, x, g, &mut few, &mut part);
                vector::add(&mut sum, &part);
            }
            near(&grads[1..], &sum[1..]);
            assert_eq!(grads[0], tangent[0], "what lies before the network is not touched");
        }
    }
}
