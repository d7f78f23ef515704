//! `reward_funcs` as text, and the one table of its kinds.

use std::path::Path;

use super::{CommandReward, HttpReward, Options, Reward, format, length, math, text, walk};
use crate::{Error, Result};

/// A built-in kind
pub struct Kind {
    /// What stands before the first colon
    pub name: &'static str,
    /// What may follow it
    pub argument: Argument,
    /// One line for people
    pub about: &'static str,
    build: fn(Option<&str>) -> Result<Box<dyn Reward>>,
}

/// What follows the name of a kind, after a colon
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// Nothing
    None,
    /// It may be left out
    Optional(&'static str),
    /// It must be there
    Required(&'static str),
}

impl Kind {
    /// `NAME:ARGUMENT`, as a list of kinds shows it
    pub fn form(&self) -> String {
        match self.argument {
            Argument::None => self.name.to_owned(),
            Argument::Optional(what) => format!("{}[:{what}]", self.name),
            Argument::Required(what) => format!("{}:{what}", self.name),
        }
    }
}

/// The built-in kinds, in the order of lists
pub const KINDS: &[Kind] = &[
    Kind {
        name: "length",
        argument: Argument::None,
        about: "number of tokens of the completion",
        build: |_| Ok(length::length()),
    },
    Kind {
        name: "contains",
        argument: Argument::Required("WORD"),
        about: "1 where the completion contains the text, else 0; upper and lower case differ",
        build: |argument| Ok(text::contains(argument.unwrap_or_default())),
    },
    Kind {
        name: "regex",
        argument: Argument::Required("PATTERN"),
        about: "1 where the pattern matches somewhere in the completion, else 0",
        build: |argument| text::regex(argument.unwrap_or_default()),
    },
    Kind {
        name: "exact_match",
        argument: Argument::Optional("COLUMN"),
        about: "1 where the completion is the column's answer but for white space around it, else 0; without COLUMN the \
                first there is of answer, solution, ground_truth, target, label",
        build: |argument| Ok(text::exact_match(argument)),
    },
    Kind {
        name: "math_answer",
        argument: Argument::Optional("COLUMN"),
        about: "1 where the completion's final answer (\\boxed{}, ####, <answer>, `answer is`, else its last number) \
                equals that of the column, else 0; GSM8K's solutions are read as they are",
        build: |argument| Ok(math::math_answer(argument)),
    },
    Kind {
        name: "lexicon",
        argument: Argument::Required("FILE"),
        about: "sentiment in (-1, 1) by a JSON list of weighted words",
        build: |argument| text::lexicon(argument.unwrap_or_default()),
    },
    Kind {
        name: "shortest_path",
        argument: Argument::Required("FILE"),
        about: "1 where prompt and completion are a shortest walk to the goal on the graph of a JSON file, less for a \
                longer one, 0 where they are no walk to it",
        build: |argument| walk::shortest_path(argument.unwrap_or_default()),
    },
    Kind {
        name: "format",
        argument: Argument::Required("think"),
        about: "1 where the completion is <think>...</think> and an answer, else 0",
        build: |argument| match argument {
            Some("think") => Ok(format::think("format")),
            other => Err(Error::usage(format!("`format:{}`: expected `format:think`", other.unwrap_or_default()))),
        },
    },
    Kind {
        name: "accuracy_reward",
        argument: Argument::Optional("COLUMN"),
        about: "TRL's: 1 where the LaTeX answer (\\boxed{}, or `answer` before $...$) equals that of the column \
                `solution`, else 0; null where the solution holds no mathematics",
        build: |argument| Ok(math::accuracy(argument)),
    },
    Kind {
        name: "reasoning_accuracy_reward",
        argument: Argument::Optional("COLUMN"),
        about: "TRL's: the same for what follows the last </think>; 0 without it",
        build: |argument| Ok(math::reasoning_accuracy(argument)),
    },
    Kind {
        name: "think_format_reward",
        argument: Argument::None,
        about: "TRL's: the same as format:think",
        build: |_| Ok(format::think("think_format_reward")),
    },
    Kind {
        name: "get_soft_overlong_punishment",
        argument: Argument::Optional("MAX:CACHE"),
        about: "TRL's: 0 down to -1 over the last CACHE of MAX tokens, -1 beyond (1280:256)",
        build: length::soft_overlong,
    },
    Kind {
        name: "get_repetition_penalty_reward",
        argument: Argument::Optional("N:PENALTY"),
        about: "TRL's: PENALTY times the share of repeated n-grams of tokens (3:-1)",
        build: length::repetition,
    },
    Kind {
        name: "get_cosine_scaled_reward",
        argument: Argument::Required("MAX"),
        about: "TRL's: accuracy_reward scaled by length, 1 to 0.5 where right and -1 to -0.5 where wrong, over MAX tokens",
        build: |argument| math::cosine_scaled(argument.unwrap_or_default()),
    },
];

/// The kinds that are not built in: how they are written, and one line for people
pub const OTHER_KINDS: &[(&str, &str)] = &[
    ("FOLDER or ORG/NAME", "a reward model, from a folder or the Hub"),
    (
        "command:PROGRAM ARGS",
        "a child process that stays up: one JSON object a line in (prompt, completion, completion_ids, truncated, all \
         columns), one number or null a line out",
    ),
    (
        "http://... https://...",
        "a server: POST {\"samples\": [{prompt, completion, completion_ids, truncated, all columns}]}, answer \
         {\"rewards\": [number or null]}",
    ),
];

/// TRL's modules whose functions are built in here
const TRL_MODULES: &[&str] =
    &["trl.rewards.", "trl.rewards.accuracy_rewards.", "trl.rewards.format_rewards.", "trl.rewards.other_rewards."];

const LIST: &str = "`collimate doctor --rewards` lists the kinds";

/// One entry of `reward_funcs`, not yet started
pub enum Spec {
    /// A kind of the table, with its argument
    BuiltIn(&'static Kind, Option<String>),
    /// A child process, by its command line
    Command(String),
    /// A server, by its address
    Http(String),
    /// A reward model, by folder or Hub id: the caller loads it
    Model(String),
}

impl Spec {
    /// Reads one entry
    ///
    /// # Errors
    /// No known kind, an argument that is missing or too much, a Python path
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Some(command) = text.strip_prefix("command:") {
            return Ok(Self::Command(command.to_owned()));
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Http(text.to_owned()));
        }
        let (name, argument) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let name = TRL_MODULES.iter().rev().find_map(|module| name.strip_prefix(module)).unwrap_or(name);
        if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
            return match (kind.argument, argument) {
                (Argument::None, Some(_)) => Err(Error::usage(format!("reward `{text}`: `{name}` takes no argument"))),
                (Argument::Required(what), None | Some("")) => {
                    Err(Error::usage(format!("reward `{text}` lacks its argument")).hint(format!("`{name}:{what}`")))
                }
                (_, argument) => Ok(Self::BuiltIn(kind, argument.map(str::to_owned))),
            };
        }
        if Path::new(text).is_file() {
            return Err(file(text));
        }
        if is_model(text) {
            return Ok(Self::Model(text.to_owned()));
        }
        Err(unknown(text, name))
    }

    /// Makes the reward
    ///
    /// # Errors
    /// A wrong argument, a file or program that is not there; a model, which is the caller's
    pub fn build(self, options: Options) -> Result<Box<dyn Reward>> {
        match self {
            Self::BuiltIn(kind, argument) => (kind.build)(argument.as_deref()),
            Self::Command(command) => Ok(Box::new(CommandReward::start(&command, options)?)),
            Self::Http(url) => Ok(Box::new(HttpReward::new(&url, options)?)),
            Self::Model(name) => Err(Error::usage(format!("the reward model `{name}` cannot be used here"))),
        }
    }
}

