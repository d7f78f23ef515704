//! Value fields over prompts against scikit-learn, SciPy and NumPy, and limit 17.

use collimate::grl::concepts::concepts;
use collimate::grl::features::{FeatureMap, pool};
use collimate::grl::fit::{Grid, fit_marginal_likelihood};
use collimate::grl::kernel::{Kernel, Point};
use collimate::grl::linalg::Symmetric;
use collimate::grl::memory::{Eviction, PromptMemory};
use collimate::grl::preference::PreferenceProcess;
use collimate::grl::uncertainty;
use collimate::grl::value::Estimator;
use serde_json::Value;

use super::{EXACT, Noise, all_close, close, golden, identities, number, numbers, rows};

struct Data {
    golden: Value,
    phi: Vec<Vec<f32>>,
    which: Vec<usize>,
    b: Vec<f64>,
}

impl Data {
    fn read() -> Self {
        let golden = golden("grl/fields.json");
        let which = serde_json::from_value(golden["which"].clone()).unwrap();
        Self { phi: rows(&golden["phi"]), which, b: numbers(&golden["b"]), golden }
    }

    fn point(&self, i: usize) -> Point<'_> {
        Point::new(i as u64, &self.phi[i])
    }

    fn memory(&self, kappa: f64) -> PromptMemory {
        let mut memory = PromptMemory::new(3, 64, kappa).unwrap();
        for (prompt, b) in self.which.iter().zip(&self.b) {
            memory.observe(self.point(*prompt), *b, 0).unwrap();
        }
        memory
    }

    fn points(&self) -> Vec<Point<'_>> {
        (0..self.phi.len()).map(|i| self.point(i)).collect()
    }
}

fn composite(case: &Value) -> Kernel {
    Kernel::Composite {
        smooth: number(&case["smooth"]),
        length: number(&case["length"]),
        delta: number(&case["delta"]),
    }
}

#[test]
fn processes_agree_with_scikit_learn_on_the_single_samples() {
    let data = Data::read();
    let memory = data.memory(0.0);
    assert_eq!(memory.len(), 10);
    for case in data.golden["processes"].as_array().unwrap() {
        let estimator = Estimator::GaussianProcess { kernel: composite(case), noise: number(&case["noise"]) };
        let field = estimator.fit(&memory).unwrap();
        assert_eq!(field.jitter(), 0.0);
        close(field.prior_mean(), number(&data.golden["mu"]), EXACT);
        let predictions: Vec<_> = data.points().iter().map(|x| field.predict(*x)).collect();
        all_close(&predictions.iter().map(|p| p.mean).collect::<Vec<_>>(), &numbers(&case["mean"]), 1e-9);
        let variances: Vec<f64> = predictions.iter().map(|p| p.variance.unwrap()).collect();
        all_close(&variances, &numbers(&case["variance"]), 1e-9);
        let samples = data.which.iter().zip(&data.b);
        let without: Vec<f64> = samples.map(|(i, b)| field.leave_one_out(data.point(*i), *b)).collect();
        all_close(&without, &numbers(&case["leave_one_out"]), 1e-8);
        close(field.leave_one_out_error().unwrap(), number(&case["leave_one_out_error"]), 1e-8);
    }
}

#[test]
fn the_grid_is_won_by_what_scikit_learns_likelihood_says() {
    let data = Data::read();
    let fitted = fit_marginal_likelihood(&data.memory(0.0), &Grid::default()).unwrap();
    let expected = &data.golden["fitted"];
    close(fitted.log_likelihood.unwrap(), number(&expected["log_likelihood"]), 1e-9);
    for (got, name) in
        [(fitted.smooth, "smooth"), (fitted.length, "length"), (fitted.delta, "delta"), (fitted.noise, "noise")]
    {
        close(got, number(&expected[name]), EXACT);
    }
    // One candidate at a time: every likelihood of the other cases
    for case in data.golden["processes"].as_array().unwrap().iter().filter(|case| number(&case["noise"]) > 0.01) {
        let variance = data.memory(0.0).variance().unwrap();
        let median = fitted.length / 0.3;
        let grid = Grid {
            lengths: vec![number(&case["length"]) / median],
            fractions: vec![(number(&case["smooth"]) / variance, number(&case["delta"]) / variance)],
            least_noise: number(&case["noise"]) / variance,
        };
        let alone = fit_marginal_likelihood(&data.memory(0.0), &grid).unwrap();
        close(alone.noise, number(&case["noise"]), EXACT);
        close(alone.log_likelihood.unwrap(), number(&case["log_likelihood"]), 1e-9);
    }
}

