//! Where the Hub and its cache are: the environment variables of Python's `huggingface_hub`, read the same way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What [`Hub`](super::Hub) goes by
#[derive(Clone)]
pub struct Settings {
    /// Folder of `models--…` and `datasets--…`
    pub cache: PathBuf,
    /// Address of the Hub, without a slash at the end
    pub endpoint: String,
    /// Access token
    pub token: Option<String>,
    /// Only the cache, no request
    pub offline: bool,
    /// How long to wait for a connection and for the head of an answer
    pub etag_timeout: Duration,
    /// How long to wait for the next bytes of a file
    pub download_timeout: Duration,
    /// How often to try again after a failure that may pass
    pub retries: u32,
    /// Wait before the first retry; doubles each time
    pub backoff: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token stays out of logs
        f.debug_struct("Settings")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("has_token", &self.token.is_some())
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// From the process environment; `offline` or `HF_HUB_OFFLINE` forbids requests
    pub fn from_env(offline: bool) -> Result<Self> {
        Self::from_lookup(offline, &|name| std::env::var(name).ok())
    }

    /// From variables that `lookup` returns; a variable set to nothing counts as unset
    pub fn from_lookup(offline: bool, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let user_home = get("HOME").map(PathBuf::from);
        let folder = |name: &str| get(name).map(|value| expand_home(&value, user_home.as_deref()));
        let flag = |name: &str| {
            get(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let hf_home = folder("HF_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| user_home.as_ref().map(|home| home.join(".cache").join("huggingface")));
        let cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
            .ok_or_else(|| {
                Error::usage("no folder for the Hub cache: neither HOME nor HF_HOME is set")
                    .hint("set HF_HUB_CACHE to a folder")
            })?;
        let token = if flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
                let file = folder("HF_TOKEN_PATH").or_else(|| hf_home.map(|home| home.join("token")))?;
                std::fs::read_to_string(file).ok()
            })
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        if token.as_deref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::usage("the Hub token holds characters that no token has")
                .hint("check HF_TOKEN, or the file that `hf auth login` wrote"));
        }
        Ok(Self {
            cache,
            endpoint: endpoint(get("HF_ENDPOINT"))?,
            token,
            offline: offline || flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE"),
            etag_timeout: seconds("HF_HUB_ETAG_TIMEOUT", get("HF_HUB_ETAG_TIMEOUT"))?,
            download_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", get("HF_HUB_DOWNLOAD_TIMEOUT"))?,
            retries: 4,
            backoff: Duration::from_millis(500),
        })
    }
}

fn endpoint(value: Option<String>) -> Result<String> {
    let endpoint = value.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let endpoint = endpoint.trim().trim_end_matches('/');
    if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
        return Err(Error::usage(format!("HF_ENDPOINT is `{endpoint}`, expected an address with `https://`")));
    }
    Ok(endpoint.to_owned())
}

fn seconds(name: &str, value: Option<String>) -> Result<Duration> {
    let Some(value) = value else { return Ok(DEFAULT_TIMEOUT) };
    match value.trim().parse::<u64>() {
        // Python's client takes 0 for unset
        Ok(0) => Ok(DEFAULT_TIMEOUT),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => Err(Error::usage(format!("{name} is `{value}`, expected whole seconds"))),
    }
}

/// `~` and `~/…` stand for the home folder
pub(super) fn expand_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::from_lookup(false, &|name| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn the_cache_is_where_python_looks_for_it() {
        let mut variables = vec![("HOME", "/home/u")];
        let cases = [
            (("HOME", "/home/u"), "/home/u/.cache/huggingface/hub"),
            (("XDG_CACHE_HOME", "/xdg"), "/xdg/huggingface/hub"),
            (("HF_HOME", "~/hf"), "/home/u/hf/hub"),
            (("HUGGINGFACE_HUB_CACHE", "/old"), "/old"),
            (("HF_HUB_CACHE", "/new"), "/new"),
        ];
        for (variable, expected) in cases {
            variables.push(variable);
            assert_eq!(settings(&variables).unwrap().cache, Path::new(expected), "{variables:?}");
        }
        assert!(settings(&[]).unwrap_err().hint_text().unwrap().contains("HF_HUB_CACHE"));
    }

    #[test]
    fn the_token_comes_from_variable_or_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "in_home\n").unwrap();
        let other = folder.path().join("elsewhere");
        std::fs::write(&other, "in_file").unwrap();
        let mut variables = vec![("HF_HOME", home)];
        assert_eq!(settings(&variables).unwrap().token.as_deref(), Some("in_home"));
        variables.push(("HF_TOKEN_PATH", other.to_str().unwrap()));
        assert_eq!(settings(&variables).unwrap().token.as_deref(), Some("in_file"));
        variables.push(("HF_TOKEN", " hf_variable\n"));
        assert_eq!(settings(&variables).unwrap().token.as_deref(), Some("hf_variable"));
        assert!(!format!("{:?}", settings(&variables).unwrap()).contains("hf_variable"));
        variables.push(("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"));
        assert_eq!(settings(&variables).unwrap().token, None);
        assert!(settings(&[("HF_HOME", home), ("HF_TOKEN", "a\tb")]).is_err());
    }

    #[test]
    fn offline_is_said_in_four_ways() {
        for (value, expected) in [("1", true), ("on", true), ("Yes", true), ("TRUE", true), ("0", false), ("", false)] {
            let offline = settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap().offline;
            assert_eq!(offline, expected, "{value}");
        }
        assert!(Settings::from_lookup(true, &|_| Some("/h".into())).is_err(), "`/h` is no endpoint");
    }

    #[test]
    fn endpoint_and_timeouts() {
        let home = ("HOME", "/h");
        let default = settings(&[home]).unwrap();
        assert_eq!((default.endpoint.as_str(), default.etag_timeout.as_secs()), ("https://huggingface.co", 10));
        let other = settings(&[home, ("HF_ENDPOINT", "https://mirror//"), ("HF_HUB_DOWNLOAD_TIMEOUT", "60")]).unwrap();
        assert_eq!((other.endpoint.as_str(), other.download_timeout.as_secs()), ("https://mirror", 60));
        assert!(settings(&[home, ("HF_ENDPOINT", "mirror")]).is_err());
        assert!(settings(&[home, ("HF_HUB_ETAG_TIMEOUT", "ten")]).unwrap_err().message().contains("whole seconds"));
    }
}
