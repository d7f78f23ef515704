//! Fields over states and actions: tables, linear TD, targets (limits 1 to 5 and 16).

use collimate::grl::field::{Field, MemoryUpdate, StateAction, StepSize};
use collimate::grl::kernel::{Kernel, Point};
use collimate::grl::rf_sarsa::{Form, RfSarsa, Successor, Transition};
use collimate::grl::target::{Backup, Next, boltzmann, double_q, hard_value, soft_value};

use super::{EXACT, Noise, all_close, close, golden, numbers};

const SIDE: usize = 4;
const ACTIONS: usize = 4;
const GAMMA: f64 = 0.95;
const ALPHA: f64 = 0.3;
const EPSILON: f64 = 0.2;

/// A grid with a goal in one corner, a pit, and wind that blows a step astray now and then
fn step(state: usize, action: usize, noise: &mut Noise) -> (f64, usize, bool) {
    let action = if noise.uniform() < 0.1 { noise.below(ACTIONS) } else { action };
    let (row, column) = (state / SIDE, state % SIDE);
    let (row, column) = match action {
        0 => (row.saturating_sub(1), column),
        1 => ((row + 1).min(SIDE - 1), column),
        2 => (row, column.saturating_sub(1)),
        _ => (row, (column + 1).min(SIDE - 1)),
    };
    let next = row * SIDE + column;
    match next {
        15 => (1.0, next, true),
        6 => (-1.0, next, true),
        _ => (-0.01 * (1.0 + noise.uniform()), next, false),
    }
}

fn epsilon_greedy(q: &[f64], noise: &mut Noise) -> usize {
    let explore = noise.uniform() < EPSILON;
    let any = noise.below(ACTIONS);
    if explore { any } else { (1..ACTIONS).fold(0, |best, a| if q[a] > q[best] { a } else { best }) }
}

/// A learner of either kind: all action values of a state, and one update
trait Learner {
    fn q(&self, state: usize) -> [f64; ACTIONS];
    fn learn(&mut self, at: (usize, usize), reward: f64, next: Option<(usize, usize)>);
}

struct Table {
    q: Vec<[f64; ACTIONS]>,
    max: bool,
}

impl Learner for Table {
    fn q(&self, state: usize) -> [f64; ACTIONS] {
        self.q[state]
    }

    fn learn(&mut self, (s, a): (usize, usize), reward: f64, next: Option<(usize, usize)>) {
        let mut target = reward;
        if let Some((s, a)) = next {
            let row = self.q[s];
            target += GAMMA * if self.max { row[0].max(row[1]).max(row[2]).max(row[3]) } else { row[a] };
        }
        self.q[s][a] += ALPHA * (target - self.q[s][a]);
    }
}

fn id(state: usize, action: usize) -> StateAction<'static> {
    StateAction { state: Point::id(state as u64), action: Point::id(action as u64) }
}

impl Learner for RfSarsa {
    fn q(&self, state: usize) -> [f64; ACTIONS] {
        [0, 1, 2, 3].map(|a| self.value(id(state, a)))
    }

    fn learn(&mut self, (s, a): (usize, usize), reward: f64, next: Option<(usize, usize)>) {
        let choices = next.map(|(s, _)| [0, 1, 2, 3].map(|a| id(s, a)));
        let next = next.zip(choices.as_ref()).map(|((_, action), choices)| Successor {
            choices,
            action,
            log_policy: &[],
            log_reference: &[],
        });
        RfSarsa::learn(self, &Transition { at: id(s, a), reward, next }).unwrap();
    }
}

/// Every state and action visited, and the final values to the bit
fn train(learner: &mut dyn Learner, seed: u64, episodes: usize) -> (Vec<(usize, usize)>, Vec<u64>) {
    let mut noise = Noise(seed);
    let mut path = Vec::new();
    for _ in 0..episodes {
        let mut s = 0;
        let mut a = epsilon_greedy(&learner.q(s), &mut noise);
        for _ in 0..100 {
            path.push((s, a));
            let (reward, next, done) = step(s, a, &mut noise);
            let chosen = epsilon_greedy(&learner.q(next), &mut noise);
            learner.learn((s, a), reward, (!done).then_some((next, chosen)));
            (s, a) = (next, chosen);
            if done {
                break;
            }
        }
    }
    (path, (0..SIDE * SIDE).flat_map(|s| learner.q(s).map(f64::to_bits)).collect())
}

