//! A worker: one process that serves an agent. It keeps a session with the control plane, runs
//! attempts through runtimes, and proves that nothing of an attempt is left when it ends.
//! It knows the API's types, and nothing of stores, scheduling or Kubernetes.

pub mod runtimes;
pub mod supervise;
