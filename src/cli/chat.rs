//! `collimate chat`

use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::args::precision;
use super::generate::tokens;
use super::output::Output;
use super::sampling::{SamplingArgs, TextStream};
use super::speaker::Speaker;
use crate::data::{ChatTemplate, RenderOptions};
use crate::model::hub::Hub;
use crate::rollout::stream_from;
use crate::train::source::ModelSource;
use crate::{Error, Result};

const AFTER_HELP: &str = "A line is a message. `/reset` forgets the conversation, `/system TEXT` sets what the model is \
    told first, `/exit` or Ctrl-D ends. From a pipe, each line is answered in turn.";

/// A terminal conversation with a model
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case", after_help = AFTER_HELP)]
pub struct Args {
    /// Model: a folder, or an id on the Hub
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: String,
    /// Branch, tag or commit on the Hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub model_revision: String,
    /// How a conversation becomes text
    #[arg(long, value_name = "auto|template|dialogue|continue", default_value = "auto")]
    pub format: Format,
    /// What the model is told first
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How tokens are chosen
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// How a conversation becomes text
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The tokenizer's chat template where there is one, else `dialogue`
    Auto,
    /// The tokenizer's chat template
    Template,
    /// Turns that begin with `Human:` and `Assistant:`, as in Anthropic's helpful-base data
    Dialogue,
    /// All that was said, one after the other: the model goes on where the last message ends
    Continue,
}

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// How this conversation becomes text
enum Form {
    Template(Box<ChatTemplate>),
    Dialogue,
    Continue,
}

impl Form {
    fn of(format: Format, source: &ModelSource) -> Result<Self> {
        let template = source.tokenizer.chat_template_source(false).is_some();
        Ok(match format {
            Format::Auto | Format::Template if template => {
                Self::Template(Box::new(source.tokenizer.chat_template(false)?))
            }
            Format::Template => {
                return Err(Error::usage("`format` cannot be `template`: the tokenizer has no chat template")
                    .hint("`--format dialogue` or `--format continue`"));
            }
            Format::Auto | Format::Dialogue => Self::Dialogue,
            Format::Continue => Self::Continue,
        })
    }

    /// Texts that end an answer: the model goes on with the other side's words
    fn stop(&self) -> &'static [&'static str] {
        match self {
            Self::Dialogue => &[HUMAN, ASSISTANT],
            Self::Template(_) | Self::Continue => &[],
        }
    }

    fn describe(&self) -> &'static str {
        match self {
            Self::Template(_) => "the tokenizer's chat template",
            Self::Dialogue => "turns of `Human:` and `Assistant:`",
            Self::Continue => "plain continuation",
        }
    }
}

/// A turn: who speaks, and what
type Turn = (bool, String);

struct Chat<'a> {
    source: &'a ModelSource,
    speaker: Speaker,
    args: &'a Args,
    form: Form,
    system: Option<String>,
    /// Messages of the user and answers in turn
    turns: Vec<Turn>,
    /// Answers so far, for the seed of the next one
    answers: u64,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let source = ModelSource::find(&Hub::from_env(args.offline)?, &args.model, Some(&args.model_revision))?;
    let form = Form::of(args.format, &source)?;
    let speaker = Speaker::open(&source, precision(args.sampling.bf16), args.sampling.eta)?;
    let system = args.system.clone();
    let mut chat = Chat { source: &source, speaker, args: &args, form, system, turns: Vec::new(), answers: 0 };
    let interactive = io::stdin().is_terminal();
    if interactive {
        tracing::info!("{}, {}; `/help` lists the commands", args.model, chat.form.describe());
    }
    let mut input = io::stdin().lock();
    let mut line = String::new();
    loop {
        if interactive {
            say("> ");
        }
        line.clear();
        let read = input.read_line(&mut line).map_err(|cause| Error::read("stdin", cause))?;
        if read == 0 {
            if interactive {
                say("\n");
            }
            return Ok(());
        }
        match chat.line(line.trim_end_matches(['\n', '\r'])) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            // Nobody sits at the other end of a pipe to say it in other words
            Err(error) if !interactive => return Err(error),
            Err(error) => say(&format!("error: {error}\n")),
        }
    }
}

