//! What an agent's workers may be given, beside what they have room for. Whoever sets it knows why; here it is only kept.

use rota_core::{AgentName, Namespace};

use super::SeatKey;
use super::fleet::{Fleet, Inner};

/// What an agent's workers may be given, beside what they have room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Everything.
    #[default]
    Open,
    /// One task.
    One,
    /// Nothing more: the one task has been given.
    Tried,
    /// Nothing.
    Shut,
}

impl Inner {
    fn set_gate(&mut self, agent: &(Namespace, AgentName), gate: Gate) {
        match gate {
            Gate::Open => drop(self.gates.remove(agent)),
            _ => drop(self.gates.insert(agent.clone(), gate)),
        }
        let theirs =
            self.seats.iter().filter(|(key, seat)| key.0 == agent.0 && seat.profile.agent == agent.1);
        let keys: Vec<_> = theirs.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.with_seat(&key, |seat| seat.gate = gate);
        }
        self.room.notify_one();
    }

    /// A slot of this seat is taken. The agent, if that was the one task that it may be given.
    pub(super) fn takes(&mut self, key: &SeatKey) -> Option<AgentName> {
        let agent = self.seats.get(key).filter(|seat| seat.gate == Gate::One)?.profile.agent.clone();
        self.set_gate(&(key.0.clone(), agent.clone()), Gate::Tried);
        Some(agent)
    }

    /// The one task did not come about: another may be tried.
    pub(super) fn not_tried(&mut self, namespace: &Namespace, agent: Option<&AgentName>) {
        let Some(agent) = agent.map(|agent| (namespace.clone(), agent.clone())) else { return };
        if self.gates.get(&agent) == Some(&Gate::Tried) {
            self.set_gate(&agent, Gate::One);
        }
    }
}

impl Fleet {
    /// What an agent's workers may be given from now on.
    pub(crate) fn set_gate(&self, namespace: &Namespace, agent: &AgentName, gate: Gate) {
        self.inner().set_gate(&(namespace.clone(), agent.clone()), gate);
    }
}