#[test]
fn nadaraya_watson_and_the_sum_agree_with_weighted_neighbours() {
    let data = Data::read();
    let golden = &data.golden["nadaraya"];
    let kernel = Kernel::Rbf { variance: 1.7, length: number(&golden["length"]) };
    let field = Estimator::NadarayaWatson { kernel }.fit(&data.memory(0.0)).unwrap();
    let predictions: Vec<_> = data.points().iter().map(|x| field.predict(*x)).collect();
    all_close(&predictions.iter().map(|p| p.mean).collect::<Vec<_>>(), &numbers(&golden["mean"]), EXACT);
    all_close(&predictions.iter().map(|p| p.mass).collect::<Vec<_>>(), &numbers(&golden["mass"]), EXACT);
    let counts: Vec<f64> = predictions.iter().map(|p| p.effective_count).collect();
    all_close(&counts, &numbers(&golden["effective_count"]), EXACT);
    let samples = data.which.iter().zip(&data.b);
    let without: Vec<f64> = samples.map(|(i, b)| field.leave_one_out(data.point(*i), *b)).collect();
    all_close(&without, &numbers(&golden["leave_one_out"]), EXACT);

    let kernel = Kernel::Rbf { variance: 1.0, length: number(&golden["length"]) };
    let soft =
        Estimator::NadarayaWatson { kernel: kernel.clone() }.fit(&data.memory(number(&golden["kappa"]))).unwrap();
    let values: Vec<f64> = data.points().iter().map(|x| soft.value(*x)).collect();
    all_close(&values, &numbers(&golden["soft"]), EXACT);
    let sum = Estimator::Sum { kernel }.fit(&data.memory(0.0)).unwrap();
    all_close(&data.points().iter().map(|x| sum.value(*x)).collect::<Vec<_>>(), &numbers(&golden["sum"]), EXACT);
    let (key, b) = (data.which[3], data.b[3]);
    close(sum.leave_one_out(data.point(key), b), sum.value(data.point(key)) - b, EXACT);
}

#[test]
fn kernels_agree_with_scikit_learn() {
    let data = Data::read();
    let (x, y) = (data.point(3), data.point(4));
    let golden = &data.golden["kernels"];
    close(Kernel::Rbf { variance: 1.7, length: 0.6 }.value(x, y), number(&golden["rbf"]), EXACT);
    close(Kernel::Ard { variance: 1.0, lengths: vec![0.5, 1.0, 2.0] }.value(x, y), number(&golden["ard"]), EXACT);
    close(Kernel::Linear { variance: 1.0 }.value(x, y), number(&golden["linear"]), EXACT);
}

#[test]
fn eviction_takes_those_without_which_the_variance_grows_least() {
    let data = Data::read();
    let growth = numbers(&data.golden["growth"]);
    let kernel = composite(&data.golden["processes"][0]);
    let rule = Eviction { kernel: &kernel, noise: 0.2, decay: 1.0 };
    let mut order: Vec<usize> = (0..10).collect();
    order.sort_by(|a, b| growth[*a].total_cmp(&growth[*b]));
    for leaving in 1..5 {
        let mut memory = PromptMemory::new(3, 10, 0.0).unwrap();
        for (prompt, b) in data.which.iter().zip(&data.b) {
            memory.observe(data.point(*prompt), *b, 0).unwrap();
        }
        let mut expected: Vec<u64> = order[..leaving].iter().map(|i| *i as u64).collect();
        expected.sort_unstable();
        let mut gone = memory.evict(leaving, &data.points(), &rule, 0).unwrap();
        gone.sort_unstable();
        assert_eq!(gone, expected);
        assert_eq!(memory.len(), 10 - leaving);
        assert!(gone.iter().all(|key| memory.position(*key).is_none()));
    }
}

#[test]
fn age_and_facts_count_in_eviction() {
    let mut memory = PromptMemory::new(0, 3, 0.0).unwrap();
    for key in 0..3 {
        memory.observe(Point::id(key), 1.0, key as u32).unwrap();
    }
    memory.pin(0);
    let kernel = Kernel::Delta { variance: 1.0 };
    let rule = Eviction { kernel: &kernel, noise: 0.1, decay: 0.9 };
    let probe: Vec<Point<'_>> = (0..3).map(Point::id).collect();
    assert_eq!(memory.evict(0, &probe, &rule, 2).unwrap(), Vec::<u64>::new());
    assert_eq!(memory.evict(1, &probe, &rule, 2).unwrap(), [1]);
    // Without a choice made beforehand the oldest experience goes
    memory.observe(Point::id(7), 1.0, 3).unwrap();
    let added = memory.observe(Point::id(8), 1.0, 4).unwrap();
    assert_eq!(added, collimate::grl::memory::Upsert::Added { evicted: Some(2) });
}

