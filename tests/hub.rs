//! Models and datasets from a Hub on the loopback interface: the cache it leaves, and everything that can go wrong.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use collimate::Error;
use collimate::model::hub::{DataFile, Hub, Settings};
use common::loopback_hub::{COMMIT, Fault, LoopbackHub, Repository, Storage, TOKEN, etag};
use tempfile::TempDir;

const CONFIG: &str = r#"{"model_type": "gpt2", "n_embd": 8, "n_head": 2}"#;

struct Setup {
    server: LoopbackHub,
    cache: TempDir,
}

impl Setup {
    fn new() -> Self {
        Self { server: LoopbackHub::start(), cache: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        settings(self.cache.path(), &self.server.endpoint())
    }

    fn hub(&self) -> Hub {
        Hub::new(self.settings()).unwrap()
    }

    /// `models--org--name`
    fn folder(&self) -> PathBuf {
        self.cache.path().join("models--org--name")
    }
}

fn settings(cache: &Path, endpoint: &str) -> Settings {
    Settings {
        cache: cache.to_owned(),
        endpoint: endpoint.to_owned(),
        token: None,
        offline: false,
        etag_timeout: Duration::from_secs(5),
        download_timeout: Duration::from_secs(5),
        retries: 2,
        backoff: Duration::from_millis(1),
    }
}

fn offline(cache: &Path) -> Hub {
    // Nothing listens on port 9 of the loopback interface
    Hub::new(Settings { offline: true, ..settings(cache, "http://127.0.0.1:9") }).unwrap()
}

fn model() -> Repository {
    Repository::default()
        .with("config.json", CONFIG)
        .with("tokenizer.json", "{}")
        .with("tokenizer_config.json", "{ }")
        .with("README.md", "# text")
        .with_stored("model.safetensors", weights(), Storage::LfsElsewhere)
        .with_stored("pytorch_model.bin", "not needed", Storage::LfsHere)
        .with_stored("flax_model.msgpack", "not needed either", Storage::LfsHere)
        .with("onnx/config.json", "{}")
}

fn weights() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn weights_blob() -> String {
    etag(&weights(), Storage::LfsHere)
}

/// Files in `blobs`, whatever their state
fn blobs(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder.join("blobs"))
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

fn assert_error(error: &Error, code: u8, message: &str, hint: &str) {
    assert!(error.message().contains(message), "expected `{message}` in: {error}");
    assert!(error.hint_text().unwrap_or("").contains(hint), "expected `{hint}` in the hint of: {error}");
    assert_eq!(error.exit_code(), code, "{error}");
}

#[test]
fn a_model_lies_in_the_cache_as_python_lays_it() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    let snapshot = setup.hub().model("org/name", None).unwrap();

    let folder = setup.folder();
    assert_eq!(snapshot, folder.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let mut files: Vec<_> = fs::read_dir(&snapshot).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    let link = fs::read_link(snapshot.join("model.safetensors")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(weights_blob()));
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read_to_string(snapshot.join("config.json")).unwrap(), CONFIG);
    let config_blob = etag(CONFIG.as_bytes(), Storage::Git);
    assert!(blobs(&folder).contains(&config_blob));
    assert_eq!(blobs(&folder).len(), 4, "nothing half-written is left");
    for unwanted in ["README", "pytorch_model", "flax", "onnx"] {
        assert_eq!(setup.server.count(unwanted), 0, "{unwanted}");
    }

    // A second call asks what `main` is, and nothing else
    let before = setup.server.requests().len();
    assert_eq!(setup.hub().model("org/name", Some("main")).unwrap(), snapshot);
    assert_eq!(setup.server.requests().len(), before + 1);

    // With the server gone: offline, and online with the cache to fall back on
    let (settings, cache) = (setup.settings(), setup.cache);
    drop(setup.server);
    assert_eq!(offline(cache.path()).model("org/name", None).unwrap(), snapshot);
    assert_eq!(offline(cache.path()).model("org/name", Some(COMMIT)).unwrap(), snapshot);
    assert_eq!(Hub::new(settings).unwrap().model("org/name", None).unwrap(), snapshot);
}

