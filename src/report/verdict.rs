//! What a comparison of GRL with other trainers may claim. The rules were fixed before the first run, and the sentences of a
//! result page come from here: a page cannot say more than the numbers allow.
//!
//! A *stratum* is one task with one score a run: the area under the normalised objective J = reward − τ·KL over the
//! logarithm of the reward queries. Runs of different arms with one seed are pairs.
//!
//! | claim | needs |
//! |---|---|
//! | more sample-efficient than PPO | `grl` − `ppo` above 0 in at least two strata, below 0 in none |
//! | because of the particle memory | that, and the same of `grl` − `tba`, of `grl` − `grl_permuted` and of `ppo_field` − `ppo` |
//! | because of replay | the same of `grl` − `grl_no_replay` |
//!
//! Above (below) 0 is the whole 95 % interval of the difference of interquartile means, over resampled pairs. For a claim a
//! stratum counts only with as many seeds as it needs and where the arms are comparable; against one it always counts.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::paired::{holm, permutation_test};
use super::statistics::{Bootstrap, Estimate};
use crate::error::Result;

/// Strata in which a difference must be seen
const STRATA: usize = 2;

/// One task
#[derive(Debug, Clone, Default)]
pub struct Stratum {
    /// Its name
    pub name: String,
    /// Seeds without which it supports no claim
    pub needed_seeds: usize,
    /// Score of each run: by arm, then by seed
    pub scores: BTreeMap<String, BTreeMap<u64, f64>>,
    /// Why two arms cannot be compared here (unequal queries, updates, KL weight), by the arms' names
    pub objections: Vec<(String, String, String)>,
}

/// A difference between two arms in one stratum
#[derive(Debug, Clone, Serialize)]
pub struct Contrast {
    /// The stratum
    pub stratum: String,
    /// The arm that should be better
    pub arm: &'static str,
    /// The one that it is compared with
    pub against: &'static str,
    /// Pairs
    pub seeds: usize,
    /// Pairs that a claim needs
    pub needed: usize,
    /// Difference of interquartile means
    pub difference: Estimate,
    /// Of the paired permutation test
    pub p_value: f64,
    /// The same, adjusted for the contrasts of GRL with `ppo`, `tba` and `grl_permuted` (Holm)
    pub adjusted: Option<f64>,
    /// Why this contrast supports nothing
    pub objection: Option<String>,
}

impl Contrast {
    fn supports(&self) -> bool {
        self.seeds >= self.needed && self.objection.is_none() && self.difference.low > 0.0
    }

    fn contradicts(&self) -> bool {
        self.difference.high < 0.0
    }
}

impl fmt::Display for Contrast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Estimate { point, low, high } = self.difference;
        write!(f, "{}: {point:+.3} [{low:+.3}, {high:+.3}], {} seeds", self.stratum, self.seeds)?;
        if self.seeds < self.needed {
            write!(f, " of {} needed", self.needed)?;
        }
        self.objection.as_ref().map_or(Ok(()), |objection| write!(f, "; {objection}"))
    }
}

/// What the numbers say of a claim
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// By the rules above
    Established,
    /// Neither this nor its opposite
    NotEstablished,
    /// Somewhere the opposite was seen
    Contradicted,
    /// There are no numbers about it
    NotTested,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Established => "established",
            Self::NotEstablished => "not established",
            Self::Contradicted => "contradicted",
            Self::NotTested => "not tested",
        })
    }
}

/// A claim, and what the numbers say of it
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The claim
    pub claim: String,
    /// What the numbers say
    pub answer: Answer,
    /// Why
    pub reasons: Vec<String>,
}

/// All verdicts with the contrasts behind them
#[derive(Debug, Clone, Serialize)]
pub struct Verdicts {
    /// Of every pair of arms that a claim is about
    pub contrasts: Vec<Contrast>,
    /// In the order of the table above
    pub verdicts: Vec<Verdict>,
    /// What a page must say besides: differences that were not seen
    pub findings: Vec<String>,
}

