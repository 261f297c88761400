//! Index that finds routes by capabilities, or by several agents, and the groups that may cover them, when either is new. Both are
//! listed by word, so that those which have no word in common never look at each other.

use std::collections::{BTreeSet, HashMap};

use rota_core::target::{Profile, Route, Target};
use rota_core::{AgentName, Namespace, RouteId};

use super::group::GroupId;

/// What a route requires, and a group has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Word {
    /// For routes that require nothing.
    Any,
    Capability(String),
    /// One of the agents that a route names.
    Agent(AgentName),
}

type Key = (Namespace, Word);

#[derive(Debug, Default)]
struct Listed {
    routes: BTreeSet<RouteId>,
    groups: BTreeSet<GroupId>,
}

#[derive(Debug, Default)]
pub(super) struct CapabilityIndex(HashMap<Key, Listed>);

impl CapabilityIndex {
    /// Adds a route. Returns the groups that have one of the capabilities that it requires, or are of one of its agents.
    pub(super) fn add_route(&mut self, id: RouteId, route: &Route) -> Vec<GroupId> {
        let mut groups = Vec::new();
        for key in keys_of(route) {
            let listed = self.0.entry(key).or_default();
            listed.routes.insert(id);
            groups.extend(listed.groups.iter().copied());
        }
        groups
    }

    pub(super) fn remove_route(&mut self, id: RouteId, route: &Route) {
        for key in keys_of(route) {
            self.change(&key, |listed| listed.routes.remove(&id));
        }
    }

    /// Adds a group. Returns the routes that require one of its capabilities, or none.
    pub(super) fn add_group(&mut self, id: GroupId, profile: &Profile) -> Vec<RouteId> {
        let mut routes = Vec::new();
        for key in keys(profile) {
            let listed = self.0.entry(key).or_default();
            listed.groups.insert(id);
            routes.extend(listed.routes.iter().copied());
        }
        routes
    }

    pub(super) fn remove_group(&mut self, id: GroupId, profile: &Profile) {
        for key in keys(profile) {
            self.change(&key, |listed| listed.groups.remove(&id));
        }
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Listed) -> bool) {
        if let Some(listed) = self.0.get_mut(key) {
            change(listed);
            if listed.routes.is_empty() && listed.groups.is_empty() {
                self.0.remove(key);
            }
        }
    }
}

fn keys_of(route: &Route) -> Vec<Key> {
    let key = |word| (route.namespace.clone(), word);
    match &route.target {
        Target::Capabilities(words) => {
            vec![key(words.first().map_or(Word::Any, |word| Word::Capability(word.clone())))]
        }
        Target::Agents(agents) => agents.iter().map(|agent| key(Word::Agent(agent.clone()))).collect(),
        _ => Vec::new(),
    }
}

fn keys(profile: &Profile) -> impl Iterator<Item = Key> {
    let words = profile.capabilities.iter().map(|word| Word::Capability(word.clone()));
    let words = words.chain([Word::Any, Word::Agent(profile.agent.clone())]);
    words.map(|word| (profile.namespace.clone(), word))
}
