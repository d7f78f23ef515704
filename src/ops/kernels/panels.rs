//! Layers of perceptrons on a batch whose rows stand side by side, forward and back, on one thread.
//!
//! A batch lies in panels of 32 rows, feature after feature: number (row, feature) of a panel at 32 · feature + row. One
//! layer's result is then the next one's operand as it stands, and weights are read where they lie; only the gradient in
//! the weights needs one of its operands turned round. Bias and ReLU are applied while the sums are in registers.
//!
//! ReLU leaves units that no row of a panel wakes. Their gradients are exactly 0: they are left out of the sums, which
//! changes no byte of the result. In trained critics that is every second unit.

mod tile;
mod turn;
mod wake;

use tile::{Finish, Terms, Tile};

use super::aligned::Aligned;
use super::simd;

/// Rows of a panel: two vectors
pub const LANES: usize = 32;

/// Whether a batch is large enough to lie in panels
pub fn pays(rows: usize) -> bool {
    rows >= LANES
}

/// Numbers that a batch of so many rows takes in panels
pub fn space(rows: usize, width: usize) -> usize {
    rows.next_multiple_of(LANES) * width
}

/// Lists and copies that a product needs on its way
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// Where the operands of each term of a sum lie
    terms: Terms,
    /// Rows of the result
    rows: Vec<u32>,
    /// Panel by panel, whether a unit has a gradient in any of its rows
    awake: Vec<bool>,
    turned: Aligned,
    product: Aligned,
}

/// x (rows, width) into panels, rows that are missing in the last one 0
pub fn gather(rows: usize, width: usize, x: &[f32], panels: &mut [f32]) {
    let panels = &mut panels[..space(rows, width)];
    for (p, panel) in panels.chunks_exact_mut(LANES * width).enumerate() {
        let x = &x[p * LANES * width..(rows * width).min((p + 1) * LANES * width)];
        for (feature, lanes) in panel.chunks_exact_mut(LANES).enumerate() {
            lanes.fill(0.0);
            for (lane, row) in lanes.iter_mut().zip(x.chunks_exact(width)) {
                *lane = row[feature];
            }
        }
    }
}

/// The way back of [`gather`]
pub fn scatter(rows: usize, width: usize, panels: &[f32], x: &mut [f32]) {
    for (p, x) in x[..rows * width].chunks_mut(LANES * width).enumerate() {
        for (feature, lanes) in panels[p * LANES * width..][..LANES * width].chunks_exact(LANES).enumerate() {
            for (row, lane) in x.chunks_exact_mut(width).zip(lanes) {
                row[feature] = *lane;
            }
        }
    }
}

/// y = x Wᵀ + b, and max(y, 0) where it is to `rectify`
///
/// # Shapes
/// x (rows, inputs) and y (rows, outputs) in panels, w (outputs, inputs), b (outputs,)
pub fn linear(rows: usize, x: &[f32], w: &[f32], b: &[f32], rectify: bool, y: &mut [f32], scratch: &mut Scratch) {
    let (outputs, inputs) = (b.len(), w.len() / b.len());
    scratch.terms.fill((0..inputs).map(|k| [k as u32, (k * LANES) as u32]));
    scratch.all_rows(outputs);
    let panels = x[..space(rows, inputs)].chunks_exact(inputs * LANES);
    for (x, y) in panels.zip(y[..space(rows, outputs)].chunks_exact_mut(outputs * LANES)) {
        let finish = Finish::Bias { b, rectify };
        Tile { a: w, row: inputs, b: x, terms: &scratch.terms, stride: LANES, width: LANES, finish }
            .multiply(&scratch.rows, y);
    }
}