/// The score of a run: its mean height over the logarithm of what was spent, from `first` to the last point, with straight
/// lines between points on that axis. None where no two places are left
pub fn area_over_log(curve: &[(f64, f64)], first: f64) -> Option<f64> {
    let start = first.log2();
    let mut points: Vec<(f64, f64)> = curve.iter().filter(|(x, _)| *x > 0.0).map(|(x, y)| (x.log2(), *y)).collect();
    let inside = points.partition_point(|(x, _)| *x < start);
    if inside > 0 && inside < points.len() {
        let ((left, low), (right, high)) = (points[inside - 1], points[inside]);
        points[inside - 1] = (start, low + (high - low) * (start - left) / (right - left));
        points.drain(..inside - 1);
    } else {
        points.drain(..inside);
    }
    let width = points.last()?.0 - points.first()?.0;
    let area: f64 = points.windows(2).map(|two| (two[1].0 - two[0].0) * f64::midpoint(two[0].1, two[1].1)).sum();
    (width > 0.0).then(|| area / width)
}

/// The pairs that claims are about, and whether a pair is one of those that are adjusted together
const CONTRASTS: [(&str, &str, bool); 5] = [
    ("grl", "ppo", true),
    ("grl", "tba", true),
    ("grl", "grl_permuted", true),
    ("ppo_field", "ppo", false),
    ("grl", "grl_no_replay", false),
];

/// What is said where a difference was tested and not seen
const NOT_SEEN: [(&str, &str, &str); 4] = [
    ("grl", "ppo", "no gain over PPO was seen"),
    ("grl", "tba", "the particle memory adds nothing that was seen beyond path consistency with replay"),
    ("grl", "grl_permuted", "the geometry of prompts adds nothing that was seen"),
    ("grl", "grl_no_replay", "replay adds nothing that was seen"),
];

/// Applies the rules
pub fn judge(strata: &[Stratum], bootstrap: &Bootstrap) -> Result<Verdicts> {
    let mut contrasts = Vec::new();
    for stratum in strata {
        let mut of_stratum = Vec::new();
        for (arm, against, adjusted) in CONTRASTS {
            of_stratum.extend(contrast(stratum, arm, against, bootstrap)?.map(|contrast| (contrast, adjusted)));
        }
        let p: Vec<f64> = of_stratum.iter().filter(|(_, together)| *together).map(|(one, _)| one.p_value).collect();
        let mut holm = holm(&p).into_iter();
        contrasts.extend(
            of_stratum.into_iter().map(|(contrast, together)| Contrast {
                adjusted: if together { holm.next() } else { None },
                ..contrast
            }),
        );
    }
    let of = |arm: &str, against: &str| -> Vec<&Contrast> {
        contrasts.iter().filter(|contrast| contrast.arm == arm && contrast.against == against).collect()
    };
    let efficient = all_of("GRL is more sample-efficient than PPO", &[of("grl", "ppo")], &[("grl", "ppo")]);
    let because_of_memory = {
        let pairs = [("grl", "ppo"), ("grl", "tba"), ("grl", "grl_permuted"), ("ppo_field", "ppo")];
        let each = pairs.map(|(arm, against)| of(arm, against));
        all_of("it is so because of the particle memory", &each, &pairs)
    };
    let pair = ("grl", "grl_no_replay");
    let because_of_replay = all_of("replay makes GRL more sample-efficient", &[of(pair.0, pair.1)], &[pair]);
    let labels = Verdict {
        claim: "GRL needs fewer human labels".to_owned(),
        answer: Answer::NotTested,
        reasons: vec!["reward queries were varied, not the labels behind a reward model".to_owned()],
    };
    let findings = NOT_SEEN.iter().filter_map(|(arm, against, what)| {
        let found = of(arm, against);
        let seen = found.iter().any(|contrast| contrast.difference.low > 0.0);
        (!found.is_empty() && !seen).then(|| format!("`{arm}` against `{against}`: {what}"))
    });
    let findings = findings.collect();
    let verdicts = vec![efficient, because_of_memory, because_of_replay, labels];
    Ok(Verdicts { contrasts, verdicts, findings })
}

