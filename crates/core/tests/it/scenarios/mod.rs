//! One story for each rule of the design.

mod cancel;
mod dependency;
mod explain;
mod input;
mod limits;
mod queue;
mod retry;
mod worker;
