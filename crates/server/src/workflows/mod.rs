//! Driver of workflows: evaluates the expressions of steps that became ready, creates their tasks, and evaluates their ends.
//! Decides no order and no policy: `core::workflow` does. Every answer is a command that the engine checks against the state of
//! the step, so that a repeated one changes nothing.

mod around;
mod compensations;
mod driver;
mod evaluate;
pub(crate) mod feed;
mod fill;
mod groups;
mod nested;
mod next;
mod outcomes;
mod queue;
mod ready;
mod reuse;
mod room;
mod round;
mod typed;
mod values;
pub(crate) mod watched;

pub(crate) use self::driver::Driver;
pub(crate) use self::groups::{Held, held_around};
pub(crate) use self::ready::ReadySteps;
pub(crate) use self::values::{nested_results, outputs};
