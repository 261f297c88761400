//! What an `Agent` resource says of its pool. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use rota_crds::resource::{Agent, AgentStatus, Condition, condition};
use rota_proto::v1;

use super::demand::Heard;
use super::dereference::{Life, Member};
use crate::cluster::{AGENT, ROLE};

/// Bytes of a sentence.
const SENTENCE: usize = 1024;

/// What is wrong with an agent, in a word and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub reason: String,
    pub message: String,
}

impl Trouble {
    pub(crate) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// What is known of a pool.
pub(crate) struct Known<'a> {
    pub members: &'a [Member],
    pub heard: &'a Heard,
    /// What pods are made from now.
    pub hash: &'a str,
    /// Why the spec is not taken.
    pub refused: Option<&'a Trouble>,
    /// Why workers do not start.
    pub stuck: Option<&'a Trouble>,
}

/// What the resource shall say.
pub(crate) fn build(agent: &Agent, known: &Known<'_>, now: Timestamp) -> AgentStatus {
    let workers = &known.heard.demand.workers;
    let connected = || workers.iter().filter(|worker| worker.connected && !worker.draining);
    let pods: Vec<_> = (known.members.iter())
        .filter(|one| one.task.is_none() && !matches!(one.state, Life::Succeeded | Life::Failed))
        .collect();
    let ready = count(connected());
    let busy = |worker: &&v1::WorkerDemand| worker.running > 0;
    let trouble = known.refused.or(known.stuck);
    let mut status = AgentStatus {
        conditions: Vec::new(),
        observed_generation: agent.metadata.generation,
        replicas: count(pods.iter()),
        selector: Some(format!("{AGENT}={},{ROLE}=worker", agent.name_any())),
        ready_workers: ready,
        busy_workers: count(workers.iter().filter(|worker| worker.connected).filter(busy)),
        idle_workers: count(connected().filter(|worker| worker.running == 0)),
        queued_tasks: known.heard.demand.queued,
        running_tasks: known.heard.demand.running,
        message: trouble.map(|trouble| cut(&trouble.message)),
    };
    let mut put = |type_: &str, holds: bool, reason: &str, message: &str| {
        status.conditions.push(condition_of(agent, type_, holds, reason, message, now));
    };
    match known.refused {
        None => put(condition::ACCEPTED, true, "Accepted", ""),
        Some(trouble) => put(condition::ACCEPTED, false, &trouble.reason, &trouble.message),
    }
    let floor = agent.spec.replicas;
    match trouble {
        Some(trouble) => put(condition::READY, false, &trouble.reason, &trouble.message),
        None if ready < floor => {
            put(condition::READY, false, "Starting", "the floor of workers is not connected yet");
        }
        None if ready == 0 => {
            put(condition::READY, true, "ScaledToZero", "a worker starts with the first task")
        }
        None => put(condition::READY, true, "WorkersConnected", ""),
    }
    let moving = pods.iter().any(|pod| {
        matches!(pod.state, Life::Starting | Life::Leaving)
            || pod.hash != known.hash
            || pod.worker.as_ref().is_some_and(|worker| worker.draining)
    });
    match moving {
        true => {
            put(condition::PROGRESSING, true, "PodsChanging", "pods are being started, drained or replaced")
        }
        false => put(condition::PROGRESSING, false, "Steady", ""),
    }
    status
}

/// Whether two differ in more than figures, which may wait.
pub(crate) fn matters(old: Option<&AgentStatus>, new: &AgentStatus) -> bool {
    let without_figures = |status: &AgentStatus| AgentStatus {
        replicas: 0,
        ready_workers: 0,
        busy_workers: 0,
        idle_workers: 0,
        queued_tasks: 0,
        running_tasks: 0,
        ..status.clone()
    };
    old.is_none_or(|old| without_figures(old) != without_figures(new))
}

fn condition_of(
    agent: &Agent,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let old = agent.status.iter().flat_map(|status| &status.conditions).find(|one| one.type_ == type_);
    let since = old.filter(|one| one.status == status).map(|one| one.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: cut(message),
        observed_generation: agent.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(SENTENCE)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(replicas: i32) -> Agent {
        let mut agent = Agent::default();
        agent.metadata.name = Some("coder".into());
        agent.metadata.generation = Some(3);
        agent.spec.replicas = replicas;
        agent
    }

    fn built(agent: &Agent, heard: &Heard, stuck: Option<&Trouble>) -> AgentStatus {
        let known = Known { members: &[], heard, hash: "h", refused: None, stuck };
        build(agent, &known, Timestamp::from_second(7).unwrap())
    }

    fn ready(status: &AgentStatus) -> (&str, &str) {
        let one = status.conditions.iter().find(|one| one.type_ == "Ready").unwrap();
        (one.status.as_str(), one.reason.as_str())
    }

    #[test]
    fn it_is_ready_when_its_floor_is() {
        let nobody = Heard::default();
        assert_eq!(ready(&built(&agent(0), &nobody, None)), ("True", "ScaledToZero"));
        assert_eq!(ready(&built(&agent(1), &nobody, None)), ("False", "Starting"));
        let worker = v1::WorkerDemand { connected: true, running: 1, ..Default::default() };
        let demand = v1::Demand { workers: vec![worker], running: 1, ..Default::default() };
        let heard = Heard { demand, ..Default::default() };
        let status = built(&agent(1), &heard, None);
        assert_eq!(ready(&status), ("True", "WorkersConnected"));
        assert_eq!((status.ready_workers, status.busy_workers, status.idle_workers), (1, 1, 0));
    }

    #[test]
    fn what_is_stuck_says_why() {
        let trouble = Trouble::new("ImagePullBackOff", "no such image");
        let status = built(&agent(0), &Heard::default(), Some(&trouble));
        assert_eq!(ready(&status), ("False", "ImagePullBackOff"));
        assert_eq!(status.message.as_deref(), Some("no such image"));
    }

    #[test]
    fn figures_alone_may_wait() {
        let before = built(&agent(0), &Heard::default(), None);
        let demand = v1::Demand { queued: 9, ..Default::default() };
        let after = built(&agent(0), &Heard { demand, ..Default::default() }, None);
        assert_ne!(before, after);
        assert!(!matters(Some(&before), &after));
        assert!(matters(None, &after));
    }
}
