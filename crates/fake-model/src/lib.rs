//! A local model API for tests and demos: `POST /v1/messages` and what else the Claude Code CLI asks for.
//!
//! What it answers is scripted by the prompt itself (`MOCK[{"text":"hello"}]`, see the crate's README), so a test
//! says in one place what the model does, also through a worker, a pod and a real CLI. Which step comes next is read
//! from the conversation, and not remembered: a session that is resumed elsewhere goes on where it was.
//!
//! Owns: the wire format, the script format, the faults, and the counters that tests look at.
//! Must not know: anything of ours. It depends on no other crate of the workspace, and never keeps a key or a prompt.
//!
//! ```no_run
//! # async fn example() -> Result<(), rota_fake_model::Error> {
//! let model = rota_fake_model::Options::default().start().await?;
//! println!("{}", model.base_url());
//! model.until(|counts| counts.messages >= 2).await;
//! assert_eq!(model.requests()[0].status, 200);
//! model.shutdown().await;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod api_error;
mod attempts;
mod conversation;
mod error;
mod messages;
mod options;
mod plan;
mod play;
mod reply;
mod request;
mod routes;
mod script;
mod server;
mod sse;
mod stats;

pub use error::Error;
pub use options::Options;
pub use server::{Handle, Server};
pub use stats::{Auth, Counts, Outcome, RequestRecord, Route};
