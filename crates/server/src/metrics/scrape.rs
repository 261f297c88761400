//! What is so at the moment when somebody asks for the page, or it is sent: queues, workers, slots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use rota_core::RouteId;
use rota_core::breaker::State as Breaker;
use rota_core::target::Route;
use rota_core::task::State;
use rota_store::Figures;
use rota_telemetry::metrics::{Page, interval};
use tokio::time::{sleep, timeout};

use super::follow::name;
use super::labels::{Agent, InState, State as StateLabel};
use crate::dispatch::WorkerView;
use crate::shared::{Shared, now};

/// For the store to count; after that, what it alone knows is left out.
const STORE: Duration = Duration::from_secs(2);
/// Queues whose heads are looked at for one page.
const QUEUES: usize = 500;

type Waiting = Vec<(RouteId, Route, u64)>;

/// The page, as it is now.
pub(crate) async fn page(
    shared: &Shared,
    accept: Option<&str>,
) -> Result<(&'static str, String), std::fmt::Error> {
    fresh(shared).await.write(accept)
}

/// Sends the page as often as the variables say, until the control plane stops.
pub(crate) async fn send(shared: Arc<Shared>) {
    let Some(interval) = interval() else { return };
    while shared.stop.run_until_cancelled(sleep(interval)).await.is_some() {
        fresh(&shared).await.send();
    }
}

/// Sends the page once more: nothing will be counted any more, and the store is closed.
pub(crate) fn send_last(shared: &Shared) {
    if interval().is_some() {
        let page = shared.metrics.page.lock();
        look(shared, &shared.fleet.queues(), None);
        page.send();
    }
}

/// The page, brought up to date.
async fn fresh(shared: &Shared) -> MutexGuard<'_, Page> {
    let waiting = shared.fleet.queues();
    let routes = waiting.iter().take(QUEUES).map(|(id, ..)| *id).collect();
    let figures = match timeout(STORE, shared.store.figures(routes)).await {
        Ok(Ok(figures)) => Some(figures),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the store cannot be asked for figures");
            None
        }
        Err(_) => None,
    };
    // Two that ask at once must not see each other's half-made page.
    let page = shared.metrics.page.lock();
    look(shared, &waiting, figures);
    page
}

fn look(shared: &Shared, waiting: &Waiting, figures: Option<Figures>) {
    let metrics = &shared.metrics;
    let mut states = metrics.on_workers();
    states.insert(State::Queued, waiting.iter().map(|(_, _, count)| count).sum());
    states.extend(figures.as_ref().map(|figures| (State::Pending, figures.pending)));
    metrics.tasks.clear();
    for (state, count) in states {
        metrics.tasks.get_or_create(&StateLabel { state: name(state) }).set(signed(count));
    }

    let (mut queues, mut oldest) = (BTreeMap::<Agent, u64>::new(), BTreeMap::<Agent, f64>::new());
    let heads: BTreeMap<_, _> = figures.into_iter().flat_map(|figures| figures.next).collect();
    for (id, route, count) in waiting {
        let agent = route.target.agent().cloned().or_else(|| shared.preferred(route));
        let agent = metrics.bounds.agent(&route.namespace, agent.as_ref());
        if let Some(ready) = heads.get(id) {
            let age = now().since(*ready).as_secs_f64();
            let known = oldest.entry(agent.clone()).or_default();
            *known = known.max(age);
        }
        *queues.entry(agent).or_default() += count;
    }
    metrics.queue.clear();
    for (agent, count) in queues {
        metrics.queue.get_or_create(&agent).set(signed(count));
    }
    metrics.oldest.clear();
    for (agent, age) in oldest {
        metrics.oldest.get_or_create(&agent).set(age);
    }
    metrics.breakers.clear();
    let agents: Vec<_> = shared.agents.read().keys().cloned().collect();
    for agent in agents {
        let state = match shared.breakers.state(&agent) {
            Breaker::Closed => 0,
            Breaker::HalfOpen { .. } => 1,
            Breaker::Open { .. } => 2,
        };
        // Of those that share a label, the worst is told.
        let label = metrics.bounds.agent(&agent.0, Some(&agent.1));
        let gauge = metrics.breakers.get_or_create(&label);
        gauge.set(gauge.get().max(state));
    }
    fleet(shared);
}

fn fleet(shared: &Shared) {
    let metrics = &shared.metrics;
    let (mut workers, mut slots) = (BTreeMap::<InState, u64>::new(), BTreeMap::<InState, u64>::new());
    for worker in shared.fleet.workers() {
        let agent = metrics.bounds.agent(&worker.profile.namespace, Some(&worker.profile.agent));
        *workers.entry(agent.clone().state(doing(&worker))).or_default() += 1;
        if worker.connected {
            let used = worker.tasks.len();
            *slots.entry(agent.clone().state("used")).or_default() += used as u64;
            *slots.entry(agent.state("free")).or_default() += worker.free as u64;
        }
    }
    for (family, counts) in [(&metrics.workers, workers), (&metrics.slots, slots)] {
        family.clear();
        for (label, count) in counts {
            family.get_or_create(&label).set(signed(count));
        }
    }
}

fn doing(worker: &WorkerView) -> &'static str {
    match worker {
        worker if !worker.connected => "away",
        worker if worker.draining => "draining",
        worker if worker.tasks.is_empty() => "idle",
        _ => "busy",
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
