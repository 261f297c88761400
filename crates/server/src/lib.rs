//! The control plane: gRPC API, sessions with workers, dispatch, background loops. It decides
//! nothing that `rota-core` decides, keeps nothing that a store keeps, and knows nothing of Kubernetes.

mod background;
mod dispatch;
mod grpc;
mod health;
mod http;
mod metrics;
mod options;
mod pools;
mod seal;
mod server;
mod sessions;
mod shared;
mod spans;
mod trust;
mod watchers;
mod wire;

pub use metrics::{Described, metrics};
pub use options::{Oidc, Options, Timing, Tls, Token};
pub use server::{Bound, Ended, Error, Server};
pub use wire::status::REASONS;