#[test]
fn a_cache_that_python_made_is_used() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--org--name");
    let snapshot = folder.join("snapshots").join(COMMIT);
    for sub in ["blobs", "refs/pr", ".no_exist"] {
        fs::create_dir_all(folder.join(sub)).unwrap();
    }
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(folder.join("refs/main"), COMMIT).unwrap();
    fs::write(folder.join("refs/pr/1"), COMMIT).unwrap();
    for (blob, name, content) in [("aa", "config.json", CONFIG), ("bb", "pytorch_model.bin", "weights")] {
        fs::write(folder.join("blobs").join(blob), content).unwrap();
        symlink(format!("../../blobs/{blob}"), snapshot.join(name)).unwrap();
    }
    for revision in [None, Some("main"), Some("pr/1"), Some(COMMIT)] {
        assert_eq!(offline(cache.path()).model("org/name", revision).unwrap(), snapshot, "{revision:?}");
    }
    let absent = |name: &str, revision| offline(cache.path()).model(name, revision).unwrap_err();
    let error = absent("org/name", Some("v2"));
    assert_error(&error, 2, "model `org/name` at revision `v2` is not in the cache", "without `--offline`");
    assert_error(&absent("org/nama", None), 2, "is not in the cache", "did you mean `org/name`?");

    fs::remove_file(folder.join("blobs/bb")).unwrap();
    let error = absent("org/name", None);
    assert_error(&error, 2, "the cached copy of model `org/name` has no weights", "model.safetensors");
}

#[test]
fn shards_come_with_their_index() {
    let setup = Setup::new();
    let index =
        r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let repository = Repository::default()
        .with("config.json", CONFIG)
        .with("model.safetensors.index.json", index)
        .with_stored("model-1.safetensors", "one", Storage::LfsHere)
        .with_stored("model-2.safetensors", "two", Storage::Cached)
        .with_stored("model-3.safetensors", "of another model", Storage::LfsHere);
    setup.server.add("models/org/name", repository);
    let snapshot = setup.hub().model("org/name", None).unwrap();
    assert_eq!(fs::read_to_string(snapshot.join("model-1.safetensors")).unwrap(), "one");
    assert_eq!(fs::read_to_string(snapshot.join("model-2.safetensors")).unwrap(), "two");
    assert!(!snapshot.join("model-3.safetensors").exists());
    assert_eq!(offline(setup.cache.path()).model("org/name", None).unwrap(), snapshot);

    fs::remove_file(snapshot.join("model-2.safetensors")).unwrap();
    let error = offline(setup.cache.path()).model("org/name", None).unwrap_err();
    assert_error(&error, 2, "has no `model-2.safetensors`", "without `--offline`");
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    setup.server.fail("GET /storage/", Fault::Cut(150_000), 1);
    let snapshot = setup.hub().model("org/name", None).unwrap();
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
    assert_eq!(setup.server.count("range=bytes=150000-"), 2, "the resolve address and the storage behind it");
}

#[test]
fn a_download_that_keeps_breaking_off_leaves_nothing_under_a_final_name() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    setup.server.fail("GET /storage/", Fault::Cut(50_000), 99);
    let error = setup.hub().model("org/name", None).unwrap_err();
    assert_error(&error, 1, "cannot fetch `model.safetensors` of model `org/name`", "--offline");
    assert!(error.message().contains("after 3 attempts"), "{error}");
    let folder = setup.folder();
    assert!(!folder.join("blobs").join(weights_blob()).exists());
    assert!(!folder.join("snapshots").join(COMMIT).join("model.safetensors").exists());
    assert!(!folder.join("refs/main").exists(), "a ref would promise files that are not there");

    // The next run goes on
    setup.server.heal();
    let snapshot = setup.hub().model("org/name", None).unwrap();
    assert_eq!(setup.server.count("GET /storage/"), 4);
    assert!(setup.server.count("range=bytes=150000-") > 0);
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_short_small_file_is_noticed_too() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    setup.server.fail("GET /org/name/resolve/0123456789abcdef0123456789abcdef01234567/config.json", Fault::Cut(5), 1);
    let snapshot = setup.hub().model("org/name", None).unwrap();
    assert_eq!(fs::read_to_string(snapshot.join("config.json")).unwrap(), CONFIG);
}

