//! Why tasks wait, without a call for each: those of a queue by the causes that the control plane sends with the demand,
//! others by their records.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::quota;
use rota_proto::causes::{
    AGENT_MISSING, ARTIFACTS_UNAVAILABLE, BREAKER_OPEN, BUDGET_SPENT, CREDENTIAL_REJECTED, DELIVERY,
    DEPENDENCY, DEPENDENCY_MISSING, RATE_LIMIT, RETRY_DELAY, START_TIME, SUSPENDED, WORKERS_CANNOT_START,
};
use rota_proto::names;
use rota_proto::v1::target::Kind;
use rota_proto::v1::{self, TaskState, WaitReason};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::status;

/// Time that the causes of a route may take after its first task.
pub(super) const ROUTE_DELAY: Duration = Duration::from_secs(5);
/// Time for which a new stream may leave out routes: the control plane waits 30 s for workers that may come back.
const PREVIOUS_TIME: Duration = Duration::from_secs(60);
/// Causes that matter more than a worker that did not accept a task.
const HOLDING_ALL: [&str; 5] =
    [WORKERS_CANNOT_START, BREAKER_OPEN, RATE_LIMIT, CREDENTIAL_REJECTED, ARTIFACTS_UNAVAILABLE];

/// Causes of the routes with waiting tasks, as last received.
#[derive(Debug, Default)]
pub(crate) struct RouteWaits {
    received: Mutex<Received>,
    has_changed: Notify,
}

#[derive(Debug, Default)]
struct Received {
    routes: HashMap<String, Vec<v1::Cause>>,
    /// Those of the stream before this one that this one has not sent yet, until it has had the time to.
    previous: HashMap<String, Vec<v1::Cause>>,
    previous_until: Option<Instant>,
    /// Routes whose tasks have not been triggered since the causes changed.
    changed: HashSet<String>,
}

impl Received {
    fn expire(&mut self) {
        if self.previous_until.take_if(|until| *until <= Instant::now()).is_some() {
            self.previous = HashMap::new();
        }
    }
}

impl RouteWaits {
    /// Applies a response of the demand stream. After one that is no difference, the causes of all routes follow.
    pub(crate) fn apply(&self, difference: bool, waits: Vec<v1::RouteWait>) {
        let mut received = self.received.lock();
        received.expire();
        if !difference && !received.routes.is_empty() {
            received.previous = std::mem::take(&mut received.routes);
            received.previous_until = Some(Instant::now() + PREVIOUS_TIME);
        }
        for mut wait in waits {
            let target = wait.target.and_then(|target| target.kind);
            let route = if wait.task.is_empty() { route(&wait.parent, target.as_ref()) } else { wait.task };
            let previous = received.previous.remove(&route);
            let before = received.routes.remove(&route).or(previous);
            if wait.removed {
                continue;
            }
            wait.causes.retain(|cause| !status::TRANSIENT_CAUSES.contains(&cause.code.as_str()));
            // While tasks start, the others still wait for what they waited for.
            let causes = match &before {
                Some(before) if wait.causes.is_empty() => before.clone(),
                _ => wait.causes,
            };
            if before.as_ref() != Some(&causes) {
                received.changed.insert(route.clone());
            }
            received.routes.insert(route, causes);
        }
        if !received.changed.is_empty() {
            self.has_changed.notify_one();
        }
    }

    /// Returns the routes whose causes have changed since the last call, when there are some.
    pub(super) async fn changed(&self) -> HashSet<String> {
        loop {
            let changed = std::mem::take(&mut self.received.lock().changed);
            if !changed.is_empty() {
                return changed;
            }
            self.has_changed.notified().await;
        }
    }

    fn get(&self, route: &str) -> Option<Vec<v1::Cause>> {
        let mut received = self.received.lock();
        received.expire();
        received.routes.get(route).or_else(|| received.previous.get(route)).cloned()
    }
}

/// Returns every cause that keeps a waiting task from running, the most important first. `None` if those of its route are
/// not known yet.
pub(super) fn causes(record: &v1::Task, waits: &RouteWaits) -> Option<Vec<v1::Cause>> {
    let status = record.status.clone().unwrap_or_default();
    let refusal =
        Some(status.refusal).filter(|refusal| !refusal.is_empty()).map(|text| cause("refused", text));
    let Some(route) = route_of(record) else {
        return Some(refusal.into_iter().chain(status.waiting.iter().map(of_wait)).collect());
    };
    let mut causes = waits.get(&route)?;
    if let Some(refusal) = refusal {
        let holds = causes.first().is_some_and(|first| HOLDING_ALL.contains(&first.code.as_str()));
        causes.insert(usize::from(holds), refusal);
    }
    Some(causes)
}

