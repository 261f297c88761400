//! The issuer of OpenID Connect tokens, as its clients see it: what it publishes about itself, and the flows by which a person gets
//! a token. The control plane signs browsers in with it, and the command line its user. Verifies no token, and knows no role.
//!
//! # Main types
//!
//! - [`Http`]: requests to an issuer, with bounds of time and bytes, and without redirects.
//! - [`Provider`]: the endpoints that an issuer publishes.
//! - [`Client`]: a client of a provider, with the code flow (PKCE), the device flow and refresh tokens.
//!
//! # What is where
//!
//! The protocol of the flows is that of the crate `oauth2`; `http.rs` sends its requests. Signatures of tokens are the business of
//! servers that accept them: `rota-server` verifies all tokens in one place.

mod client;
mod http;
mod provider;

pub use self::client::{Client, DeviceCode, OwnClaims, Redirect, Tokens};
pub use self::http::{Http, check_url};
pub use self::provider::Provider;

/// Failure of a request to an issuer, as a message for users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The issuer does not answer, or not as one.
    #[error("{0}")]
    Unavailable(String),
    /// The issuer, or the person, refuses.
    #[error("the issuer refuses: {0}")]
    Refused(String),
    /// The issuer lacks an endpoint.
    #[error("the issuer {issuer} offers no {what}")]
    Unsupported { issuer: String, what: &'static str },
}
