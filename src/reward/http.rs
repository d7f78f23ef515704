//! `http://…`, `https://…`: a server. POST of `{"samples": [{"prompt", "completion", "completion_ids", "truncated",
//! ...columns}]}`; the answer is `{"rewards": [...]}`, or the list alone, with a number or `null` for each sample.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::warn;
use ureq::Agent;
use ureq::http::Uri;

use super::answer::{parse_value, sample_json};
use super::{Check, Options, Reward, Sample};
use crate::process::excerpt;
use crate::{Error, Result};

/// How often the caller's check is asked while the server thinks
const SLICE: Duration = Duration::from_millis(20);
/// Longest wait that a server can ask for by `retry-after`
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Largest answer that is read
const LARGEST: u64 = 64 << 20;
const HINT: &str = "the server answers a POST of `{\"samples\": [...]}` with `{\"rewards\": [...]}`, one number or \
                    `null` each; `reward_timeout` is the longest wait for a batch";

/// A server as a reward
pub struct HttpReward {
    url: String,
    /// The address without what may be secret in it
    shown: String,
    agent: Agent,
    options: Options,
}

/// Why there are no values
struct Fault {
    what: String,
    retry_after: Duration,
    may_pass: bool,
}

impl Fault {
    fn passing(what: impl Into<String>) -> Self {
        Self { what: what.into(), retry_after: Duration::ZERO, may_pass: true }
    }
}

impl HttpReward {
    /// A server by its address; nothing is sent yet
    ///
    /// # Errors
    /// Not an address with a host
    pub fn new(url: &str, options: Options) -> Result<Self> {
        let uri: Uri = url.parse().map_err(|cause| Error::usage(format!("reward `{url}` is no address: {cause}")))?;
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| Error::usage(format!("reward `{url}` names no host")))?;
        let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        let shown = format!("{}://{host}{port}{}", uri.scheme_str().unwrap_or("http"), uri.path());
        let agent = Agent::config_builder()
            .user_agent(concat!("collimate/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .timeout_global(Some(options.timeout))
            .build()
            .into();
        Ok(Self { url: url.to_owned(), shown, agent, options })
    }

    /// Posts from a thread, so that a signal need not wait for the server
    fn post(&self, body: &str, check: Check<'_>) -> Result<std::result::Result<String, Fault>> {
        let (send, receive) = mpsc::channel();
        let (agent, url, body, timeout) = (self.agent.clone(), self.url.clone(), body.to_owned(), self.options.timeout);
        thread::spawn(move || send.send(post(&agent, &url, &body, timeout)));
        loop {
            check()?;
            match receive.recv_timeout(SLICE) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Err(Fault::passing("the connection broke off"))),
            }
        }
    }
}

impl Reward for HttpReward {
    fn name(&self) -> &'static str {
        "http"
    }

    fn score(&mut self, samples: &[Sample<'_>], check: Check<'_>) -> Result<Vec<Option<f64>>> {
        let body = json!({"samples": samples.iter().map(sample_json).collect::<Vec<_>>()}).to_string();
        let mut attempt = 0;
        loop {
            let fault = match self.post(&body, check)?.and_then(|answer| read(&answer, samples.len())) {
                Ok(values) => return Ok(values),
                Err(fault) => fault,
            };
            let Fault { what, retry_after, may_pass } = fault;
            if attempt == self.options.retries || !may_pass {
                let times =
                    if attempt == 0 { String::new() } else { format!(" (the last of {} attempts)", attempt + 1) };
                return Err(Error::run(format!("reward `{}`: {what}{times}", self.shown)).hint(HINT));
            }
            attempt += 1;
            warn!("reward `{}`: {what}; asking again", self.shown);
            self.options.wait_before(attempt, retry_after, check)?;
        }
    }
}

fn post(agent: &Agent, url: &str, body: &str, timeout: Duration) -> std::result::Result<String, Fault> {
    let broken = |cause: ureq::Error| {
        Fault::passing(match cause {
            ureq::Error::Timeout(_) => format!("no answer within {} s", timeout.as_secs_f64()),
            other => format!("cannot be reached: {other}"),
        })
    };
    let mut response = agent.post(url).content_type("application/json").send(body).map_err(broken)?;
    let status = response.status();
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let text = response.body_mut().with_config().limit(LARGEST).read_to_string().map_err(broken)?;
    if status.is_success() {
        return Ok(text);
    }
    let said = if text.trim().is_empty() { String::new() } else { format!(": `{}`", excerpt(&text)) };
    Err(Fault {
        what: format!("status {status}{said}"),
        retry_after: retry_after.map_or(Duration::ZERO, Duration::from_secs).min(LONGEST_WAIT),
        may_pass: status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429),
    })
}

/// The values of an answer
fn read(text: &str, count: usize) -> std::result::Result<Vec<Option<f64>>, Fault> {
    let value: Value = serde_json::from_str(text).or_else(|cause| {
        // Python's JSON has words for NaN and infinities; as text they get as far as the message about their sample
        serde_json::from_str(&quote_non_finite(text))
            .map_err(|_| Fault::passing(format!("the answer is no JSON ({cause}): `{}`", excerpt(text))))
    })?;
    let list = value.get("rewards").unwrap_or(&value).as_array();
    let list = list.ok_or_else(|| Fault::passing(format!("the answer has no list `rewards`: `{}`", excerpt(text))))?;
    if list.len() != count {
        return Err(Fault::passing(format!("{} rewards for {count} samples: `{}`", list.len(), excerpt(text))));
    }
    let parse = |(index, item): (usize, &Value)| {
        let said =
            item.as_str().filter(|word| NON_FINITE.contains(word)).map_or_else(|| item.to_string(), str::to_owned);
        parse_value(&said).map_err(|_| {
            Fault::passing(format!(
                "reward {} of {count} is neither a number nor `null`: `{}`",
                index + 1,
                excerpt(&said)
            ))
        })
    };
    list.iter().enumerate().map(parse).collect()
}

const NON_FINITE: &[&str] = &["NaN", "Infinity", "-Infinity"];

fn quote_non_finite(text: &str) -> String {
    text.replace("-Infinity", "\"-\u{221e}\"")
        .replace("Infinity", "\"Infinity\"")
        .replace("\"-\u{221e}\"", "\"-Infinity\"")
        .replace("NaN", "\"NaN\"")
}
