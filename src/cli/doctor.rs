//! `collimate doctor`

use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};

use super::output::Output;
use crate::model::hub::Settings;
use crate::ops::kernels::{Simd, simd_level};
use crate::ops::{composed, linear};
use crate::reward::{KINDS, OTHER_KINDS};
use crate::rl::env::bridge::{Probe, probe};
use crate::run::manifest::cpu_features;
use crate::{Error, Result};

/// How long the Hub may take to answer
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the tests of this program look for data that does not ship with it
const TEST_DATA: &str = "COLLIMATE_TEST_DATA";

/// Versions, threads, processor features, cache folders, and whether the Hub answers
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
    /// List what `reward_funcs` takes, and nothing else
    #[arg(long)]
    pub rewards: bool,
    /// The Python of the Gymnasium bridge
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub gym_python: String,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    if args.rewards {
        return list_rewards();
    }
    let kernels = check_kernels();
    let settings = Settings::from_env(args.offline);
    let mut lines = vec![
        ("collimate", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("threads", threads()),
        ("processor", cpu_features().join(" ")),
        ("kernels", format!("{}, {}", kernel_name(), verdict(&kernels, "agree with plain arithmetic"))),
        ("GPU", "none used: everything runs on the processor".to_owned()),
    ];
    match &settings {
        Ok(settings) => {
            lines.push(("Hub cache", cache(&settings.cache)));
            lines.push(("Hub address", settings.endpoint.clone()));
            lines.push(("Hub token", if settings.token.is_some() { "set" } else { "none" }.to_owned()));
            lines.push(("Hub", reachability(settings)));
        }
        Err(error) => lines.push(("Hub", format!("the settings are wrong: {}", error.message()))),
    }
    lines.push(("Gymnasium", gymnasium(&args.gym_python)));
    lines.push(("test data", test_data()));
    let mut output = Output::open();
    output.table(&lines)?;
    output.flush()?;
    kernels.and(settings.map(drop))
}

fn list_rewards() -> Result<()> {
    let forms: Vec<(String, &str)> = KINDS.iter().map(|kind| (kind.form(), kind.about)).collect();
    let built_in = forms.iter().map(|(form, about)| (form.as_str(), *about));
    let lines: Vec<(&str, String)> =
        built_in.chain(OTHER_KINDS.iter().copied()).map(|(form, about)| (form, about.to_owned())).collect();
    let mut output = Output::open();
    output.table(&lines)?;
    output.flush()
}

fn verdict(result: &Result<()>, good: &str) -> String {
    result.as_ref().map_or_else(|error| error.message().to_owned(), |()| good.to_owned())
}

fn threads() -> String {
    let cores = std::thread::available_parallelism().map_or_else(|_| "?".to_owned(), |cores| cores.to_string());
    let set = std::env::var("RAYON_NUM_THREADS").map(|n| format!(", RAYON_NUM_THREADS={n}")).unwrap_or_default();
    format!("{} ({cores} processors{set})", rayon::current_num_threads())
}

fn kernel_name() -> &'static str {
    match simd_level() {
        Simd::V4 => "AVX-512",
        Simd::V3 => "AVX2 and FMA",
        Simd::Baseline => "no special instructions",
    }
}

/// A product large enough to take every path of the kernels, against candle's own
fn check_kernels() -> Result<()> {
    const TOLERANCE: f32 = 1e-4;
    let wave = |rows: usize, columns: usize, step: f32| {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu)
    };
    let (x, w, b) = (wave(67, 129, 0.37)?, wave(129, 83, 0.11)?, wave(1, 83, 0.7)?.squeeze(0)?);
    let difference = (linear(&x, &w, &b)? - composed::linear(&x, &w, &b)?)?;
    let largest = difference.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    if largest < TOLERANCE {
        return Ok(());
    }
    Err(Error::run(format!("the kernels are wrong on this processor: a product is off by {largest}"))
        .hint("report this with the output of `collimate doctor`"))
}

fn cache(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return format!("{} (not there yet)", folder.display());
    };
    let names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    format!("{} (models: {}, datasets: {})", folder.display(), count("models--"), count("datasets--"))
}

/// Asks for the head of a small file that every Hub and mirror has
fn reachability(settings: &Settings) -> String {
    if settings.offline {
        return "not asked: offline".to_owned();
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .user_agent(concat!("collimate/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let begin = Instant::now();
    match agent.head(format!("{}/openai-community/gpt2/resolve/main/config.json", settings.endpoint)).call() {
        Ok(answer) if answer.status().as_u16() < 400 => format!("answers in {:.2} s", begin.elapsed().as_secs_f64()),
        Ok(answer) => format!("answers with status {}; a proxy may stand between", answer.status().as_u16()),
        Err(cause) => format!("does not answer ({cause}); what is in the cache works with `--offline`"),
    }
}

/// What the environments named `gym:ID` have to run in
fn gymnasium(python: &str) -> String {
    let Probe { python: version, executable, gymnasium, others } = match probe(python) {
        Ok(probe) => probe,
        Err(error) => return format!("none: {}", error.message()),
    };
    let Some(gymnasium) = gymnasium else {
        return format!("none in Python {version} ({executable}); only environments named `gym:ID` need it");
    };
    let (there, missing): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, version)| version.is_some());
    let there = there.into_iter().map(|(name, version)| format!("{name} {}", version.unwrap_or_default()));
    let mut line = vec![format!("{gymnasium} in Python {version} ({executable})")];
    line.extend(there);
    let line = line.join(", ");
    let missing: Vec<_> = missing.into_iter().map(|(name, _)| name).collect();
    if missing.is_empty() { line } else { format!("{line}; without {}", missing.join(", ")) }
}

fn test_data() -> String {
    match std::env::var_os(TEST_DATA) {
        None => format!("{TEST_DATA} is not set; only the tests of this program need it"),
        Some(folder) if Path::new(&folder).is_dir() => folder.to_string_lossy().into_owned(),
        Some(folder) => format!("{TEST_DATA} is `{}`, which is no folder", folder.to_string_lossy()),
    }
}
