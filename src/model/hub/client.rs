//! Requests to the Hub: the list of a repository's files, what a file is, and its bytes.
//!
//! The hf-hub crate builds addresses and asks for the list. Files are asked for here, because its own download has no
//! time-out, drops the headers that tell a gated repository from a misspelt one, and keeps a body that came short.

use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder};
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::failure::{Attempt, Failure, text};
use super::name::Target;
use super::settings::Settings;
use crate::{Error, Result};

/// Redirects before an address counts as a loop
const MAX_HOPS: usize = 10;
/// Bytes of a file list: the largest repositories have some hundred thousand files
const MAX_LIST: u64 = 256 << 20;

pub(super) struct Client {
    api: Api,
    agent: Agent,
    settings: Settings,
}

/// What the Hub says about a file before it sends it
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileInfo {
    pub etag: String,
    pub size: Option<u64>,
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self> {
        let api = ApiBuilder::new()
            .with_cache_dir(settings.cache.clone())
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_progress(false)
            .with_user_agent("collimate", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|cause| Error::run(format!("cannot set up the connection to the Hub: {cause}")))?;
        let agent = Agent::config_builder()
            .user_agent(concat!("collimate/", env!("CARGO_PKG_VERSION")))
            // Sizes and checksums are those of the file, not of a compressed form of it
            .accept_encoding("identity")
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(Some(settings.etag_timeout))
            .timeout_connect(Some(settings.etag_timeout))
            .timeout_recv_response(Some(settings.etag_timeout))
            .timeout_per_read(Some(settings.download_timeout))
            .build()
            .into();
        Ok(Self { api, agent, settings: settings.clone() })
    }

    /// The commit that the revision means, and the files of the repository at that commit
    pub fn list(&self, target: &Target) -> Attempt<RepoInfo> {
        let repo = self.api.repo(target.repo_at(&target.revision));
        self.with_retries(&target.name, || {
            let mut response = repo
                .info_request()
                .config()
                .http_status_as_error(false)
                .timeout_resolve(Some(self.settings.etag_timeout))
                .timeout_connect(Some(self.settings.etag_timeout))
                .timeout_recv_response(Some(self.settings.etag_timeout))
                .timeout_per_read(Some(self.settings.download_timeout))
                .build()
                .call()?;
            if response.status().is_success() {
                Ok(response.body_mut().with_config().limit(MAX_LIST).read_json()?)
            } else {
                Err(Failure::check(response).err().unwrap_or_else(|| Failure::Broken("unexpected redirect".into())))
            }
        })
    }

    /// The address of a file at a commit
    pub fn url(&self, target: &Target, commit: &str, file: &str) -> String {
        self.api.repo(target.repo_at(commit)).url(&escape(file))
    }

    /// ETag and size of the file at `url`
    pub fn head(&self, url: &str) -> Attempt<FileInfo> {
        self.with_retries(url, || self.head_once(url))
    }

    fn head_once(&self, url: &str) -> Attempt<FileInfo> {
        let mut url = url.to_owned();
        for _ in 0..MAX_HOPS {
            let mut request = self.agent.head(&url);
            // A redirect may lead to another company's storage
            if let Some(token) = self.settings.token.as_ref().filter(|_| self.is_ours(&url)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = Failure::check(request.config().max_redirects(0).build().call()?)?;
            let headers = response.headers();
            let number = |name: &str| text(headers, name).and_then(|size| size.parse().ok());
            // Large files lie in a storage behind a redirect; the Hub itself says what they are
            if let Some(etag) = text(headers, "x-linked-etag") {
                let size = number("x-linked-size")
                    .or_else(|| number("content-length").filter(|_| response.status().is_success()));
                return file_info(&etag, size);
            }
            if response.status().is_redirection() {
                let location =
                    text(headers, "location").ok_or_else(|| Failure::Broken("a redirect without an address".into()))?;
                url = absolute(&url, &location);
                continue;
            }
            let etag = text(headers, "etag").ok_or_else(|| {
                Error::run(format!("{} sent no `etag` for {url}", self.settings.endpoint))
                    .hint("check HF_ENDPOINT: this does not answer like a Hub")
            })?;
            return file_info(&etag, number("content-length"));
        }
        Err(Error::run(format!("too many redirects from {url}")).into())
    }

    /// The bytes of the file at `url` from `start` on; one attempt
    pub fn get(&self, url: &str, start: u64) -> Attempt<Response<Body>> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.settings.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        Ok(request.call()?)
    }

    /// Tries again after failures that may pass, waiting longer each time
    pub fn with_retries<T>(&self, what: &str, mut attempt: impl FnMut() -> Attempt<T>) -> Attempt<T> {
        let mut wait = self.settings.backoff;
        for _ in 0..self.settings.retries {
            match attempt() {
                Err(failure) if failure.may_pass() => {
                    let wait_now = failure.retry_after().unwrap_or(wait);
                    tracing::warn!(what, cause = failure.summary(), "trying again in {wait_now:?}");
                    std::thread::sleep(wait_now);
                    wait = (wait * 2).min(Duration::from_secs(8));
                }
                result => return result,
            }
        }
        attempt()
    }

    fn is_ours(&self, url: &str) -> bool {
        origin(url) == origin(&self.settings.endpoint)
    }
}

fn file_info(etag: &str, size: Option<u64>) -> Attempt<FileInfo> {
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    // The tag becomes a file name
    let is_plain = !etag.is_empty()
        && etag.len() <= 200
        && !etag.starts_with('.')
        && etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_plain {
        Ok(FileInfo { etag: etag.to_owned(), size })
    } else {
        Err(Error::run(format!("the Hub sent the etag `{etag}`, which cannot name a file")).into())
    }
}

/// Scheme and host of an address
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |slash| &url[..host + slash])
}

/// Where a redirect from `url` leads
fn absolute(url: &str, location: &str) -> String {
    if location.contains("://") {
        location.to_owned()
    } else if let Some(host) = location.strip_prefix("//") {
        let scheme = url.split("//").next().unwrap_or("https:");
        format!("{scheme}//{host}")
    } else if location.starts_with('/') {
        format!("{}{location}", origin(url))
    } else {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        format!("{}/{location}", path.rsplit_once('/').map_or(path, |(folder, _)| folder))
    }
}

/// Percent-encodes what may not stand in the path of an address
fn escape(path: &str) -> String {
    use std::fmt::Write;
    path.bytes().fold(String::with_capacity(path.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(byte as char);
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let url = "https://hub/org/name/resolve/main/a.json?x=1";
        for (location, expected) in [
            ("/api/x", "https://hub/api/x"),
            ("https://cdn/y", "https://cdn/y"),
            ("//cdn/y", "https://cdn/y"),
            ("b.json", "https://hub/org/name/resolve/main/b.json"),
        ] {
            assert_eq!(absolute(url, location), expected);
        }
        assert_eq!(origin("http://127.0.0.1:80"), "http://127.0.0.1:80");
    }

    #[test]
    fn file_names_are_escaped() {
        assert_eq!(escape("data/a b#1?.json"), "data/a%20b%231%3F.json");
    }

    #[test]
    fn etags_are_stripped_and_checked() {
        let etag = |text: &str| file_info(text, None).map(|info| info.etag);
        assert_eq!(etag("\"abc\"").unwrap(), "abc");
        assert_eq!(etag("W/\"abc-gzip\"").unwrap(), "abc-gzip");
        for bad in ["", "\"\"", "../x", "a/b", ".", ".."] {
            assert!(etag(bad).is_err(), "{bad}");
        }
    }
}