#[test]
fn merged_particles_add_counts_and_average_by_them() {
    let mut memory = PromptMemory::new(1, 8, 0.0).unwrap();
    let places = [[0.0_f32], [0.02], [3.0]];
    for (key, b) in [(0, 1.0), (0, 2.0), (0, 6.0), (1, -1.0), (2, 5.0)] {
        memory.observe(Point::new(key, &places[key as usize]), b, 0).unwrap();
    }
    assert_eq!(memory.merge(&Kernel::Rbf { variance: 2.0, length: 1.0 }, 0.98), 1);
    let merged = memory.particle(0);
    assert_eq!((merged.count, merged.mean), (4.0, 2.0));
    close(merged.m2, 26.0, EXACT);
    assert!((merged.point.phi[0] - 0.005).abs() < 1e-8);
    // The prompt that was merged away is found in its new place, also after the memory was kept and read
    memory.observe(Point::new(1, &places[1]), 7.0, 1).unwrap();
    let bytes = memory.to_arrays(&super::owner()).to_bytes().unwrap();
    let memory = PromptMemory::from_bytes(&bytes, &super::owner()).unwrap();
    assert_eq!((memory.len(), memory.position(1), memory.particle(0).count), (2, Some(0), 5.0));
    // Identity keeps different prompts apart however near they are
    let mut apart = memory.clone();
    apart.observe(Point::new(9, &[0.005]), 1.0, 1).unwrap();
    assert_eq!(apart.merge(&Kernel::Composite { smooth: 0.5, length: 1.0, delta: 0.5 }, 0.98), 0);
}

#[test]
fn limit_17_a_process_by_identity_shrinks_the_mean_by_its_count() {
    let (s, noise, prior_count) = (4.0, 1.0, 3.0);
    for n in [1.0, 2.0, 5.0] {
        let mut seen: Vec<(u64, f64)> = (1..=n as u64).map(|i| (1, i as f64)).collect();
        seen.extend((0..prior_count as u64).map(|i| (100 + i, -1.0)));
        let field = Estimator::GaussianProcess { kernel: Kernel::Delta { variance: s }, noise }
            .fit(&identities(&seen))
            .unwrap();
        let mean = f64::midpoint(n, 1.0);
        let mu = (n * mean - prior_count) / (n + prior_count);
        close(field.prior_mean(), mu, EXACT);
        let prediction = field.predict(Point::id(1));
        close(prediction.mean, mu + n * s / (n * s + noise) * (mean - mu), EXACT);
        close(prediction.variance.unwrap(), s * noise / (noise + n * s), EXACT);
        close(prediction.mass, n, EXACT);
        close(prediction.effective_count, n, EXACT);
        if n > 1.0 {
            // Σ(i − ȳ)²/(n − 1) of 1..n
            close(prediction.spread.unwrap(), n * (n + 1.0) / 12.0, EXACT);
        }
        let unknown = field.predict(Point::id(55));
        assert_eq!((unknown.mean, unknown.variance, unknown.effective_count), (mu, Some(s), 0.0));
        assert_eq!((unknown.spread, uncertainty::confidence(&unknown)), (None, 0.0));
    }
}

#[test]
fn limit_17_the_order_of_particles_does_not_matter() {
    let data = Data::read();
    let mut shuffled = PromptMemory::new(3, 64, 0.0).unwrap();
    for (prompt, b) in data.which.iter().zip(&data.b).rev() {
        shuffled.observe(data.point(*prompt), *b, 0).unwrap();
    }
    let kernel = composite(&data.golden["processes"][0]);
    let estimators = [
        Estimator::GaussianProcess { kernel: kernel.clone(), noise: 0.2 },
        Estimator::NadarayaWatson { kernel: kernel.clone() },
        Estimator::Sum { kernel },
    ];
    for estimator in estimators {
        let (one, other) = (estimator.fit(&data.memory(0.0)).unwrap(), estimator.fit(&shuffled).unwrap());
        for x in data.points() {
            close(one.value(x), other.value(x), EXACT);
            close(one.predict(x).variance.unwrap_or(0.0), other.predict(x).variance.unwrap_or(0.0), EXACT);
        }
    }
}

