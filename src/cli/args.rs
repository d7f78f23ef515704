//! What the arguments of several commands have in common.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::logging;
use crate::ops::Precision;
use crate::ops::kernels::bf16_supported;
use crate::{Error, Result};

/// The flags that every command has
#[derive(Debug, Clone, Default)]
pub(super) struct Common {
    /// Processor threads; rayon's own choice where not set
    pub threads: Option<usize>,
    /// Warnings and errors only
    pub quiet: bool,
}

/// The flags behind [`Common`]
pub(super) fn common() -> [Arg; 2] {
    [
        Arg::new("threads")
            .long("threads")
            .value_name("N")
            .help("Processor threads; RAYON_NUM_THREADS, else all, where not set")
            .value_parser(value_parser!(u64).range(1..)),
        Arg::new("quiet").long("quiet").action(ArgAction::SetTrue).help("Warnings and errors only, no progress"),
    ]
}

impl Common {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        Self {
            threads: matches.get_one::<u64>("threads").map(|threads| *threads as usize),
            quiet: matches.get_flag("quiet"),
        }
    }

    /// These, and where nothing is set the others
    pub(super) fn or(&self, other: &Self) -> Self {
        Self { threads: other.threads.or(self.threads), quiet: self.quiet || other.quiet }
    }

    /// Starts logging and the thread pool
    ///
    /// The thread that calls is one of the pool's own: handing each operation over to another one and waiting for it costs a
    /// small model two switches of threads an operation, and on a busy machine a turn in the queue each
    pub(super) fn apply(&self) -> Result<()> {
        logging::start(self.quiet);
        // 0 leaves the number to RAYON_NUM_THREADS and the machine
        rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads.unwrap_or(0))
            .use_current_thread()
            .build_global()
            .map_err(|cause| Error::run(format!("cannot start the threads: {cause}")))
    }
}

/// Gives each flag with an underscore its hyphenated spelling too, and tidies its help
pub(super) fn both_spellings(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let names = arg.get_long().into_iter().chain(arg.get_all_aliases().into_iter().flatten());
            let hyphenated: Vec<_> =
                names.filter(|name| name.contains('_')).map(|name| name.replace('_', "-")).collect();
            // Of a switch, the value's name says `true|false` already
            let takes_value = arg.get_action().takes_values();
            let arg = arg.aliases(hyphenated);
            if takes_value { arg.hide_possible_values(true) } else { arg }
        })
        .mut_subcommands(both_spellings)
}

/// The precision of products that the flag `bf16` asks for, as far as the processor has it
pub(super) fn precision(bf16: bool) -> Precision {
    match (bf16, bf16_supported()) {
        (true, true) => Precision::Bf16,
        (true, false) => {
            tracing::warn!("`bf16` falls back to f32: this processor does not multiply bfloat16 (avx512_bf16)");
            Precision::F32
        }
        (false, _) => Precision::F32,
    }
}

/// A number from 0 up
pub(super) fn non_negative(text: &str) -> std::result::Result<f64, String> {
    number(text, |number| number >= 0.0, "must be a number of at least 0")
}

/// A number above 0
pub(super) fn positive(text: &str) -> std::result::Result<f64, String> {
    number(text, |number| number > 0.0, "must be a number above 0")
}

/// A number from 0 to 1
pub(super) fn share(text: &str) -> std::result::Result<f64, String> {
    number(text, |number| (0.0..=1.0).contains(&number), "must be a number from 0 to 1")
}

/// A whole number from 1 up
pub(super) fn count(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "must be a whole number from 1 up".to_owned())
}

fn number(text: &str, allowed: fn(f64) -> bool, expected: &str) -> std::result::Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && allowed(*number)).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_their_range_are_refused() {
        assert_eq!((non_negative("0"), positive("0.5"), share("1"), count("3")), (Ok(0.0), Ok(0.5), Ok(1.0), Ok(3)));
        for refused in
            [non_negative("-1"), positive("0"), share("1.1"), non_negative("nan"), positive("inf"), share("x")]
        {
            assert!(refused.is_err());
        }
        assert!(count("0").is_err() && count("1.5").is_err());
    }
}
