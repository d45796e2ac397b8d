//! The frames of a connection as they arrive: bodies pass, methods and headers are checked when they are complete.

use std::{io, sync::Arc};

use super::{super::socket::SocketSlot, header, method};
use crate::defect::MessageDefect;

/// Length of a frame's kind, channel and length in bytes.
const HEAD: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const END: u8 = 0xce;
/// Maximum number of bytes that are read from the broker at once.
const CHUNK: usize = 32 * 1024;
/// Maximum number of bytes that are buffered of a frame to be checked. The broker adds its own headers to those of a
/// producer, which can have the length of a frame, and it adds the routing keys of each dead-lettering.
const BUFFERED: usize = 1024 * 1024;
/// The smallest frame size that lapin accepts.
const SMALLEST: usize = 4096;

/// The received frames that lapin has not read yet.
pub(crate) struct Frames {
    /// `start..checked` can be read, `checked..end` is part of a frame, the rest is free.
    bytes: Vec<u8>,
    start: usize,
    checked: usize,
    end: usize,
    /// Number of bytes that are still to arrive of a frame that passes unchecked.
    passing: usize,
    /// Number of bytes that are still to arrive of a frame that is too long to be buffered. They are dropped.
    dropping: usize,
    /// The longest frame that lapin accepts.
    frame_max: usize,
    /// Channels on which text in a method was replaced. The properties of its message follow.
    defective: Vec<u16>,
    socket: Arc<SocketSlot>,
}

impl Frames {
    /// Creates the state of a connection that requests a maximum frame size of `frame_max`. `socket` receives what the
    /// broker reports about itself.
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

    /// Copies checked bytes to `out` and returns their number.
    pub(super) fn copy_to(&mut self, out: &mut [u8]) -> usize {
        let copied = out.len().min(self.checked - self.start);
        out[..copied].copy_from_slice(&self.bytes[self.start..self.start + copied]);
        self.start += copied;
        copied
    }

    /// Returns how many bytes may be read from the broker without this buffer. `None` if the buffer is not empty or few
    /// bytes are to pass.
    pub(super) fn direct(&self) -> Option<usize> {
        (self.start == self.end && self.passing >= CHUNK).then_some(self.passing)
    }

    /// Records that so many bytes were read without this buffer.
    pub(super) fn read_directly(&mut self, bytes: usize) {
        self.passing -= bytes;
    }

    /// Returns free space to read into. All checked bytes must have been copied before.
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

    /// Records that so many bytes were read into [`Self::space`], and checks them. An error ends the connection.
    pub(super) fn add(&mut self, bytes: usize) -> io::Result<()> {
        self.end += bytes;
        while self.step()? {}
        Ok(())
    }

    /// Checks the next part of the received bytes. Returns false if more bytes are needed.
    fn step(&mut self) -> io::Result<bool> {
        let received = self.end - self.checked;
        if self.passing > 0 {
            let passing = self.passing.min(received);
            self.passing -= passing;
            self.checked += passing;
            return Ok(passing > 0);
        }
        if self.dropping > 0 {
            let dropping = self.dropping.min(received);
            self.dropping -= dropping;
            self.replace(dropping, &[]);
            return Ok(dropping > 0);
        }
        let bytes = &self.bytes[self.checked..self.end];
        let Some(&[kind, a, b, ref length @ ..]) = bytes.first_chunk::<HEAD>() else { return Ok(false) };
        let frame = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).saturating_add(HEAD + 1);
        let buffered = frame.min(BUFFERED);
        match kind {
            METHOD | HEADER if received < buffered => return Ok(false),
            METHOD if buffered < frame => return Err(wrong("a method that is too long")),
            METHOD => self.method(u16::from_be_bytes([a, b]), frame)?,
            HEADER => self.header(u16::from_be_bytes([a, b]), frame, buffered),
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

    fn header(&mut self, channel: u16, frame: usize, buffered: usize) {
        let known = self.defective.iter().position(|defective| *defective == channel);
        let known = known.map(|at| self.defective.swap_remove(at)).map(|_| MessageDefect::NotText);
        // Less than lapin accepts, so that headers that the broker adds at a redelivery seldom change the result.
        let limit = self.frame_max / 16 * 15;
        let payload = &mut self.bytes[self.checked + HEAD..self.checked + buffered - 1];
        let Some(payload) = header::replacement(payload, limit, known) else {
            self.checked += frame;
            return;
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let replaced = [&[HEADER], channel.to_be_bytes().as_slice(), &length, &payload, &[END]].concat();
        self.replace(buffered, &replaced);
        self.checked += replaced.len();
        self.dropping = frame - buffered;
    }

    /// Replaces the first `bytes` unchecked bytes by `by`.
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
