//! Losses and their gradients against PyTorch's.

use collimate::algo::policy::Clip;
use collimate::grl::loss::{Batch, Pair, Reduction, SubPath, Whole, awr, clip, pair, pcl, pcl_spans, reinforce, topr};

use super::{all_close, close, golden, number, numbers};

const TOLERANCE: f64 = 1e-12;

#[test]
fn every_loss_has_pytorchs_value_and_gradient() {
    let golden = golden("grl/losses.json");
    let lengths: Vec<usize> = serde_json::from_value(golden["lengths"].clone()).unwrap();
    let pairs: Vec<(usize, usize)> = serde_json::from_value(golden["pairs"].clone()).unwrap();
    let [policy, reference, behaviour, rewards, advantages, values] =
        ["policy", "reference", "behaviour", "rewards", "advantages", "values"].map(|name| numbers(&golden[name]));
    let tau = number(&golden["tau"]);
    let batch = Batch::new(&policy, &reference, &lengths).unwrap();
    let check = |name: &str, loss: f64, grad: &[f64]| {
        let expected = &golden["kinds"][name];
        close(loss, number(&expected["loss"]), TOLERANCE);
        all_close(grad, &numbers(&expected["grad"]), TOLERANCE);
    };

    for (name, huber) in [("pcl", None), ("huber", Some(0.7))] {
        let loss = pcl(&batch, &rewards, &values, tau, huber).unwrap();
        check(name, loss.loss, &loss.grad_log_probs);
        all_close(&loss.grad_values, &numbers(&golden["kinds"][name]["grad_values"]), TOLERANCE);
    }
    let spans: Vec<(usize, usize)> = serde_json::from_value(golden["spans"].clone()).unwrap();
    let ends = ["span_rewards", "starts", "ends"].map(|name| numbers(&golden[name]));
    let paths: Vec<SubPath> = spans
        .iter()
        .enumerate()
        .map(|(i, (start, end))| SubPath {
            tokens: *start..*end,
            reward: ends[0][i],
            value: ends[1][i],
            value_next: ends[2][i],
        })
        .collect();
    let loss = pcl_spans(&batch, &paths, tau).unwrap();
    check("spans", loss.loss, &loss.grad_log_probs);

    let sequence = Reduction::SequenceMean;
    let policies = [
        ("clip_sequence", clip(&batch, &behaviour, &advantages, &Clip::symmetric(0.2), sequence)),
        ("clip_token", clip(&batch, &behaviour, &advantages, &Clip::symmetric(0.2), Reduction::TokenMean)),
        ("reinforce", reinforce(&batch, &advantages, sequence)),
        ("topr", topr(&batch, &behaviour, &advantages)),
        ("awr", awr(&batch, &advantages, tau, 5.0)),
    ];
    for (name, loss) in policies {
        let loss = loss.unwrap();
        check(name, loss.loss, &loss.grad_log_probs);
        assert!((name == "reinforce") == (loss.clipped == 0.0), "{name}: no bound was active, so none was tested");
    }
    for (name, kind) in [("dpo", Pair::Dpo), ("ipo", Pair::Ipo), ("residual", Pair::Residual { rewards: &rewards })] {
        let loss = pair(&batch, &pairs, kind, tau).unwrap();
        check(name, loss.loss, &loss.grad_log_probs);
        close(loss.losses.iter().sum::<f64>() / 3.0, loss.loss, TOLERANCE);
    }
}

#[test]
fn limit_10_pairs_are_dpo() {
    let golden = golden("algo.json");
    let cases = golden["cases"].as_array().unwrap().iter().filter(|case| case["name"] == "sigmoid");
    assert_eq!(cases.clone().count(), 2);
    for case in cases {
        let [chosen, rejected] = [0, 1].map(|side| numbers(&case["inputs"][side]));
        let [losses, weights] = ["loss", "weights"].map(|name| numbers(&case[name]));
        let slopes = numbers(&case["grads"][0]);
        let n = chosen.len();
        let policy = [chosen, rejected].concat();
        let reference = vec![0.0; 2 * n];
        let batch = Batch::new(&policy, &reference, &vec![1; 2 * n]).unwrap();
        let pairs: Vec<(usize, usize)> = (0..n).map(|i| (i, n + i)).collect();
        let loss = pair(&batch, &pairs, Pair::Dpo, number(&case["params"]["beta"])).unwrap();
        all_close(&loss.losses, &losses, TOLERANCE);
        for i in 0..n {
            close(loss.grad_log_probs[i] * n as f64 * weights[i], slopes[i], TOLERANCE);
            close(loss.grad_log_probs[i], -loss.grad_log_probs[n + i], 0.0);
        }
    }
}

#[test]
fn parts_of_a_minibatch_add_up_to_it() {
    let (policy, reference) = ([-1.0, -2.0, -0.5, -3.0, -1.5], [-1.1, -1.0, -2.0, -2.5, -0.3]);
    let (rewards, values) = ([1.0, -2.0, 0.5], [0.3, 0.1, -0.2]);
    let whole = Whole { responses: 3, tokens: 5, items: 2 };
    let all = Batch::new(&policy, &reference, &[2, 1, 2]).unwrap();
    let first = Batch::new(&policy[..3], &reference[..3], &[2, 1]).unwrap().part_of(whole);
    let second = Batch::new(&policy[3..], &reference[3..], &[2]).unwrap().part_of(whole);
    let join = |a: (f64, Vec<f64>), b: (f64, Vec<f64>), all: (f64, Vec<f64>)| {
        close(a.0 + b.0, all.0, TOLERANCE);
        all_close(&[a.1, b.1].concat(), &all.1, TOLERANCE);
    };
    let paths = |batch: &Batch<'_>, range: std::ops::Range<usize>| {
        let loss = pcl(batch, &rewards[range.clone()], &values[range], 0.3, None).unwrap();
        (loss.loss, loss.grad_log_probs)
    };
    join(paths(&first, 0..2), paths(&second, 2..3), paths(&all, 0..3));
    for reduction in [Reduction::SequenceMean, Reduction::TokenMean] {
        let plain = |batch: &Batch<'_>, range: std::ops::Range<usize>| {
            let loss = reinforce(batch, &rewards[range], reduction).unwrap();
            (loss.loss, loss.grad_log_probs)
        };
        join(plain(&first, 0..2), plain(&second, 2..3), plain(&all, 0..3));
    }
    let pairs = |batch: &Batch<'_>, pairs: &[(usize, usize)]| {
        let loss = pair(batch, pairs, Pair::Ipo, 0.3).unwrap();
        (loss.loss, loss.grad_log_probs)
    };
    join(pairs(&first, &[(0, 1)]), pairs(&second, &[(0, 0)]), pairs(&all, &[(0, 1), (2, 2)]));
}