#[test]
fn a_server_that_ignores_ranges_sends_the_whole_again() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    setup.server.fail("GET /storage/", Fault::Cut(1000), 1);
    setup.server.fail("GET /storage/", Fault::IgnoreRange, 1);
    let snapshot = setup.hub().model("org/name", None).unwrap();
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_wrong_checksum_is_never_accepted() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    setup.server.fail("GET /storage/", Fault::Garble, 1);
    let snapshot = setup.hub().model("org/name", None).unwrap();
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), weights());

    let other = Setup::new();
    other.server.add("models/org/name", model());
    other.server.fail("GET /storage/", Fault::Garble, 99);
    let error = other.hub().model("org/name", None).unwrap_err();
    assert_error(&error, 1, "the checksum does not match", "");
    assert_eq!(blobs(&other.folder()).len(), 3, "{:?}", blobs(&other.folder()));
}

#[test]
fn a_busy_server_is_asked_again() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    setup.server.fail("GET /api/models", Fault::Status(503, ""), 2);
    setup.server.fail("HEAD ", Fault::Status(429, "retry-after: 0"), 1);
    setup.server.fail("GET /storage/", Fault::Status(502, ""), 2);
    setup.hub().model("org/name", None).unwrap();

    let other = Setup::new();
    other.server.fail("GET /api/models", Fault::Status(503, ""), 99);
    let error = other.hub().model("org/name", None).unwrap_err();
    assert_error(&error, 1, "the server answered with status 503", "HF_ENDPOINT");
    assert_eq!(other.server.requests().len(), 3);
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    setup.server.fail("GET /api/models", Fault::Stall(Duration::from_secs(3)), 99);
    let impatient = Settings { etag_timeout: Duration::from_millis(200), retries: 0, ..setup.settings() };
    let started = std::time::Instant::now();
    let error = Hub::new(impatient).unwrap().model("org/name", None).unwrap_err();
    assert_error(&error, 1, "no answer in time", "check the network");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn no_network_says_what_still_works() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(settings(cache.path(), "http://127.0.0.1:9")).unwrap();
    let error = hub.model("org/name", None).unwrap_err();
    assert_error(&error, 1, "cannot fetch model `org/name` from http://127.0.0.1:9", "`--offline`");
}

#[test]
fn refusals_are_told_apart() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    setup.server.add("models/org/gated", model().gated());
    setup.server.add("models/org/private", model().private());
    setup.server.add("models/org/hollow", Repository::default().listing("config.json"));
    setup.hub().model("org/name", None).unwrap();
    let error = |name: &str, revision| setup.hub().model(name, revision).unwrap_err();

    assert_error(&error("org/mame", None), 2, "model `org/mame` does not exist", "did you mean `org/name`?");
    assert_error(&error("zzz/zzz", None), 2, "does not exist on http://127", "check the spelling");
    assert_error(&error("org/private", None), 2, "or is private", "set HF_TOKEN");
    assert_error(&error("org/name", Some("v9")), 2, "has no revision `v9`", "the default is `main`");
    assert_error(&error("org/hollow", None), 2, "`config.json` of model `org/hollow` does not exist", "");
    let gated = error("org/gated", None);
    assert_error(&gated, 2, "model `org/gated` is gated", "set HF_TOKEN");
    assert!(gated.hint_text().unwrap().contains("/org/gated"), "{gated}");

    let with_token = |token: &str| {
        Hub::new(Settings { token: Some(token.to_owned()), ..setup.settings() }).unwrap().model("org/gated", None)
    };
    assert_error(&with_token("hf_other").unwrap_err(), 2, "is gated", "the token that was sent");
    with_token(TOKEN).unwrap();

    setup.server.fail("GET /api", Fault::Status(403, "x-error-message: Your plan has ended"), 1);
    assert_error(&error("org/name", None), 2, "no access to model `org/name`: Your plan has ended", "HF_TOKEN");
    setup.server.fail("GET /api", Fault::Status(401, "x-error-message: Invalid credentials in header"), 1);
    assert_error(&error("org/name", None), 2, "does not accept the token", "hf auth login");
}

