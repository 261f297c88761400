//! Lifecycle group: priorities, time to live, rollouts of agents, upgrades of the release.

mod ordering;
mod rollout;
mod ttl;
mod upgrade;
