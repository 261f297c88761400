//! Who may talk to a control plane: certificates that are renewed, silent peers, tokens of an issuer, probes.

mod issuer;
mod oidc;
mod probes;
mod tls;
