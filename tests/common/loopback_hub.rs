//! A Hub on the loopback interface: answers as huggingface.co does, and fails on demand.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use collimate::files::hex;
use sha2::{Digest, Sha256};

/// The commit that `main` means in every repository
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The only token with access to private repositories
pub const TOKEN: &str = "hf_secret";

/// A repository as the server knows it
#[derive(Clone, Default)]
pub struct Repository {
    files: BTreeMap<String, (Vec<u8>, Storage)>,
    gated: bool,
    private: bool,
    renamed_to: Option<String>,
    unlisted: Vec<String>,
}

/// How the server sends a file
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Straight from the repository, under a git hash
    Git,
    /// From a storage behind a redirect with a path, under a SHA-256
    LfsHere,
    /// The same behind a redirect to another host
    LfsElsewhere,
    /// Straight, but only after a redirect with a path that already names the etag
    Cached,
}

/// Something that goes wrong, with requests whose line contains a text
#[derive(Clone)]
pub enum Fault {
    /// This status and these headers instead of an answer
    Status(u16, &'static str),
    /// The connection closes after so many bytes of the body
    Cut(usize),
    /// The body has its last byte changed
    Garble,
    /// The whole file although a part was asked for
    IgnoreRange,
    /// No answer for this long
    Stall(Duration),
}

impl Repository {
    /// With files from the repository itself
    pub fn with(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.to_owned(), (content.as_ref().to_vec(), Storage::Git));
        self
    }

    /// With a file sent in another way
    pub fn with_stored(mut self, path: &str, content: impl AsRef<[u8]>, storage: Storage) -> Self {
        self.files.insert(path.to_owned(), (content.as_ref().to_vec(), storage));
        self
    }

    /// Lists a file that it does not have
    pub fn listing(mut self, path: &str) -> Self {
        self.unlisted.push(path.to_owned());
        self
    }

    pub fn gated(mut self) -> Self {
        self.gated = true;
        self
    }

    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    pub fn renamed_to(name: &str) -> Self {
        Self { renamed_to: Some(name.to_owned()), ..Self::default() }
    }
}

struct State {
    address: String,
    repositories: Mutex<BTreeMap<String, Repository>>,
    faults: Mutex<Vec<(String, Fault, usize)>>,
    requests: Mutex<Vec<String>>,
    stopping: AtomicBool,
}

/// The running server
pub struct LoopbackHub {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl LoopbackHub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(State {
            address: listener.local_addr().unwrap().to_string(),
            repositories: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                // A client that hangs up early is part of the tests
                std::thread::spawn(move || shared.serve(stream.unwrap()).ok());
            }
        });
        Self { state, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.state.address)
    }

    /// Adds `models/org/name` or `datasets/org/name`
    pub fn add(&self, name: &str, repository: Repository) {
        self.state.repositories.lock().unwrap().insert(name.to_owned(), repository);
    }

    /// Lets the next `times` requests whose line contains `text` fail
    pub fn fail(&self, text: &str, fault: Fault, times: usize) {
        self.state.faults.lock().unwrap().push((text.to_owned(), fault, times));
    }

    /// Everything goes well again
    pub fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    /// Method, path, and the headers that matter, of every request so far
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    /// How many requests so far contain `text`
    pub fn count(&self, text: &str) -> usize {
        self.requests().iter().filter(|request| request.contains(text)).count()
    }
}

impl Drop for LoopbackHub {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the listener
        TcpStream::connect(&self.state.address).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

/// What the server sends
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: headers.into(), body: body.into() }
    }
}

