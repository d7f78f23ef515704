//! TensorBoard event files with the scalars of `metrics.jsonl`, under the tags that the Hugging Face Trainer gives them.
//!
//! A file is a sequence of frames around protocol-buffer messages:
//! length (u64) · masked CRC-32C of it · message · masked CRC-32C of it, all little-endian.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::metrics::{EVAL_PREFIX, Metrics};
use super::names;
use crate::error::Result;
use crate::files::write_error;

/// The part of TensorBoard's `event.proto` and `summary.proto` that scalars need
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Event {
        #[prost(double, tag = "1")]
        pub wall_time: f64,
        #[prost(int64, tag = "2")]
        pub step: i64,
        #[prost(oneof = "What", tags = "3, 5, 7")]
        pub what: Option<What>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum What {
        #[prost(string, tag = "3")]
        FileVersion(String),
        #[prost(message, tag = "5")]
        Summary(Summary),
        #[prost(message, tag = "7")]
        SessionLog(SessionLog),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Summary {
        #[prost(message, repeated, tag = "1")]
        pub value: Vec<Value>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Value {
        #[prost(string, tag = "1")]
        pub tag: String,
        // In a oneof there, so a value of exactly 0 must be written out as well
        #[prost(float, optional, tag = "2")]
        pub simple_value: Option<f32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SessionLog {
        #[prost(int32, tag = "1")]
        pub status: i32,
    }

    /// `SessionLog.START`: readers drop what they have seen of this step and later ones
    pub const START: i32 = 1;
}
use proto::{Event, SessionLog, Summary, Value, What};

/// Writes one event file
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `folder`. After a resume it tells readers to drop what older files say about the steps
    /// behind the checkpoint
    pub fn create(folder: &Path, resumed_from: Option<u64>) -> Result<Self> {
        let (path, file) = create_file(folder).map_err(|cause| write_error(folder, &cause, None))?;
        let mut writer = Self { path, file };
        writer.append(0, What::FileVersion("brain.Event:2".to_owned()))?;
        if let Some(step) = resumed_from {
            writer.append(step + 1, What::SessionLog(SessionLog { status: proto::START }))?;
        }
        Ok(writer)
    }

    /// Writes the metrics of a step; they can be read at once
    pub fn write(&mut self, step: u64, epoch: f64, metrics: &Metrics) -> Result<()> {
        let scalars = std::iter::once(("epoch", epoch)).chain(metrics.iter());
        let value = scalars.map(|(name, x)| Value { tag: tag(name), simple_value: Some(x as f32) }).collect();
        self.append(step, What::Summary(Summary { value }))
    }

    /// The file being written
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, step: u64, what: What) -> Result<()> {
        let event = Event { wall_time: seconds_since_1970(), step: step as i64, what: Some(what) };
        let frame = frame(&event.encode_to_vec());
        self.file.write_all(&frame).map_err(|cause| write_error(&self.path, &cause, Some(frame.len() as u64)))
    }
}

/// `train/loss`, `eval/loss`, `train/rewards/chosen`
fn tag(name: &str) -> String {
    match name.strip_prefix(EVAL_PREFIX) {
        Some(name) => format!("eval/{name}"),
        None => format!("train/{name}"),
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut frame = Vec::with_capacity(message.len() + 16);
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&masked_crc(&length).to_le_bytes());
    frame.extend_from_slice(message);
    frame.extend_from_slice(&masked_crc(message).to_le_bytes());
    frame
}

/// Rotated and shifted, as everywhere in TFRecord: a CRC over data that holds CRCs would be weak
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn create_file(folder: &Path) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(folder)?;
    // Readers take the files in the order of their names; after two starts within a second, or when the clock was set
    // back, the newest file must still come last
    let mut newest = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let seconds =
            name.to_str().and_then(|name| name.strip_prefix("events.out.tfevents.")?.split('.').next()?.parse().ok());
        newest = newest.max(seconds.unwrap_or(0_u64));
    }
    let seconds = (seconds_since_1970() as u64).max(newest.saturating_add(1));
    let (host, process) = (host_name(), std::process::id());
    let path = folder.join(format!("events.out.tfevents.{seconds:010}.{host}.{process}{}", names::EVENTS_SUFFIX));
    let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
    Ok((path, file))
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    let name = name.unwrap_or_default();
    let name: String = name.trim().chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the frames apart, every CRC checked
    fn events(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(12);
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            assert_eq!(u32::from_le_bytes(head[8..].try_into().unwrap()), masked_crc(&head[..8]));
            let (message, tail) = tail.split_at(length);
            let (crc, tail) = tail.split_at(4);
            assert_eq!(u32::from_le_bytes(crc.try_into().unwrap()), masked_crc(message));
            events.push(Event::decode(message).unwrap());
            rest = tail;
        }
        events
    }

    #[test]
    fn a_row_comes_back_under_the_tags_of_the_trainer() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();
        let train: Metrics = [("loss", 0.0), ("rewards/chosen", -1.5)].into_iter().collect();
        writer.write(10, 0.5, &train).unwrap();
        writer.write(10, 0.5, &[("eval_loss", f64::NAN)].into_iter().collect()).unwrap();

        let events = events(writer.path());
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".to_owned())));
        let scalars = |event: &Event| match &event.what {
            Some(What::Summary(summary)) => {
                summary.value.iter().map(|v| (v.tag.clone(), v.simple_value.unwrap())).collect::<Vec<_>>()
            }
            other => panic!("expected a summary, found {other:?}"),
        };
        let expected = [("train/epoch", 0.5), ("train/loss", 0.0), ("train/rewards/chosen", -1.5)];
        assert_eq!(events[1].step, 10);
        assert_eq!(scalars(&events[1]), expected.map(|(tag, x)| (tag.to_owned(), x)));
        let eval = scalars(&events[2]);
        assert_eq!(eval[1].0, "eval/loss");
        assert!(eval[1].1.is_nan());
    }

    #[test]
    fn files_of_later_starts_sort_behind_and_say_where_they_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let far_future = folder.path().join("events.out.tfevents.9000000000.host.1.0");
        fs::write(&far_future, "").unwrap();
        let mut previous = far_future;
        for resumed_from in [None, Some(20), Some(30)] {
            let writer = EventWriter::create(folder.path(), resumed_from).unwrap();
            assert!(writer.path() > previous.as_path());
            let starts: Vec<i64> = events(writer.path())
                .iter()
                .filter(|e| e.what == Some(What::SessionLog(SessionLog { status: proto::START })))
                .map(|e| e.step)
                .collect();
            assert_eq!(starts, resumed_from.map(|step| step as i64 + 1).into_iter().collect::<Vec<_>>());
            previous = writer.path().to_path_buf();
        }
    }

    #[test]
    fn the_masked_crc_is_the_published_one() {
        // CRC-32C of 32 zero bytes is 8a9136aa (RFC 3720, B.4)
        let expected = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(&[0; 32]), expected);
    }
}
