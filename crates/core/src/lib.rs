//! The domain of Rota as pure functions: records of tasks and agents, and every rule by which they change.
//!
//! No IO, no clock, no randomness, no async. Times, ids and jitter are arguments, so that each rule can be tested as a
//! table and two engines that execute the same commands hold the same records. Knows no wire format and no store: what
//! other crates attach to a record (prompts, events, results) are opaque bytes.
//!
//! # Main types
//!
//! - [`task::Task`] is the record of a task, and [`task::Task::apply`] its state machine:
//!   `apply(command, now) → Transition`. [`task::create`] makes the first transition. A rejected command leaves the
//!   record unchanged.
//! - [`task::Command`] lists everything that can happen to a task. [`task::Transition`] holds what the store writes (log
//!   entries, a result) and what readers of commits need (the end of an attempt, a wait in the queue, added usage).
//! - [`workflow::Workflow`] and [`workflow::Step`] are the records of a workflow, with their own state machine next to that of
//!   tasks: it counts needs, rounds and items, and knows no expressions.
//! - [`target::Route`] is the queue on which a ready task waits; [`target::Profile::covers`] matches workers with routes.
//!   [`rank::rank`] orders the tasks of a queue.
//! - [`failure::Class`] classifies failures, [`retry::Policy`] decides on retries, and [`breaker::Breaker`] is the circuit
//!   breaker of an agent.
//! - [`quota::CoolDown`] is what is known of a model credential that was limited or rejected.
//! - [`spending::Account`] has the books of an agent or a namespace, against its budget.
//! - [`scaling::plan`] is the autoscaling rule of worker pools.
//! - [`task::explain`] derives the causes why a task is not running.
//!
//! # Data flow
//!
//! `rota-store` loads a record, calls [`task::Task::apply`], and writes the record and the transition in one transaction.
//! Follow-ups on other tasks (dependents, cycles, a new agent) are further commands, which the store's engine derives
//! from `Transition::ended` and from the records. The control plane sends commands and reads commits; it changes no
//! record itself.
//!
//! # Fences
//!
//! Each assignment raises [`Fence`], and each session of a worker has an [`Epoch`]. A report counts only with the fence
//! of the live assignment, from its worker, in its current session; anything else is answered with
//! [`task::Reply::Stale`] and changes nothing. Execution is at least once, but only one result is accepted.
//!
//! # Extending
//!
//! A new command is a variant of [`task::Command`] with its arm in `task/apply.rs` and its rule in `task/run.rs`; add
//! it to `tests/it/table/asked.rs` and run `ROTA_BLESS=1 cargo test -p rota-core`, which writes
//! `docs/state-machine.md`. A new field of a record needs a serde default, since stored records lack it. A new failure
//! class needs its arms in [`failure::Class::recovery`] and [`breaker::Outcome::of`]; the compiler lists the rest.
//!
//! Start reading with `task/apply.rs`, then `task/run.rs`.

pub mod agent;
pub mod breaker;
pub mod failure;
pub mod ids;
pub mod quota;
pub mod rank;
pub mod retry;
pub mod scaling;
pub mod spending;
pub mod target;
pub mod task;
pub mod text;
pub mod time;
pub mod usage;
pub mod workflow;

pub use ids::{
    AgentName, Epoch, Fence, Namespace, RouteId, TaskId, TaskKey, WorkerName, WorkflowId, WorkflowKey,
};
pub use time::Timestamp;
