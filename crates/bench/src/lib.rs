//! Measures a control plane on this machine: how many tasks a second, how soon a task is at its
//! worker, what idle workers cost. Every figure comes with the disk's own beside it, since the disk
//! decides most of them. Claims nothing: it prints what it saw.

mod disk;
mod dispatch;
mod idle;
mod plane;
mod raw;
mod report;
mod runtime;
pub mod tracing;

pub use dispatch::{Options, run};
pub use report::{Latency, Report, Round};
