//! The frames of a connection as they come: bodies pass, methods and headers are looked at once they are whole.

use std::{io, sync::Arc};

use super::{super::socket::SocketSlot, header, method};
use crate::defect::MessageDefect;

/// Kind, channel and length.
const HEAD: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const END: u8 = 0xce;
/// Read from the broker at once.
const CHUNK: usize = 32 * 1024;
/// Of a frame that is looked at, at most so much is held. The broker adds to headers of up to a frame's length, and to
/// its account of a death the keys under which the message came, as often as it died.
const HELD: usize = 1024 * 1024;
/// lapin takes no smaller limit.
const SMALLEST: usize = 4096;

/// What came and has not been read by lapin yet.
pub(crate) struct Frames {
    /// `start..checked` may be read, `checked..end` is part of a frame, what follows is room.
    bytes: Vec<u8>,
    start: usize,
    checked: usize,
    end: usize,
    /// Of a frame that passes as it comes, yet to come.
    passing: usize,
    /// Of a frame that is too long to be held, yet to come and to be left out.
    dropping: usize,
    /// What lapin takes as the longest frame.
    frame_max: usize,
    /// Channels on which text of a method was replaced: the properties of its message are next.
    defective: Vec<u16>,
    socket: Arc<SocketSlot>,
}

impl Frames {
    /// Of a connection that asks for frames of at most `frame_max`. What the broker says of itself is told to `socket`.
    pub(crate) fn new(frame_max: u32, socket: Arc<SocketSlot>) -> Self {
        Self {
            bytes: vec![0; CHUNK],
            start: 0,
            checked: 0,
            end: 0,
            passing: 0,
            dropping: 0,
            frame_max: usize::try_from(frame_max).unwrap_or(usize::MAX),
            defective: Vec::new(),
            socket,
        }
    }

    /// Moves what may be read into `out`; how much that is.
    pub(super) fn give(&mut self, out: &mut [u8]) -> usize {
        let given = out.len().min(self.checked - self.start);
        out[..given].copy_from_slice(&self.bytes[self.start..self.start + given]);
        self.start += given;
        given
    }

    /// How much may be read from the broker without a stay here: where all that came is given, and much is to pass.
    pub(super) fn passing(&self) -> Option<usize> {
        (self.start == self.end && self.passing >= CHUNK).then_some(self.passing)
    }

    /// So much was read without a stay here.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.passing -= bytes;
    }

    /// Room to read into, where all that may be is given.
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        (self.start, self.checked) = (0, 0);
        if self.end == 0 && self.bytes.len() != CHUNK {
            self.bytes = vec![0; CHUNK];
        } else if self.end == self.bytes.len() {
            self.bytes.resize(self.end * 2, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// So much was read into [`Self::space`]. An error ends the connection.
    pub(super) fn took(&mut self, bytes: usize) -> io::Result<()> {
        self.end += bytes;
        while self.step()? {}
        Ok(())
    }

    /// Whether there may be another step with what came.
    fn step(&mut self) -> io::Result<bool> {
        let there = self.end - self.checked;
        if self.passing > 0 {
            let passing = self.passing.min(there);
            self.passing -= passing;
            self.checked += passing;
            return Ok(passing > 0);
        }
        if self.dropping > 0 {
            let dropping = self.dropping.min(there);
            self.dropping -= dropping;
            self.replace(dropping, &[]);
            return Ok(dropping > 0);
        }
        let came = &self.bytes[self.checked..self.end];
        let Some(&[kind, a, b, ref length @ ..]) = came.first_chunk::<HEAD>() else { return Ok(false) };
        let frame = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).saturating_add(HEAD + 1);
        let held = frame.min(HELD);
        match kind {
            METHOD | HEADER if there < held => return Ok(false),
            METHOD if held < frame => return Err(wrong("a method too long")),
            METHOD => self.method(u16::from_be_bytes([a, b]), frame)?,
            HEADER => self.header(u16::from_be_bytes([a, b]), frame, held),
            _ => self.passing = frame,
        }
        Ok(true)
    }

    fn method(&mut self, channel: u16, frame: usize) -> io::Result<()> {
        let payload = &mut self.bytes[self.checked + HEAD..self.checked + frame - 1];
        let replaced = method::replace_invalid_text(payload).map_err(|_| wrong("a method that cannot be read"))?;
        if let Some(limit) = method::frame_max(payload).and_then(|limit| usize::try_from(limit).ok()) {
            self.frame_max = if limit == 0 { self.frame_max } else { self.frame_max.min(limit.max(SMALLEST)) };
        }
        self.socket.read_handshake(payload);
        if replaced && !self.defective.contains(&channel) {
            self.defective.push(channel);
        }
        self.checked += frame;
        Ok(())
    }

    fn header(&mut self, channel: u16, frame: usize, held: usize) {
        let known = self.defective.iter().position(|defective| *defective == channel);
        let known = known.map(|at| self.defective.swap_remove(at)).map(|_| MessageDefect::NotText);
        // Below what lapin takes, so that the broker's additions at a redelivery seldom change the verdict.
        let limit = self.frame_max / 16 * 15;
        let payload = &mut self.bytes[self.checked + HEAD..self.checked + held - 1];
        let Some(payload) = header::replacement(payload, limit, known) else {
            self.checked += frame;
            return;
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let replaced = [&[HEADER], channel.to_be_bytes().as_slice(), &length, &payload, &[END]].concat();
        self.replace(held, &replaced);
        self.checked += replaced.len();
        self.dropping = frame - held;
    }

    /// Puts `by` in the place of so many bytes of what was not checked.
    fn replace(&mut self, bytes: usize, by: &[u8]) {
        self.bytes.splice(self.checked..self.checked + bytes, by.iter().copied());
        self.end = self.end - bytes + by.len();
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the broker sent {what}"))
}

#[cfg(test)]
mod tests;
