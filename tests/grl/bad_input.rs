//! Singular kernels, equal prompts, one prompt, rewards that are no numbers, files of others: handled, or refused with a
//! reason.

use collimate::algo::policy::Clip;
use collimate::error::Kind;
use collimate::grl::arrays::{Arrays, Owner};
use collimate::grl::features::{FeatureMap, pool};
use collimate::grl::field::{Field, MemoryUpdate, StateAction, StepSize};
use collimate::grl::fit::{Grid, fit_marginal_likelihood};
use collimate::grl::kernel::{Kernel, Point};
use collimate::grl::loss::{Batch, Pair, Reduction, awr, clip, pair, pcl};
use collimate::grl::memory::{PromptMemory, TokenMemory, Upsert};
use collimate::grl::preference::PreferenceProcess;
use collimate::grl::replay::{ReplayStore, RewardKind, Rollout};
use collimate::grl::token_field::{TokenField, TokenKernel};
use collimate::grl::value::Estimator;
use rand::SeedableRng;

use super::{close, identities, owner};

#[track_caller]
fn refused<T: std::fmt::Debug>(result: collimate::Result<T>, reason: &str) {
    let error = result.expect_err("it must be refused");
    assert!(error.message().contains(reason), "`{}` does not say `{reason}`", error.message());
}

const SMOOTH: Kernel = Kernel::Rbf { variance: 1.0, length: 1.0 };

#[test]
fn prompts_at_one_place_make_a_singular_kernel_that_still_answers() {
    let mut memory = PromptMemory::new(2, 8, 0.0).unwrap();
    for (key, b) in [(1, 1.0), (2, 3.0), (3, 5.0)] {
        memory.observe(Point::new(key, &[0.5, 0.5]), b, 0).unwrap();
    }
    let field = Estimator::GaussianProcess { kernel: SMOOTH, noise: 0.0 }.fit(&memory).unwrap();
    assert!(field.jitter() > 0.0 && field.jitter() < 1e-5);
    close(field.value(Point::new(9, &[0.5, 0.5])), 3.0, 1e-6);
    let prediction = field.predict(Point::new(1, &[0.5, 0.5]));
    assert!(prediction.variance.unwrap() < 1e-6 && prediction.mean.is_finite());
    // All distances are 0: the length-scale cannot be fitted, the rest can
    let fitted = fit_marginal_likelihood(&memory, &Grid::default()).unwrap();
    assert!(fitted.length > 0.0 && fitted.log_likelihood.is_some());
    let value = fitted.estimator().fit(&memory).unwrap().value(Point::new(1, &[0.5, 0.5]));
    assert!(value.is_finite() && (1.0..=3.0).contains(&value), "{value}");
    // A negative variance is no kernel at all
    let kernel = Kernel::Rbf { variance: -1.0, length: 1.0 };
    refused(Estimator::GaussianProcess { kernel, noise: 0.1 }.fit(&memory), "singular");
    refused(Estimator::GaussianProcess { kernel: SMOOTH, noise: f64::NAN }.fit(&memory), "noise variance is NaN");
}

#[test]
fn one_prompt_no_prompt_and_equal_rewards_have_values() {
    let empty = PromptMemory::new(0, 4, 0.0).unwrap();
    let one = identities(&[(1, 2.5)]);
    let equal = identities(&[(1, 2.5), (2, 2.5), (2, 2.5)]);
    let delta = Kernel::Delta { variance: 1.0 };
    for estimator in [
        Estimator::GaussianProcess { kernel: delta.clone(), noise: 0.5 },
        Estimator::NadarayaWatson { kernel: delta.clone() },
    ] {
        for (memory, expected) in [(&empty, 0.0), (&one, 2.5), (&equal, 2.5)] {
            let field = estimator.fit(memory).unwrap();
            close(field.value(Point::id(1)), expected, 1e-15);
            close(field.value(Point::id(77)), expected, 1e-15);
            assert!(field.predict(Point::id(1)).mean.is_finite());
        }
        // A prompt that was seen once leaves the others' mean, or nothing
        assert!(estimator.fit(&one).unwrap().leave_one_out(Point::id(1), 2.5).is_finite());
        close(estimator.fit(&equal).unwrap().leave_one_out(Point::id(1), 2.5), 2.5, 1e-15);
    }
    for memory in [&empty, &one, &equal] {
        let fitted = fit_marginal_likelihood(memory, &Grid::default()).unwrap();
        assert!(fitted.log_likelihood.is_none() && fitted.noise == 1.0);
        assert!(fitted.estimator().fit(memory).unwrap().value(Point::id(1)).is_finite());
    }
    // Far from everything a smooth average has no evidence, and says the mean
    let mut far = PromptMemory::new(1, 4, 0.0).unwrap();
    far.observe(Point::new(1, &[0.0]), 1.0, 0).unwrap();
    far.observe(Point::new(2, &[1.0]), 3.0, 0).unwrap();
    let field = Estimator::NadarayaWatson { kernel: SMOOTH }.fit(&far).unwrap();
    assert_eq!(field.value(Point::new(3, &[1e6])), 2.0);
}