/// Returns the key of a queued task's route.
pub(super) fn route_of(record: &v1::Task) -> Option<String> {
    let (status, spec) = (record.status.as_ref()?, record.spec.as_ref()?);
    if status.state() != TaskState::Queued {
        return None;
    }
    if spec.isolation() == v1::Isolation::Pod {
        return Some(record.name.clone());
    }
    let (namespace, _) = names::parse(&record.name, "tasks")?;
    let parent = names::namespace(namespace);
    if !status.escalated_to.is_empty() {
        return Some(route(&parent, Some(&Kind::Agent(status.escalated_to.clone()))));
    }
    Some(route(&parent, spec.target.as_ref().and_then(|target| target.kind.as_ref())))
}

/// Returns the key of a route: equal for equal targets.
fn route(parent: &str, target: Option<&Kind>) -> String {
    let sorted = |words: &[String]| {
        let mut words = words.to_vec();
        words.sort_unstable();
        words.dedup();
        words.join(",")
    };
    match target {
        Some(Kind::Agent(agent)) => format!("{parent}/agent/{agent}"),
        Some(Kind::Agents(set)) => format!("{parent}/agents/{}", sorted(&set.agents)),
        Some(Kind::Worker(worker)) => format!("{parent}/worker/{worker}"),
        Some(Kind::Capabilities(set)) => format!("{parent}/capabilities/{}", sorted(&set.capabilities)),
        None => parent.to_owned(),
    }
}

fn cause(code: &str, message: impl Into<String>) -> v1::Cause {
    v1::Cause { code: code.to_owned(), message: message.into(), hint: String::new() }
}

