//! Faults of the audit file that a test injects.
#![allow(clippy::unwrap_used, reason = "for tests")]

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// The faults of a file, which a test switches on and off.
#[derive(Debug, Default)]
pub struct Faults {
    /// Number of bytes that can still be written.
    room: Mutex<Option<usize>>,
    unsyncable: AtomicBool,
}

impl Faults {
    /// Lets writes fail after this number of bytes; `None` for no limit.
    pub fn leave_room(&self, bytes: Option<usize>) {
        *self.room.lock().unwrap() = bytes;
    }

    /// Lets every sync fail from now on.
    #[cfg(test)]
    pub(crate) fn fail_syncs(&self) {
        self.unsyncable.store(true, Ordering::Relaxed);
    }

    pub(crate) fn on_write<'a>(&self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let mut room = self.room.lock().unwrap();
        match &mut *room {
            None => Ok(bytes),
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(room) => {
                let fitting = bytes.len().min(*room);
                *room -= fitting;
                Ok(&bytes[..fitting])
            }
        }
    }

    pub(crate) fn on_sync(&self) -> io::Result<()> {
        if self.unsyncable.load(Ordering::Relaxed) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}
