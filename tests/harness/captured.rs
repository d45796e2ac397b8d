//! The output of a process, kept in memory.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

/// The lines of a stream. They are read at once, so that the process never waits for its reader.
pub(crate) struct Captured {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl Captured {
    pub(crate) fn from(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                locked(&sink).push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self { lines, reader: Mutex::new(Some(reader)) }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        locked(&self.lines).clone()
    }

    /// Waits for the end of the stream, which means that the process has ended.
    pub(crate) fn finish(&self) {
        if let Some(reader) = locked(&self.reader).take() {
            let _ = reader.join();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
