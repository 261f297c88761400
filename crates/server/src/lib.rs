//! The control plane: gRPC API, sessions with workers, scheduler, background tasks.
//!
//! It decides nothing that `rota-core` decides, keeps nothing that a store keeps, and must not know Kubernetes. What it has
//! in memory can be rebuilt from the store at any time.
//!
//! # The path of a call
//!
//! 1. `trust` accepts the connection, authenticates the caller and checks the role that the call requires. `message_limits` bounds what
//!    the call may send, before anything of it is decoded.
//! 2. A service in `grpc` validates the request with `wire` and turns it into a command. A creation also reserves a
//!    free slot of a worker with the `scheduler`, so that creating and assigning a task are one transaction.
//! 3. `store_client` hands the command to the store, which answers once it is durable. The service converts the reply.
//!
//! Workers come in by `sessions`: one bidirectional call each, whose messages are committed in batches and
//! acknowledged after the commit (at-least-once delivery; fences make repeats harmless).
//!
//! # The path of a commit
//!
//! The store publishes every commit, in order, before it answers the call that caused it. The background task `commits`
//! (`background`) hands each to the `commit_applier`, the only place where commits change what is in memory:
//!
//! 1. metrics and spans observe what happened, `breakers` how attempts ended;
//! 2. the `scheduler` moves queues and turns reserved slots into running attempts;
//! 3. the `agents` registry takes in changed agents;
//! 4. the `dispatcher` sends assignments, cancels and inputs to the sessions of their workers;
//! 5. `watchers` receive references to what changed, which they encode and relay on their own time;
//! 6. `notify` queues what receivers outside of Rota are notified of, and delivers it on its own time. `follow` looks at the pull requests of
//!    tasks that have succeeded, and continues them.
//!
//! Afterwards the scheduler plans claims for what is ready. A claim is a command like any other: its tasks arrive with
//! the next commit. A `barrier` orders a message behind all commits made before it.
//!
//! # Where to change what
//!
//! - A new call: the proto, a method in `grpc`, its role in `trust/roles.rs`, and perhaps a reason in `wire/status.rs`.
//! - A new background task: `background/mod.rs`. Its monitor makes it part of health, metrics and the API.
//! - A new metric: `metrics/mod.rs`, counted in `metrics/commits.rs` or computed in `metrics/scrape.rs`; with 30 days of history:
//!   `history/row.rs`.
//! - Matching of tasks and workers: `scheduler`, whose module documentation is the place to start reading.
//! - Wiring: `server.rs`, and nowhere else.

mod accounts;
mod agents;
mod alerts;
mod approvals;
mod around;
mod artifacts;
mod assign;
mod attention;
mod background;
mod barrier;
mod base_path;
mod breakers;
mod clock;
mod code_flow;
mod commit_applier;
mod creation;
mod demand;
mod dispatcher;
mod documents;
mod error;
mod follow;
mod grpc;
mod health;
mod history;
mod http;
mod indexer;
mod keys;
mod kinds;
mod lineage;
mod lost_history;
mod message_limits;
mod metrics;
mod notify;
mod options;
mod overload;
mod pools;
mod pulse;
mod result_schemas;
mod room;
mod scheduler;
mod schedules;
mod seal;
mod server;
mod sessions;
#[cfg(feature = "clap")]
mod settings;
mod spans;
mod standby;
mod store_client;
mod task_texts;
mod trust;
mod watchers;
mod wire;
mod workflows;
mod write_health;

pub use base_path::{BasePath, BasePathError};
pub use error::{Error, ShutdownOutcome};
pub use follow::{Follow, FollowError};
pub use metrics::{Descriptor, metrics};
pub use notify::{NotificationsError, Receiver, WebPushOptions};
pub use options::{
    DEFAULT_LISTEN, Limits, Oidc, Options, PoolKind, SessionLimits, Timing, Tls, Token, WorkLimits,
};
pub use rota_artifacts::Parts;
pub use schedules::WallClock;
pub use seal::{Error as KeyError, KeyFiles, key_document};
pub use server::{Bound, Server};
#[cfg(feature = "clap")]
pub use settings::{Settings, SettingsError};
pub use standby::{Findings, Owner, Problem, Standby};
pub use trust::people::{People, PeopleError};
pub use trust::roles::{Role, allowed_roles};
pub use trust::worker_token::{WorkerGrant, WorkerTokens};
pub use wire::status::REASONS;
