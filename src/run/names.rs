//! The names a run writes into its folder: what `overwrite_output_dir` may remove, and nothing else.

/// Every key with its resolved value
pub const CONFIG: &str = "config.yaml";
/// Where the run came from: one entry a start
pub const MANIFEST: &str = "manifest.json";
/// One JSON object a logged step
pub const METRICS: &str = "metrics.jsonl";
/// The final figures; its presence means that the run ended well
pub const SUMMARY: &str = "summary.json";
/// The page written by `collimate report`
pub const REPORT: &str = "report.html";
/// Folder of the logged completions
pub const COMPLETIONS: &str = "completions";
/// Folder of the TensorBoard event files
pub const EVENTS: &str = "runs";

/// Says that a field steers the model that lies beside it
pub const TOKEN_FIELD: &str = "token_field.json";

/// The final model. Never removed, only replaced by the next final model: a run may start from the very folder
/// it writes to, and a model that took days must outlive the first minute of its successor
pub const MODEL: [&str; 13] = [
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "memory.safetensors",
    "feature_map.safetensors",
    "particles.json",
    "token_memory.safetensors",
    "state_map.safetensors",
    TOKEN_FIELD,
];

/// Files that belong to one run and go with it
pub const OF_ONE_RUN: [&str; 4] = [MANIFEST, METRICS, SUMMARY, REPORT];

/// Marks checkpoints of a branch of the run that a resume from an earlier checkpoint has left behind
pub const SUPERSEDED: &str = ".superseded";

const CHECKPOINT: &str = "checkpoint-";

/// `checkpoint-STEP`
pub fn checkpoint(step: u64) -> String {
    format!("{CHECKPOINT}{step}")
}

/// The step of a name like `checkpoint-100`
pub fn checkpoint_step(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(CHECKPOINT)?;
    // `parse` alone would also take `+100` and `0100`, which this program never writes
    digits.parse().ok().filter(|step: &u64| step.to_string() == digits)
}

/// Whether this is a checkpoint that was set aside
pub fn is_superseded(name: &str) -> bool {
    name.strip_suffix(SUPERSEDED).and_then(checkpoint_step).is_some()
}

/// `completions_00010.parquet`
pub fn completions(step: u64) -> String {
    format!("completions_{step:05}.parquet")
}

/// The step of a name like `completions_00010.parquet`
pub fn completions_step(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("completions_")?.strip_suffix(".parquet")?;
    digits.parse().ok().filter(|&step| completions(step) == name)
}

/// The end of the names of this program's event files, so that those of others are left alone
pub const EVENTS_SUFFIX: &str = ".collimate";

/// Whether this is an event file of this program
pub fn is_events(name: &str) -> bool {
    name.starts_with("events.out.tfevents.") && name.ends_with(EVENTS_SUFFIX)
}

/// Whether a run writes a file or folder of this name into its folder
pub fn is_written_by_a_run(name: &str) -> bool {
    name == CONFIG || OF_ONE_RUN.contains(&name) || MODEL.contains(&name) || checkpoint_step(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_that_are_written_are_recognised() {
        assert_eq!(checkpoint_step(&checkpoint(100)), Some(100));
        for foreign in ["checkpoint-", "checkpoint-0100", "checkpoint-+1", "checkpoint-1.bak", "checkpoint-best"] {
            assert_eq!(checkpoint_step(foreign), None, "{foreign}");
        }
        assert!(is_superseded("checkpoint-7.superseded") && !is_superseded("notes.superseded"));
        for step in [0, 10, 99_999, 123_456] {
            assert_eq!(completions_step(&completions(step)), Some(step));
        }
        for foreign in ["completions_1.parquet", "completions_00001.csv", "completions.parquet"] {
            assert_eq!(completions_step(foreign), None, "{foreign}");
        }
        assert!(is_events("events.out.tfevents.1.host.2.collimate") && !is_events("events.out.tfevents.1.host.2.0"));
    }
}
