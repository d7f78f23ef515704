//! Gymnasium's classic control. States are columns of f64 and observations f32, and every operation stands in
//! Gymnasium's order, because rounding in another order is seen after some hundred chaotic steps.

pub(super) mod acrobot;
pub(super) mod cartpole;
pub(super) mod mountain_car;
pub(super) mod mountain_car_continuous;
pub(super) mod pendulum;

/// `x ** 2` of a numpy scalar: the C library's `pow`, which now and then rounds otherwise than `x * x`.
///
/// The exponent is hidden from the compiler, which would multiply instead
fn squared(x: f64) -> f64 {
    x.powf(std::hint::black_box(2.0))
}
