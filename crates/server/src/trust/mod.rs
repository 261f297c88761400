//! Transport security: connections, TLS, authentication by tokens, roles. Knows nothing of tasks.

pub(crate) mod accept;
pub(crate) mod addresses;
pub(crate) mod auth;
pub(crate) mod browser_sessions;
pub(crate) mod cookies;
pub(crate) mod cors;
mod cut_off;
mod files;
pub(crate) mod identity;
pub(crate) mod oidc;
mod page;
pub(crate) mod people;
pub(crate) mod roles;
pub(crate) mod scope;
pub(crate) mod shared_tokens;
pub(crate) mod sign_in;
pub(crate) mod tls;
pub(crate) mod token_registry;
pub(crate) mod worker_token;