#[test]
fn limit_17_activations_of_concepts_sum_to_the_fields_norm() {
    let data = Data::read();
    let golden = &data.golden["spectrum"];
    let kernel = Kernel::Rbf { variance: 1.0, length: 0.8 };
    let gram = Symmetric::from_fn(data.phi.len(), |i, j| kernel.value(data.point(i), data.point(j)));
    let weights = numbers(&golden["weights"]);
    let activations = numbers(&golden["activations"]);
    for (directions, groups) in [(12, 3), (12, 1), (5, 4), (2, 12)] {
        let found = concepts(&gram, &weights, directions, groups).unwrap();
        close(found.squared_norm, number(&golden["squared_norm"]), EXACT);
        let total: f64 = found.concepts.iter().map(|concept| concept.activation).sum();
        close(total, activations[..directions].iter().sum(), EXACT);
        close(total + found.residual, found.squared_norm, EXACT);
        let mut members: Vec<usize> = found.concepts.iter().flat_map(|concept| concept.members.clone()).collect();
        members.sort_unstable();
        assert_eq!(members, (0..12).collect::<Vec<_>>());
        assert!(found.concepts.len() <= groups && found.concepts.iter().all(|concept| !concept.members.is_empty()));
    }
}

#[test]
fn concepts_are_the_clusters_that_are_there() {
    let places: Vec<Vec<f32>> = (0..9).map(|i| vec![(i / 3) as f32 * 10.0 + (i % 3) as f32 * 0.1]).collect();
    let kernel = Kernel::Rbf { variance: 1.0, length: 1.0 };
    let gram = Symmetric::from_fn(9, |i, j| kernel.value(Point::new(0, &places[i]), Point::new(1, &places[j])));
    let found = concepts(&gram, &[1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 5.0, 5.0, 5.0], 3, 3).unwrap();
    let members: Vec<_> = found.concepts.iter().map(|concept| concept.members.clone()).collect();
    assert_eq!(members, [[6, 7, 8], [0, 1, 2], [3, 4, 5]]);
    assert!(found.residual < 0.01 * found.squared_norm);
}

#[test]
fn preferences_agree_with_a_general_optimiser_and_plain_inverses() {
    let data = Data::read();
    let golden = &data.golden["preference"];
    let pairs: Vec<(usize, usize)> = serde_json::from_value(golden["pairs"].clone()).unwrap();
    let points = data.points();
    let process = PreferenceProcess::fit(&composite(golden), &points[..10], &pairs).unwrap();
    let means: Vec<f64> = points[..10].iter().map(|x| process.mean(*x)).collect();
    all_close(&means, &numbers(&golden["mode"]), 1e-9);
    all_close(&[process.mean(points[10]), process.mean(points[11])], &numbers(&golden["mean_new"]), 1e-9);
    let (difference, variance) = process.difference(points[0], points[1]);
    close(difference, means[0] - means[1], EXACT);
    close(variance, number(&golden["variance_0_1"]), 1e-9);
    close(process.difference(points[10], points[11]).1, number(&golden["variance_new"]), 1e-9);
}

#[test]
fn features_are_whitened_principal_components() {
    let golden = golden("grl/features.json");
    let states = rows(&golden["states"]);
    let flat: Vec<f32> = states[..50].concat();
    for (normalise, name) in [(false, "white"), (true, "unit")] {
        let map = FeatureMap::fit(&flat, 9, 4, normalise).unwrap();
        let bytes = map.to_arrays(&super::owner()).to_bytes().unwrap();
        let map = FeatureMap::from_bytes(&bytes, &super::owner()).unwrap();
        let expected: Vec<Vec<f64>> = serde_json::from_value(golden[name].clone()).unwrap();
        let got: Vec<Vec<f32>> = states.iter().map(|state| map.apply(state).unwrap()).collect();
        for d in 0..4 {
            // A principal direction has no sign
            let sign = (f64::from(got[0][d]) * expected[0][d]).signum();
            for (got, expected) in got.iter().zip(&expected) {
                assert!((sign * f64::from(got[d]) - expected[d]).abs() < 2e-6, "{} {}", got[d], expected[d]);
            }
        }
    }
    let map = FeatureMap::fit(&[1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0], 2, 2, true).unwrap();
    assert_eq!(map.apply(&[0.0, 0.0]).unwrap(), [0.0, 0.0]);
    assert_eq!(pool(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0], 2).unwrap(), [4.0, 5.0]);
}

