//! What can go wrong between here and the Hub, and how a user reads it.

use std::io;
use std::time::Duration;

use hf_hub::api::sync::ApiError;
use ureq::http::{HeaderMap, Response};
use ureq::{Body, Timeout};

use super::cache;
use super::name::Target;
use super::settings::Settings;
use crate::Error;

/// The result of asking the Hub
pub(super) type Attempt<T> = std::result::Result<T, Failure>;

/// Why a request did not bring what it was sent for
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection
    Unreachable(String),
    /// A connection that broke off, or an answer that is not whole
    Broken(String),
    /// An answer that says no
    Status { status: u16, code: Option<String>, message: Option<String>, retry_after: Option<Duration> },
    /// Nothing to do with the network
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::HostNotFound => Self::Unreachable("host not found".into()),
            ureq::Error::ConnectionFailed => Self::Unreachable("connection failed".into()),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                Self::Unreachable("no connection in time".into())
            }
            ureq::Error::Timeout(_) => Self::Broken("no answer in time".into()),
            ureq::Error::Io(cause) => match cause.kind() {
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NotFound => Self::Unreachable(cause.to_string()),
                _ => Self::Broken(cause.to_string()),
            },
            ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl | ureq::Error::Http(_) => {
                Self::Other(Error::usage(error.to_string()).hint("check HF_ENDPOINT and the proxy variables"))
            }
            ureq::Error::Protocol(_) | ureq::Error::Decompress(..) | ureq::Error::Json(_) => {
                Self::Broken(error.to_string())
            }
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::RequestError(cause) => Self::from(*cause),
            other => Self::Other(Error::run(other.to_string())),
        }
    }
}

impl Failure {
    /// The failure that an answer stands for, if it stands for one
    pub fn check(response: Response<Body>) -> Attempt<Response<Body>> {
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(response);
        }
        let headers = response.headers();
        Err(Self::Status {
            status,
            code: text(headers, "x-error-code"),
            message: text(headers, "x-error-message"),
            retry_after: text(headers, "retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
        })
    }

    /// Whether the same request may succeed in a moment
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Unreachable(_) | Self::Other(_) => false,
        }
    }

    /// Whether the cache is worth a look: the Hub did not refuse, it just did not answer properly
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Unreachable(_)) || self.may_pass()
    }

    /// How long the server asked to wait, within reason
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => retry_after.map(|wait| wait.min(Duration::from_secs(60))),
            _ => None,
        }
    }

    /// In a few words, for a log line
    pub fn summary(&self) -> String {
        match self {
            Self::Unreachable(cause) | Self::Broken(cause) => cause.clone(),
            Self::Status { status, .. } => format!("status {status}"),
            Self::Other(error) => error.message().to_owned(),
        }
    }

    /// The error for a request about `target`, or about one `file` of it
    pub fn into_error(self, target: &Target, file: Option<&str>, settings: &Settings) -> Error {
        let (noun, name, revision) = (target.kind.noun(), &target.name, &target.revision);
        let endpoint = &settings.endpoint;
        let what = file.map_or_else(|| format!("{noun} `{name}`"), |file| format!("`{file}` of {noun} `{name}`"));
        let network = |cause: &str| {
            Error::run(format!("cannot fetch {what} from {endpoint}: {cause}")).hint(format!(
                "no file or folder has the name `{name}`, so it is looked for on the Hub; check the network, a proxy \
                 (HTTPS_PROXY) or a mirror (HF_ENDPOINT); what is in the cache already works with `--offline`"
            ))
        };
        let sign_in = if settings.token.is_some() {
            "the token that was sent does not give access: check HF_TOKEN"
        } else {
            "set HF_TOKEN, or run `hf auth login`"
        };
        let (status, code, message) = match self {
            Self::Other(error) => return error,
            Self::Unreachable(cause) => return network(&cause),
            Self::Broken(cause) => return network(&format!("{cause}, after {} attempts", settings.retries + 1)),
            Self::Status { status, code, message, .. } => (status, code, message),
        };
        match (status, code.as_deref()) {
            (_, Some("GatedRepo")) => Error::usage(format!("{noun} `{name}` is gated"))
                .hint(format!("ask for access on {endpoint}/{}, then {sign_in}", target.repo_at(revision).url())),
            (404, Some("RevisionNotFound")) => Error::usage(format!("{noun} `{name}` has no revision `{revision}`"))
                .hint("a revision is a branch, a tag or a full commit hash; the default is `main`"),
            (404, Some("EntryNotFound")) => Error::usage(format!("{what} does not exist at revision `{revision}`")),
            (401, _) if message.as_deref().is_some_and(|message| message.starts_with("Invalid")) => Error::usage(
                format!("{endpoint} does not accept the token"),
            )
            .hint("check HF_TOKEN, or sign in again with `hf auth login`; HF_HUB_DISABLE_IMPLICIT_TOKEN=1 sends none"),
            // The Hub answers 401 for repositories that do not exist, so as not to give away private names
            (401 | 404, _) => Error::usage(format!("{noun} `{name}` does not exist on {endpoint}, or is private"))
                .hint(match cache::nearest_name(&settings.cache, target) {
                    Some(near) => format!("did you mean `{near}`? For a private {noun}, {sign_in}"),
                    None => format!("check the spelling; for a private {noun}, {sign_in}"),
                }),
            (403, _) => {
                let because = message.map(|message| format!(": {message}")).unwrap_or_default();
                Error::usage(format!("no access to {what}{because}")).hint(format!(
                    "{sign_in}, with read access to the repository; a gated {noun} also needs its terms accepted on its page"
                ))
            }
            (429, _) => network("too many requests (429)"),
            (status, _) => network(&format!("the server answered with status {status}")),
        }
    }
}

/// A header as text
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
