//! The control plane: gRPC API, sessions with workers, dispatch, background loops. It decides
//! nothing that `rota-core` decides, keeps nothing that a store keeps, and knows nothing of Kubernetes.

mod background;
mod dispatch;
mod grpc;
mod options;
mod seal;
mod server;
mod sessions;
mod shared;
mod watchers;
mod wire;

pub use options::{Options, Timing, Tls};
pub use server::{Bound, Ended, Error, Server};
pub use wire::status::REASONS;