#[test]
fn the_token_stays_with_the_hub() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model().private());
    let hub = Hub::new(Settings { token: Some(TOKEN.to_owned()), ..setup.settings() }).unwrap();
    hub.model("org/name", None).unwrap();
    let elsewhere: Vec<_> =
        setup.server.requests().into_iter().filter(|request| request.contains("elsewhere")).collect();
    assert_eq!(elsewhere.len(), 1, "{elsewhere:?}");
    assert!(!elsewhere[0].contains("authorization"), "{elsewhere:?}");
    assert!(setup.server.count("authorization=Bearer hf_secret") > 0);
}

#[test]
fn a_renamed_repository_is_found_under_its_old_name() {
    let setup = Setup::new();
    setup.server.add("models/org/new", model());
    setup.server.add("models/org/name", Repository::renamed_to("models/org/new"));
    let snapshot = setup.hub().model("org/name", None).unwrap();
    assert!(snapshot.starts_with(setup.folder()));
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn another_architecture_is_refused_before_its_weights_are_fetched() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model().with("config.json", r#"{"model_type": "llama"}"#));
    let error = setup.hub().model("org/name", None).unwrap_err();
    assert_error(&error, 2, "`model_type` `llama` is not supported", "`gpt2`");
    assert_eq!(setup.server.count("model.safetensors"), 0);

    let without = Repository::default().with("config.json", CONFIG).with("model.gguf", "x");
    setup.server.add("models/org/other", without);
    let error = setup.hub().model("org/other", None).unwrap_err();
    assert_error(&error, 2, "model `org/other` has no weights that can be read", "found `model.gguf`");
    setup.server.add("models/org/empty", Repository::default().with("README.md", ""));
    let error = setup.hub().model("org/empty", None).unwrap_err();
    assert_error(&error, 2, "model `org/empty` has no `config.json`", "");
}

#[test]
fn a_tokenizer_comes_without_weights() {
    let setup = Setup::new();
    let templates = model().with("additional_chat_templates/tool.jinja", "{{ 1 }}");
    setup.server.add("models/org/name", templates);
    let folder = setup.hub().tokenizer("org/name", Some("refs/pr/1")).unwrap();
    assert!(folder.join("tokenizer.json").exists());
    let nested = fs::read_link(folder.join("additional_chat_templates/tool.jinja")).unwrap();
    assert!(nested.starts_with("../../../blobs"), "{}", nested.display());
    assert_eq!(fs::read_to_string(folder.join("additional_chat_templates/tool.jinja")).unwrap(), "{{ 1 }}");
    assert_eq!(setup.server.count("model.safetensors"), 0);
    assert_eq!(fs::read_to_string(setup.folder().join("refs/refs/pr/1")).unwrap(), COMMIT);
}

#[test]
fn a_repository_cannot_write_outside_the_cache() {
    let setup = Setup::new();
    let index = r#"{"weight_map": {"a": "../../../evil"}}"#;
    let repository = Repository::default().with("config.json", CONFIG).with("model.safetensors.index.json", index);
    setup.server.add("models/org/name", repository);
    let error = setup.hub().model("org/name", None).unwrap_err();
    assert_error(&error, 2, "is not a plain file name", "");

    setup.server.add("datasets/org/data", Repository::default().listing("/evil.jsonl"));
    let error = setup.hub().dataset("org/data", None, None).unwrap_err();
    assert_error(&error, 2, "`/evil.jsonl`, which lies outside of it", "");
}

#[test]
fn a_damaged_cache_is_repaired() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    let snapshot = setup.hub().model("org/name", None).unwrap();
    let (blob, link) = (setup.folder().join("blobs").join(weights_blob()), snapshot.join("model.safetensors"));
    // A link to a blob that is gone
    fs::remove_file(&blob).unwrap();
    setup.hub().model("org/name", None).unwrap();
    assert_eq!(fs::read(&link).unwrap(), weights());
    // A blob that came short, with no link to it
    fs::write(&blob, "short").unwrap();
    fs::remove_file(&link).unwrap();
    setup.hub().model("org/name", None).unwrap();
    assert_eq!(fs::read(&link).unwrap(), weights());
}

#[test]
fn two_at_once_download_once() {
    let setup = Setup::new();
    setup.server.add("models/org/name", model());
    std::thread::scope(|scope| {
        let fetch = || setup.hub().model("org/name", None).unwrap();
        let threads = [scope.spawn(fetch), scope.spawn(fetch)];
        for thread in threads {
            let snapshot = thread.join().unwrap();
            assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
        }
    });
    assert_eq!(setup.server.count("GET /storage/"), 1);
}

