//! The inner loop of [`super`]: a few rows of a result times 32 columns, all sums in registers.

use super::LANES;
use crate::ops::kernels::{Simd, simd, simd_level};

/// What is done to sums before they are stored
#[derive(Clone, Copy)]
pub enum Finish<'t> {
    /// Nothing
    Plain,
    /// A number for every row is added, and what is below 0 is cut off where it is to `rectify`
    Bias {
        /// One number a row
        b: &'t [f32],
        /// Whether max(sum, 0) is stored
        rectify: bool,
    },
    /// 0 is stored where these numbers, which lie as the result does, are not above 0
    Mask(&'t [f32]),
}

/// Where the numbers of a sum's terms lie in both operands
#[derive(Debug, Clone, Default)]
pub struct Terms {
    places: Vec<[u32; 2]>,
    /// The last place in either operand
    ends: [usize; 2],
}

impl Terms {
    /// These, in place of what was there
    pub fn fill(&mut self, places: impl Iterator<Item = [u32; 2]>) {
        self.places.clear();
        self.places.extend(places);
        let ends = self.places.iter().fold([0, 0], |most, x| [most[0].max(x[0]), most[1].max(x[1])]);
        self.ends = ends.map(|end| end as usize);
    }
}

/// C (row, column) = Σ over `terms` of a[row · `row` + first] · b[second + column]
#[derive(Clone, Copy)]
pub struct Tile<'t> {
    /// Numbers that are broadcast
    pub a: &'t [f32],
    /// Distance in `a` from one row of the result to the next
    pub row: usize,
    /// Vectors of [`LANES`]
    pub b: &'t [f32],
    /// Where their numbers lie
    pub terms: &'t Terms,
    /// Distance between rows of the result
    pub stride: usize,
    /// Columns of the result, at most [`LANES`]
    pub width: usize,
    /// What comes last
    pub finish: Finish<'t>,
}

impl Tile<'_> {
    /// The chosen rows of the result, into `c`
    pub fn multiply(&self, rows: &[u32], c: &mut [f32]) {
        self.multiply_at(simd_level(), rows, c);
    }

    /// The same with the loop of this level, which the processor must have
    fn multiply_at(&self, level: Simd, rows: &[u32], c: &mut [f32]) {
        if rows.is_empty() {
            return;
        }
        let (last, ends) = (largest(rows) as usize, self.terms.ends);
        if !self.terms.places.is_empty() {
            assert!(last * self.row + ends[0] < self.a.len(), "a row outside its operand");
            assert!(ends[1] + LANES <= self.b.len(), "a column outside its operand");
        }
        assert!(self.width <= LANES && last * self.stride + self.width <= c.len(), "a result outside its slice");
        match self.finish {
            Finish::Plain => {}
            Finish::Bias { b, .. } => assert!(last < b.len(), "a row without a bias"),
            Finish::Mask(y) => assert!(last * self.stride + self.width <= y.len(), "a row without a mask"),
        }
        macro_rules! run {
            ($name:path, $most:literal, $($count:literal)*) => {
                for rows in rows.chunks($most) {
                    $(if let Ok(rows) = <&[u32; $count]>::try_from(rows) {
                        // SAFETY: rows, columns and terms are in bounds; the loop is for this processor
                        unsafe { $name(self, rows, c.as_mut_ptr()) }
                    })*
                }
            };
        }
        match level {
            #[cfg(target_arch = "x86_64")]
            Simd::V4 => run!(avx512::tile, 8, 1 2 3 4 5 6 7 8),
            #[cfg(target_arch = "x86_64")]
            Simd::V3 => run!(avx2, 2, 1 2),
            _ => run!(baseline, 2, 1 2),
        }
    }
}

simd! {
    /// The largest one
    pub fn largest(x: &[u32]) -> u32 {
        x.iter().fold(0, |most, x| most.max(*x))
    }
}

