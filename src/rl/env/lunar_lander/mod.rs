//! LunarLander: touch down between two flags, on as little fuel as possible.
//!
//! The physics are Box2D's 2.4.2, in f32; Gymnasium's are its 2.3.10. Observations agree until the ground is touched,
//! and what happens there agrees in distribution.

mod flight;
mod joint;
mod terrain;
mod vector;
mod world;

use self::world::{Contacts, World};
use crate::error::{Error, Result};
use crate::rl::env::kwargs::KwargReader;
use crate::rl::env::native::{Dynamics, continuous, discrete};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Space, VecStep};

const FPS: f64 = 50.0;
/// Units of the drawings in a metre, from which all lengths come
const SCALE: f64 = 30.0;
const WIDTH: f64 = 600.0 / SCALE;
const HEIGHT: f64 = 400.0 / SCALE;
const HELIPAD_Y: f64 = HEIGHT / 4.0;
const LEG_DOWN: f64 = 18.0 / SCALE;

const MAIN_ENGINE_POWER: f64 = 13.0;
const MAIN_ENGINE_Y: f64 = 4.0 / SCALE;
const SIDE_ENGINE_POWER: f64 = 0.6;
const SIDE_ENGINE_HEIGHT: f64 = 14.0 / SCALE;
const SIDE_ENGINE_AWAY: f64 = 12.0 / SCALE;
/// Where a side engine pushes, which is not its height: the task has kept this number from its first version
const SIDE_ENGINE_OFFSET: f64 = 17.0 / SCALE;

/// What one action asks of the engines
#[derive(Debug, Clone, Copy, PartialEq)]
struct Thrust {
    /// 0, or from 0.5 to 1
    main: f64,
    /// 0, or from 0.5 to 1
    side: f64,
    /// -1 to the left, 1 to the right
    direction: f64,
}

impl Thrust {
    const NONE: Self = Self { main: 0.0, side: 0.0, direction: 0.0 };

    fn of_discrete(action: u32) -> Self {
        match action {
            2 => Self { main: 1.0, ..Self::NONE },
            1 => Self { side: 1.0, direction: -1.0, ..Self::NONE },
            3 => Self { side: 1.0, direction: 1.0, ..Self::NONE },
            _ => Self::NONE,
        }
    }

    fn of_continuous(action: [f32; 2]) -> Self {
        let [main, side] = action.map(|throttle| f64::from(throttle).clamp(-1.0, 1.0));
        Self {
            main: if main > 0.0 { (main + 1.0) * 0.5 } else { 0.0 },
            side: if side.abs() > 0.5 { side.abs() } else { 0.0 },
            direction: side.signum(),
        }
    }
}

/// Wind and turbulence, which Gymnasium leaves out unless asked
#[derive(Debug, Clone, Copy)]
struct Wind {
    power: f64,
    turbulence: f64,
}

/// One lander in its world
struct Lander {
    world: World,
    shaping: Option<f64>,
    /// Where in the pattern of wind and of turbulence it is
    wind_index: i64,
    torque_index: i64,
}

pub(crate) struct LunarLander {
    landers: Vec<Option<Lander>>,
    gravity: f64,
    wind: Option<Wind>,
    is_continuous: bool,
}

impl LunarLander {
    pub(crate) fn new(num_envs: usize, kwargs: &mut KwargReader<'_>, is_continuous: bool) -> Result<Self> {
        let is_continuous = kwargs.bool("continuous", is_continuous)?;
        let gravity = kwargs.number("gravity", -10.0)?;
        if !(gravity > -12.0 && gravity < 0.0) {
            return Err(Error::usage(format!("`gravity` must lie between -12 and 0, got {gravity}")));
        }
        let enable_wind = kwargs.bool("enable_wind", false)?;
        let power = kwargs.number("wind_power", 15.0)?;
        let turbulence = kwargs.number("turbulence_power", 1.5)?;
        let wind = enable_wind.then_some(Wind { power, turbulence });
        Ok(Self { landers: (0..num_envs).map(|_| None).collect(), gravity, wind, is_continuous })
    }
}

/// Never periodic, between -1 and 1
fn gust(index: i64) -> f64 {
    let index = index as f64;
    ((0.02 * index).sin() + (std::f64::consts::PI * 0.01 * index).sin()).tanh()
}

impl Lander {
    fn new(gravity: f64, has_wind: bool, rng: &mut Pcg64) -> Self {
        let world = World::new(gravity, rng);
        let mut index = || if has_wind { rng.integers(-9999, 9999) } else { 0 };
        let (wind_index, torque_index) = (index(), index());
        Self { world, shaping: None, wind_index, torque_index }
    }