fn delta() -> (Kernel, Kernel) {
    (Kernel::Delta { variance: 1.0 }, Kernel::Delta { variance: 1.0 })
}

fn functional() -> Form {
    Form::FunctionalTd { step: StepSize::Constant(ALPHA), novelty: 0.0 }
}

#[test]
fn limits_1_and_2_an_identity_kernel_is_a_table_to_the_bit() {
    for (backup, max) in [(Backup::HardQ, true), (Backup::Sarsa, false)] {
        for seed in [3, 4] {
            let table = train(&mut Table { q: vec![[0.0; ACTIONS]; SIDE * SIDE], max }, seed, 300);
            let mut field = RfSarsa::new(functional(), backup, (GAMMA, 0.0), delta(), 64).unwrap();
            assert!(table == train(&mut field, seed, 300), "{backup:?} with seed {seed} differs from its table");
            assert!(table.0.len() > 2000 && table.1.iter().filter(|bits| **bits != 0).count() > 40);
        }
    }
}

#[test]
fn limit_2_a_step_of_one_over_n_is_the_running_mean() {
    let update = MemoryUpdate::KernelTd { step: StepSize::InverseCount, novelty: 0.0 };
    let mut field = Field::new(delta().0, delta().1, update, 8).unwrap();
    let rewards = Noise(7).signed(50);
    let mut mean = 0.0_f64;
    for (i, reward) in rewards.iter().enumerate() {
        field.learn(id(1, 2), *reward).unwrap();
        mean += (reward - mean) / (i + 1) as f64;
        assert_eq!(field.value(id(1, 2)).to_bits(), mean.to_bits());
    }
    close(mean, rewards.iter().sum::<f64>() / 50.0, EXACT);
    assert_eq!(field.len(), 1);
}

#[test]
fn limit_3_a_linear_kernel_is_linear_semi_gradient_td() {
    let mut noise = Noise(11);
    let states: Vec<Vec<f32>> = (0..301).map(|_| noise.signed(5).into_iter().map(|x| x as f32).collect()).collect();
    let kernels = (Kernel::Linear { variance: 1.0 }, Kernel::Delta { variance: 1.0 });
    let form = Form::FunctionalTd { step: StepSize::Constant(0.1), novelty: 0.0 };
    let mut field = RfSarsa::new(form, Backup::HardQ, (0.9, 0.0), kernels, 1000).unwrap();
    let mut weights = [[0.0_f64; 5]; 3];
    let linear = |weights: &[f64; 5], phi: &[f32]| weights.iter().zip(phi).map(|(w, x)| w * f64::from(*x)).sum::<f64>();
    for t in 0..300 {
        let (phi, next) = (&states[t], &states[t + 1]);
        let (action, reward) = (noise.below(3), noise.uniform());
        let at = |t: usize, a: u64| StateAction { state: Point::new(t as u64, &states[t]), action: Point::id(a) };
        let choices = [0, 1, 2].map(|a| at(t + 1, a));
        let successor = Successor { choices: &choices, action: 0, log_policy: &[], log_reference: &[] };
        field.learn(&Transition { at: at(t, action as u64), reward, next: Some(successor) }).unwrap();

        let best = weights.iter().map(|w| linear(w, next)).fold(f64::NEG_INFINITY, f64::max);
        let error = reward + 0.9 * best - linear(&weights[action], phi);
        weights[action].iter_mut().zip(phi).for_each(|(w, x)| *w += 0.1 * error * f64::from(*x));
    }
    assert_eq!(field.field().len(), 300);
    for (a, weights) in weights.iter().enumerate() {
        let mut from_particles = [0.0; 5];
        for (i, w) in field.field().weights().iter().enumerate() {
            let particle = field.field().point(i);
            if particle.action.key == a as u64 {
                from_particles.iter_mut().zip(particle.state.phi).for_each(|(sum, x)| *sum += w * f64::from(*x));
            }
        }
        all_close(&from_particles, weights, EXACT);
    }
}

