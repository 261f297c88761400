//! The worker: a process that serves one agent. It keeps a session with the control plane, runs attempts
//! through runtimes, and guarantees that no process of an attempt is left when the attempt ends. It knows the
//! types of the API, and nothing of stores, scheduling or Kubernetes.
//!
//! # Data flow
//!
//! ```text
//! control plane ── Assign ─► session ──► attempt ──► Runtime ──► supervise ──► program
//! control plane ◄─ Report, Result ── outbox ◄── redaction ◄── events, RunReport
//! ```
//!
//! - **Session** (`session`): one bidirectional stream, opened with Hello and Welcome. `session::worker` is the
//!   loop: it connects with backoff, handles messages (`inbound`), and sends what attempts have produced
//!   (`outgoing`, `outbound`). Heartbeats run on a task of their own. Attempts continue while disconnected, as
//!   far as the agent's disconnect policy and the orphan timeout allow.
//! - **Attempts** (`session::attempt`): one task per assignment. It prepares the directories (`workspace`),
//!   secrets and environment, enforces the deadline and the silence timeout, and redacts everything that the
//!   runtime emits.
//! - **Runtimes** ([`runtimes`]): turn one attempt into events and one [`runtimes::RunReport`]. `claude` drives
//!   the Claude Code CLI, `command` any program, `scripted` deterministic steps. None of them knows of sessions.
//! - **Supervision** ([`supervise`]): each program runs below a supervisor process, which is this same binary
//!   with a hidden subcommand (see [`run_hidden_subcommand`]). As a subreaper it finds every descendant, ends all of them by
//!   SIGINT, SIGTERM and SIGKILL within the grace period, and does the same when the worker dies.
//!
//! # Delivery
//!
//! Events and results are delivered at least once. Each attempt has an outbox of numbered events, in memory and
//! then in a spill file, until the control plane acknowledges them as durable; a full outbox blocks the runtime
//! (backpressure). After a reconnect the worker announces every attempt that it holds, and the control plane
//! answers with the number to continue after, or with the order to abandon the attempt. It drops duplicates by
//! number. Fences decide between workers: an attempt whose fence is outdated is ended, and only the fact that
//! it has ended is still reported, since that frees its slot.
//!
//! # Adding a runtime
//!
//! 1. Add its options to `Runtime` in `proto/rota/v1/runtime.proto`, and to the manifests in `rota-crds`.
//! 2. Implement [`runtimes::Runtime`] in a module of [`runtimes`]. Start programs with [`supervise::start`], and
//!    end them within the grace period when [`runtimes::Channels::stop`] becomes `Some`.
//! 3. Add it to [`Runtimes`], which maps the options of a task to its runtime.
//!
//! # Order of the modules
//!
//! `supervise` < `git` < `runtimes` < `workspace` < `artifacts` < `session`: each uses those before it, and all may use small ones below:
//! `layout` (every path below the state directory), `files` (locks and removal), `report`, `sanitize`. `cargo xtask check` has the whole order.
//!
//! Start reading with `runtimes/mod.rs` for the interface, then `session/attempt.rs`, then `session/worker.rs`.

mod artifacts;
mod files;
mod git;
mod globs;
mod layout;
mod metrics;
mod prices;
mod program_dir;
mod report;
pub mod runtimes;
mod sanitize;
mod session;
#[cfg(feature = "clap")]
mod settings;
pub mod supervise;
mod tail;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

pub use prices::{Price, Prices, Tokens};
pub use session::{Error, Options, PROTOCOL_VERSION, Runtimes};
#[cfg(feature = "clap")]
pub use settings::Settings;
pub use workspace::{Unused, remove_unused, unused};

/// Runs a hidden subcommand with which a worker starts its own binary, if `args` (without the program's name)
/// begin with one. Must be called before an async runtime, a thread or an argument parser is started.
pub fn run_hidden_subcommand(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter();
    let first = args.next()?;
    if first == supervise::SUBCOMMAND {
        Some(supervise::supervisor_main(args))
    } else if first == runtimes::scripted::SUBCOMMAND {
        Some(runtimes::scripted::script_step_main(args))
    } else {
        None
    }
}
