//! Times in which all workers of an agent waited for their credentials: as little could take its tasks as while Rota was away,
//! so queue timeouts do not count them. In memory: after a restart the server names the agents that wait still.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rota_core::target::Target;
use rota_core::task::{State, Task};
use rota_core::{AgentName, TaskKey, Timestamp};

use super::away::{RESUME_TIME, total};
use super::{AgentKey, Engine};
use crate::{Backend, Error, Span};

/// Spans of one agent that are kept; older ones count again.
const MAX_SPANS: usize = 32;
/// Agents with spans that are kept, besides those that wait.
const MAX_AGENTS: usize = 4096;

/// Most by which a wait that lasts is counted ahead.
const MAX_AHEAD: Duration = Duration::from_mins(15);

#[derive(Debug, Default)]
struct OfAgent {
    spans: VecDeque<Span>,
    since: Option<Timestamp>,
}

/// The times of each agent.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<AgentKey, OfAgent>);

impl Held {
    /// Takes in which agents wait now, all of them, and since when those that are not known to.
    pub(super) fn update(&mut self, mut held: BTreeMap<AgentKey, Timestamp>, now: Timestamp) {
        for (agent, known) in &mut self.0 {
            match (known.since, held.remove(agent)) {
                (None, Some(since)) => known.since = Some(since.min(now)),
                (Some(since), None) => {
                    known.since = None;
                    known.spans.push_back(Span { from: since, until: now + RESUME_TIME });
                    if known.spans.len() > MAX_SPANS {
                        known.spans.pop_front();
                    }
                }
                _ => {}
            }
        }
        if self.0.len() + held.len() > MAX_AGENTS {
            self.0.retain(|_, known| known.since.is_some());
        }
        for (agent, since) in held {
            self.0.insert(agent, OfAgent { since: Some(since.min(now)), ..OfAgent::default() });
        }
    }

    /// Returns the times of an agent. One that lasts is counted ahead, by more the longer it lasts: at the end of what is counted, the
    /// timeouts of all queued tasks of the agent are written again.
    fn of(&self, agent: &AgentKey, now: Timestamp) -> Vec<Span> {
        let Some(known) = self.0.get(agent) else { return Vec::new() };
        let ahead = |from| (now.since(from) / 8).clamp(RESUME_TIME, MAX_AHEAD);
        let open = known.since.map(|from| Span { from, until: now + ahead(from) });
        known.spans.iter().copied().chain(open).collect()
    }
}

impl<B: Backend> Engine<B> {
    /// Returns how much of the time since a task became ready does not count, since no worker could take it.
    pub(super) fn waited_in_vain(&mut self, key: TaskKey, now: Timestamp) -> Result<Duration, Error> {
        self.load(key)?;
        let task = self.write_set.get(key).map(|entry| Arc::clone(&entry.task));
        let Some((task, ready_at)) = task.and_then(|task| Some((Arc::clone(&task), task.ready_at?))) else {
            return Ok(Duration::ZERO);
        };
        let away = |held: Vec<Span>| total(self.away.spans().chain(held), ready_at);
        if task.state != State::Queued || self.held.0.is_empty() {
            return Ok(away(Vec::new()));
        }
        let agents = self.agents_of(&task).into_iter();
        Ok(agents.map(|agent| away(self.held.of(&agent, now))).min().unwrap_or_else(|| away(Vec::new())))
    }

    /// Returns the agents whose workers may take a task.
    fn agents_of(&self, task: &Task) -> Vec<AgentKey> {
        let of = |agent: &AgentName| (task.namespace.clone(), agent.clone());
        match &task.target {
            Target::Agent(agent) | Target::Task { agent, .. } => vec![of(agent)],
            Target::Agents(agents) => agents.iter().map(of).filter(|key| self.agent(key).is_some()).collect(),
            Target::Worker(worker) => {
                let session = self.memory.sessions.get(&(task.namespace.clone(), worker.clone()));
                session.map(|(_, agent)| of(agent)).into_iter().collect()
            }
            Target::Capabilities(wanted) => {
                let agents = self.memory.agents.iter().filter(|(key, _)| key.0 == task.namespace);
                let fit = agents.filter(|(_, agent)| agent.may_have(wanted));
                fit.map(|(key, _)| key.clone()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_core::Namespace;

    use super::*;

    #[test]
    fn spans_end_and_are_bounded() {
        let at = |minute: i64| Timestamp(minute * 60_000_000);
        let agent = |name: &str| (Namespace::new("n").unwrap(), AgentName::new(name).unwrap());
        let mut held = Held::default();
        let a = || BTreeMap::from([(agent("a"), at(0))]);
        held.update(a(), at(1));
        held.update(a(), at(5));
        let minutes = |held: &Held, then, now| {
            total(held.of(&agent("a"), at(now)).into_iter(), at(then)).as_secs() / 60
        };
        assert_eq!((minutes(&held, 0, 9), minutes(&held, 4, 9), minutes(&held, 20, 9)), (10, 6, 0));
        held.update(BTreeMap::new(), at(9));
        assert_eq!((minutes(&held, 0, 30), minutes(&held, 8, 30)), (9, 1));
        for round in 0..100 {
            held.update(BTreeMap::from([(agent("a"), at(40 + round * 2))]), at(40 + round * 2));
            held.update(BTreeMap::new(), at(41 + round * 2));
        }
        assert_eq!(held.of(&agent("a"), at(400)).len(), MAX_SPANS);
    }

    #[test]
    fn long_wait_is_counted_in_few_steps() {
        let agent = (Namespace::new("n").unwrap(), AgentName::new("a").unwrap());
        let (start, day) = (Timestamp(1_000_000_000_000), Duration::from_hours(24));
        let mut held = Held::default();
        held.update(BTreeMap::from([(agent.clone(), start)]), start);
        let (mut now, mut steps) = (start, 0);
        while now < start + day {
            let until = held.of(&agent, now)[0].until;
            assert!(until >= now + RESUME_TIME && until <= now + MAX_AHEAD);
            (now, steps) = (until, steps + 1);
        }
        assert!(steps < 150, "{steps}");
    }
}
