//! The path of a job through a process: [`consume`] takes it from the queue, [`process`] sees one delivery
//! from end to end, [`settle`] decides what happens to it, [`report`] says it to the world.
//!
//! [`runtime`] puts a process together; [`shutdown`] ends it.

pub mod carried;
pub mod command;
pub mod consume;
pub mod engine;
pub mod options;
pub mod process;
pub mod report;
pub mod running;
pub mod runtime;
pub mod settle;
pub mod shutdown;
pub mod suspect;
pub mod tasks;
pub mod validate;
