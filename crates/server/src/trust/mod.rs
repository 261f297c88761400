//! Transport security: connections, TLS, authentication by tokens, roles. Knows nothing of tasks.

pub(crate) mod accept;
pub(crate) mod addresses;
pub(crate) mod auth;
mod files;
pub(crate) mod identity;
pub(crate) mod oidc;
mod page;
pub(crate) mod roles;
pub(crate) mod sign_in;
pub(crate) mod tls;
pub(crate) mod token_registry;
pub(crate) mod worker_token;