#[test]
fn a_geometry_without_meaning_is_found_out() {
    let mut noise = Noise(17);
    let places: Vec<Vec<f32>> = (0..60).map(|_| noise.signed(3).into_iter().map(|x| x as f32).collect()).collect();
    let fit = |value: &dyn Fn(usize) -> f64, noise: &mut Noise| {
        let mut memory = PromptMemory::new(3, 64, 0.0).unwrap();
        for i in (0..60).cycle().take(180) {
            memory.observe(Point::new(i as u64, &places[i]), value(i) + 0.3 * (noise.uniform() - 0.5), 0).unwrap();
        }
        fit_marginal_likelihood(&memory, &Grid::default()).unwrap()
    };
    let offsets = noise.signed(60);
    let unstructured = fit(&|i| offsets[i], &mut noise);
    assert!(unstructured.smooth == 0.0 && unstructured.delta > 0.0, "{unstructured:?}");
    let structured = fit(&|i| f64::from(places[i][0]), &mut noise);
    assert!(structured.smooth > structured.delta, "{structured:?}");
}

#[test]
fn uncertainty_is_used_as_its_formulas_say() {
    // −τ log E e^{−r/τ} of a normal reward by quadrature
    let (mu, variance, tau) = (0.3_f64, 0.8_f64, 0.5_f64);
    let density = |z: f64| (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let integral = |sign: f64| {
        let terms = (-8000..=8000).map(|i| f64::from(i) * 0.002);
        terms.map(|z| 0.002 * density(z) * (sign * (mu + variance.sqrt() * z) / tau).exp()).sum::<f64>()
    };
    close(uncertainty::pessimistic_reward(mu, variance, tau), -tau * integral(-1.0).ln(), 1e-9);
    close(uncertainty::optimistic_reward(mu, variance, tau), tau * integral(1.0).ln(), 1e-9);

    assert_eq!(uncertainty::acquisition_weights(&[1.0, 3.0], &[1.0, 4.0]).unwrap(), [0.4, 0.6]);
    assert_eq!(uncertainty::acquisition_weights(&[0.0, 0.0], &[1.0, 4.0]).unwrap(), [0.5, 0.5]);
    assert!(uncertainty::acquisition_weights(&[1.0], &[0.0]).is_err());
    assert_eq!(uncertainty::adaptive_counts(&[1.0, 9.0, 1.0], 9, (2, 8)).unwrap(), [2, 5, 2]);
    assert_eq!(uncertainty::adaptive_counts(&[1.0, 1.0], 100, (1, 3)).unwrap(), [3, 3]);
    assert!(uncertainty::adaptive_counts(&[1.0, 1.0], 3, (2, 3)).is_err());

    let (policy, reference) = ([0.1_f32, -3.7, 2.2], [1.1_f32, 0.3, -0.7]);
    let with = |g: f64| {
        let mut logits = policy;
        uncertainty::abstain(&mut logits, &reference, g);
        logits
    };
    assert_eq!((with(0.0), with(1.0)), (reference, policy));
    assert!((with(0.25)[0] - 0.85).abs() < 1e-6);
}

#[test]
fn draws_follow_their_weights() {
    use rand::SeedableRng;
    let mut rng = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(1);
    let mut first = [0.0_f64; 3];
    for _ in 0..6000 {
        let drawn = uncertainty::draw_by_weight(&[0.1, 0.6, 0.3], 2, &mut rng);
        assert!(drawn.len() == 2 && drawn[0] != drawn[1]);
        first[drawn[0]] += 1.0 / 6000.0;
    }
    assert!(first.iter().zip([0.1, 0.6, 0.3]).all(|(got, want)| (got - want).abs() < 0.025), "{first:?}");
    let field = Estimator::GaussianProcess { kernel: Kernel::Delta { variance: 4.0 }, noise: 4.0 }
        .fit(&identities(&[(1, 3.0), (2, 1.0)]))
        .unwrap();
    let prediction = field.predict(Point::id(1));
    let draws: Vec<f64> = (0..8000).map(|_| uncertainty::thompson(&prediction, &mut rng)).collect();
    let mean = draws.iter().sum::<f64>() / 8000.0;
    let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 8000.0;
    assert!((mean - 2.5).abs() < 0.07 && (variance - 2.0).abs() < 0.15, "{mean} {variance}");
    assert!(uncertainty::can_impute(&prediction, 1.5) && !uncertainty::can_impute(&prediction, 1.4));
}

#[test]
fn neighbours_explain_a_value() {
    let data = Data::read();
    let kernel = composite(&data.golden["processes"][0]);
    let field = Estimator::GaussianProcess { kernel, noise: 0.2 }.fit(&data.memory(0.0)).unwrap();
    let near = field.neighbours(data.point(2), 3);
    // Prompt 7 lies where prompt 2 does, and shares all but its identity
    assert_eq!((near[0].key, near[1].key, near.len()), (2, 7, 3));
    close(near[0].weight, 1.7, EXACT);
    close(near[1].correlation, 1.3 / 1.7, EXACT);
}
