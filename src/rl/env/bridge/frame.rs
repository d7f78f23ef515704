//! The frames that pass between this program and a worker: `[u32 length][u8 kind][payload]`, little-endian, the length of
//! the payload only. `scripts/gym_worker.py` says what they hold.

use std::io::{self, Read};

/// What both sides must agree on
pub(super) const PROTOCOL: u8 = 1;

/// Bytes before the payload
const HEADER: usize = 5;

/// No answer is longer, so that a number read from something else is not taken for a length
const LONGEST: usize = 1 << 30;

/// What is asked of a worker
pub(super) mod request {
    pub(crate) const MAKE: u8 = b'm';
    pub(crate) const RESET: u8 = b'r';
    pub(crate) const STEP: u8 = b's';
    pub(crate) const KEEP: u8 = b'k';
    pub(crate) const HISTORY: u8 = b'h';
    pub(crate) const REPLAY: u8 = b'p';
}

/// What it answers
pub(super) mod answer {
    pub(crate) const HELLO: u8 = b'H';
    pub(crate) const OBSERVATIONS: u8 = b'O';
    pub(crate) const STEP: u8 = b'S';
    pub(crate) const KEPT: u8 = b'K';
    pub(crate) const HISTORY: u8 = b'J';
    pub(crate) const ERROR: u8 = b'E';
}

/// A request in one piece, so that it is written with one call; `frame` is reused
pub(super) fn compose(frame: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    frame.clear();
    frame.reserve(HEADER + length);
    frame.extend_from_slice(&(length as u32).to_le_bytes());
    frame.push(kind);
    for part in parts {
        frame.extend_from_slice(part);
    }
}

/// What stands where an answer should begin
pub(super) enum Head {
    /// Its kind, and the length of its payload
    Answer(u8, usize),
    /// These bytes, which are no beginning of an answer
    Foreign(Vec<u8>),
}

/// The beginning of the next answer
pub(super) fn read_head(from: &mut impl Read) -> io::Result<Head> {
    let mut head = [0; HEADER];
    from.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let known = [answer::HELLO, answer::OBSERVATIONS, answer::STEP, answer::KEPT, answer::HISTORY, answer::ERROR];
    if known.contains(&head[4]) && length <= LONGEST {
        return Ok(Head::Answer(head[4], length));
    }
    Ok(Head::Foreign(head.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_begin_with_length_and_kind() {
        let mut frame = vec![9; 3];
        compose(&mut frame, request::STEP, &[&[1, 2], &[], &[3]]);
        assert_eq!(frame, [3, 0, 0, 0, b's', 1, 2, 3]);
        assert!(matches!(read_head(&mut &[1, 2, 0, 0, b'S', 7][..]), Ok(Head::Answer(b'S', 513))));
    }

    #[test]
    fn what_is_no_frame_is_told_apart() {
        let Ok(Head::Foreign(bytes)) = read_head(&mut &b"Hello"[..]) else { panic!("it was taken for a frame") };
        assert_eq!(bytes, b"Hello");
        assert!(matches!(read_head(&mut &[0xff, 0xff, 0xff, 0xff, b'S'][..]), Ok(Head::Foreign(_))), "too long");
        assert!(read_head(&mut &[1, 0][..]).is_err(), "too short");
    }
}
