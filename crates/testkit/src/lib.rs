//! Test support for the control plane and its clients: whole clusters inside one process, the means to break them, and
//! a checker that reads every task's log afterwards. A library only; the tests that use it live in the crates that they
//! test, such as `crates/server/tests/it`. Knows every component; no component depends on it outside of tests.
//!
//! # Main types
//!
//! - [`Cluster`]: a control plane on a runtime of its own, over either [`Backend`]. It can be killed like a process and
//!   restarted on its state, at the same address.
//! - [`WorkerHandle`]: a real worker in this process, to be drained, stopped or killed.
//! - [`RawWorker`]: a worker session by hand, for what a correct worker never does: stale fences, silence, messages out
//!   of order.
//! - [`tasks`]: builders of agents and tasks, and waits for their states. Tests wait for states, never for time.
//! - [`history`], [`workflow_history`]: the checkers.
//! - [`collector`]: an OpenTelemetry collector that keeps spans and metrics.
//! - [`forge`]: the APIs of GitHub, GitLab and Gitea for pull requests, which can refuse, limit and fail.
//! - [`s3_server`]: an S3 server over a folder, which can be away or refuse a key.
//! - [`postgres`]: a PostgreSQL server that ends with the process.
//! - [`recording`]: what workers and control planes of an earlier version sent each other; [`bytes_grpc`] sends it again.
//!
//! # Fault injection
//!
//! - [`Cluster::kill`] drops every task of the control plane where it stands, as SIGKILL would; [`Cluster::restart`]
//!   reads what was durable.
//! - [`Proxy`] stands between a worker and the control plane: [`Proxy::freeze`] keeps connections open and passes
//!   nothing, as when a cable is pulled, [`Proxy::mute`] holds the answers back, [`Proxy::cut`] closes them.
//! - [`Setup::skew`] moves the store's clock; [`PANIC_SKEW`] makes the store's writer panic, [`BLOCK_SKEW`] blocks it.
//! - Scripted tasks fail by probability and delay by chance; `tests/it/chaos.rs` of the server combines all of this.
//!
//! # Rules of the history checker
//!
//! [`history::check`] reads every log after a test and reports each violated rule of `docs/guarantees.md`:
//!
//! | rule | holds if |
//! | --- | --- |
//! | L1 | log sequence numbers have no gap and no repetition |
//! | L2 | each state change starts at the state where the last one ended |
//! | L3 | the record of the task has the state of its log |
//! | H1 | a task ends exactly once |
//! | H2 | events of an attempt are logged only while it runs |
//! | H3 | attempts are numbered without gaps |
//! | H4 | a task starts after its dependencies have ended |
//! | H5 | the output of an attempt is complete and in order |
//! | H6 | fences only increase |
//! | H7 | attempts do not overlap, and nothing follows their end |
//! | H8 | a cancelled task does not succeed afterwards |
//!
//! [`workflow_history::check`] reads an ended workflow:
//!
//! | rule | holds if |
//! | --- | --- |
//! | W1 | a step starts after the ends of all steps that it needs |
//! | W2 | a step has each of its tasks and workflows exactly once, and they live while it runs |
//! | W3 | no more steps run at the same time than may |
//! | W4 | nothing starts after a failure that stops; without one, the states are those of the state machine for the same ends |
//! | W5 | conditions decide whether a step runs, and when its rounds end |
//! | W6 | a step of `finally` starts once all others have ended |
//! | W7 | what has succeeded is compensated once, the last first, one after the other, and nothing else is |
//! | W8 | a decision after its deadline is the default one; a wait ends when it is over |
//!
//! Workflows that are steps obey the same rules.
//!
//! [`group_history::check`] reads all workflows and their steps: G1 holds if no more members of a concurrency group run at the same
//! time than the limit of each allows when it starts.
//!
//! # How to add
//!
//! A new rule is a function over one log in `history.rs` with a test that violates it. A new fault belongs here if two
//! tests need it. A test of one component belongs to that component.
//!
//! Read [`Cluster`] first, then `tasks.rs` and `history.rs`.

pub mod bytes_grpc;
pub mod cluster;
pub mod collector;
pub mod forge;
pub mod git_host;
pub mod group_history;
pub mod history;
pub mod identity_provider;
pub mod output;
pub mod postgres;
pub mod proxy;
pub mod raw;
pub mod recording;
pub mod s3_server;
pub mod tasks;
pub mod wire;
mod worker_handle;
pub mod workflow_history;

pub use cluster::{BLOCK_SKEW, Backend, Cluster, PANIC_SKEW, Setup};
pub use proxy::Proxy;
pub use raw::RawWorker;
// Re-exported for tests of crates that must not depend on these themselves.
pub use rota_client as client;
pub use rota_worker as worker;
pub use worker_handle::WorkerHandle;
