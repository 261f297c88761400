//! Stories on a real cluster, one file each. `make e2e` runs them; by themselves they are skipped, since they
//! need root and a cluster. Each has a namespace of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod batch;
mod claude;
mod deletion;
mod faults;
mod first;
mod identity;
mod rollout;
mod rules;
mod scaling;
mod tasks;
mod traces;
mod upgrade;