#[test]
fn rewards_and_features_that_are_no_numbers_are_refused_and_leave_the_memory() {
    let mut memory = PromptMemory::new(1, 4, 0.0).unwrap();
    memory.observe(Point::new(1, &[0.0]), 1.0, 0).unwrap();
    let before = memory.clone();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(memory.observe(Point::new(2, &[0.0]), bad, 1), "expected a finite number");
        refused(memory.restate(Point::new(1, &[0.0]), &[1.0, bad], 1), "expected a finite number");
    }
    refused(memory.observe(Point::new(2, &[f32::NAN]), 1.0, 1), "a feature of prompt");
    refused(memory.observe(Point::new(2, &[0.0, 1.0]), 1.0, 1), "2 features, and the memory holds 1");
    assert_eq!(memory, before);
    refused(PromptMemory::new(1, 0, 0.0), "room for at least one");
    refused(PromptMemory::new(1, 1, -1.0), "kappa is -1");

    let update = MemoryUpdate::KernelTd { step: StepSize::Constant(0.1), novelty: 0.0 };
    let mut field = Field::new(SMOOTH, Kernel::Delta { variance: 1.0 }, update, 4).unwrap();
    let z = StateAction { state: Point::new(1, &[0.0]), action: Point::id(0) };
    refused(field.learn(z, f64::NAN), "is NaN");
    assert!(field.is_empty());
}

#[test]
fn restating_replaces_and_empties() {
    let mut memory = identities(&[(1, 5.0), (1, 7.0), (2, 1.0)]);
    memory.restate(Point::id(1), &[2.0, 3.0, 10.0], 4).unwrap();
    let particle = memory.particle(0);
    assert_eq!((particle.count, particle.mean, particle.m2, particle.stamp), (3.0, 5.0, 38.0, 4));
    memory.restate(Point::id(1), &[], 5).unwrap();
    assert_eq!((memory.len(), memory.position(1), memory.position(2)), (1, None, Some(0)));
    memory.pin(2);
    memory.restate(Point::id(2), &[], 5).unwrap();
    memory.restate(Point::id(3), &[], 5).unwrap();
    assert_eq!((memory.len(), memory.particle(0).mean), (1, 1.0));
}

#[test]
fn memories_stay_within_their_bounds() {
    let mut memory = PromptMemory::new(0, 3, 0.0).unwrap();
    for key in 0..100 {
        let upsert = memory.observe(Point::id(key), 1.0, key as u32).unwrap();
        assert_eq!(upsert, Upsert::Added { evicted: key.checked_sub(3) });
        assert!(memory.len() <= 3);
    }
    for key in 97..100 {
        assert!(memory.pin(key));
    }
    refused(memory.observe(Point::id(5), 1.0, 0), "all 3 particles of the memory are factual");
    assert!(!memory.pin(5));
    let update = MemoryUpdate::KernelTd { step: StepSize::Constant(0.5), novelty: 0.0 };
    let mut field = Field::new(Kernel::Delta { variance: 1.0 }, Kernel::Delta { variance: 1.0 }, update, 3).unwrap();
    for key in 0..10 {
        field.learn(StateAction { state: Point::id(key), action: Point::id(0) }, 1.0).unwrap();
        assert!(field.len() <= 3);
    }
    assert_eq!(field.point(0).state.key, 7);
}

fn rollout(prompt: u64, born: u32) -> Rollout {
    Rollout {
        prompt,
        prompt_tokens: vec![3, 4],
        tokens: vec![1; 1 + prompt as usize % 3],
        reward: prompt as f64 * 0.5,
        reward_kind: RewardKind::Proxy,
        reward_variance: 0.25,
        log_probs_behaviour: vec![-0.5; 1 + prompt as usize % 3],
        log_probs_ref: vec![-0.75; 1 + prompt as usize % 3],
        log_ratio: 0.1,
        born,
        group: 7,
    }
}

fn store() -> ReplayStore {
    let mut store = ReplayStore::new(4, 2).unwrap();
    for i in 0..5 {
        let leaving = store.push(rollout(i, i as u32)).unwrap();
        assert_eq!(leaving.map(|r| r.prompt), (i == 4).then_some(0));
    }
    store
}

