//! Gauges that are read when the metrics are scraped or exported: queues, workers, slots, breakers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use rota_core::breaker::State as Breaker;
use rota_core::task::State;
use rota_proto::num;
use rota_store::StoreStats;
use rota_telemetry::metrics::{Registry, Sample, export_interval};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::commits::name;
use super::labels::{Agent, Backend, Budget, InState, Of, State as StateLabel};
use crate::accounts;
use crate::approvals::Approvals;
use crate::artifacts::Artifacts;
use crate::clock::now;
use crate::demand::{Demand, Snapshot};
use crate::scheduler::WorkerView;
use crate::schedules;
use crate::store_client::StoreClient;

/// Time for the store to count; without a reply, its gauges are left out.
const STATS_TIMEOUT: Duration = Duration::from_secs(2);
/// Queues whose first task is read per scrape.
const MAX_QUEUES: usize = 500;
/// Namespaces whose artifacts, or schedules, have a label.
const MAX_NAMESPACES: usize = 500;
/// Budgets that have a label.
const MAX_BUDGETS: usize = 1000;

/// Back ends that have a label.
const MAX_BACKENDS: usize = 500;

fn number(state: Breaker) -> i64 {
    match state {
        Breaker::Closed => 0,
        Breaker::HalfOpen { .. } => 1,
        Breaker::Open { .. } => 2,
    }
}

/// Updates the gauges when the metrics are read.
#[derive(Clone)]
pub(crate) struct Scraper {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: StoreClient,
    pub(crate) demand: Demand,
    pub(crate) artifacts: Artifacts,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) schedules: Arc<schedules::Registry>,
}

impl Scraper {
    /// Returns the metrics page and its content type.
    pub(crate) async fn page(&self, accept: Option<&str>) -> Result<(&'static str, String), std::fmt::Error> {
        self.refresh().await.encode(accept)
    }

    /// Returns the current values of some metrics.
    pub(crate) async fn samples(&self, names: &[&str]) -> Result<Vec<Sample>, std::fmt::Error> {
        self.refresh().await.samples(names)
    }

    /// Exports the metrics at the configured interval, until the control plane stops.
    pub(crate) async fn send(self, stop: CancellationToken) {
        let Some(interval) = export_interval() else { return };
        while stop.run_until_cancelled(sleep(interval)).await.is_some() {
            self.refresh().await.export();
        }
    }

    /// Exports the metrics a last time, after the store was closed.
    pub(crate) fn send_last(&self) {
        if export_interval().is_some() {
            let registry = self.metrics.registry.lock();
            self.update(&self.demand.take_snapshot(), None);
            registry.export();
        }
    }