/// # Safety
/// The operands and `c` must have these rows
#[inline(always)]
unsafe fn plain<const R: usize>(t: &Tile, rows: &[u32; R], c: *mut f32, multiply_add: impl Fn(f32, f32, f32) -> f32) {
    let mut sums = [[0.0_f32; LANES]; R];
    // SAFETY: all places are in bounds by the caller's promise
    unsafe {
        let row = |r: usize| rows[r] as usize;
        for term in &t.terms.places {
            let b = &*t.b.as_ptr().add(term[1] as usize).cast::<[f32; LANES]>();
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = *t.a.as_ptr().add(row(r) * t.row + term[0] as usize);
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = multiply_add(a, *b, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (column, sum) in sums.iter().enumerate().take(t.width) {
                let at = row(r) * t.stride + column;
                *c.add(at) = match t.finish {
                    Finish::Plain => *sum,
                    Finish::Bias { b, rectify } => {
                        let sum = sum + b[row(r)];
                        if rectify && sum <= 0.0 { 0.0 } else { sum }
                    }
                    Finish::Mask(y) if y[at] > 0.0 => *sum,
                    Finish::Mask(_) => 0.0,
                };
            }
        }
    }
}

/// # Safety
/// As for [`plain`]
unsafe fn baseline<const R: usize>(t: &Tile, rows: &[u32; R], c: *mut f32) {
    // SAFETY: the caller's promise
    unsafe { plain(t, rows, c, |a, b, sum| a * b + sum) }
}

/// # Safety
/// As for [`plain`]; the processor must have AVX2
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize>(t: &Tile, rows: &[u32; R], c: *mut f32) {
    // SAFETY: the caller's promise
    unsafe { plain(t, rows, c, f32::mul_add) }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _CMP_GT_OQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };

    use super::{Finish, Tile};
    use crate::ops::kernels::tiles::lane_mask;

    /// # Safety
    /// As for [`super::plain`]; the processor must have AVX-512
    #[target_feature(enable = "avx512f")]
    pub unsafe fn tile<const R: usize>(t: &Tile, rows: &[u32; R], c: *mut f32) {
        // SAFETY: all places are in bounds by the caller's promise; masked lanes are not touched
        unsafe {
            let mut row = [0; R];
            let mut a = [t.a.as_ptr(); R];
            for r in 0..R {
                row[r] = rows[r] as usize;
                a[r] = a[r].add(row[r] * t.row);
            }
            let mut sums = [[_mm512_setzero_ps(); 2]; R];
            for term in &t.terms.places {
                let b = t.b.as_ptr().add(term[1] as usize);
                let [b0, b1] = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))];
                for r in 0..R {
                    let a = _mm512_set1_ps(*a[r].add(term[0] as usize));
                    sums[r][0] = _mm512_fmadd_ps(a, b0, sums[r][0]);
                    sums[r][1] = _mm512_fmadd_ps(a, b1, sums[r][1]);
                }
            }
            let lanes = [lane_mask(t.width), lane_mask(t.width.saturating_sub(16))];
            for r in 0..R {
                for half in 0..2 {
                    let at = row[r] * t.stride + 16 * half;
                    let mut sum = sums[r][half];
                    match t.finish {
                        Finish::Plain => {}
                        Finish::Bias { b, rectify } => {
                            sum = _mm512_add_ps(sum, _mm512_set1_ps(*b.as_ptr().add(row[r])));
                            if rectify {
                                sum = _mm512_max_ps(sum, _mm512_setzero_ps());
                            }
                        }
                        Finish::Mask(y) => {
                            let y = _mm512_maskz_loadu_ps(lanes[half], y.as_ptr().wrapping_add(at));
                            sum = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(y, _mm512_setzero_ps()), sum);
                        }
                    }
                    _mm512_mask_storeu_ps(c.wrapping_add(at), lanes[half], sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_gives_the_sums() {
        let number = |i: usize, by: usize| ((i * by) % 23) as f32 * 0.1 - 1.0;
        let (a, b): (Vec<f32>, Vec<f32>) =
            ((0..40 * 11).map(|i| number(i, 7)).collect(), (0..40 * LANES).map(|i| number(i, 5)).collect());
        let (bias, mask): (Vec<f32>, Vec<f32>) =
            ((0..11).map(|i| number(i, 3)).collect(), (0..11 * 40).map(|i| number(i, 11)).collect());
        // Terms and rows with gaps, as silent units leave them
        let mut terms = Terms::default();
        terms.fill([0, 1, 4, 5, 9, 30, 39].into_iter().map(|k| [k, k * LANES as u32]));
        let rows: Vec<u32> = vec![0, 1, 2, 3, 5, 6, 7, 8, 9, 10];
        let levels = [Simd::Baseline, Simd::V3, Simd::V4];
        let most = levels.iter().position(|level| *level == simd_level()).unwrap();
        for level in &levels[..=most] {
            for (width, finish) in [
                (32, Finish::Plain),
                (7, Finish::Plain),
                (32, Finish::Bias { b: &bias, rectify: false }),
                (20, Finish::Bias { b: &bias, rectify: true }),
                (32, Finish::Mask(&mask)),
                (17, Finish::Mask(&mask)),
            ] {
                let tile = Tile { a: &a, row: 40, b: &b, terms: &terms, stride: 40, width, finish };
                let mut c = vec![9.0; 11 * 40];
                tile.multiply_at(*level, &rows, &mut c);
                for (at, found) in c.iter().enumerate() {
                    let (row, column) = (at / 40, at % 40);
                    let term = |[i, j]: &[u32; 2]| a[row * 40 + *i as usize] * b[*j as usize + column];
                    let sum = || terms.places.iter().map(term).sum::<f32>();
                    let expected = match finish {
                        _ if column >= width || row == 4 => 9.0,
                        Finish::Plain => sum(),
                        Finish::Bias { rectify: true, .. } => (sum() + bias[row]).max(0.0),
                        Finish::Bias { .. } => sum() + bias[row],
                        Finish::Mask(y) => {
                            if y[at] > 0.0 {
                                sum()
                            } else {
                                0.0
                            }
                        }
                    };
                    assert!((found - expected).abs() < 1e-5, "{level:?} ({row}, {column}): {found} for {expected}");
                }
            }
        }
    }

    #[test]
    fn no_terms_are_a_sum_of_0() {
        let tile =
            Tile { a: &[], row: 1, b: &[], terms: &Terms::default(), stride: 32, width: 32, finish: Finish::Plain };
        let mut c = [9.0; 64];
        tile.multiply(&[1], &mut c);
        assert!(c[..32].iter().all(|c| *c == 9.0) && c[32..].iter().all(|c| *c == 0.0));
    }
}