/// dx = g W, and 0 where the ReLU that gave `y` was silent
///
/// # Shapes
/// g (rows, outputs), y and dx (rows, inputs) in panels
pub fn linear_backward_input(
    rows: usize,
    inputs: usize,
    w: &[f32],
    g: &[f32],
    y: Option<&[f32]>,
    dx: &mut [f32],
    scratch: &mut Scratch,
) {
    let outputs = w.len() / inputs;
    scratch.all_rows(inputs);
    let g = &g[..space(rows, outputs)];
    scratch.wake(g);
    let panels = g.chunks_exact(outputs * LANES).zip(scratch.awake.chunks_exact(outputs));
    for (p, ((g, awake), dx)) in panels.zip(dx[..space(rows, inputs)].chunks_exact_mut(inputs * LANES)).enumerate() {
        let awake = awake.iter().enumerate().filter(|(_, awake)| **awake);
        scratch.terms.fill(awake.map(|(o, _)| [(o * inputs) as u32, (o * LANES) as u32]));
        let finish = match y {
            Some(y) => Finish::Mask(&y[p * inputs * LANES..][..inputs * LANES]),
            None => Finish::Plain,
        };
        Tile { a: w, row: 1, b: g, terms: &scratch.terms, stride: LANES, width: LANES, finish }
            .multiply(&scratch.rows, dx);
    }
}

/// dW = gᵀx and db = Σ g, overwritten
///
/// # Shapes
/// g (rows, outputs) and x (rows, inputs) in panels, whose missing rows are 0 in g
pub fn linear_backward_weights(
    rows: usize,
    x: &[f32],
    g: &[f32],
    dw: &mut [f32],
    db: &mut [f32],
    scratch: &mut Scratch,
) {
    let (outputs, inputs) = (db.len(), dw.len() / db.len());
    let (x, g) = (&x[..space(rows, inputs)], &g[..space(rows, outputs)]);
    sums(g, db);
    scratch.wake(g);
    let Scratch { terms, rows: chosen, awake, turned, product } = scratch;
    chosen.clear();
    // The longer side goes along the vectors: what lies in rows there is turned round
    if 4 * inputs <= outputs {
        turn::turn(rows, outputs, g, turned.at_least(space(rows, outputs.next_multiple_of(LANES))));
        chosen.extend(0..inputs as u32);
        let product = product.at_least(inputs * outputs);
        gradients(rows, (inputs, outputs), x, turned, terms, chosen, product);
        for (i, row) in product.chunks_exact(outputs).take(inputs).enumerate() {
            dw.iter_mut().skip(i).step_by(inputs).zip(row).for_each(|(to, from)| *to = *from);
        }
        return;
    }
    turn::turn(rows, inputs, x, turned.at_least(space(rows, inputs.next_multiple_of(LANES))));
    for (o, dw) in dw.chunks_exact_mut(inputs).enumerate() {
        if awake.iter().skip(o).step_by(outputs).any(|awake| *awake) {
            chosen.push(o as u32);
        } else {
            dw.fill(0.0);
        }
    }
    gradients(rows, (outputs, inputs), g, turned, terms, chosen, dw);
}

/// c (high, wide) ← Aᵀ B in the chosen rows, with A (rows, high) in panels and B (rows, wide) turned round
fn gradients(
    rows: usize,
    (high, wide): (usize, usize),
    a: &[f32],
    turned: &[f32],
    terms: &mut Terms,
    chosen: &[u32],
    c: &mut [f32],
) {
    terms.fill((0..rows).map(|r| [(r / LANES * high * LANES + r % LANES) as u32, (r * LANES) as u32]));
    let panel = rows.next_multiple_of(LANES) * LANES;
    for (column, b) in (0..wide).step_by(LANES).zip(turned.chunks_exact(panel)) {
        let width = LANES.min(wide - column);
        Tile { a, row: LANES, b, terms, stride: wide, width, finish: Finish::Plain }.multiply(chosen, &mut c[column..]);
    }
}

impl Scratch {
    fn all_rows(&mut self, rows: usize) {
        self.rows.clear();
        self.rows.extend(0..rows as u32);
    }

    fn wake(&mut self, g: &[f32]) {
        self.awake.resize(g.len() / LANES, false);
        wake::wake(g, &mut self.awake);
    }
}

