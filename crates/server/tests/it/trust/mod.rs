//! Access to the control plane: renewed certificates, silent peers, limits, tokens of an issuer, probes.

mod browser_sessions;
mod code_flow;
mod connections;
mod cors;
mod every_call;
mod expiry;
mod foreign_keys;
mod issuer;
mod limits;
mod oidc;
mod people;
mod probes;
mod revoked_pods;
mod revoked_tokens;
mod scope;
mod tls;
mod viewers;
mod web_push;
mod worker_tokens;
