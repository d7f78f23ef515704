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

#[cfg(test)]
mod tests {
    //! Single steps from given states. Gymnasium computed the expected ones; whole trajectories are in `tests/rl_env.rs`.

    use super::acrobot::Acrobot;
    use super::cartpole::CartPole;
    use super::mountain_car::MountainCar;
    use super::mountain_car_continuous::MountainCarContinuous;
    use super::pendulum::Pendulum;
    use crate::rl::env::kwargs::{KwargReader, Kwargs};
    use crate::rl::env::native::Dynamics;
    use crate::rl::env::rng::Pcg64;
    use crate::rl::env::{Actions, VecStep};

    fn kwargs() -> KwargReader<'static> {
        KwargReader::new("test", &Kwargs::new())
    }

    /// The reward of one step of one environment
    fn step(dynamics: &mut impl Dynamics, action: Actions<'_>) -> f64 {
        let width = dynamics.observation_space().len();
        let mut out = VecStep {
            observations: vec![0.0; width],
            final_obs: vec![0.0; width],
            rewards: vec![0.0],
            terminated: vec![false],
            truncated: vec![false],
        };
        dynamics.step(action, &mut [Pcg64::new(0)], &mut out);
        out.rewards[0]
    }

    fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
        let differs = found.iter().zip(expected).any(|(found, expected)| (found - expected).abs() > tolerance);
        assert!(!differs && found.len() == expected.len(), "found {found:?}, expected {expected:?}");
    }

    #[test]
    fn cartpole() {
        let mut env = CartPole::new(1, &mut kwargs()).unwrap();
        (env.x, env.x_dot, env.theta, env.theta_dot) = (vec![0.01], vec![0.02], vec![0.03], vec![0.04]);
        for (action, expected) in [
            (1, [0.0104, 0.214_679_195_748, 0.0308, -0.243_068_717_96]),
            (1, [0.014_693_583_915, 0.409_347_976_058, 0.025_938_625_640_8, -0.525_879_628_05]),
            (0, [0.022_880_543_436_1, 0.213_870_812_605, 0.015_421_033_079_8, -0.225_137_416_092]),
        ] {
            assert_eq!(step(&mut env, Actions::Discrete(&[action])), 1.0);
            assert_near(&[env.x[0], env.x_dot[0], env.theta[0], env.theta_dot[0]], &expected, 1e-9);
        }
    }

    #[test]
    fn mountain_car() {
        let mut env = MountainCar::new(1, &mut kwargs()).unwrap();
        env.position = vec![-0.5];
        assert_eq!(step(&mut env, Actions::Discrete(&[2])), -1.0);
        assert_near(&[env.position[0], env.velocity[0]], &[-0.499_176_843_004, 0.000_823_156_995_831], 1e-9);
        // The left end is a wall
        (env.position, env.velocity) = (vec![-1.19], vec![-0.06]);
        step(&mut env, Actions::Discrete(&[0]));
        assert_eq!((env.position[0], env.velocity[0]), (-1.2, 0.0));
    }

    #[test]
    fn mountain_car_continuous() {
        let mut env = MountainCarContinuous::new(1, &mut kwargs()).unwrap();
        env.position = vec![-0.5];
        assert_eq!(step(&mut env, Actions::Continuous(&[0.5])), -0.025);
        // The state is f32 from here on
        assert_near(&[env.position[0], env.velocity[0]], &[-0.499_426_841_736, 0.000_573_156_983_592], 1e-7);
        let reward = step(&mut env, Actions::Continuous(&[3.0]));
        assert_near(&[reward], &[-0.9], 1e-12);
    }

    #[test]
    fn pendulum() {
        let mut env = Pendulum::new(1, &mut kwargs()).unwrap();
        (env.theta, env.theta_dot) = (vec![3.0], vec![0.5]);
        for (torque, reward, expected) in [
            (1.5, -9.02725, [3.041_542_000_3, 0.830_840_006_045]),
            (-5.0, -9.324_007_251_167, [3.071_829_643_73, 0.605_752_868_608]),
        ] {
            assert_near(&[step(&mut env, Actions::Continuous(&[torque]))], &[reward], 1e-9);
            assert_near(&[env.theta[0], env.theta_dot[0]], &expected, 1e-9);
        }
    }

    #[test]
    fn acrobot() {
        let mut env = Acrobot::new(1);
        env.set_state(0, [0.1, -0.05, 0.02, 0.03]);
        for (action, expected) in [
            (2, [0.077_571_655_793_4, 0.004_515_209_387_59, -0.237_733_919_006, 0.501_754_807_936]),
            (0, [0.036_566_568_792, 0.072_209_349_792, -0.162_117_505_816, 0.157_638_589_044]),
        ] {
            assert_eq!(step(&mut env, Actions::Discrete(&[action])), -1.0);
            assert_near(&env.state(0), &expected, 1e-9);
        }
    }
}