/// A folder, a path, or `ORG/NAME`
fn is_model(text: &str) -> bool {
    let is_path = ["/", "./", "../", "~"].iter().any(|start| text.starts_with(start));
    let hub = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let is_id = text.split_once('/').is_some_and(|(organisation, name)| hub(organisation) && hub(name));
    is_path || is_id || Path::new(text).is_dir()
}

/// A file is most likely a program that judges
fn file(text: &str) -> Error {
    let path = Path::new(text);
    let command = match path.extension().and_then(|extension| extension.to_str()) {
        Some("py") => format!("python3 {text}"),
        Some("sh") => format!("sh {text}"),
        _ if path.components().count() == 1 => format!("./{text}"),
        _ => text.to_owned(),
    };
    Error::usage(format!(
        "reward `{text}` is a file, expected the folder of a reward model, or what `doctor --rewards` lists"
    ))
    .hint(format!(
        "a program that judges is `command:{command}`: it reads one JSON object a line and prints one number a line"
    ))
}

fn unknown(text: &str, name: &str) -> Error {
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if text.contains('.') && text.split('.').all(identifier) {
        return Error::usage(format!("reward `{text}` is a Python function, which this program cannot call")).hint(
            "let a small Python program call it: `command:python judge.py`, which reads one JSON object a line and \
             prints one number a line",
        );
    }
    let names = KINDS.iter().map(|kind| kind.name).chain(["command", "http"]);
    let nearest = names.map(|known| (strsim::jaro_winkler(name, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    let error = Error::usage(format!("unknown reward `{text}`"));
    match nearest.filter(|(likeness, _)| *likeness > 0.8) {
        Some((_, known)) => error.hint(format!("did you mean `{known}`? {LIST}")),
        None => error.hint(format!("{LIST}; a folder of a reward model must exist")),
    }
}
