//! Background task that applies the store's commits, in their order, and claims what they made ready.

use std::sync::Arc;
use std::time::Duration;

use rota_store::{Commit, Refused};
use rota_telemetry::background_tasks::TaskMonitor;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;

use crate::barrier::{Barrier, Barriers};
use crate::commit_applier::CommitApplier;
use crate::scheduler::{ClaimPlan, Scheduler, until_answered};
use crate::store_client::StoreClient;

/// Delay after a claim that failed because of the store.
const CLAIM_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Commits that are received at a time.
const MAX_RECEIVED: usize = 64;

/// Receives commits, barriers and free slots.
pub(crate) struct CommitLoop {
    pub(crate) applier: CommitApplier,
    pub(crate) claimer: Claimer,
    pub(crate) commits: mpsc::Receiver<Commit>,
    pub(crate) barriers: mpsc::Receiver<Barrier>,
}

/// What the loop turns to, after the commits that it has received.
#[derive(Debug, PartialEq, Eq)]
enum Turn<B> {
    Commits,
    Barrier(B),
    Match,
    /// There are no more commits, since the store is closed.
    Closed,
}

/// Waits for commits, for a barrier or for a match. A barrier comes first, with the commits before it: while commits never cease,
/// claims must still resolve. Barriers cannot hold up commits, and after each turn all matches are planned.
async fn next_turn<C, B>(
    commits: &mut mpsc::Receiver<C>,
    barriers: &mut mpsc::Receiver<B>,
    received: &mut Vec<C>,
    matched: impl Future<Output = ()>,
) -> Turn<B> {
    tokio::select! {
        biased;
        Some(barrier) = barriers.recv() => {
            // The commits before the barrier have been sent, though perhaps not when this loop last looked.
            for _ in 0..commits.len() {
                received.extend(commits.try_recv());
            }
            Turn::Barrier(barrier)
        }
        count = commits.recv_many(received, MAX_RECEIVED) => {
            if count == 0 { Turn::Closed } else { Turn::Commits }
        }
        () = matched => Turn::Match,
    }
}

/// Claims ready tasks for workers with free slots.
#[derive(Clone)]
pub(crate) struct Claimer {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) store: StoreClient,
    pub(crate) barriers: Barriers,
}

impl CommitLoop {
    /// Runs until the store is closed.
    pub(super) async fn run(self, monitor: TaskMonitor) {
        let Self { mut applier, claimer, mut commits, mut barriers } = self;
        let mut received = Vec::with_capacity(MAX_RECEIVED);
        loop {
            let matched = claimer.scheduler.match_possible();
            let turn = next_turn(&mut commits, &mut barriers, &mut received, matched).await;
            if !received.is_empty() {
                let activation = monitor.activate();
                received.drain(..).for_each(|commit| applier.apply(commit));
                activation.succeeded();
            }
            match turn {
                Turn::Closed => return,
                Turn::Barrier(Barrier::ClaimResolved(reservation)) => drop(reservation),
                Turn::Barrier(Barrier::Flush(done)) => drop(done.send(())),
                Turn::Commits | Turn::Match => {}
            }
            claimer.claim_pending();
        }
    }
}

impl Claimer {
    /// Makes every claim that the scheduler plans now.
    fn claim_pending(&self) {
        for plan in self.scheduler.plan() {
            spawn("claim", OnExit::Done, self.clone().claim(plan));
        }
    }

    async fn claim(self, plan: ClaimPlan) {
        let ClaimPlan { claim, reservation } = plan;
        let (mut reservation, answer) = until_answered(reservation, self.store.claim(claim)).await;
        let assigned = match answer {
            Ok(Ok(Some(assigned))) => assigned,
            Ok(Ok(None)) => {
                reservation.pass_over();
                0
            }
            Ok(Err(Refused::Superseded)) => {
                // Nothing more is planned for a session that is over, so that other workers are tried immediately. Its
                // worker, if it is still there, connects again.
                self.scheduler.close_session(reservation.worker(), reservation.session());
                0
            }
            Ok(Err(_)) => 0,
            Err(error) => {
                tracing::warn!(%error, "failed to claim tasks, retrying");
                tokio::time::sleep(CLAIM_RETRY_DELAY).await;
                0
            }
        };
        self.barriers.claim_resolved(reservation, assigned).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// A reader that is slower than the store finds commits whenever it looks.
    #[tokio::test]
    async fn barriers_pass_while_commits_never_cease() {
        let (commit, mut commits) = mpsc::channel(4 * MAX_RECEIVED);
        let (barrier, mut barriers) = mpsc::channel(1);
        let (mut sent, mut applied) = (0_u32, Vec::new());
        let mut fill = || {
            while commit.try_send(sent).is_ok() {
                sent += 1;
            }
            sent
        };
        for round in 0..100_u32 {
            let before = fill();
            barrier.try_send(round).unwrap();
            let turn = next_turn(&mut commits, &mut barriers, &mut applied, pending()).await;
            assert_eq!(turn, Turn::Barrier(round));
            assert_eq!(applied.len(), usize::try_from(before).unwrap(), "all commits before the barrier");
            fill();
            let turn = next_turn(&mut commits, &mut barriers, &mut applied, pending()).await;
            assert_eq!(turn, Turn::Commits);
        }
        assert!(applied.is_sorted());
    }
}
