//! For tests only: a whole Rota inside of one process, the means to break it, and a checker that
//! reads every log afterwards. Knows everything; nothing knows it.

pub mod cluster;
pub mod collector;
pub mod history;
pub mod proxy;
pub mod raw;
pub mod said;
pub mod tasks;

pub use cluster::{BROKEN, Cluster, Keep, STUCK, Setup, WorkerHandle};
pub use proxy::Proxy;
pub use raw::RawWorker;
