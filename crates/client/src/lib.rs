//! The typed client of Rota's API: one channel, a token on each call, retries where they are safe,
//! watches that go on where they were cut. Also finds which server to talk to.
//! Knows nothing of terminals, manifests or processes.

mod auth;
mod calls;
mod channel;
pub mod discover;
mod error;
mod options;
mod retry;
mod tls;
mod trace;
pub mod watch;

pub use auth::Auth;
pub use channel::{Client, Transport, lazy_channel};
pub use error::{Error, Field, reason};
pub use options::{Options, Token};
pub use tonic::Code;
