//! Alerts: everything that is known to be wrong now, in one list, with when it was noticed. Nothing is judged here that health, breakers,
//! budgets and workers do not know already; the time since when is found by looking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::spending::Scope;
use rota_core::{Namespace, Timestamp};
use rota_proto::{names, v1};
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::demand::Demand;
use crate::health::{self, Cause, Health, State};
use crate::wire::time;

/// Time between looks for what is not pushed: a store that does not answer commits nothing, a background task that hangs, a volume that fills up and a
/// worker that is sick report nothing. Breakers that open and budgets that are spent are noticed by their commits.
const INTERVAL: Duration = Duration::from_secs(15);
/// Time between looks, however many problems begin: a look is at all of them.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Problems of which is remembered when they were noticed.
const MAX_KNOWN: usize = 10_000;

/// Code and subject: a message may change while the problem stays.
type Key = (&'static str, String);

pub(crate) struct Alerts {
    health: Arc<Health>,
    demand: Demand,
    /// When each present problem was noticed first.
    since: Mutex<BTreeMap<Key, Timestamp>>,
    /// Wakes the look that is not due yet.
    begun: Notify,
}

impl Alerts {
    pub(crate) fn new(health: Arc<Health>, demand: Demand) -> Self {
        Self { health, demand, since: Mutex::default(), begun: Notify::new() }
    }

    /// Reports that a problem may have begun.
    pub(crate) fn begun(&self) {
        self.begun.notify_one();
    }

    /// Notices problems that no caller lists, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken, monitor: TaskMonitor) {
        let look = async {
            loop {
                let activation = monitor.activate();
                self.observe().await;
                activation.succeeded();
                tokio::time::sleep(MIN_INTERVAL).await;
                let _ = tokio::time::timeout(INTERVAL - MIN_INTERVAL, self.begun.notified()).await;
            }
        };
        stop.run_until_cancelled(look).await;
    }

    /// Returns the problems of a namespace, or of all, and those of the control plane itself unless the caller is `limited` to
    /// namespaces; the worst and then the newest first.
    pub(crate) async fn list(&self, namespace: Option<&Namespace>, limited: bool) -> Vec<v1::Alert> {
        let own = namespace.map(|namespace| names::namespace(namespace.as_str()));
        let concerns = |subject: &str| match &own {
            Some(own) if subject.starts_with("namespaces/") => subject
                .strip_prefix(own.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            _ => !limited,
        };
        let mut found = self.observe().await;
        found.retain(|(cause, _)| concerns(&cause.subject));
        found.sort_by_key(|(cause, since)| std::cmp::Reverse((cause.state, *since)));
        health::limit(&mut found, |(cause, _)| cause.code);
        found.into_iter().map(|(cause, since)| to_wire(cause, since)).collect()
    }

    async fn observe(&self) -> Vec<(Cause, Timestamp)> {
        let (_, mut causes) = self.health.diagnose_all().await;
        causes.extend(self.budgets());
        causes.extend(self.workers().await);
        let mut known = self.since.lock();
        let now = now();
        let found: Vec<_> = causes
            .into_iter()
            .map(|cause| {
                let since = known.get(&(cause.code, cause.subject.clone())).copied().unwrap_or(now);
                (cause, since)
            })
            .collect();
        let kept = found.iter().take(MAX_KNOWN);
        *known = kept.map(|(cause, since)| ((cause.code, cause.subject.clone()), *since)).collect();
        found
    }

    fn budgets(&self) -> Vec<Cause> {
        let now = now();
        let limited = self.demand.agents.accounts_of(None).into_iter();
        let exhausted = limited.filter_map(|((account, _), limits)| {
            let period = account.blocked(&limits, 0, account.usual, now)?;
            let (namespace, until) = (account.namespace.as_str(), time::rfc3339(period.end(now)));
            let (subject, whose) = match &account.scope {
                Scope::Namespace | Scope::Workflow(_) => {
                    (names::namespace(namespace), format!("namespace {namespace}"))
                }
                Scope::Agent(agent) => (names::agent(namespace, agent), format!("agent {namespace}/{agent}")),
            };
            Some(Cause {
                state: State::Degraded,
                code: "budget_exhausted",
                subject,
                message: format!("the budget of the {whose} is exhausted until {until}"),
                hint: "raise the budget, or wait; `rota admin budgets` lists what was spent".to_owned(),
            })
        });
        exhausted.collect()
    }

    async fn workers(&self) -> Vec<Cause> {
        let snapshot = self.demand.conditions().await;
        let sick = snapshot.view.workers.iter().filter(|worker| worker.connected && worker.is_unavailable());
        let causes = sick.map(|worker| {
            let profile = &worker.profile;
            let (namespace, name) = (profile.namespace.as_str(), &profile.worker);
            Cause {
                state: State::Degraded,
                code: "worker_unavailable",
                subject: names::worker(namespace, name),
                message: format!(
                    "the worker {name} of the agent {namespace}/{} gets no tasks: {}",
                    profile.agent,
                    worker.unavailable_reason()
                ),
                hint: format!("see `rota workers {name} -n {namespace}`, and repair or restart it"),
            }
        });
        causes.collect()
    }
}

fn to_wire(cause: Cause, since: Timestamp) -> v1::Alert {
    v1::Alert {
        code: cause.code.to_owned(),
        severity: cause.state.to_wire().into(),
        message: cause.message,
        hint: cause.hint,
        subject: cause.subject,
        since_time: Some(time::timestamp(since)),
    }
}

#[cfg(test)]
impl Alerts {
    /// Whether a look that is not due is asked for.
    pub(crate) fn is_woken(&self) -> bool {
        use futures::FutureExt;
        self.begun.notified().now_or_never().is_some()
    }
}
