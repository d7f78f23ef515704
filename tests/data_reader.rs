//! Reading files and folders: every format gives the same rows, and every fault names its place.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use collimate::Error;
use collimate::data::{Dataset, ReadOptions, read_dataset, splits};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(path: &Path) -> Result<Dataset, Error> {
    read_dataset(path, &ReadOptions::default())
}

fn texts(dataset: &Dataset) -> Vec<&str> {
    dataset.rows.iter().map(|row| row.fields["text"].as_str().unwrap()).collect()
}

fn lines(dataset: &Dataset) -> Vec<usize> {
    dataset.rows.iter().map(|row| row.place.line).collect()
}

#[test]
fn every_format_gives_the_rows_and_their_lines() {
    let folder = Folder::new();
    let json_lines = "{\"text\": \"a\"}\n\n{\"text\": \"b, \\\"ü\\\"\"}";
    let cases: [(&str, Vec<u8>, [usize; 2]); 9] = [
        ("a.jsonl", json_lines.into(), [1, 3]),
        ("windows.jsonl", json_lines.replace('\n', "\r\n").into(), [1, 3]),
        ("mark.jsonl", format!("\u{feff}{json_lines}").into(), [1, 3]),
        ("a.jsonl.gz", gzip(json_lines.as_bytes()), [1, 3]),
        ("lines.json", json_lines.into(), [1, 3]),
        ("list.json", "[\n  {\n    \"text\": \"a\"\n  },\n  {\"text\": \"b, \\\"ü\\\"\"}\n]\n".into(), [2, 5]),
        ("data.json", "{\"version\": 1,\n\"data\": [{\"text\": \"a\"},\n{\"text\": \"b, \\\"ü\\\"\"}]}".into(), [2, 3]),
        ("a.csv", "id,text\n1,a\n2,\"b, \"\"ü\"\"\"\n".into(), [2, 3]),
        ("a.csv.gz", gzip("id,text\n1,a\n2,\"b, \"\"ü\"\"\"\n".as_bytes()), [2, 3]),
    ];
    for (name, bytes, expected) in cases {
        let dataset = read(&folder.write(name, bytes)).unwrap();
        assert_eq!(texts(&dataset), ["a", "b, \"ü\""], "{name}");
        assert_eq!(lines(&dataset), expected, "{name}");
    }
}

#[test]
fn gzip_members_after_each_other_are_all_read() {
    let folder = Folder::new();
    let bytes = [gzip(b"{\"text\":\"a\"}\n"), gzip(b"{\"text\":\"b\"}\n")].concat();
    assert_eq!(texts(&read(&folder.write("two.jsonl.gz", bytes)).unwrap()), ["a", "b"]);
}

#[test]
fn parquet_rows_are_those_of_json_in_every_compression() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/data");
    let expected = read(&goldens.join("rows.jsonl")).unwrap();
    for compression in ["none", "snappy", "zstd", "gzip"] {
        let found = read(&goldens.join(format!("rows.{compression}.parquet"))).unwrap();
        assert_eq!(found.columns, expected.columns);
        assert_eq!(found.rows.len(), expected.rows.len());
        for (index, (found, expected)) in found.rows.iter().zip(&expected.rows).enumerate() {
            assert_eq!(found.fields, expected.fields, "{compression}");
            assert_eq!(found.place.line, index + 1);
        }
    }
}

#[test]
fn faults_are_usage_errors_with_place() {
    let folder = Folder::new();
    let whole = gzip(&"{\"text\": \"abcdefgh\"}\n".repeat(500).into_bytes());
    let good = "{\"text\": \"a\"}\n";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("cut.jsonl", format!("{good}{{\"text\": \"b").into(), "cut.jsonl:2:11: the JSON value is not finished"),
        ("half.jsonl", format!("{{\"text\": \"b\"\n{good}").into(), "half.jsonl:1:12: the JSON value is not finished"),
        ("no.jsonl", format!("{good}text\n").into(), "no.jsonl:2:2: not valid JSON"),
        ("two.jsonl", "{\"a\": 1} {\"b\": 2}\n".into(), "two.jsonl:1:10: not valid JSON: trailing characters"),
        ("list.jsonl", format!("{good}[1]\n").into(), "list.jsonl:2: expected a JSON object, found a list"),
        ("bad.jsonl", [good.as_bytes(), b"{\"text\": \"\xff\"}"].concat(), "bad.jsonl:2:11: not valid UTF-8"),
        ("bad.json", b"[\n{\"text\": \"\xff\"}]".to_vec(), "bad.json:2:11: not valid UTF-8"),
        ("cut.json", "[{\"a\": 1},\n".into(), "cut.json:2: not valid JSON"),
        ("open.json", "[{\"a\": 1}\n".into(), "expected `,`, but the file ends"),
        ("row.json", "[{\"a\": 1},\n\n7]".into(), "row.json:3: expected a JSON object, found a number"),
        ("fault.json", "[{\"a\": 1},\n\n{\"b\" 7}]".into(), "fault.json:3:6: not valid JSON: expected `:`"),
        ("none.jsonl", Vec::new(), "holds no rows"),
        ("blank.jsonl", "\n \n".into(), "holds no rows"),
        ("none.json", "[]".into(), "holds no rows"),
        ("none.csv", "text\n".into(), "holds no rows"),
        ("few.csv", "a,b\n1,2\n3\n".into(), "few.csv:3: expected 2 fields as in the header, found 1"),
        ("twice.csv", "a,a\n1,2\n".into(), "names the column `a` twice"),
        ("bad.csv", b"a,b\n1,2\n3,\xff\n".to_vec(), "bad.csv:3: field 2 is not valid UTF-8"),
        ("cut.jsonl.gz", whole[..whole.len() / 2].to_vec(), "the compressed file ends too early"),
        ("empty.jsonl.gz", Vec::new(), "is empty"),
        ("plain.jsonl.gz", good.into(), "is not compressed"),
        ("torn.parquet", b"PAR1 torn PAR1".to_vec(), "is not a readable Parquet file"),
        ("a.txt", good.into(), "cannot tell the format"),
    ];
    for (name, bytes, expected) in cases {
        let error = read(&folder.write(name, bytes)).unwrap_err();
        assert!(error.message().contains(expected), "{name}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
    let error = read(&folder.0.path().join("absent.jsonl")).unwrap_err();
    assert!(error.message().starts_with("there is no dataset at"), "{error}");
}

#[test]
fn no_damage_to_a_parquet_file_is_a_panic() {
    let whole =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/data/rows.none.parquet")).unwrap();
    let folder = Folder::new();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        if let Err(error) = read(&folder.write("damaged.parquet", bytes)) {
            assert_eq!(error.exit_code(), 2);
            refused += 1;
        }
    }
    assert!(refused > whole.len() / 6, "{refused}");
}

