//! One scenario for each rule.

mod budget;
mod cancel;
mod checkpoints;
mod delivery;
mod dependency;
mod explain;
mod input;
mod limits;
mod loss;
mod queue;
mod retry;
mod worker;
