//! Stored objects, other than tasks, whose records cannot be decoded: each is reported once, and harms itself alone.
//!
//! A damaged agent has neither workers nor new tasks, and its queued tasks stay as they are: a version that can decode it
//! continues them. A damaged session counts as closed, a damaged cool-down as over, damaged books as empty.

use std::collections::{BTreeSet, HashSet};

use rota_core::Epoch;

use super::{AgentKey, Engine};
use crate::{Backend, CredentialKey, DamagedObject, SessionKey, Snapshot};

/// The damaged objects that the engine has met.
#[derive(Debug, Default)]
pub(super) struct Damage {
    agents: BTreeSet<AgentKey>,
    cool_downs: Vec<CredentialKey>,
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
                DamagedObject::Session(..) | DamagedObject::Route(_) | DamagedObject::Account(..) => {}
            }
            if self.known.insert(object.clone()) {
                self.unreported.push((object.to_string(), reason.clone()));
            }
        }
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

    /// Ends damaged cool-downs: nobody knows when they would.
    pub(super) fn lift_damaged(&mut self) {
        for key in self.damage.cool_downs.clone() {
            self.write_set.cool_downs.insert(key.clone(), None);
            self.resume_waiting(&key);
        }
    }
}
