//! Causes of each route's waiting tasks, as watchers of demand receive them. Their number is that of routes, not of tasks,
//! and they are computed for a watcher at most once per second.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rota_core::Namespace;
use rota_core::target::{Route, Target};
use rota_core::text::prefix;
use rota_proto::{names, v1};
use tokio::time::Instant;

use crate::demand::Snapshot;
use crate::grpc::Explainer;
use crate::wire::target;

/// Least time between two computations while workers or queues change.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Least ratio of the time between two computations to the time that one takes.
const MIN_REST: u32 = 20;
/// Further time until the next one while they do not: causes such as an outage of the storage change by themselves.
const IDLE_INTERVAL: Duration = Duration::from_secs(4);
/// Least time between two changes of a route's causes: each costs a write for every task that waits.
const CHANGE_INTERVAL: Duration = Duration::from_secs(5);
/// Time for which routes are left out whose workers may come back: after a restart of this process all of them do.
const RECOVERY_TIME: Duration = Duration::from_secs(30);
/// Time after which causes that differ in numbers alone are sent again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
/// Routes whose causes are computed.
const MAX_ROUTES: usize = 20_000;
/// Routes, and time, after which other tasks of the thread get their turn, and the watcher the demand.
const ROUTES_PER_TURN: usize = 256;
const MAX_TURN: Duration = Duration::from_millis(2);
const MAX_MESSAGE_BYTES: usize = 1024;

/// What one watcher has received, and when that is computed again.
pub(super) struct Waits {
    began: Instant,
    sent: BTreeMap<Route, Sent>,
    /// Version of the scheduler's state at the last computation.
    version: Option<u64>,
    next: Instant,
    /// A computation that has not ended yet.
    round: Option<Round>,
}

/// A computation, in turns: demand is sent between them.
struct Round {
    version: u64,
    left: VecDeque<Route>,
    causes: BTreeMap<Route, Vec<v1::Cause>>,
    spent: Duration,
}

struct Sent {
    causes: Vec<v1::Cause>,
    at: Instant,
    /// Whether other causes were sent before.
    is_change: bool,
}

impl Waits {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { began: now, sent: BTreeMap::new(), version: None, next: now, round: None }
    }

    /// Returns when the next turn is due at this version of the scheduler's state.
    pub(super) fn due(&self, version: u64) -> Instant {
        if self.round.is_some() {
            return self.next;
        }
        if self.version == Some(version) { self.next + IDLE_INTERVAL } else { self.next }
    }

    /// Computes the causes of a namespace's routes, or of all, if that is due: those of one turn. Returns what the watcher lacks after the
    /// last one.
    pub(super) fn changes(
        &mut self,
        explainer: &Explainer,
        snapshot: &Snapshot,
        namespace: Option<&Namespace>,
    ) -> Vec<v1::RouteWait> {
        let began = Instant::now();
        if began < self.due(snapshot.view.version) {
            return Vec::new();
        }
        let mut round = self.round.take().unwrap_or_else(|| Round::new(snapshot, namespace));
        for _ in 0..ROUTES_PER_TURN {
            let Some(route) = round.left.pop_front() else { break };
            if let Some(causes) = self.causes(explainer, snapshot, &route, began) {
                round.causes.insert(route, causes);
            }
            if began.elapsed() >= MAX_TURN {
                break;
            }
        }
        let now = Instant::now();
        round.spent += now - began;
        if !round.left.is_empty() {
            self.next = now;
            self.round = Some(round);
            return Vec::new();
        }
        self.version = Some(round.version);
        self.next = now + (round.spent * MIN_REST).max(MIN_INTERVAL);
        self.difference(round.causes, now)
    }

    /// Returns the causes of a route; those that were sent last, if any, while its workers may come back.
    fn causes(
        &self,
        explainer: &Explainer,
        snapshot: &Snapshot,
        route: &Route,
        now: Instant,
    ) -> Option<Vec<v1::Cause>> {
        if now < self.began + RECOVERY_TIME && snapshot.has_lost_worker(route) {
            return self.sent.get(route).map(|sent| sent.causes.clone());
        }
        let causes = explainer.explain_route(snapshot, route).into_iter().map(|cause| v1::Cause {
            code: cause.code.to_owned(),
            message: prefix(&cause.message, MAX_MESSAGE_BYTES).to_owned(),
            hint: String::new(),
        });
        Some(causes.collect())
    }

    /// Takes in the causes of all routes with waiting tasks. Returns what has changed.
    fn difference(&mut self, routes: BTreeMap<Route, Vec<v1::Cause>>, now: Instant) -> Vec<v1::RouteWait> {
        let mut changes = Vec::new();
        self.sent.retain(|route, _| {
            let waits = routes.contains_key(route);
            if !waits {
                changes.push(v1::RouteWait { removed: true, ..to_wire(route) });
            }
            waits
        });
        for (route, causes) in routes {
            let is_known = |sent: &Sent| {
                sent.causes == causes
                    || sent.is_change && now < sent.at + CHANGE_INTERVAL
                    || now < sent.at + REFRESH_INTERVAL && differ_in_numbers(&sent.causes, &causes)
            };
            let sent = self.sent.get(&route);
            if !sent.is_some_and(is_known) {
                let is_change = sent.is_some();
                changes.push(v1::RouteWait { causes: causes.clone(), ..to_wire(&route) });
                self.sent.insert(route, Sent { causes, at: now, is_change });
            }
        }
        changes
    }
}