#[test]
fn limit_4_two_layers_without_noise_are_the_table_where_it_was_visited() {
    for (noise, tolerance) in [(0.0, 0.0), (1e-13, EXACT)] {
        let mut table = Table { q: vec![[0.0; ACTIONS]; SIDE * SIDE], max: false };
        let form = Form::TwoLayer { alpha: ALPHA, noise };
        let mut layers = RfSarsa::new(form, Backup::Sarsa, (GAMMA, 0.0), delta(), 64).unwrap();
        let mut random = Noise(5);
        let mut s = 0;
        let mut visited = std::collections::HashSet::new();
        for _ in 0..400 {
            let a = random.below(3);
            visited.insert((s, a));
            let (reward, next, done) = step(s, a, &mut random);
            let next_action = random.below(3);
            let after = (!done).then_some((next, next_action));
            table.learn((s, a), reward, after);
            Learner::learn(&mut layers, (s, a), reward, after);
            s = if done { 0 } else { next };
        }
        for s in 0..SIDE * SIDE {
            for a in 0..ACTIONS {
                let expected = if visited.contains(&(s, a)) { table.q[s][a] } else { 0.0 };
                close(layers.value(id(s, a)), expected, tolerance);
            }
        }
        assert!(visited.len() > 20 && visited.len() < SIDE * SIDE * ACTIONS);
    }
}

#[test]
fn two_layers_solve_for_the_tables_values_in_a_memory_that_grows_changes_and_drops_rows() {
    const NOISE: f64 = 0.01;
    let kernels = (Kernel::Rbf { variance: 1.0, length: 0.7 }, Kernel::Delta { variance: 1.0 });
    let form = Form::TwoLayer { alpha: 0.5, noise: NOISE };
    let mut layers = RfSarsa::new(form, Backup::ExpectedSarsa, (0.9, 0.1), kernels, 12).unwrap();
    let mut table = vec![[0.0_f64; 2]; 30];
    let places: Vec<Vec<f32>> = (0..30).map(|i| vec![i as f32 * 0.3]).collect();
    let log_reference = [0.5_f64.ln(); 2];
    let mut noise = Noise(2);
    for _ in 0..300 {
        let (s, a) = (noise.below(30), noise.below(2));
        let at = |s: usize, a: u64| StateAction { state: Point::new(s as u64, &places[s]), action: Point::id(a) };
        let choices = [at((s + 1) % 30, 0), at((s + 1) % 30, 1)];
        let next =
            Successor { choices: &choices, action: 0, log_policy: &log_reference, log_reference: &log_reference };
        let reward = f64::from(u8::from(s > 15));
        layers.learn(&Transition { at: at(s, a as u64), reward, next: Some(next) }).unwrap();
        // Under the reference itself the KL cost is 0
        let after = table[(s + 1) % 30];
        table[s][a] += 0.5 * (reward + 0.9 * 0.5 * (after[0] + after[1]) - table[s][a]);

        let (field, weights) = (layers.field(), layers.field().weights());
        assert!(field.len() <= 12);
        // (K + σ²) w is the table's value as it was when the particle was last touched
        let own = (0..field.len()).find(|&i| field.point(i) == at(s, a as u64)).unwrap();
        close(field.gram().times(&weights)[own] + NOISE * weights[own], table[s][a], 1e-9);
    }
    assert_eq!(layers.field().len(), 12);
}

#[test]
fn samples_at_one_place_are_averaged_when_the_field_bootstraps_itself() {
    let kernels = (Kernel::Rbf { variance: 2.0, length: 1.0 }, Kernel::Delta { variance: 1.0 });
    let mut field =
        Field::new(kernels.0, kernels.1, MemoryUpdate::GaussianProcess { noise: 0.5, replace: false }, 8).unwrap();
    let place = [0.3_f32];
    let z = StateAction { state: Point::new(1, &place), action: Point::id(0) };
    for y in [1.0, 2.0, 6.0] {
        field.learn(z, y).unwrap();
    }
    // n s/(n s + σ²) ȳ
    close(field.value(z), 6.0 / 6.5 * 3.0, EXACT);
}

