//! Loops that run as long as the control plane: each is woken by what it needs, not by polling.

mod commits;
mod prune;
mod timer;

use std::sync::Arc;
use std::time::Duration;

use rota_store::Commit;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::shared::Shared;

pub(crate) use commits::{Claims, Settled};

/// All loops, by what each carries.
pub(crate) struct Loops(Vec<(&'static str, JoinHandle<()>)>);

impl Loops {
    /// Waits for one to end, and says which.
    pub(crate) async fn first_end(&mut self) -> &'static str {
        let ends = self.0.iter_mut().map(|(name, handle)| {
            Box::pin(async move {
                let _ = handle.await;
                *name
            })
        });
        let (ended, at, _) = futures::future::select_all(ends).await;
        self.0.swap_remove(at);
        ended
    }

    /// Waits for those that are left, each for a grace. Whether all have ended.
    pub(crate) async fn join(self, grace: Duration) -> bool {
        let mut all = true;
        for (_, handle) in self.0 {
            all &= tokio::time::timeout(grace, handle).await.is_ok();
        }
        all
    }
}

/// Starts all loops.
pub(crate) fn start(
    shared: &Arc<Shared>,
    commits: mpsc::Receiver<Commit>,
    claims: mpsc::Receiver<Settled>,
    first_due: Option<rota_core::Timestamp>,
) -> Loops {
    let (due, wake) = watch::channel(first_due);
    let beat = |name, help| shared.loops.enter(name, help);
    let follow = beat(
        "commits",
        "Follows the store's commits: tells workers and watchers, and gives out what is ready",
    );
    let commits = commits::run(Arc::clone(shared), commits, claims, due, follow);
    let looks = beat("timer", "Lets tasks look at the clock when their time comes");
    let timer = timer::run(Arc::clone(shared), wake, looks);
    let prune = prune::run(Arc::clone(shared), beat("prune", "Removes what is older than it is kept"));
    Loops(vec![
        ("store's writer or what follows its commits", spawn("commits", OnExit::Done, commits)),
        ("timer", spawn("timer", OnExit::Done, timer)),
        ("removal of what is old", spawn("prune", OnExit::Done, prune)),
    ])
}
