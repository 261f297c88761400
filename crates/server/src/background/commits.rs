//! Follows every commit, in order: who waits where, what workers must be sent, whom to tell, what to claim.

use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use rota_store::{AgentChange, Command, Commit, Refused, Reply};
use rota_telemetry::loops::Beat;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{mpsc, oneshot, watch};

use crate::dispatch::PlannedClaim;
use crate::shared::{KnownAgent, Shared};
use crate::wire::agent;

/// What waits its turn behind the commits that were made before it.
pub(crate) enum Settled {
    /// A claim was answered: its slots are settled after the commits that it made.
    Claim(PlannedClaim, usize),
    /// Somebody wants to know when all that was committed until now has been taken in.
    CaughtUp(oneshot::Sender<()>),
}

pub(crate) type Claims = mpsc::Sender<Settled>;

/// Between two claims while the store cannot do its work.
const AGAIN: Duration = Duration::from_secs(1);
/// Commits taken at a time.
const AT_ONCE: usize = 64;

pub(super) async fn run(
    shared: Arc<Shared>,
    mut commits: mpsc::Receiver<Commit>,
    mut claims: mpsc::Receiver<Settled>,
    due: watch::Sender<Option<Timestamp>>,
    beat: Beat,
) {
    let mut taken = Vec::with_capacity(AT_ONCE);
    loop {
        tokio::select! {
            biased;
            count = commits.recv_many(&mut taken, AT_ONCE) => {
                // The store has been closed: nothing more will come.
                if count == 0 {
                    return;
                }
                let round = beat.round();
                for commit in taken.drain(..) {
                    follow(&shared, commit, &due);
                }
                round.succeeded();
            }
            Some(settled) = claims.recv() => {
                // What was committed before came in before, even if it was not there yet when this loop looked.
                while let Ok(commit) = commits.try_recv() {
                    follow(&shared, commit, &due);
                }
                match settled {
                    Settled::Claim(plan, given) => shared.fleet.claimed(&plan, given),
                    Settled::CaughtUp(told) => drop(told.send(())),
                }
            }
            () = shared.fleet.room() => shared.watchers.fleet_changed(),
        }
        shared.pump();
    }
}

fn follow(shared: &Arc<Shared>, commit: Commit, due: &watch::Sender<Option<Timestamp>>) {
    shared.health.committed();
    shared.metrics.follow(&commit, shared);
    shared.judge(&commit);
    shared.fleet.add_routes(&commit.routes);
    shared.fleet.note(&commit.tasks);
    shared.fleet.remove_routes(&commit.gone_routes);
    for change in &commit.agents {
        know(shared, change);
    }
    for change in &commit.tasks {
        shared.send_change(change);
    }
    due.send_if_modified(|known| std::mem::replace(known, commit.next_due) != commit.next_due);
    shared.watchers.fleet_changed();
    shared.watchers.tell(commit);
}

fn know(shared: &Shared, change: &AgentChange) {
    let key = (change.agent.namespace.clone(), change.agent.name.clone());
    if change.deleted {
        shared.agents.write().remove(&key);
        shared.pools.forget(&key);
        shared.reset_breaker(&key);
        return;
    }
    let spec = Arc::new(agent::kept(&change.agent).spec.unwrap_or_default());
    let known = KnownAgent { agent: Arc::clone(&change.agent), spec: Arc::clone(&spec) };
    let before = shared.agents.write().insert(key.clone(), known);
    // Whoever changed it may have mended it.
    if before.is_some_and(|before| before.spec != spec) && shared.breakers.get(&key).is_some() {
        shared.reset_breaker(&key);
    }
    // Workers that are there already, perhaps before their agent was, do what their agent can do now.
    shared.fleet.learn(&key.0, &key.1, &change.agent.capabilities);
}

impl Shared {
    /// Makes every claim that the fleet plans now.
    fn pump(self: &Arc<Self>) {
        for plan in self.fleet.plan() {
            let shared = Arc::clone(self);
            spawn("claim", OnExit::Done, async move {
                let given = match shared.write(vec![Command::Claim(plan.claim.clone())]).await {
                    Ok(replies) => match replies.first() {
                        Some(Ok(Reply::Claimed(given))) => *given,
                        Some(Err(Refused::Superseded)) => {
                            // The seat is of a session that is over. Nothing is planned for it any more, so that
                            // others are tried at once; its worker, if it is still there, says Hello again.
                            shared.fleet.hang_up(&plan.seat, &plan.claim.worker);
                            0
                        }
                        _ => 0,
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a claim failed");
                        // Whatever is wrong with the store, asking again at once does not mend it.
                        tokio::time::sleep(AGAIN).await;
                        0
                    }
                };
                let _ = shared.claims.send(Settled::Claim(plan, given)).await;
            });
        }
    }

    /// Waits until everything that has been answered so far is also known here: whoever was told of a
    /// change must find it when asking again.
    pub(crate) async fn caught_up(&self) {
        let (told, heard) = oneshot::channel();
        if self.claims.send(Settled::CaughtUp(told)).await.is_ok() {
            let _ = heard.await;
        }
    }
}