#[test]
fn limit_5_expected_and_soft_targets_agree_under_the_boltzmann_policy() {
    let mut noise = Noise(13);
    for tau in [0.05, 0.5, 3.0] {
        for _ in 0..20 {
            let q = noise.signed(7);
            let logits: Vec<f64> = noise.signed(7).iter().map(|x| 3.0 * x).collect();
            let total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            let reference: Vec<f64> = logits.iter().map(|x| x - total).collect();
            let policy = boltzmann(&q, &reference, tau);
            close(policy.iter().map(|x| x.exp()).sum(), 1.0, EXACT);
            let next = Next { q: &q, log_policy: &policy, log_reference: &reference, action: noise.below(7) };
            let soft = Backup::SoftQ.target(0.3, 0.9, Some(next), tau);
            close(Backup::ExpectedSarsa.target(0.3, 0.9, Some(next), tau), soft, EXACT);
            // Under this policy every single action's backup is the same, too
            close(Backup::Sarsa.target(0.3, 0.9, Some(next), tau), soft, EXACT);
            let best = (1..7).fold(0, |best, a| if q[a] > q[best] { a } else { best });
            let gap = hard_value(&q) - soft_value(&q, &reference, tau);
            assert!(gap >= -1e-15 && gap <= -tau * reference[best] + 1e-15, "{gap} at {tau}");
        }
    }
    let (q, reference) = ([1.0, 3.0, 2.0], [0.5_f64.ln(), f64::NEG_INFINITY, 0.5_f64.ln()]);
    assert_eq!(soft_value(&q, &reference, 0.0), 2.0);
    close(soft_value(&q, &[(1.0_f64 / 3.0).ln(); 3], 1e-6), 3.0, 1e-5);
    assert_eq!(Backup::HardQ.target(0.5, 0.9, None, 1.0), 0.5);
    assert_eq!(double_q(&[0.0, 2.0, 1.0], &[5.0, 6.0, 7.0]), 6.0);
}

#[test]
fn limit_16_the_original_rule_on_its_worked_example() {
    let update = MemoryUpdate::Legacy { association: 0.5, threshold: 1e-2, decay: 0.99, merge: 1.0, prune: 0.01 };
    let kernels = (Kernel::Rbf { variance: 1.0, length: 1.0 }, Kernel::Rbf { variance: 1.0, length: 1.0 });
    // The first two are too far apart to touch, and decay to the weights 5 and -2 of the example
    let points: [([f32; 1], [f32; 1], f64); 3] =
        [([8.0], [0.5], 5.0 / 0.99 / 0.99), ([3.0], [-0.3], -2.0 / 0.99), ([9.0], [0.8], 10.0)];
    let z = |i: usize| StateAction {
        state: Point::new(i as u64, &points[i].0),
        action: Point::new(i as u64, &points[i].1),
    };
    let mut field = Field::new(kernels.0, kernels.1, update, 8).unwrap();
    field.learn(z(0), points[0].2).unwrap();
    field.learn(z(1), points[1].2).unwrap();
    all_close(&field.weights(), &[5.0, -2.0], EXACT);
    field.learn(z(2), points[2].2).unwrap();
    all_close(&field.weights(), &numbers(&golden("grl/fields.json")["legacy"]), EXACT);
    let published = [7.8202, -1.98, 9.90];
    assert!(field.weights().iter().zip(published).all(|(w, published)| (w - published).abs() < 5e-5));
}

#[test]
fn the_original_rule_diverges_under_repetition_where_kernel_td_does_not() {
    let legacy = MemoryUpdate::Legacy { association: 0.5, threshold: 1e-2, decay: 1.0, merge: 1.0, prune: 0.0 };
    let mut field = Field::new(delta().0, delta().1, legacy, 64).unwrap();
    let values: Vec<f64> = (0..6)
        .map(|_| {
            field.learn(id(0, 0), 1.0).unwrap();
            field.value(id(0, 0))
        })
        .collect();
    assert_eq!(values, [1.0, 2.5, 4.5, 7.0, 10.0, 13.5]);
}

#[test]
fn the_original_rule_merges_and_prunes() {
    let merging = MemoryUpdate::Legacy { association: 0.0, threshold: 1.0, decay: 0.5, merge: 0.9, prune: 0.3 };
    let kernels = (Kernel::Rbf { variance: 1.0, length: 1.0 }, Kernel::Delta { variance: 1.0 });
    let mut field = Field::new(kernels.0, kernels.1, merging, 8).unwrap();
    let places = [[0.0_f32], [0.2], [5.0]];
    let z = |i: usize| StateAction { state: Point::new(i as u64, &places[i]), action: Point::id(0) };
    field.learn(z(0), 4.0).unwrap();
    field.learn(z(1), 6.0).unwrap();
    // Weights 2·½ and 6·½ meet at the weighted place
    assert_eq!(field.weights(), [4.0]);
    assert!((f64::from(field.point(0).state.phi[0]) - 0.15).abs() < 1e-7);
    field.learn(z(2), 0.5).unwrap();
    assert_eq!(field.weights(), [2.0]);
}