    /// Updates the gauges.
    async fn refresh(&self) -> MutexGuard<'_, Registry> {
        let snapshot = self.demand.conditions().await;
        let routes = snapshot.view.queues.iter().take(MAX_QUEUES).map(|(id, ..)| *id).collect();
        let stats = match timeout(STATS_TIMEOUT, self.store.reads().stats(routes)).await {
            Ok(Ok(stats)) => Some(stats),
            Ok(Err(error)) => {
                tracing::warn!(%error, "failed to read the statistics of the store");
                None
            }
            Err(_) => None,
        };
        // Shortly after a start, not all of them are known.
        let approvals = timeout(STATS_TIMEOUT, self.approvals.count()).await.ok();
        // Concurrent scrapes must not see each other's partial updates.
        let registry = self.metrics.registry.lock();
        self.update(&snapshot, stats);
        if let Some(approvals) = approvals {
            self.metrics.approvals_waiting.set(i64::try_from(approvals).unwrap_or(i64::MAX));
        }
        registry
    }

    fn update(&self, snapshot: &Snapshot, stats: Option<StoreStats>) {
        let waiting = &snapshot.view.queues;
        let metrics = &self.metrics;
        let mut states = metrics.on_workers();
        states.insert(State::Queued, waiting.iter().map(|(_, _, count)| count).sum());
        states.extend(stats.as_ref().map(|stats| (State::Pending, stats.pending)));
        metrics.tasks.clear();
        for (state, count) in states {
            metrics.tasks.get_or_create(&StateLabel { state: name(state) }).set(num::to_i64(count));
        }

        let (mut queues, mut oldest) = (BTreeMap::<Agent, u64>::new(), BTreeMap::<Agent, f64>::new());
        let heads: BTreeMap<_, _> = stats.into_iter().flat_map(|stats| stats.next).collect();
        for (id, route, count) in waiting {
            let agent = route.target.agent().cloned().or_else(|| self.demand.preferred(route));
            let agent = metrics.bounds.agent(&route.namespace, agent.as_ref());
            if let Some(ready) = heads.get(id) {
                let age = self.store.now().since(*ready).as_secs_f64();
                let known = oldest.entry(agent.clone()).or_default();
                *known = known.max(age);
            }
            *queues.entry(agent).or_default() += count;
        }
        metrics.queue.clear();
        for (agent, count) in queues {
            metrics.queue.get_or_create(&agent).set(num::to_i64(count));
        }
        metrics.oldest.clear();
        for (agent, age) in oldest {
            metrics.oldest.get_or_create(&agent).set(age);
        }
        metrics.breakers.clear();
        metrics.cool_downs.clear();
        for agent in self.demand.agents.keys() {
            let state = number(self.demand.breakers.state(&agent));
            // Agents that share a label report the worst state.
            let label = metrics.bounds.agent(&agent.0, Some(&agent.1));
            let gauge = metrics.breakers.get_or_create(&label);
            gauge.set(gauge.get().max(state));
            let (cool_downs, now) = (self.demand.breakers.cool_downs_of(&agent), self.store.now());
            let ends = cool_downs.into_iter().map(|one| one.until.since(now));
            // One that is being probed has not ended.
            let left = ends.map(|left| left.as_secs().max(1)).max().unwrap_or_default();
            let gauge = metrics.cool_downs.get_or_create(&label);
            gauge.set(gauge.get().max(num::to_i64(left)));
        }
        metrics.backends.clear();
        for ((namespace, backend), breaker) in self.demand.breakers.backends().into_iter().take(MAX_BACKENDS)
        {
            let label = Backend { namespace: namespace.to_string(), backend: backend.to_string() };
            metrics.backends.get_or_create(&label).set(number(breaker.state()));
        }
        self.update_workers(snapshot);
        self.update_budgets();
        self.update_artifacts();
        self.update_schedules();
        self.update_store();
    }

    fn update_budgets(&self) {
        self.metrics.budgets.clear();
        let limited =
            self.demand.agents.accounts_of(None).into_iter().filter(|(_, budget)| !budget.is_empty());
        for ((account, _), budget) in limited.take(MAX_BUDGETS) {
            for (period, used) in accounts::used(&account, &budget, now()) {
                let label = Budget {
                    namespace: account.namespace.to_string(),
                    agent: account.scope.agent().map(ToString::to_string).unwrap_or_default(),
                    period: period.name(),
                };
                self.metrics.budgets.get_or_create(&label).set(used);
            }
        }
    }

    fn update_artifacts(&self) {
        let metrics = &self.metrics;
        metrics.artifact_bytes.clear();
        metrics.artifacts_full.clear();
        let mut usage = self.artifacts.usage();
        // Those that need room come first, and then the largest.
        usage.sort_by_key(|(_, bytes, full)| std::cmp::Reverse((*full, *bytes)));
        for (namespace, bytes, full) in usage.into_iter().take(MAX_NAMESPACES) {
            let label = Of { namespace: namespace.to_string() };
            metrics.artifact_bytes.get_or_create(&label).set(num::to_i64(bytes));
            metrics.artifacts_full.get_or_create(&label).set(full.into());
        }
        metrics.artifacts_unavailable.set(self.artifacts.outage(now()).is_some().into());
        metrics.artifacts_lost.clear();
        for (namespace, parts) in self.artifacts.lost().into_iter().take(MAX_NAMESPACES) {
            metrics.artifacts_lost.get_or_create(&Of { namespace }).set(num::to_i64(parts));
        }
    }

    fn update_schedules(&self) {
        let failing = &self.metrics.schedules_failing;
        failing.clear();
        let mut counts = BTreeMap::new();
        for (namespace, _) in self.schedules.problems().into_keys() {
            *counts.entry(namespace).or_insert(0) += 1;
        }
        for (namespace, count) in counts.into_iter().take(MAX_NAMESPACES) {
            failing.get_or_create(&Of { namespace: namespace.to_string() }).set(count);
        }
    }

    fn update_store(&self) {
        let metrics = &self.metrics;
        metrics.writes_failing.set(self.store.write_health().error().is_some().into());
        metrics.search_lag.set(num::to_i64(self.store.index().lag()));
        metrics.load.set(self.store.overload().ratios());
        let space = self.store.space().unwrap_or_default();
        metrics.space.size.set(num::to_i64(space.size));
        metrics.space.reusable.set(num::to_i64(space.reusable));
        metrics.space.free.set(num::to_i64(space.free));
        metrics.space.volume.set(num::to_i64(space.volume));
    }

    fn update_workers(&self, snapshot: &Snapshot) {
        let metrics = &self.metrics;
        let (mut workers, mut slots) = (BTreeMap::<InState, u64>::new(), BTreeMap::<InState, u64>::new());
        for worker in &snapshot.view.workers {
            let agent = metrics.bounds.agent(&worker.profile.namespace, Some(&worker.profile.agent));
            *workers.entry(agent.clone().state(doing(worker))).or_default() += 1;
            if worker.connected {
                let used = worker.tasks.len();
                *slots.entry(agent.clone().state("used")).or_default() += used as u64;
                *slots.entry(agent.state("free")).or_default() += worker.free as u64;
            }
        }
        for (family, counts) in [(&metrics.workers, workers), (&metrics.slots, slots)] {
            family.clear();
            for (label, count) in counts {
                family.get_or_create(&label).set(num::to_i64(count));
            }
        }
    }
}

fn doing(worker: &WorkerView) -> &'static str {
    match worker {
        worker if !worker.connected => "away",
        worker if worker.draining => "draining",
        worker if !worker.ready => "not_ready",
        worker if worker.suspended => "suspended",
        worker if worker.tasks.is_empty() => "idle",
        _ => "busy",
    }
}
