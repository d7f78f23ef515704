//! Contents to ids: text with EOS, conversations through the chat template, completions cut from their prompt.

use serde_json::Value;

use super::format::Content;
use super::record::Row;
use super::template::{ChatTemplate, RenderOptions};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Turns contents into ids with the dataset's chat template or EOS
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    template_for_tools: Option<ChatTemplate>,
    /// One more than the largest id
    pub vocab: usize,
}

/// A sequence's ids, and which of them the assistant generates; all of them where no one asks
pub(super) struct Marked {
    pub ids: Vec<u32>,
    pub generated: Vec<bool>,
}

/// A prompt's ids and the ids of what follows it; `boundary` is the end of the prompt that was left out
pub(super) struct Joined {
    pub prompt: Vec<u32>,
    pub completions: Vec<Vec<u32>>,
    pub boundary: Option<String>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, conversational: bool) -> Result<Self> {
        let template = |tools| conversational.then(|| tokenizer.chat_template(tools)).transpose();
        let (template, template_for_tools) = (template(false)?, template(true)?);
        Ok(Self { tokenizer, template, template_for_tools, vocab: tokenizer.vocab_size() })
    }

    /// A text with EOS or a whole conversation; `None` for one without messages
    pub(super) fn whole(&self, row: &Row, content: &Content<'_>) -> Result<Option<Vec<u32>>> {
        match content {
            Content::Text(text) => self.tokenizer.encode(&self.with_eos(text)?).map(Some),
            Content::Messages(messages) => self.conversation(row, messages, false),
        }
    }

    /// [`Self::whole`], and which tokens the template marks as generated, with `{% generation %}`
    pub(super) fn whole_marked(&self, row: &Row, messages: &[Value]) -> Result<Option<Marked>> {
        if messages.is_empty() {
            return Ok(None);
        }
        let at_row = |e: Error| e.context(&row.place);
        let tools = tools(row)?;
        let template = if tools.is_some() { &self.template_for_tools } else { &self.template };
        let Some(template) = template else { return Ok(None) };
        if !template.marks_generation() {
            return Err(Error::usage(
                "`assistant_only_loss` needs a chat template that says what the assistant generates, and this one has no \
                 `{% generation %}`",
            )
            .hint(
                "put `{% generation %}` and `{% endgeneration %}` around the assistant's text and its end token, and name \
                 the template with `chat_template_path`",
            ));
        }
        let kwargs = row.fields.get("chat_template_kwargs").and_then(Value::as_object);
        let options = RenderOptions { tools: tools.as_ref(), kwargs, ..RenderOptions::default() };
        let (text, spans) = template.render_marked(messages, &options).map_err(at_row)?;
        let (ids, generated) = self.tokenizer.encode_spans(&text, &spans)?;
        if generated.contains(&true) {
            return Ok(Some(Marked { ids, generated }));
        }
        Err(Error::usage(format!("{}: `assistant_only_loss` finds no token of the assistant in this row", row.place))
            .hint(
                "the chat template marks nothing of it with `{% generation %}`; correct the template or remove the row",
            ))
    }

    /// A whole sequence: a prompt where there is one, and what follows it; `None` for a conversation without messages
    pub(super) fn after(
        &self,
        row: &Row,
        prompt: Option<&Content<'_>>,
        content: &Content<'_>,
    ) -> Result<Option<Vec<u32>>> {
        match (prompt, content) {
            (Some(Content::Text(prompt)), Content::Text(text)) => {
                self.tokenizer.encode(&format!("{prompt}{}", self.with_eos(text)?)).map(Some)
            }
            (Some(Content::Messages(prompt)), Content::Messages(messages)) => {
                self.conversation(row, &[prompt.as_slice(), messages.as_slice()].concat(), false)
            }
            _ => self.whole(row, content),
        }
    }

    /// A prompt to be completed
    pub(super) fn prompt(&self, row: &Row, content: &Content<'_>) -> Result<Option<Vec<u32>>> {
        match content {
            Content::Text(text) => self.tokenizer.encode(text).map(Some),
            Content::Messages(messages) => self.conversation(row, messages, true),
        }
    }

    /// Tokenises the prompt alone and with each completion; the completions begin where the first of them parts from
    /// the prompt's ids
    pub(super) fn joined(
        &self,
        row: &Row,
        prompt: &Content<'_>,
        completions: &[&Content<'_>],
    ) -> Result<Option<Joined>> {
        let Some(mut prompt_ids) = self.prompt(row, prompt)? else { return Ok(None) };
        let mut sequences = Vec::with_capacity(completions.len());
        for completion in completions {
            let ids = match (prompt, completion) {
                (Content::Text(prompt), Content::Text(completion)) => {
                    let completion = self.with_eos(completion)?;
                    Some(self.tokenizer.encode(&format!("{prompt}{completion}"))?)
                }
                (Content::Messages(prompt), Content::Messages(completion)) => {
                    self.conversation(row, &[prompt.as_slice(), completion.as_slice()].concat(), false)?
                }
                _ => None,
            };
            let Some(ids) = ids else { return Ok(None) };
            sequences.push(ids);
        }
        let shared = sequences.iter().map(|ids| common_prefix(&prompt_ids, ids)).min().unwrap_or(0);
        let lost = &prompt_ids[shared..];
        let boundary = (!lost.is_empty()).then(|| self.tokenizer.decode(lost, false)).transpose()?;
        prompt_ids.truncate(shared);
        for ids in &mut sequences {
            ids.drain(..shared);
        }
        Ok(Some(Joined { prompt: prompt_ids, completions: sequences, boundary }))
    }

    fn with_eos(&self, text: &str) -> Result<String> {
        let Some(eos) = self.tokenizer.eos_token() else {
            return Err(Error::usage("the tokenizer has no EOS token, which ends each text")
                .hint("set `eos_token` in its `tokenizer_config.json`"));
        };
        Ok(if text.ends_with(eos) { text.to_string() } else { format!("{text}{eos}") })
    }

    fn conversation(&self, row: &Row, messages: &[Value], add_generation_prompt: bool) -> Result<Option<Vec<u32>>> {
        if messages.is_empty() {
            return Ok(None);
        }
        let at_row = |e: Error| e.context(&row.place);
        let tools = tools(row)?;
        let template = if tools.is_some() { &self.template_for_tools } else { &self.template };
        let Some(template) = template else { return Ok(None) };
        let kwargs = row.fields.get("chat_template_kwargs").and_then(Value::as_object);
        let options =
            RenderOptions { add_generation_prompt, tools: tools.as_ref(), kwargs, ..RenderOptions::default() };
        let text = template.render(messages, &options).map_err(at_row)?;
        self.tokenizer.encode_rendered(&text).map(Some)
    }
}

/// The row's tool schemas: a list, or the JSON of one
fn tools(row: &Row) -> Result<Option<Value>> {
    match row.fields.get("tools") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => serde_json::from_str(text)
            .map(Some)
            .map_err(|e| Error::usage(format!("{}: `tools` is not valid JSON: {e}", row.place))),
        Some(tools) => Ok(Some(tools.clone())),
    }
}

fn common_prefix(left: &[u32], right: &[u32]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}