simd! {
    /// Sums over the rows of g, in panels
    pub fn sums(g: &[f32], db: &mut [f32]) {
        let outputs = db.len();
        for (o, db) in db.iter_mut().enumerate() {
            let mut lanes = [0.0_f32; LANES];
            for panel in g.chunks_exact(outputs * LANES) {
                for (lane, g) in lanes.iter_mut().zip(&panel[o * LANES..(o + 1) * LANES]) {
                    *lane += g;
                }
            }
            *db = lanes.iter().sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernels::mlp;
    use crate::ops::kernels::testing::numbers;

    fn in_panels(rows: usize, width: usize, x: &[f32]) -> Vec<f32> {
        // What is in the buffer before must not matter
        let mut panels = vec![f32::NAN; space(rows, width)];
        gather(rows, width, x, &mut panels);
        panels
    }

    fn in_rows(rows: usize, width: usize, panels: &[f32]) -> Vec<f32> {
        let mut x = vec![f32::NAN; rows * width];
        scatter(rows, width, panels, &mut x);
        x
    }

    fn near(name: &str, found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (at, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() < 2e-5 * (1.0 + b.abs()), "{name} {at}: {a} for {b}");
        }
    }

    #[test]
    fn layers_are_those_of_a_batch_in_rows() {
        for (rows, inputs, outputs) in
            [(32, 1, 1), (33, 3, 40), (70, 40, 3), (128, 64, 50), (41, 33, 100), (64, 100, 1)]
        {
            let (x, w, b) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2), numbers(outputs, 3));
            let mut g = numbers(rows * outputs, 4);
            // A unit that never wakes, and one that wakes in the first panel only
            for (row, g) in g.chunks_exact_mut(outputs).enumerate() {
                g[0] = if outputs > 2 { 0.0 } else { g[0] };
                g[outputs / 2] = if row >= LANES && outputs > 2 { -0.0 } else { g[outputs / 2] };
            }
            let (mut y, mut dw, mut db) = (vec![0.0; rows * outputs], vec![0.0; w.len()], vec![0.0; outputs]);
            let mut dx = vec![0.0; rows * inputs];
            mlp::linear(rows, &x, &w, &b, &mut y);
            mlp::linear_backward(rows, &x, &w, &g, &mut dw, &mut db, Some(&mut dx));

            let (xp, gp) = (in_panels(rows, inputs, &x), in_panels(rows, outputs, &g));
            let mut scratch = Scratch::default();
            let mut yp = vec![f32::NAN; space(rows, outputs)];
            linear(rows, &xp, &w, &b, false, &mut yp, &mut scratch);
            near("y", &in_rows(rows, outputs, &yp), &y);
            linear(rows, &xp, &w, &b, true, &mut yp, &mut scratch);
            mlp::relu(&mut y);
            near("max(y, 0)", &in_rows(rows, outputs, &yp), &y);

            let (mut dwp, mut dbp) = (vec![f32::NAN; w.len()], vec![f32::NAN; outputs]);
            linear_backward_weights(rows, &xp, &gp, &mut dwp, &mut dbp, &mut scratch);
            near("dw", &dwp, &dw);
            near("db", &dbp, &db);
            let mut dxp = vec![f32::NAN; space(rows, inputs)];
            linear_backward_input(rows, inputs, &w, &gp, None, &mut dxp, &mut scratch);
            near("dx", &in_rows(rows, inputs, &dxp), &dx);
            linear_backward_input(rows, inputs, &w, &gp, Some(&xp), &mut dxp, &mut scratch);
            mlp::relu_backward(&x, &mut dx);
            near("dx where x > 0", &in_rows(rows, inputs, &dxp), &dx);
        }
    }

    #[test]
    fn missing_rows_have_no_gradient() {
        let (rows, inputs, outputs) = (35, 4, 6);
        let (x, w, g) = (numbers(space(rows, inputs), 1), numbers(24, 2), numbers(rows * outputs, 3));
        let g = in_panels(rows, outputs, &g);
        let mut dx = vec![f32::NAN; x.len()];
        linear_backward_input(rows, inputs, &w, &g, None, &mut dx, &mut Scratch::default());
        assert!(dx.chunks_exact(LANES).skip(inputs).all(|lanes| lanes[rows - LANES..].iter().all(|g| *g == 0.0)));
    }
}