#[test]
fn the_replay_store_keeps_order_age_and_true_log_probabilities() {
    let mut store = store();
    assert_eq!((store.len(), store.mean_age(4)), (4, 1.5));
    let third = store.get(1).unwrap();
    close(third.soft_return(2.0), 0.8, 1e-15);
    close(third.behaviour_log_ratio(), 0.75, 1e-15);
    let old: Vec<u64> = store.expire(4).iter().map(|rollout| rollout.prompt).collect();
    assert_eq!((old, store.len()), (vec![1], 3));
    store.push(rollout(3, 4)).unwrap();
    store.set_log_ratio(3, -1.0).unwrap();
    assert_eq!(store.soft_returns(3, 1.0), [1.4, 2.5]);
    let mut memory = PromptMemory::new(0, 4, 0.0).unwrap();
    store.refresh(&mut memory, Point::id(3), 1.0, 4).unwrap();
    assert_eq!((memory.particle(0).count, memory.particle(0).mean), (2.0, 1.95));
    refused(store.set_log_ratio(9, 0.0), "response 9 of 4");
    refused(store.set_log_ratio(0, f64::NAN), "log-ratio NaN");

    let mut rng = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(1);
    let mut counts = [0; 4];
    for _ in 0..500 {
        let drawn = store.draw(8, 1, 0.25, &mut rng);
        assert!(drawn.len() == 8 && drawn[..2] == [3, 3]);
        for i in drawn {
            counts[i] += 1;
        }
    }
    assert!(counts[..3].iter().all(|count| (620..880).contains(count)), "{counts:?}");
    assert!(ReplayStore::new(2, 1).unwrap().draw(8, 1, 0.5, &mut rng).is_empty());
}

#[test]
fn responses_that_cannot_be_weighed_are_refused() {
    let mut store = ReplayStore::new(4, 2).unwrap();
    let broken = |change: fn(&mut Rollout)| {
        let mut broken = rollout(1, 0);
        change(&mut broken);
        broken
    };
    refused(store.push(broken(|r| r.reward = f64::NAN)), "has reward NaN");
    refused(store.push(broken(|r| r.log_probs_behaviour[0] = f32::NEG_INFINITY)), "positive or not finite");
    refused(store.push(broken(|r| r.log_probs_ref[1] = 0.5)), "positive or not finite");
    refused(store.push(broken(|r| r.tokens.truncate(1))), "1 tokens, 2 behaviour");
    refused(store.push(broken(|r| r.reward_variance = -1.0)), "variance -1");
    assert!(store.is_empty());
}

#[test]
fn kept_and_read_again_everything_is_the_same_to_the_bit() {
    let mut memory = PromptMemory::new(2, 4, 0.5).unwrap();
    for key in 0..6_u64 {
        memory.observe(Point::new(key / 2, &[key as f32 / 3.0, 0.1]), key as f64 / 7.0, key as u32).unwrap();
    }
    memory.pin(1);
    let bytes = memory.to_arrays(&owner()).to_bytes().unwrap();
    assert_eq!(bytes, memory.to_arrays(&owner()).to_bytes().unwrap());
    assert_eq!(PromptMemory::from_bytes(&bytes, &owner()).unwrap(), memory);
    let store = store();
    let bytes = store.to_arrays(&owner()).to_bytes().unwrap();
    assert_eq!(ReplayStore::from_bytes(&bytes, &owner()).unwrap(), store);
    let empty = PromptMemory::new(0, 4, 0.0).unwrap();
    let bytes = empty.to_arrays(&owner()).to_bytes().unwrap();
    assert_eq!(PromptMemory::from_bytes(&bytes, &owner()).unwrap(), empty);
}

#[test]
fn files_of_others_and_damaged_ones_are_refused_with_a_reason() {
    let mut memory = PromptMemory::new(1, 4, 0.0).unwrap();
    memory.observe(Point::new(1, &[0.5]), 1.0, 0).unwrap();
    let bytes = memory.to_arrays(&owner()).to_bytes().unwrap();
    let model = Owner { model: "gpt2".to_owned(), ..owner() };
    refused(PromptMemory::from_bytes(&bytes, &model), "belongs to model `tiny`, not to `gpt2`");
    let map = Owner { feature_map: "map 2".to_owned(), ..owner() };
    refused(PromptMemory::from_bytes(&bytes, &map), "made with feature map `map 1`, not with `map 2`");
    refused(ReplayStore::from_bytes(&bytes, &owner()), "expected a replay store, found a prompt memory");
    refused(FeatureMap::from_bytes(&bytes, &owner()), "expected a feature map");
    refused(TokenMemory::from_bytes(&bytes, &owner()), "expected a token memory");
    for length in 0..bytes.len() {
        let error = PromptMemory::from_bytes(&bytes[..length], &owner()).expect_err("a truncated file");
        assert_eq!((error.kind(), error.hint_text().is_some()), (Kind::Usage, true), "{length} bytes: {error}");
    }
    refused(PromptMemory::from_bytes(b"{\"weights\": 1}", &owner()), "no complete prompt memory");
    // Every single changed byte is refused or gives a memory that can be used
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        if let Ok(memory) = PromptMemory::from_bytes(&changed, &owner()) {
            let delta = Estimator::NadarayaWatson { kernel: Kernel::Delta { variance: 1.0 } };
            assert!(delta.fit(&memory).unwrap().value(Point::new(1, &[0.5])).is_finite());
        }
    }
    let mut arrays = Arrays::from_bytes(&bytes, "prompt memory", &owner()).unwrap();
    refused(arrays.take::<f32>("keys", 1), "holds U64");
    refused(arrays.take::<f32>("phi", 7), "shape [1, 1], expected 7");
    refused(arrays.take::<f32>("nothing", 7), "no array `nothing`");
}

