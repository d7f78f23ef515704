//! Chat templates: Jinja as transformers renders it, bounded in time and in the size of what comes out.
//!
//! A template comes from whoever published the model, so it runs with a fixed amount of fuel (instructions) and into a
//! writer with a limit. Not responsible for: choosing the template, or turning its text into tokens.

use std::io;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value as Jinja;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

use super::template_python::{self as python, jinja_value};
use crate::error::{Error, Result};

/// Instructions for one conversation: thousands of turns of the longest templates in use take a small part of it
const FUEL: u64 = 20_000_000;
/// Bytes of one rendered conversation
const MAX_OUTPUT: usize = 64 << 20;
const NAME: &str = "chat template";
const MARKED: &str = "chat template with marks";
/// As transformers marks the place where a continued message breaks off
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// A compiled chat template with the special tokens that it may name
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(String, String)>,
    reads_content: bool,
    /// Whether the template says which of its text the assistant generates
    marks_generation: bool,
}

/// How a conversation is rendered
#[derive(Debug, Clone, Default)]
pub struct RenderOptions<'a> {
    /// End with the header of an assistant turn
    pub add_generation_prompt: bool,
    /// Leave the last message open, for the model to go on with
    pub continue_final_message: bool,
    /// Tool schemas
    pub tools: Option<&'a Value>,
    /// More variables for the template; they beat the special tokens
    pub kwargs: Option<&'a Map<String, Value>>,
}

impl ChatTemplate {
    /// Compiles `source`; `special_tokens` are pairs such as `("eos_token", "<|im_end|>")`
    pub fn new(source: &str, special_tokens: Vec<(String, String)>) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| explain(&e))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(python::format);
        environment.add_filter("tojson", python::to_json);
        environment.add_test("iterable", python::is_iterable);
        environment.add_test("sequence", python::is_sequence);
        environment.add_function("raise_exception", python::raise_exception);
        environment.add_function("strftime_now", python::strftime_now);
        environment.add_template_owned(NAME, python::without_generation_tags(source)).map_err(|e| explain(&e))?;
        let marked = python::with_generation_marks(source);
        let marks_generation = marked.is_some();
        if let Some(marked) = marked {
            environment.add_template_owned(MARKED, marked).map_err(|e| explain(&e))?;
        }
        Ok(Self { environment, special_tokens, reads_content: source.contains("content"), marks_generation })
    }

    /// Whether the template says with `{% generation %}` which of its text the assistant generates
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// The text of a conversation, and which bytes of it the template marks as generated
    pub fn render_marked(
        &self,
        messages: &[Value],
        options: &RenderOptions<'_>,
    ) -> Result<(String, Vec<Range<usize>>)> {
        let messages: Vec<Value> = messages.iter().map(prepare_message).collect();
        let marked = self.render_messages(MARKED, &messages, options)?;
        let [begin, end] = python::MARKS;
        let (mut text, mut spans, mut open) = (String::with_capacity(marked.len()), Vec::new(), None);
        for c in marked.chars() {
            match open {
                None if c == begin => open = Some(text.len()),
                Some(start) if c == end => {
                    spans.push(start..text.len());
                    open = None;
                }
                _ if c == begin || c == end => {
                    return Err(Error::usage(
                        "the chat template nests `{% generation %}`, or a message holds U+FDD0 or U+FDD1, which are no \
                         characters",
                    ));
                }
                _ => text.push(c),
            }
        }
        Ok((text, spans))
    }

    /// The text of a conversation
    pub fn render(&self, messages: &[Value], options: &RenderOptions<'_>) -> Result<String> {
        if messages.is_empty() {
            return Err(Error::usage("cannot apply the chat template to an empty conversation"));
        }
        if options.add_generation_prompt && options.continue_final_message {
            return Err(Error::usage("`add_generation_prompt` and `continue_final_message` exclude each other"));
        }
        let mut messages: Vec<Value> = messages.iter().map(prepare_message).collect();
        let continued = options.continue_final_message.then(|| self.mark_end(&mut messages)).transpose()?;
        let text = self.render_messages(NAME, &messages, options)?;
        match continued {
            Some(message) => cut_at_mark(text, &message),
            None => Ok(text),
        }
    }

    fn render_messages(&self, name: &str, messages: &[Value], options: &RenderOptions<'_>) -> Result<String> {
        let mut context: Vec<(String, Jinja)> = vec![
            ("messages".to_string(), messages.iter().map(jinja_value).collect()),
            ("tools".to_string(), options.tools.map_or(Jinja::from(()), jinja_value)),
            ("documents".to_string(), Jinja::from(())),
            ("add_generation_prompt".to_string(), options.add_generation_prompt.into()),
        ];
        context.extend(self.special_tokens.iter().map(|(name, token)| (name.clone(), token.as_str().into())));
        context.extend(options.kwargs.into_iter().flatten().map(|(name, value)| (name.clone(), jinja_value(value))));
        let template = self.environment.get_template(name).map_err(|e| explain(&e))?;
        let mut output = Limited(Vec::new());
        template.render_captured_to(Jinja::from_pairs(context), &mut output).map_err(|e| explain(&e))?;
        String::from_utf8(output.0).map_err(|_| Error::usage("the chat template wrote text that is not UTF-8"))
    }

    /// Puts the tag after the last message's text and returns that text
    fn mark_end(&self, messages: &mut [Value]) -> Result<String> {
        let no_text = || Error::usage("cannot continue the last message: it has no text in `content`");
        if !self.reads_content {
            return Err(Error::usage("cannot continue the last message: the chat template does not read `content`"));
        }
        let last = messages.last_mut().ok_or_else(no_text)?;
        let text = match last.get_mut("content") {
            Some(Value::String(text)) => text,
            Some(Value::Array(blocks)) => {
                let text = blocks.iter_mut().rev().find_map(|block| block.get_mut("text"));
                match text {
                    Some(Value::String(text)) => text,
                    _ => return Err(no_text()),
                }
            }
            _ => return Err(no_text()),
        };
        let message = text.clone();
        text.push_str(CONTINUE_TAG);
        Ok(message)
    }
}