#[test]
fn a_dataset_brings_the_files_that_its_card_names() {
    let setup = Setup::new();
    let card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train_prefs\n    path: data/train_*\n  - \
                split: test_prefs\n    path: data/test_*\n- config_name: extra\n  data_files: extra/**\n---\n# Card\n";
    let repository = Repository::default()
        .with("README.md", card)
        .with_stored("data/train_prefs-00000-of-00001.parquet", "train", Storage::LfsElsewhere)
        .with("data/test_prefs-00000-of-00001.parquet", "test")
        .with("extra/a b.jsonl", "extra")
        .with("other.csv", "other");
    setup.server.add("datasets/org/data", repository);
    let hub = setup.hub();
    let folder = hub.dataset("org/data", None, Some("extra")).unwrap();
    assert_eq!(folder, setup.cache.path().join("datasets--org--data/snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder.join("extra/a b.jsonl")).unwrap(), "extra");
    assert!(!folder.join("data").exists());

    let test = hub.dataset_files("org/data", None, None, &["test_prefs"]).unwrap();
    let path = folder.join("data/test_prefs-00000-of-00001.parquet");
    assert_eq!(test, [DataFile { split: "test_prefs".to_owned(), path }]);
    assert!(!folder.join("data/train_prefs-00000-of-00001.parquet").exists());

    let error = hub.dataset_files("org/data", None, None, &["train"]).unwrap_err();
    assert_error(&error, 2, "dataset `org/data` has no split `train`", "one of `train_prefs`, `test_prefs`");
    let error = hub.dataset("org/data", None, Some("extras")).unwrap_err();
    assert_error(&error, 2, "has no configuration `extras`", "one of `default`, `extra`");
    let splits: Vec<_> = hub.dataset_files("org/data", None, None, &[]).unwrap();
    assert_eq!(splits.iter().map(|file| file.split.as_str()).collect::<Vec<_>>(), ["train_prefs", "test_prefs"]);

    let cached = offline(setup.cache.path()).dataset_files("org/data", None, None, &[]).unwrap();
    assert_eq!(cached, splits);
}

#[test]
fn what_lies_on_the_disk_is_never_asked_for() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(settings(cache.path(), "http://127.0.0.1:9")).unwrap();
    let here = tempfile::tempdir().unwrap();
    let path = here.path().to_str().unwrap();

    assert_error(&hub.model(path, None).unwrap_err(), 2, "holds no model", "rename this one");
    for checkpoint in ["checkpoint-9", "checkpoint-10"] {
        fs::create_dir(here.path().join(checkpoint)).unwrap();
    }
    assert_error(&hub.model(path, None).unwrap_err(), 2, "holds no model", "checkpoint-10`?");
    let config = here.path().join("config.json");
    fs::write(&config, CONFIG).unwrap();
    assert_eq!(hub.model(path, None).unwrap(), here.path());
    let error = hub.model(config.to_str().unwrap(), None).unwrap_err();
    assert_error(&error, 2, "is a file, expected the folder of a model", "");
    assert_error(&hub.model("./no-such-folder", None).unwrap_err(), 2, "`./no-such-folder` does not exist", "");

    fs::write(here.path().join("train.jsonl"), "{}").unwrap();
    fs::write(here.path().join("test.jsonl"), "{}").unwrap();
    assert_eq!(hub.dataset(path, None, None).unwrap(), here.path());
    let files = hub.dataset_files(path, None, None, &[]).unwrap();
    assert_eq!(files.iter().map(|file| file.split.as_str()).collect::<Vec<_>>(), ["train", "test"]);
    let file = here.path().join("test.jsonl");
    let alone = hub.dataset_files(file.to_str().unwrap(), None, None, &[]).unwrap();
    assert_eq!(alone, [DataFile { split: "train".to_owned(), path: file }]);
    let error = hub.dataset("no/such.jsonl", None, None).unwrap_err();
    assert_error(&error, 2, "`no/such.jsonl` does not exist", "the folder `no` does not exist either");
}