/// To the person at the terminal; stdout is for the model's words
fn say(text: &str) {
    let mut stderr = io::stderr();
    // Without stderr there is nobody to tell
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

impl Chat<'_> {
    /// A command or a message
    fn line(&mut self, line: &str) -> Result<ControlFlow<()>> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "/exit" | "/quit" => return Ok(ControlFlow::Break(())),
            "/reset" => self.turns.clear(),
            "/system" => self.system = Some(rest.trim().to_owned()).filter(|text| !text.is_empty()),
            "/help" => say(&format!("{AFTER_HELP}\n")),
            other if other.starts_with('/') => {
                return Err(Error::usage(format!("unknown command `{other}`"))
                    .hint("`/reset`, `/system TEXT`, `/help` or `/exit`; a message may not begin with `/`"));
            }
            _ if line.trim().is_empty() => {}
            _ => self.answer(line)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Answers a message, token by token
    fn answer(&mut self, message: &str) -> Result<()> {
        self.turns.push((true, message.to_owned()));
        match self.generate() {
            Ok(text) => {
                self.turns.push((false, text));
                Ok(())
            }
            Err(error) => {
                // As if it had not been said
                self.turns.pop();
                Err(error)
            }
        }
    }

    fn generate(&mut self) -> Result<String> {
        let prompts = [self.fitting()?];
        let bends = self.speaker.prepare(&prompts)?;
        let mut options = self.args.sampling.options(self.source.stop_tokens());
        options.seed = options.seed.wrapping_add(self.answers);
        self.answers += 1;
        let mut text = TextStream::new(&self.source.tokenizer, self.form.stop());
        let mut out = Output::open();
        // The space between `Assistant:` and its first word belongs to neither
        let mut begun = matches!(self.form, Form::Continue);
        let mut show = |out: &mut Output, piece: &str| {
            let piece = if begun { piece } else { piece.trim_start() };
            begun |= !piece.is_empty();
            out.piece(piece)
        };
        stream_from(&self.speaker.source(&bends), &prompts, None, &options, &|| Ok(()), &mut |_, id| {
            show(&mut out, text.push(id)?)?;
            Ok(if text.ended() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        show(&mut out, text.finish())?;
        out.line("")?;
        out.flush()?;
        Ok(if matches!(self.form, Form::Continue) { text.text().to_owned() } else { text.text().trim().to_owned() })
    }

    /// The conversation as tokens; its oldest turns are forgotten until there is room for an answer
    fn fitting(&mut self) -> Result<Vec<u32>> {
        let positions = self.source.config.n_positions;
        let room = self.args.sampling.max_new_tokens.min(positions / 2);
        let mut forgotten = 0;
        loop {
            let ids = self.ids()?;
            if ids.len() + room <= positions {
                if forgotten > 0 {
                    tracing::warn!(
                        "the conversation is longer than the model's {positions} positions: its {forgotten} oldest turns are forgotten"
                    );
                }
                return Ok(ids);
            }
            if self.turns.len() < 3 {
                return Err(Error::usage(format!(
                    "the message has {} tokens, which leaves no room for an answer of {room} in the model's {positions} positions",
                    ids.len()
                )));
            }
            self.turns.drain(..2);
            forgotten += 2;
        }
    }

    fn ids(&self) -> Result<Vec<u32>> {
        match &self.form {
            Form::Template(template) => {
                let message = |role: &str, text: &str| json!({"role": role, "content": text});
                let system = self.system.iter().map(|text| message("system", text));
                let turns =
                    self.turns.iter().map(|(user, text)| message(if *user { "user" } else { "assistant" }, text));
                let messages: Vec<Value> = system.chain(turns).collect();
                let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
                let ids = self.source.tokenizer.encode_rendered(&template.render(&messages, &options)?)?;
                self.source.check_tokens([ids.as_slice()])?;
                Ok(ids)
            }
            Form::Dialogue => {
                let mut text = self.system.clone().unwrap_or_default();
                for (user, words) in &self.turns {
                    text.push_str(if *user { HUMAN } else { ASSISTANT });
                    text.push(' ');
                    text.push_str(words);
                }
                text.push_str(ASSISTANT);
                tokens(&text, self.source)
            }
            Form::Continue => {
                let said = self.turns.iter().map(|(_, words)| words.as_str());
                tokens(&self.system.as_deref().into_iter().chain(said).collect::<String>(), self.source)
            }
        }
    }
}
