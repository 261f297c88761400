//! Typed client of Rota's API, for every caller: the CLI, workers, the operator and tests. Must not know terminals,
//! manifests or processes.
//!
//! # Main types
//!
//! - [`Client`]: one lazily connected channel. Each unary call of the API is a method on it; [`Client::watch_task`] and
//!   its siblings return streams. Clones share the connection.
//! - [`Options`]: endpoint, [`Token`], CA and timeouts. [`discover::find`] derives them from flags, the environment, the
//!   config file or a local `rota dev`.
//! - [`Error`]: a status unpacked into message, reason, fields and a hint.
//!
//! # Retries
//!
//! A call is retried, with exponential backoff for up to [`Options::retry_for`], if no server answered it or one that is
//! shutting down did, and if repeating it is safe. That is 30 s, for a takeover by another replica, or 2 s at a loopback address; after
//! 2 s the wait is logged. `calls.rs` declares which: `repeat` for reads and idempotent writes,
//! `keyed` for creations, `once` for the rest.
//!
//! # Idempotency keys
//!
//! A creation without task id or idempotency key gets one here, before the first try. All tries carry the same, so a
//! response that was lost never creates a second task.
//!
//! # Watches that resume
//!
//! A [`watch::Watch`] outlives its connection. After a lost connection the stream is opened again from its last
//! position: the log sequence of a task, the token of many tasks. Where there is no position, the caller gets what it
//! needs to catch up: all steps of a workflow again, the agents again with the deletions in between, or `resync`. Before
//! the first response a failure is returned after [`Options::retry_for`]; later, the watch retries until the server is
//! back. `watch/engine.rs` has the loop, `watch/sources.rs` what each watch resumes from.
//!
//! # Example
//!
//! ```no_run
//! use futures::StreamExt;
//! use rota_client::{Client, Options};
//!
//! # async fn example() -> Result<(), rota_client::Error> {
//! let client = Client::new(Options::new("127.0.0.1:7420"))?;
//! let mut updates = client.watch_task("namespaces/default/tasks/build", 0);
//! while let Some(update) = updates.next().await {
//!     println!("{} new events", update?.events.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Client::execute`] creates a task, waits for its end, and returns its result with cost, time and agents:
//!
//! ```no_run
//! # async fn example(client: rota_client::Client) -> Result<(), rota_client::Error> {
//! let review = client.execute("The changes of the last commit", "review").await?;
//! println!("{} for {} micro-dollars in {:?}", review.output, review.cost_micro_usd, review.time);
//! println!("by {}: {:?}", review.agents.join(", "), review.data);
//! # Ok(())
//! # }
//! ```
//!
//! # How to add a call
//!
//! Add a line to the `calls!` table; choose `repeat` only if a second execution changes nothing. A new kind of creation
//! implements `Keyed`. A new watch is a `Source` in `watch/sources.rs`.
//!
//! Read `calls.rs` first, then `retry.rs` and `watch/engine.rs`.

#![warn(missing_docs)]

pub mod artifacts;
mod auth;
mod calls;
mod channel;
pub mod discover;
mod error;
mod execute;
mod options;
mod pages;
mod retry;
mod tls;
mod trace;
pub mod watch;

pub use auth::Auth;
pub use channel::{Client, RenewableChannel, Transport, lazy_channel};
pub use error::{Error, Field, hint_of, reason, upload_bytes};
pub use execute::Execution;
pub use options::{Options, Token};
pub use tonic::Code;
