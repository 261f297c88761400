//! Fake model API for tests and demos: `POST /v1/messages`, and the other paths that the Claude Code CLI requests.
//!
//! Its answers are scripted by the prompt itself (`MOCK[{"text":"hello"}]`, see the crate's README), so that a test
//! has the model's behavior next to its assertions, even through a worker, a pod and the real CLI. The next step is
//! derived from the conversation in each request, never from memory: a session that is resumed elsewhere continues at
//! its step. Only the attempts at steps with faults are counted, since a retry looks like the first request.
//!
//! Owns the wire format, the script format, the faults, and the counters that tests inspect. Depends on no other crate
//! of the workspace, and never keeps a key or a prompt.
//!
//! # How a request is answered
//!
//! ```text
//! routes ─► messages ─► conversation ─► script ─► reply ─► sse ─► plan ─► playback
//!               (position)  (step, fault)  (content)  (events) (operations) (time)
//! ```
//!
//! 1. `messages` parses the `request`, and `conversation` finds the last script and the number of answered steps.
//! 2. `attempts` counts the request if the step has faults, which decides between a fault and the answer.
//! 3. `reply` builds the content of the answer, and `sse` its events.
//! 4. `plan` turns both, the step's timing and the fault into a list of operations. It is pure, so faults are tested
//!    without a connection.
//! 5. `playback` executes the operations: the only code that waits and sends.
//! 6. `stats` records the request; [`Handle::until`] lets a test wait for it.
//!
//! To add a fault, add a variant to `script::fault::FaultKind`, its operations to `plan`, and a row to the README.
//! Start reading with the README for the format, then `messages.rs`.
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

mod api_error;
mod app;
mod attempts;
mod conversation;
mod error;
mod messages;
mod options;
mod plan;
mod playback;
mod refusal;
mod reply;
mod request;
mod routes;
mod script;
mod server;
mod sse;
mod stats;

pub use error::Error;
pub use options::Options;
pub use refusal::Refusal;
pub use server::{Handle, Server};
pub use stats::{Auth, Counts, Outcome, RequestRecord, Route};