impl Round {
    fn new(snapshot: &Snapshot, namespace: Option<&Namespace>) -> Self {
        let queues = snapshot.view.queues.iter().map(|(_, route, _)| route);
        let mut left: Vec<_> =
            queues.filter(|route| namespace.is_none_or(|at| route.namespace == *at)).collect();
        left.sort_unstable();
        left.truncate(MAX_ROUTES);
        let left = left.into_iter().cloned().collect();
        Self { version: snapshot.view.version, left, causes: BTreeMap::new(), spent: Duration::ZERO }
    }
}

fn to_wire(route: &Route) -> v1::RouteWait {
    let namespace = route.namespace.as_str();
    v1::RouteWait {
        parent: names::namespace(namespace),
        target: Some(target::to_wire(&route.target)),
        task: match route.target {
            Target::Task { id, .. } => names::task(namespace, id),
            _ => String::new(),
        },
        ..Default::default()
    }
}

/// Whether causes are the same but for numbers, such as remaining seconds and counts of slots.
fn differ_in_numbers(before: &[v1::Cause], after: &[v1::Cause]) -> bool {
    let words = |text: &str| text.split(|one: char| one.is_ascii_digit()).collect::<String>();
    before.len() == after.len()
        && (before.iter().zip(after))
            .all(|(one, other)| one.code == other.code && words(&one.message) == words(&other.message))
}

#[cfg(test)]
mod tests {
    use rota_core::AgentName;

    use super::*;

    fn route(agent: &str) -> Route {
        let target = Target::Agent(AgentName::new(agent).unwrap());
        Route { namespace: Namespace::new("team").unwrap(), target }
    }

    fn busy(slots: usize) -> Vec<v1::Cause> {
        let message = format!("all {slots} slots are busy");
        vec![v1::Cause { code: "no_free_slot".to_owned(), message, hint: String::new() }]
    }

    #[test]
    fn only_other_causes_are_sent() {
        let (mut waits, began) = (Waits::new(), Instant::now());
        let mut changes = |causes: &[(&str, Vec<v1::Cause>)], now| {
            let routes = causes.iter().map(|(agent, causes)| (route(agent), causes.clone())).collect();
            waits.difference(routes, now)
        };
        let both = changes(&[("a", busy(2)), ("b", busy(2))], began);
        assert_eq!(both.len(), 2);
        assert_eq!(both[0].parent, "namespaces/team");
        assert_eq!(both[0].causes, busy(2));
        assert_eq!(changes(&[("a", busy(2)), ("b", busy(10))], began), [], "a number is no other cause");
        let refreshed = changes(&[("a", busy(2)), ("b", busy(10))], began + REFRESH_INTERVAL);
        assert_eq!(refreshed.len(), 1);
        assert_eq!(refreshed[0].causes, busy(10));
        let both = changes(&[("a", Vec::new())], began);
        assert_eq!(both.len(), 2);
        assert!(both[0].removed && !both[1].removed && both[1].causes.is_empty());
        assert_eq!(changes(&[("a", busy(2))], began), [], "the last change was a moment ago");
        assert_eq!(changes(&[("a", busy(2))], began + CHANGE_INTERVAL).len(), 1);
    }

    #[test]
    fn unchanged_queues_are_explained_less_often() {
        let mut waits = Waits::new();
        waits.version = Some(1);
        assert_eq!(waits.due(1), waits.next + IDLE_INTERVAL, "nothing has changed");
        assert_eq!(waits.due(2), waits.next);
        waits.round = Some(Round::new(&Snapshot::default(), None));
        assert_eq!(waits.due(1), waits.next, "the computation has not ended");
    }
}