    /// Writes the observation; gives reward and termination
    fn step(&mut self, thrust: Thrust, wind: Option<Wind>, rng: &mut Pcg64, observation: &mut [f32]) -> (f64, bool) {
        if let Some(wind) = wind.filter(|_| !self.world.contacts().legs.contains(&true)) {
            self.world.push(gust(self.wind_index) * wind.power, gust(self.torque_index) * wind.turbulence);
            self.wind_index += 1;
            self.torque_index += 1;
        }
        self.fire(thrust, rng);
        self.world.step();

        let state = self.state();
        observation.copy_from_slice(&state.map(|number| number as f32));
        let [x, y, x_dot, y_dot, angle, _, leg1, leg2] = state;
        let shaping =
            -100.0 * (x * x + y * y).sqrt() - 100.0 * (x_dot * x_dot + y_dot * y_dot).sqrt() - 100.0 * angle.abs()
                + 10.0 * leg1
                + 10.0 * leg2;
        let gained = self.shaping.replace(shaping).map_or(0.0, |before| shaping - before);
        let reward = gained - thrust.main * 0.3 - thrust.side * 0.03;
        if !self.world.is_awake() {
            (100.0, true)
        } else if self.world.contacts().crashed || x.abs() >= 1.0 {
            (-100.0, true)
        } else {
            (reward, false)
        }
    }

    fn fire(&mut self, thrust: Thrust, rng: &mut Pcg64) {
        let tip = self.world.angle().sin_cos();
        let side = (-tip.1, tip.0);
        // Drawn without thrust too
        let dispersion = [(); 2].map(|()| rng.uniform(-1.0, 1.0) / SCALE);
        let at = self.world.position();
        if thrust.main > 0.0 {
            let along = MAIN_ENGINE_Y + 2.0 * dispersion[0];
            let x = tip.0 * along + side.0 * dispersion[1];
            let y = -tip.1 * along - side.1 * dispersion[1];
            let power = MAIN_ENGINE_POWER;
            self.world.impulse((-x * power * thrust.main, -y * power * thrust.main), (at.0 + x, at.1 + y));
        }
        if thrust.side > 0.0 {
            let away = 3.0 * dispersion[1] + thrust.direction * SIDE_ENGINE_AWAY;
            let x = tip.0 * dispersion[0] + side.0 * away;
            let y = -tip.1 * dispersion[0] - side.1 * away;
            let from = (at.0 + x - tip.0 * SIDE_ENGINE_OFFSET, at.1 + y + tip.1 * SIDE_ENGINE_HEIGHT);
            let power = SIDE_ENGINE_POWER;
            self.world.impulse((-x * power * thrust.side, -y * power * thrust.side), from);
        }
    }

    fn state(&self) -> [f64; 8] {
        let (x, y) = self.world.position();
        let (x_dot, y_dot) = self.world.velocity();
        let Contacts { legs, .. } = self.world.contacts();
        let [leg1, leg2] = legs.map(|touches| f64::from(u8::from(touches)));
        [
            (x - WIDTH / 2.0) / (WIDTH / 2.0),
            (y - (HELIPAD_Y + LEG_DOWN)) / (HEIGHT / 2.0),
            x_dot * (WIDTH / 2.0) / FPS,
            y_dot * (HEIGHT / 2.0) / FPS,
            self.world.angle(),
            20.0 * self.world.angular_velocity() / FPS,
            leg1,
            leg2,
        ]
    }
}

impl Dynamics for LunarLander {
    fn observation_space(&self) -> Space {
        let bounds = [2.5, 2.5, 10.0, 10.0, 2.0 * std::f32::consts::PI, 10.0];
        let low: Vec<_> = bounds.iter().map(|bound| -bound).chain([0.0, 0.0]).collect();
        let high: Vec<_> = bounds.into_iter().chain([1.0, 1.0]).collect();
        Space::vector(&low, &high)
    }

    fn action_space(&self) -> Space {
        if self.is_continuous { Space::symmetric(&[1.0, 1.0]) } else { Space::Discrete { n: 4 } }
    }

    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]) {
        let mut lander = Lander::new(self.gravity, self.wind.is_some(), rng);
        // What is first seen follows a step without thrust
        lander.step(Thrust::NONE, self.wind, rng, observation);
        self.landers[i] = Some(lander);
    }

    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Pcg64], out: &mut VecStep) {
        for (i, lander) in self.landers.iter_mut().enumerate() {
            let lander = lander.as_mut().expect("every lander was reset");
            let thrust = if self.is_continuous {
                let action = &continuous(actions)[2 * i..];
                Thrust::of_continuous([action[0], action[1]])
            } else {
                Thrust::of_discrete(discrete(actions)[i])
            };
            let observation = &mut out.final_obs[8 * i..][..8];
            (out.rewards[i], out.terminated[i]) = lander.step(thrust, self.wind, &mut rngs[i], observation);
        }
    }
}