/// `None` where the stratum lacks an arm
fn contrast(
    stratum: &Stratum,
    arm: &'static str,
    against: &'static str,
    bootstrap: &Bootstrap,
) -> Result<Option<Contrast>> {
    let (Some(x), Some(y)) = (stratum.scores.get(arm), stratum.scores.get(against)) else { return Ok(None) };
    let pairs = x.iter().filter_map(|(seed, x)| y.get(seed).map(|y| (*x, *y)));
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.unzip();
    if x.is_empty() {
        return Ok(None);
    }
    let objection = stratum.objections.iter().find(|(a, b, _)| a.as_str() == arm && b.as_str() == against);
    Ok(Some(Contrast {
        stratum: stratum.name.clone(),
        arm,
        against,
        seeds: x.len(),
        needed: stratum.needed_seeds,
        difference: bootstrap.paired_difference(&x, &y)?,
        p_value: permutation_test(&x, &y, bootstrap.seed)?,
        adjusted: None,
        objection: objection.map(|(.., why)| why.clone()),
    }))
}

/// A claim that needs every one of some differences, each in several strata
fn all_of(claim: &str, differences: &[Vec<&Contrast>], pairs: &[(&str, &str)]) -> Verdict {
    let mut answers = Vec::with_capacity(differences.len());
    let mut reasons = Vec::new();
    for (contrasts, (arm, against)) in differences.iter().zip(pairs) {
        let supporting = contrasts.iter().filter(|contrast| contrast.supports()).count();
        let answer = if contrasts.is_empty() {
            Answer::NotTested
        } else if contrasts.iter().any(|contrast| contrast.contradicts()) {
            Answer::Contradicted
        } else if supporting >= STRATA {
            Answer::Established
        } else {
            Answer::NotEstablished
        };
        let listed: Vec<String> = contrasts.iter().map(ToString::to_string).collect();
        let of = contrasts.len();
        reasons.push(match answer {
            Answer::NotTested => format!("`{arm}` − `{against}` was not run"),
            _ => format!(
                "`{arm}` − `{against}` is above 0 in {supporting} of {of} strata ({STRATA} needed): {}",
                listed.join(" · ")
            ),
        });
        answers.push(answer);
    }
    let any = |answer: Answer| answers.contains(&answer);
    let answer = [Answer::Contradicted, Answer::NotTested, Answer::NotEstablished].into_iter().find(|one| any(*one));
    Verdict { claim: claim.to_owned(), answer: answer.unwrap_or(Answer::Established), reasons }
}

