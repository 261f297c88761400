//! Index that finds routes by capabilities and the groups that may cover them, when either is new. Both are listed by
//! word, so that those which have no word in common never look at each other.

use std::collections::{BTreeSet, HashMap};

use rota_core::target::{Profile, Route, Target};
use rota_core::{Namespace, RouteId};

use super::group::GroupId;

/// One word that a route requires, and that a group has; `None` for routes that require nothing.
type Key = (Namespace, Option<String>);

#[derive(Debug, Default)]
struct Listed {
    routes: BTreeSet<RouteId>,
    groups: BTreeSet<GroupId>,
}

#[derive(Debug, Default)]
pub(super) struct CapabilityIndex(HashMap<Key, Listed>);

impl CapabilityIndex {
    /// Adds a route. Returns the groups that have one of the capabilities that it requires.
    pub(super) fn add_route(&mut self, id: RouteId, route: &Route) -> Vec<GroupId> {
        let Some(key) = key(route) else { return Vec::new() };
        let listed = self.0.entry(key).or_default();
        listed.routes.insert(id);
        listed.groups.iter().copied().collect()
    }

    pub(super) fn remove_route(&mut self, id: RouteId, route: &Route) {
        if let Some(key) = key(route) {
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

fn key(route: &Route) -> Option<Key> {
    match &route.target {
        Target::Capabilities(words) => Some((route.namespace.clone(), words.first().cloned())),
        _ => None,
    }
}

fn keys(profile: &Profile) -> impl Iterator<Item = Key> {
    let words = profile.capabilities.iter().map(|word| Some(word.clone()));
    words.chain([None]).map(|word| (profile.namespace.clone(), word))
}
