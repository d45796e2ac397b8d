//! The path of a job through a process: [`consume`] takes it from the queue, [`process`] sees one delivery
//! from end to end ([`aside`], where it is large), [`attempt`] hands it to the handler, [`settle`] decides what happens
//! to it, [`conclusion`] and [`report`] say it to the world, [`traced`] to its trace, [`audited`] writes it down,
//! [`settlement`] settles all that came for it, [`unsettled`] keeps what could not be settled because a session was lost.
//!
//! [`runtime`] puts a process together; [`shutdown`] ends it.

pub mod aside;
pub mod attempt;
pub mod audited;
pub mod command;
pub mod conclusion;
pub mod consume;
pub mod doing;
pub mod engine;
pub mod failures;
pub mod holding;
#[cfg(test)]
mod model;
pub mod options;
pub mod process;
pub mod report;
pub mod running;
pub mod runtime;
pub mod series;
pub mod settle;
pub mod settlement;
pub mod shutdown;
pub mod suspect;
pub mod traced;
pub mod unknown;
pub mod unsettled;
pub mod validate;
