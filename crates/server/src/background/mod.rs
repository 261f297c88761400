//! Loops that run as long as the control plane: each is woken by what it needs, not by polling.

mod commits;
mod prune;
mod timer;

use std::sync::Arc;

use rota_store::Commit;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::shared::Shared;

pub(crate) use commits::{Claims, Settled};

/// Starts all loops.
pub(crate) fn start(
    shared: &Arc<Shared>,
    commits: mpsc::Receiver<Commit>,
    claims: mpsc::Receiver<Settled>,
    first_due: Option<rota_core::Timestamp>,
) -> Vec<JoinHandle<()>> {
    let (due, wake) = watch::channel(first_due);
    vec![
        spawn("commits", OnExit::Done, commits::run(Arc::clone(shared), commits, claims, due)),
        spawn("timer", OnExit::Done, timer::run(Arc::clone(shared), wake)),
        spawn("prune", OnExit::Done, prune::run(Arc::clone(shared))),
    ]
}
