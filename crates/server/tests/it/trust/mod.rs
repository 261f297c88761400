//! Access to the control plane: renewed certificates, silent peers, tokens of an issuer, probes.

mod issuer;
mod oidc;
mod probes;
mod tls;
