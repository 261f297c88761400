//! Stored objects, other than tasks, whose records cannot be decoded: each is reported once, and harms itself alone.
//!
//! A damaged agent has neither workers nor new tasks, and its queued tasks stay as they are: a version that can decode it
//! continues them. A damaged session counts as closed, a damaged cool-down as over, damaged books as empty.

use std::collections::{BTreeSet, HashSet};

use rota_core::{Epoch, WorkflowKey};

use super::{AgentKey, Engine};
use crate::{
    Backend, Commit, CredentialKey, DamagedObject, Error, Load, SessionKey, Snapshot, WorkflowChanges,
};

/// The damaged objects that the engine has met.
#[derive(Debug, Default)]
pub(super) struct Damage {
    agents: BTreeSet<AgentKey>,
    cool_downs: Vec<CredentialKey>,
    /// Workflows, and steps of them, that were set aside.
    workflows: HashSet<(WorkflowKey, Option<u32>)>,
    /// Those that a commit has reported, or will.
    known: HashSet<DamagedObject>,
    /// Those that no commit has reported, with the reason.
    pub(super) unreported: Vec<(String, String)>,
}

/// Returns the key of a damaged session, with its epoch.
fn session(object: &DamagedObject) -> Option<(SessionKey, Epoch)> {
    match object {
        DamagedObject::Session(namespace, worker, epoch) => {
            Some(((namespace.parse().ok()?, worker.parse().ok()?), *epoch))
        }
        _ => None,
    }
}

impl Snapshot {
    /// Returns the open sessions that cannot be decoded.
    pub fn damaged_sessions(&self) -> impl Iterator<Item = (SessionKey, Epoch)> {
        self.damaged.iter().filter_map(|(object, _)| session(object))
    }
}

impl Damage {
    /// Takes in what a snapshot could not decode.
    pub(super) fn load(&mut self, snapshot: &Snapshot) {
        (self.agents, self.cool_downs) = (BTreeSet::new(), Vec::new());
        for (object, reason) in &snapshot.damaged {
            match object {
                DamagedObject::Agent(namespace, name) => {
                    self.agents.extend(namespace.parse().ok().zip(name.parse().ok()));
                }
                DamagedObject::CoolDown(namespace, credential) => {
                    self.cool_downs.extend(namespace.parse().ok().zip(credential.parse().ok()));
                }
                DamagedObject::Session(..)
                | DamagedObject::Route(_)
                | DamagedObject::Account(..)
                | DamagedObject::Expired(..) => {}
            }
            self.report_once(object, reason);
        }
    }

    pub(super) fn report_once(&mut self, object: &DamagedObject, reason: &str) {
        if self.known.insert(object.clone()) {
            self.unreported.push((object.to_string(), reason.to_owned()));
        }
    }

    /// Takes in what a write has set aside.
    pub(super) fn set_aside(&mut self, changes: &WorkflowChanges) {
        self.workflows.extend(changes.undecodable.iter().map(|key| (*key, None)));
        self.workflows.extend(changes.undecodable_steps.iter().map(|(key, step)| (*key, Some(*step))));
    }

    /// Takes in what a commit has written over, or removed.
    pub(super) fn written<'a>(&mut self, agents: impl Iterator<Item = &'a AgentKey>) {
        for agent in agents {
            self.agents.remove(agent);
        }
        self.cool_downs.clear();
    }
}

impl<B: Backend> Engine<B> {
    /// Whether the record of an agent cannot be decoded, and the batch has not replaced it.
    pub(super) fn is_damaged(&self, agent: &AgentKey) -> bool {
        self.damage.agents.contains(agent) && !self.write_set.agents.contains_key(agent)
    }

    /// Sets the damaged workflows and steps of the batch aside, and due steps of damaged workflows. Reports what is damaged.
    pub(super) fn set_workflows_aside(&self, changes: &mut WorkflowChanges, commit: &mut Commit) {
        let set = &self.write_set.workflows;
        let is_new =
            |key, step| !self.damage.workflows.contains(&(key, step)) && !changes.removed.contains(&key);
        let workflows: Vec<_> = set.damaged.iter().filter(|(key, _)| is_new(**key, None)).collect();
        let steps = set.damaged_steps.iter().filter(|((key, step), _)| is_new(*key, Some(*step)));
        let steps: Vec<_> = steps.collect();
        let stranded = set.stranded.iter().filter(|(key, step)| is_new(*key, Some(*step)));
        let stranded: Vec<_> =
            stranded.filter(|key| !set.damaged_steps.contains_key(*key)).copied().collect();
        for (key, (id, reason)) in workflows {
            commit.undecodable.push((format!("workflow {id}"), reason.clone()));
            changes.undecodable.push(*key);
        }
        for (key, reason) in steps {
            let id = set.workflow(key.0).map(|workflow| workflow.id.to_string()).unwrap_or_default();
            commit.undecodable.push((format!("step {} of workflow {id}", key.1), reason.clone()));
            changes.undecodable_steps.push(*key);
        }
        // Their workflow is what was reported.
        changes.undecodable_steps.extend(stranded);
    }

    /// Finds the tasks that have waited until now, and whose records turn out to be damaged: they wait no longer.
    pub(super) fn find_quarantined(&mut self) -> Result<(), Error> {
        let set = &self.write_set;
        let damaged = set.undecodable.keys().filter(|key| !self.memory.undecodable.contains(*key));
        let waiting: Vec<_> = damaged.chain(&set.changes.discarded).copied().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let found = self.backend.load(&Load { waiting, ..Load::default() })?.waiting;
        let routes = found.iter().filter_map(|(_, route)| self.memory.routes_by_id.get(route));
        let quarantined = routes.map(|route| route.namespace.clone()).collect();
        self.write_set.quarantined = quarantined;
        Ok(())
    }

    /// Ends damaged cool-downs, whose end is not known.
    pub(super) fn lift_damaged(&mut self) {
        for key in self.damage.cool_downs.clone() {
            self.write_set.cool_downs.insert(key.clone(), None);
            self.resume_waiting(&key);
        }
    }
}