/// The etag of a file: a git hash has 40 digits, an LFS hash 64
pub fn etag(content: &[u8], storage: Storage) -> String {
    let digest = hex(&Sha256::digest(content));
    if matches!(storage, Storage::Git | Storage::Cached) { digest[..40].to_owned() } else { digest }
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut parts = line.split_whitespace();
        let (Some(method), Some(path)) = (parts.next(), parts.next()) else { return Ok(()) };
        let (mut range, mut token, mut host) = (None, None, String::new());
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            let value = value.trim().to_owned();
            match name.to_lowercase().as_str() {
                "range" => range = Some(value),
                "authorization" => token = Some(value),
                "host" => host = value,
                _ => {}
            }
        }
        let mut request = format!("{method} {path}");
        for (name, value) in [("range", &range), ("authorization", &token)] {
            if let Some(value) = value {
                write!(request, " {name}={value}").unwrap();
            }
        }
        if host.starts_with("localhost") {
            request.push_str(" elsewhere");
        }
        self.requests.lock().unwrap().push(request.clone());
        let fault = self.take_fault(&request);
        if matches!(fault, Some(Fault::IgnoreRange)) {
            range = None;
        }
        let mut answer = match &fault {
            Some(Fault::Status(status, headers)) => Answer::new(*status, *headers, ""),
            _ => self.answer(path, range.as_deref(), token.as_deref()),
        };
        match fault {
            Some(Fault::Stall(wait)) => std::thread::sleep(wait),
            Some(Fault::Garble) => {
                if let Some(last) = answer.body.last_mut() {
                    *last ^= 1;
                }
            }
            _ => {}
        }
        let mut head = format!("HTTP/1.1 {} Whatever\r\nconnection: close\r\n", answer.status);
        for header in answer.headers.lines() {
            write!(head, "{header}\r\n").unwrap();
        }
        write!(head, "content-length: {}\r\n\r\n", answer.body.len()).unwrap();
        stream.write_all(head.as_bytes())?;
        if method != "HEAD" {
            let length = match fault {
                Some(Fault::Cut(length)) => length.min(answer.body.len()),
                _ => answer.body.len(),
            };
            stream.write_all(&answer.body[..length])?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // Until the client has hung up too: closing first would reset the connection
        reader.read_to_end(&mut Vec::new()).map(|_| ())
    }

    fn take_fault(&self, request: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (_, fault, times) =
            faults.iter_mut().find(|(text, _, times)| *times > 0 && request.contains(text.as_str()))?;
        *times -= 1;
        Some(fault.clone())
    }

    fn answer(&self, path: &str, range: Option<&str>, token: Option<&str>) -> Answer {
        let repositories = self.repositories.lock().unwrap();
        if let Some(wanted) = path.strip_prefix("/storage/") {
            let stored = repositories.values().flat_map(|repository| repository.files.values());
            return match stored.into_iter().find(|(content, storage)| etag(content, *storage) == wanted) {
                // The storage has an etag of its own
                Some((content, _)) => part(content, range, "etag: \"of-the-storage\""),
                None => Answer::new(404, "", ""),
            };
        }
        let is_list = path.starts_with("/api/");
        let split =
            if is_list { path["/api/".len()..].split_once("/revision/") } else { path[1..].split_once("/resolve/") };
        let Some((name, rest)) = split else { return Answer::new(404, "", "") };
        let key = if name.starts_with("datasets/") || is_list { name.to_owned() } else { format!("models/{name}") };
        let Some(repository) = repositories.get(&key) else {
            return Answer::new(401, "x-error-code: RepoNotFound\nx-error-message: Repository not found", "");
        };
        if let Some(new) = &repository.renamed_to {
            let new = if is_list { new.as_str() } else { new.trim_start_matches("models/") };
            return Answer::new(307, format!("location: {}", path.replacen(name, new, 1)), "");
        }
        let is_known = token == Some(&format!("Bearer {TOKEN}"));
        if repository.private && !is_known {
            return Answer::new(401, "x-error-code: RepoNotFound", "");
        }
        // The list of a gated repository is public
        if repository.gated && !is_known && !is_list {
            let status = if token.is_some() { 403 } else { 401 };
            return Answer::new(status, "x-error-code: GatedRepo", "");
        }
        let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
        if !["main", COMMIT, "refs%2Fpr%2F1"].contains(&revision) {
            return Answer::new(404, "x-error-code: RevisionNotFound", "");
        }
        if is_list {
            let names = repository.files.keys().chain(&repository.unlisted);
            let siblings: Vec<_> = names.map(|name| serde_json::json!({"rfilename": name})).collect();
            let body = serde_json::json!({"id": name, "sha": COMMIT, "siblings": siblings, "tags": ["x"]});
            return Answer::new(200, "content-type: application/json", body.to_string());
        }
        let (file, is_redirected) = file.split_once('?').map_or((file, false), |(file, _)| (file, true));
        let file = file.replace("%20", " ");
        let Some((content, storage)) = repository.files.get(&file) else {
            return Answer::new(404, "x-error-code: EntryNotFound", "");
        };
        let tag = etag(content, *storage);
        let commit = format!("x-repo-commit: {COMMIT}");
        let linked = format!("{commit}\nx-linked-etag: \"{tag}\"\nx-linked-size: {}", content.len());
        match storage {
            Storage::Cached if !is_redirected => {
                Answer::new(307, format!("{linked}\nlocation: {path}?cached"), "moved")
            }
            Storage::Git | Storage::Cached => part(content, range, &format!("{commit}\netag: \"{tag}\"")),
            Storage::LfsHere => Answer::new(302, format!("{linked}\nlocation: /storage/{tag}"), "moved"),
            Storage::LfsElsewhere => {
                let elsewhere = self.address.replace("127.0.0.1", "localhost");
                Answer::new(302, format!("{linked}\nlocation: http://{elsewhere}/storage/{tag}"), "moved")
            }
        }
    }
}

/// The whole, or the part from a byte on
fn part(content: &[u8], range: Option<&str>, headers: &str) -> Answer {
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        None => Answer::new(200, headers, content),
        Some(start) if start >= content.len() => Answer::new(416, headers, ""),
        Some(start) => {
            let range = format!("content-range: bytes {start}-{}/{}", content.len() - 1, content.len());
            Answer::new(206, format!("{headers}\n{range}"), &content[start..])
        }
    }
}