/// The message without null entries, its reasoning under every name that templates look for
fn prepare_message(message: &Value) -> Value {
    const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let Value::Object(message) = message else { return message.clone() };
    let present = |name: &&str| message.get(*name).filter(|value| !value.is_null());
    let mut prepared = Map::new();
    if let Some(reasoning) = REASONING.iter().find_map(present) {
        prepared.insert("thinking".to_string(), reasoning.clone());
        for (name, value) in message.iter().filter(|(_, value)| !value.is_null()) {
            prepared.insert(name.clone(), value.clone());
        }
        prepared.insert("reasoning_content".to_string(), reasoning.clone());
    } else {
        prepared.extend(message.iter().filter(|(_, value)| !value.is_null()).map(|(n, v)| (n.clone(), v.clone())));
    }
    Value::Object(prepared)
}

fn cut_at_mark(mut text: String, message: &str) -> Result<String> {
    let at = text.rfind(CONTINUE_TAG.trim_end()).filter(|_| text.contains(message.trim()));
    let Some(at) = at else {
        return Err(Error::usage("cannot continue the last message: the chat template changes or leaves out its text"));
    };
    // Where the tag's own space is gone, the template trims messages, and so must the end be
    let trims = !text[at..].starts_with(CONTINUE_TAG);
    text.truncate(at);
    if trims {
        text.truncate(text.trim_end().len());
    }
    Ok(text)
}

struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("the text is longer than {} MiB", MAX_OUTPUT >> 20)));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain(error: &minijinja::Error) -> Error {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    if let Some(message) = python::raised(error) {
        return Error::usage(format!("the chat template refuses the conversation: {message}"))
            .hint("the template's author allows only certain roles in a certain order");
    }
    match error.kind() {
        ErrorKind::OutOfFuel => Error::usage(format!("the chat template does not come to an end{line}"))
            .hint("a loop in the template runs too long; use another template"),
        ErrorKind::SyntaxError => Error::usage(format!("the chat template is not valid Jinja{line}: {detail}")),
        ErrorKind::WriteFailure => {
            let cause = std::error::Error::source(error).map_or(detail, ToString::to_string);
            Error::usage(format!("the chat template writes too much{line}: {cause}"))
        }
        _ => Error::usage(format!("the chat template fails{line}: {detail}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str, messages: Value, options: &RenderOptions<'_>) -> Result<String> {
        let tokens = vec![("eos_token".to_string(), "</s>".to_string())];
        ChatTemplate::new(source, tokens)?.render(messages.as_array().unwrap(), options)
    }

    fn hello() -> Value {
        json!([{"role": "user", "content": "hello"}])
    }

    #[test]
    fn endless_and_faulty_templates_are_usage_errors() {
        let cases = [
            (
                "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
                "does not come to an end",
            ),
            ("{% for a in range(9999) %}{{ 'x' * 99999 }}{% endfor %}", "writes too much"),
            ("{{ raise_exception('only user turns') }}", "refuses the conversation: only user turns"),
            ("{{ messages[9].content.x }}", "fails (line 1)"),
            ("{{ missing.attribute }}", "fails (line 1)"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails"),
        ];
        for (source, expected) in cases {
            let error = render(source, hello(), &RenderOptions::default()).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        assert!(ChatTemplate::new("{% if %}", Vec::new()).unwrap_err().message().contains("not valid Jinja (line 1)"));
    }

    #[test]
    fn the_last_message_can_stay_open() {
        let source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n{% endfor %}";
        let messages = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "The sky "}]);
        let options = RenderOptions { continue_final_message: true, ..RenderOptions::default() };
        assert_eq!(render(source, messages.clone(), &options).unwrap(), "[user] a</s>\n[assistant] The sky ");
        let trimming = source.replace("m.content", "m.content | trim");
        assert_eq!(render(&trimming, messages, &options).unwrap(), "[user] a</s>\n[assistant] The sky");
    }

    #[test]
    fn generated_text_is_marked_without_changing_it() {
        let messages = json!([
            {"role": "user", "content": "a"}, {"role": "assistant", "content": " b "}, {"role": "assistant", "content": "é"}
        ]);
        for (open, close) in
            [("{% generation %}", "{% endgeneration %}"), ("{%- generation -%}", "{%- endgeneration -%}")]
        {
            let source = format!(
                "{{% for m in messages %}}\n  {{% if m.role == 'user' %}}\n<u>{{{{ m.content }}}}\n  {{% else %}}\n<a>\n  {open}\n  \
                 {{{{ m.content | trim }}}}{{{{ eos_token }}}}\n  {close}\n\n  {{% endif %}}\n{{% endfor %}}"
            );
            let template = ChatTemplate::new(&source, vec![("eos_token".to_string(), "</s>".to_string())]).unwrap();
            let messages = messages.as_array().unwrap();
            let (text, spans) = template.render_marked(messages, &RenderOptions::default()).unwrap();
            assert_eq!(text, template.render(messages, &RenderOptions::default()).unwrap());
            let spans: Vec<&str> = spans.into_iter().map(|span| text[span].trim()).collect();
            assert_eq!(spans, ["b</s>", "é</s>"]);
        }
        assert!(!ChatTemplate::new("{{ messages }}", Vec::new()).unwrap().marks_generation());
    }

    #[test]
    fn null_entries_are_absent_and_kwargs_beat_special_tokens() {
        let source = "{{ messages[0].tool_calls is defined }} {{ eos_token }} {{ mode }}";
        let kwargs = json!({"eos_token": "<end>", "mode": "x"});
        let options = RenderOptions { kwargs: kwargs.as_object(), ..RenderOptions::default() };
        let messages = json!([{"role": "user", "content": "a", "tool_calls": null}]);
        assert_eq!(render(source, messages, &options).unwrap(), "False <end> x");
    }
}