impl Verdicts {
    /// As a section of a page in Markdown
    pub fn markdown(&self) -> String {
        let mut lines = Vec::new();
        for Verdict { claim, answer, reasons } in &self.verdicts {
            lines.push(format!("- **{claim}: {answer}.**"));
            lines.extend(reasons.iter().map(|reason| format!("  - {reason}")));
        }
        lines.extend(self.findings.iter().map(|finding| format!("- {finding}")));
        let head = [
            "",
            "| stratum | difference | seeds | IQM difference [95 %] | p | p (Holm) |",
            "|---|---|---|---|---|---|",
        ];
        lines.extend(head.map(str::to_owned));
        for contrast in &self.contrasts {
            let Estimate { point, low, high } = contrast.difference;
            let adjusted = contrast.adjusted.map_or_else(|| "–".to_owned(), |p| format!("{p:.4}"));
            lines.push(format!(
                "| {} | {} − {} | {} | {point:+.3} [{low:+.3}, {high:+.3}] | {:.4} | {adjusted} |",
                contrast.stratum, contrast.arm, contrast.against, contrast.seeds, contrast.p_value
            ));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Bootstrap = Bootstrap { resamples: 2000, level: 0.95, seed: 1 };

    /// Arms with these means over `seeds` seeds, each run off by a little that is its own
    fn stratum(name: &str, seeds: u64, arms: &[(&str, f64)]) -> Stratum {
        let run = |arm: usize, seed: u64, mean: f64| {
            let noise = (seed.wrapping_mul(7919).wrapping_add(arm as u64 * 104_729) % 101) as f64 / 101.0 - 0.5;
            (seed, mean + 0.02 * noise + 0.1 * seed as f64)
        };
        let arms = arms
            .iter()
            .enumerate()
            .map(|(i, (arm, mean))| ((*arm).to_owned(), (0..seeds).map(|seed| run(i, seed, *mean)).collect()));
        Stratum { name: name.to_owned(), needed_seeds: 10, scores: arms.collect(), objections: Vec::new() }
    }

    const BETTER: [(&str, f64); 6] = [
        ("ppo", 0.5),
        ("ppo_field", 0.55),
        ("tba", 0.58),
        ("grl", 0.65),
        ("grl_permuted", 0.6),
        ("grl_no_replay", 0.55),
    ];

    fn answers(strata: &[Stratum]) -> Vec<Answer> {
        judge(strata, &QUICK).unwrap().verdicts.into_iter().map(|verdict| verdict.answer).collect()
    }

    fn with(changed: &str, mean: f64) -> Vec<(&'static str, f64)> {
        BETTER.iter().map(|(arm, old)| (*arm, if *arm == changed { mean } else { *old })).collect()
    }

    #[test]
    fn a_claim_needs_two_strata_with_enough_seeds() {
        use Answer::{Established, NotEstablished, NotTested};
        let (a, b) = (stratum("a", 12, &BETTER), stratum("b", 12, &BETTER));
        assert_eq!(answers(&[a.clone(), b]), [Established, Established, Established, NotTested]);
        assert_eq!(answers(std::slice::from_ref(&a)), [NotEstablished, NotEstablished, NotEstablished, NotTested]);
        let few = stratum("few", 9, &BETTER);
        assert_eq!(answers(&[a, few]), [NotEstablished, NotEstablished, NotEstablished, NotTested]);
    }

    #[test]
    fn one_stratum_the_other_way_round_contradicts() {
        let (a, b) = (stratum("a", 12, &BETTER), stratum("b", 12, &BETTER));
        // Also one with too few seeds for a claim
        let against = stratum("c", 5, &with("ppo", 0.9));
        assert_eq!(answers(&[a, b, against])[..2], [Answer::Contradicted, Answer::Contradicted]);
    }

    #[test]
    fn without_a_gain_over_tba_or_permuted_prompts_it_is_not_the_memory() {
        for arm in ["tba", "grl_permuted"] {
            let same = with(arm, 0.65);
            let judged = judge(&[stratum("a", 12, &same), stratum("b", 12, &same)], &QUICK).unwrap();
            assert_eq!(judged.verdicts[0].answer, Answer::Established);
            assert_eq!(judged.verdicts[1].answer, Answer::NotEstablished, "{arm}");
            assert!(judged.findings.len() == 1 && judged.findings[0].contains(arm), "{:?}", judged.findings);
            assert!(!judged.markdown().contains("because of the particle memory: established"));
        }
    }

    #[test]
    fn what_cannot_be_compared_or_was_not_run_supports_nothing() {
        let (a, mut b) = (stratum("a", 12, &BETTER), stratum("b", 12, &BETTER));
        b.objections.push(("grl".into(), "ppo".into(), "PPO had fewer updates".into()));
        let judged = judge(&[a.clone(), b.clone()], &QUICK).unwrap();
        assert_eq!(judged.verdicts[0].answer, Answer::NotEstablished);
        assert!(judged.verdicts[0].reasons[0].contains("PPO had fewer updates"));
        b.objections.clear();
        b.scores.remove("tba");
        assert_eq!(answers(&[a.clone(), b])[1], Answer::NotEstablished, "one stratum alone has the arm");
        let lone = Stratum { scores: BTreeMap::new(), ..a };
        assert_eq!(answers(&[lone]), [Answer::NotTested; 4]);
    }

    #[test]
    fn the_axis_of_a_score_is_logarithmic() {
        assert_eq!(area_over_log(&[(256.0, 0.0), (512.0, 1.0), (1024.0, 1.0)], 256.0), Some(0.75));
        // Half way between 128 and 512 on that axis lies 256
        assert_eq!(area_over_log(&[(128.0, 0.0), (512.0, 1.0)], 256.0), Some(0.75));
        assert_eq!(area_over_log(&[(0.0, 9.0), (300.0, 0.5), (600.0, 0.5)], 256.0), Some(0.5));
        assert_eq!(area_over_log(&[(10.0, 1.0), (20.0, 1.0)], 256.0), None);
    }

    #[test]
    fn pairs_are_those_of_one_seed() {
        let mut a = stratum("a", 12, &BETTER);
        a.scores.get_mut("ppo").unwrap().retain(|seed, _| *seed % 2 == 0);
        let judged = judge(&[a], &QUICK).unwrap();
        assert_eq!(judged.contrasts[0].seeds, 6);
        assert!(judged.contrasts[0].adjusted.is_some() && judged.contrasts[3].adjusted.is_none());
    }
}
