//! Provenance of pods: which of those with the labels of a worker the operator has created. Only these may be announced.
//!
//! Labels and owner references can be copied by all who may create pods. So the operator records each UID that its own create call
//! returned, in a condition of that pod: the cluster takes conditions only from holders of the right to `pods/status`, and drops those of
//! new pods. The record outlives the operator, and names the labels that the pod was created with. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use rota_crds::resource::Agent;

use super::dereference::WorkerPod;
use crate::cluster::TASK_UID;

/// Condition of a pod: the operator has created it, with the labels in the message.
pub(super) const CREATED: &str = "rota.dev/CreatedByOperator";
/// Beginning of the labels that name what a pod is for.
const RESERVED_LABELS: &str = "rota.dev/";

/// Who created a pod with the labels of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This operator, or an earlier one.
    Operator,
    /// Unknown: the pod names the agent or its task as its controller, without a record. Either an operator has ended between the creation
    /// and the record, or another user has created the pod.
    Unrecorded,
    /// Another user, who also has not named the agent as controller.
    #[default]
    Foreign,
}

/// Returns the origin of a pod with the label of this agent. Pods that are older than `recorded_since` have no record, since the operators
/// of that time wrote none.
pub(super) fn of(pod: &Pod, agent: &Agent, creations: &Creations, recorded_since: Timestamp) -> Origin {
    let labels = reserved_labels(pod.labels());
    let recorded = recorded_labels(pod);
    let created_here = creations.labels(pod.metadata.uid.as_deref().unwrap_or_default());
    if recorded == Some(&labels) || created_here == Some(&labels) {
        return Origin::Operator;
    }
    if !is_controlled_by(pod, agent) {
        return Origin::Foreign;
    }
    let is_older = pod.creation_timestamp().is_some_and(|created| created.0 < recorded_since);
    if is_older && recorded.is_none() { Origin::Operator } else { Origin::Unrecorded }
}

/// Returns the condition that records the creation of a pod with these labels.
pub(super) fn condition(labels: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: CREATED.to_owned(),
        status: "True".to_owned(),
        reason: Some("Created".to_owned()),
        message: Some(labels.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

fn recorded_labels(pod: &Pod) -> Option<&String> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let created = conditions.find(|condition| condition.type_ == CREATED && condition.status == "True");
    created?.message.as_ref()
}

fn reserved_labels(labels: &BTreeMap<String, String>) -> String {
    let reserved = labels.iter().filter(|(name, _)| name.starts_with(RESERVED_LABELS));
    let pairs: Vec<_> = reserved.map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(",")
}

/// Returns whether a pod names the agent, or the task in its own label, as its controller.
fn is_controlled_by(pod: &Pod, agent: &Agent) -> bool {
    let task = pod.labels().get(TASK_UID);
    let mut owners = pod.owner_references().iter().filter(|owner| owner.controller == Some(true));
    owners.any(|owner| Some(&owner.uid) == agent.metadata.uid.as_ref() || Some(&owner.uid) == task)
}

/// Pods of one agent that the create calls of this process have returned, by UID.
#[derive(Debug, Default)]
pub(super) struct Creations(HashMap<String, Creation>);

/// Pod that a create call has returned.
#[derive(Debug, Clone)]
pub(super) struct Creation {
    pub name: String,
    pub uid: String,
    /// Its labels, as its record names them.
    pub labels: String,
    is_recorded: bool,
}

impl Creations {
    /// Adds a pod that a create call has returned.
    pub(super) fn add(&mut self, pod: &Pod) {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let labels = reserved_labels(pod.labels());
        self.0.insert(uid.clone(), Creation { name, uid, labels, is_recorded: false });
    }

    /// Forgets the pods that are not there any more.
    pub(super) fn retain(&mut self, present: &[WorkerPod]) {
        let present: HashSet<_> = present.iter().map(|pod| &pod.uid).collect();
        self.0.retain(|uid, _| present.contains(uid));
    }

    /// Forgets a pod that was deleted.
    pub(super) fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// Returns the pods whose creation is to be recorded.
    pub(super) fn unrecorded(&self) -> Vec<Creation> {
        self.0.values().filter(|creation| !creation.is_recorded).cloned().collect()
    }

    /// Notes that the creation of a pod is recorded.
    pub(super) fn recorded(&mut self, uid: &str) {
        if let Some(creation) = self.0.get_mut(uid) {
            creation.is_recorded = true;
        }
    }

    /// Returns whether a pod of the operator may be announced. The next operator would not know one whose creation is not recorded.
    pub(super) fn may_announce(&self, pod: &WorkerPod) -> bool {
        let is_recorded = self.0.get(&pod.uid).is_none_or(|creation| creation.is_recorded);
        pod.origin == Origin::Operator && is_recorded
    }

    fn labels(&self, uid: &str) -> Option<&String> {
        Some(&self.0.get(uid)?.labels)
    }
}

#[cfg(test)]
mod tests;