/// Explains a wait in a record. The status of a task has the end of most instead.
fn of_wait(wait: &v1::Wait) -> v1::Cause {
    let subject = &wait.subject;
    let until = wait.until.as_ref().and_then(status::time);
    let until = until.map(|until| format!("; the task continues at {}", until.0)).unwrap_or_default();
    match wait.reason() {
        WaitReason::Dependency => cause(DEPENDENCY, format!("dependency {subject} has not ended")),
        WaitReason::DependencyMissing => {
            cause(DEPENDENCY_MISSING, format!("dependency {subject} does not exist yet"))
        }
        WaitReason::AgentMissing => cause(AGENT_MISSING, format!("agent {subject} does not exist yet")),
        WaitReason::StartTime => cause(START_TIME, "the start time has not been reached"),
        WaitReason::RetryDelay => cause(RETRY_DELAY, "the next attempt is delayed"),
        WaitReason::Suspended => cause(SUSPENDED, "the task is suspended"),
        WaitReason::Budget => cause(BUDGET_SPENT, format!("{subject} has no room for the task")),
        WaitReason::Quota if subject == quota::INVALID => {
            cause(CREDENTIAL_REJECTED, format!("the model API rejects the credential of the task{until}"))
        }
        WaitReason::Quota => {
            cause(RATE_LIMIT, format!("the limit {subject} of the task's credential is reached{until}"))
        }
        WaitReason::Answer => {
            cause("input_required", "the task waits for an answer; it has released its worker until then")
        }
        WaitReason::Delivery => cause(DELIVERY, "the work is done and kept; it is delivered again"),
        WaitReason::Unspecified => {
            cause("pending", "the task waits for a reason that this version does not know")
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use rota_proto::causes::{DISPATCHING, NO_FREE_SLOT, NO_WORKER};

    use super::*;

    const PARENT: &str = "namespaces/team";

    fn target(kind: Kind) -> Option<v1::Target> {
        Some(v1::Target { kind: Some(kind) })
    }

    fn of_agent(agent: &str, code: &str) -> v1::RouteWait {
        v1::RouteWait {
            parent: PARENT.into(),
            target: target(Kind::Agent(agent.into())),
            causes: vec![cause(code, "why")],
            ..Default::default()
        }
    }

    fn queued(kind: Kind) -> v1::Task {
        v1::Task {
            name: "namespaces/team/tasks/1".into(),
            spec: Some(Box::new(v1::TaskSpec { target: target(kind), ..Default::default() })),
            status: Some(Box::new(v1::TaskStatus { state: TaskState::Queued.into(), ..Default::default() })),
            ..Default::default()
        }
    }

    fn codes(record: &v1::Task, waits: &RouteWaits) -> Option<Vec<String>> {
        causes(record, waits).map(|causes| causes.into_iter().map(|cause| cause.code).collect())
    }

    #[test]
    fn queued_tasks_have_the_causes_of_their_route() {
        let waits = RouteWaits::default();
        let mut record = queued(Kind::Agent("coder".into()));
        assert_eq!(causes(&record, &waits), None, "nothing was received");
        waits.apply(true, vec![of_agent("coder", NO_WORKER), of_agent("other", NO_FREE_SLOT)]);
        assert_eq!(codes(&record, &waits).unwrap(), [NO_WORKER]);
        record.status.as_mut().unwrap().refusal = "worker w did not accept the assignment".into();
        assert_eq!(codes(&record, &waits).unwrap(), ["refused", NO_WORKER]);
        waits.apply(true, vec![of_agent("coder", BREAKER_OPEN)]);
        assert_eq!(codes(&record, &waits).unwrap(), [BREAKER_OPEN, "refused"]);
        record.status.as_mut().unwrap().escalated_to = "other".into();
        assert_eq!(codes(&record, &waits).unwrap(), ["refused", NO_FREE_SLOT]);
    }

    #[test]
    fn routes_are_equal_for_equal_targets() {
        let set = |words: &[&str]| {
            let capabilities = words.iter().map(ToString::to_string).collect();
            Kind::Capabilities(v1::CapabilitySet { capabilities })
        };
        let waits = RouteWaits::default();
        let wait = v1::RouteWait { target: target(set(&["code", "test"])), ..of_agent("", NO_WORKER) };
        waits.apply(true, vec![wait]);
        assert!(causes(&queued(set(&["test", "code", "test"])), &waits).is_some());
        assert!(causes(&queued(set(&["code"])), &waits).is_none());
        let mut isolated = queued(Kind::Agent("coder".into()));
        isolated.spec.as_mut().unwrap().set_isolation(v1::Isolation::Pod);
        waits.apply(true, vec![of_agent("coder", NO_FREE_SLOT)]);
        assert_eq!(codes(&isolated, &waits), None, "it waits for a worker of its own");
        let own = v1::RouteWait { task: isolated.name.clone(), ..of_agent("coder", NO_WORKER) };
        waits.apply(true, vec![own]);
        assert_eq!(codes(&isolated, &waits).unwrap(), [NO_WORKER]);
    }

    #[test]
    fn pending_tasks_have_the_causes_of_their_record() {
        let mut record = queued(Kind::Agent("coder".into()));
        let wait = |reason: WaitReason, subject: &str| v1::Wait {
            reason: reason.into(),
            subject: subject.into(),
            until: None,
        };
        let status = record.status.as_mut().unwrap();
        status.set_state(TaskState::Pending);
        status.waiting = vec![wait(WaitReason::Suspended, ""), wait(WaitReason::Dependency, "first")];
        assert_eq!(codes(&record, &RouteWaits::default()).unwrap(), [SUSPENDED, DEPENDENCY]);
    }

    #[tokio::test(start_paused = true)]
    async fn causes_of_an_earlier_stream_expire() {
        let waits = RouteWaits::default();
        let record = queued(Kind::Agent("a".into()));
        waits.apply(true, vec![of_agent("a", NO_WORKER)]);
        waits.apply(false, Vec::new());
        assert_eq!(codes(&record, &waits).unwrap(), [NO_WORKER]);
        tokio::time::advance(PREVIOUS_TIME).await;
        assert_eq!(codes(&record, &waits), None);
    }

    #[test]
    fn only_changed_routes_are_triggered() {
        let waits = RouteWaits::default();
        let changed = || waits.changed().now_or_never().map(|routes| routes.len());
        assert_eq!(changed(), None);
        waits.apply(true, vec![of_agent("a", NO_WORKER), of_agent("b", NO_WORKER)]);
        assert_eq!(changed(), Some(2));
        waits.apply(true, vec![of_agent("a", NO_WORKER), of_agent("b", NO_FREE_SLOT)]);
        assert_eq!(changed(), Some(1));
        // After a reconnect everything is sent again.
        waits.apply(false, Vec::new());
        waits.apply(true, vec![of_agent("a", NO_WORKER), of_agent("b", NO_WORKER)]);
        assert_eq!(changed(), Some(1));
        waits.apply(true, vec![of_agent("a", DISPATCHING)]);
        assert_eq!(changed(), None, "the tasks behind it still wait");
        waits.apply(true, vec![v1::RouteWait { removed: true, ..of_agent("a", NO_WORKER) }]);
        assert_eq!(changed(), None);
    }
}