#[test]
fn folders_are_read_by_split() {
    let folder = Folder::new();
    folder.write("data/train-00001-of-00002.jsonl", "{\"text\": \"second\"}");
    folder.write("data/train-00000-of-00002.jsonl", "{\"text\": \"first\"}");
    folder.write("data/test-00000-of-00001.jsonl", "{\"text\": \"test\"}");
    folder.write("dataset_info.json", "{}");
    folder.write("README.md", "words");
    let root = folder.0.path();
    assert_eq!(splits(root, None).unwrap(), ["train", "test"]);
    assert_eq!(texts(&read(root).unwrap()), ["first", "second"]);
    let options = |split: &str| ReadOptions { split: split.to_string(), ..ReadOptions::default() };
    assert_eq!(texts(&read_dataset(root, &options("test")).unwrap()), ["test"]);
    let error = read_dataset(root, &options("validation")).unwrap_err();
    assert!(error.message().ends_with("has no split `validation`, it has `train` and `test`"), "{error}");

    let nameless = Folder::new();
    nameless.write("part_a.jsonl", "{\"text\": \"a\"}");
    nameless.write("part_b.csv", "text\nb\n");
    assert_eq!(texts(&read(nameless.0.path()).unwrap()), ["a", "b"]);
    assert!(read(Folder::new().0.path()).unwrap_err().message().starts_with("no data file in"));
}

#[test]
fn a_json_file_may_hold_splits() {
    let folder = Folder::new();
    let path = folder.write("both.json", "{\"train\": [{\"text\": \"a\"}], \"test\": [{\"text\": \"b\"}]}");
    assert_eq!(splits(&path, None).unwrap(), ["train", "test"]);
    let options = ReadOptions { split: "test".to_string(), ..ReadOptions::default() };
    assert_eq!(texts(&read_dataset(&path, &options).unwrap()), ["b"]);
    let list = folder.write("list.json", "[{\"text\": \"a\"}]");
    assert!(read_dataset(&list, &options).unwrap_err().message().contains("has no split `test`, it has `train`"));
    let single = folder.write("single.json", "{\n\"text\": \"one\", \"tags\": [1]}");
    assert_eq!(texts(&read(&single).unwrap()), ["one"]);
}

#[test]
fn columns_are_renamed_and_wrong_names_told() {
    let folder = Folder::new();
    let path = folder.write("a.jsonl", "{\"question\": \"q\", \"answer\": \"a\", \"n\": 1}\n");
    let map = |pairs: &[(&str, &str)]| ReadOptions {
        columns: pairs.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect::<BTreeMap<_, _>>(),
        ..ReadOptions::default()
    };
    let dataset = read_dataset(&path, &map(&[("question", "prompt"), ("answer", "completion")])).unwrap();
    assert_eq!(dataset.columns, ["prompt", "completion", "n"]);
    assert_eq!(Value::Object(dataset.rows[0].fields.clone()), json!({"prompt": "q", "completion": "a", "n": 1}));

    let error = read_dataset(&path, &map(&[("questoin", "prompt")])).unwrap_err();
    assert!(error.message().contains("no column `questoin`, it has `question`, `answer` and `n`"), "{error}");
    assert_eq!(error.hint_text(), Some("did you mean `question`?"));
    let error = read_dataset(&path, &map(&[("question", "n")])).unwrap_err();
    assert!(error.message().contains("a.jsonl:1: `columns` makes two columns named `n`"), "{error}");
}