#[test]
fn feature_maps_need_prompts_that_differ() {
    refused(FeatureMap::fit(&[1.0, 2.0], 2, 1, true), "cannot be fitted to 1 prompts");
    refused(FeatureMap::fit(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 2, 1, true), "vary in 0 directions, fewer than 1");
    refused(FeatureMap::fit(&[1.0, 2.0, 2.0, 4.0, 3.0, 6.0], 2, 2, true), "vary in 1 directions, fewer than 2");
    refused(FeatureMap::fit(&[1.0, f32::NAN, 2.0, 4.0], 2, 1, true), "prompt 0 is not finite");
    refused(FeatureMap::fit(&[1.0, 2.0, 3.0], 2, 1, true), "no rows of 2");
    refused(FeatureMap::fit(&[1.0, 2.0, 2.0, 4.0], 2, 3, true), "3 features from states of width 2");
    let map = FeatureMap::fit(&[1.0, 0.0, -1.0, 0.5, 0.0, 1.0], 2, 2, true).unwrap();
    refused(map.apply(&[1.0]), "has 1 numbers, and the feature map takes 2");
    refused(pool(&[], &[], 2), "no tokens of width 2");
}

#[test]
fn losses_refuse_what_does_not_fit_and_steps_that_would_be_infinite() {
    let (policy, reference) = ([-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]);
    refused(Batch::new(&policy, &reference, &[1, 1]), "2 responses of 2 tokens with 3");
    refused(Batch::new(&[], &[], &[]), "0 responses");
    refused(Batch::new(&policy, &[-1.0, f64::NEG_INFINITY, 0.0], &[3]), "log-probability 1 of the reference");
    let batch = Batch::new(&policy, &reference, &[2, 1]).unwrap();
    refused(pcl(&batch, &[1.0], &[0.0, 0.0], 0.1, None), "1 rewards, expected 2");
    refused(pcl(&batch, &[1.0, f64::NAN], &[0.0, 0.0], 0.1, None), "rewards: number 1 is NaN");
    refused(
        clip(&batch, &[-900.0; 3], &[-1.0, 1.0], &Clip::symmetric(0.2), Reduction::TokenMean),
        "beyond what a number holds",
    );
    refused(awr(&batch, &[0.0, 1e6], 0.1, f64::INFINITY), "beyond what a number holds");
    refused(awr(&batch, &[0.0, 1.0], 0.0, 1.0), "tau is 0");
    refused(pair(&batch, &[(0, 2)], Pair::Dpo, 0.1), "pair (0, 2) of a batch of 2");
    refused(pair(&batch, &[], Pair::Dpo, 0.1), "no pairs");
}

#[test]
fn token_fields_and_preferences_refuse_what_they_do_not_know() {
    let mut memory = TokenMemory::new(1, 2).unwrap();
    memory.add(&SMOOTH, &[0.0], 9, 1.0, 0).unwrap();
    refused(memory.add(&SMOOTH, &[0.0, 1.0], 0, 1.0, 0), "2 features, and the memory holds 1");
    refused(memory.add(&SMOOTH, &[0.0], 0, f64::NAN, 0), "not finite");
    let field = TokenField::new(SMOOTH, TokenKernel::Identity, 4, 2).unwrap();
    refused(field.query(&memory, &[0.0]), "token 9 of a vocabulary of 4");
    refused(field.query(&memory, &[0.0, 0.0]), "a state has 2 features");
    let wrong = TokenKernel::LowRank { features: vec![0.0; 7], width: 2 };
    refused(TokenField::new(SMOOTH, wrong, 4, 2), "7 numbers are no 4 token features");
    let points = [Point::new(1, &[0.0_f32]), Point::new(2, &[1.0])];
    refused(PreferenceProcess::fit(&SMOOTH, &points, &[]), "0 preferences over 2 responses");
    refused(PreferenceProcess::fit(&SMOOTH, &points, &[(1, 1)]), "one and the same");
    // A response that always wins has a finite reward
    let always = PreferenceProcess::fit(&SMOOTH, &points, &[(0, 1); 40]).unwrap();
    assert!(always.mean(points[0]) > 0.5 && always.mean(points[0]).is_finite());
}
