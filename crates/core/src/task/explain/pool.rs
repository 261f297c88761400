//! What the pool does about tasks without a free slot.

use super::{Cause, Pool, RouteCapacity, cause};
use crate::target::Target;

/// Explains what the pool does, and why that does not suffice.
pub(super) fn causes(target: &Target, pool: &Pool, capacity: RouteCapacity) -> Vec<Cause> {
    let mut causes = Vec::new();
    // More workers do not help a task that is bound to one.
    if !pool.managed || matches!(target, Target::Worker(_) | Target::Task { .. }) {
        return causes;
    }
    let Pool { agent, workers, floor, ceiling, starting, .. } = pool;
    let demands_isolation = target.demands_isolation() && capacity.workers == 0;
    let not_isolated = pool.not_isolated.as_ref().filter(|_| demands_isolation);
    if let Some(reason) = not_isolated {
        let message = format!("workers of agent {agent} do not isolate their attempts");
        let nodes = "select machines that isolate, with nodeSelector in the agent's pod";
        causes.push(cause(
            "not_isolated",
            if reason.is_empty() { message } else { format!("{message}: {reason}") },
            if floor == ceiling {
                format!("{nodes}; set maxReplicas above replicas, so that others are tried")
            } else {
                nodes.to_owned()
            },
        ));
    }
    if *starting > 0 {
        causes.push(cause(
            "pool_starting",
            format!(
                "{starting} more workers of agent {agent} are starting; {workers} of at most {ceiling} exist"
            ),
            "if none connects, check that `rota dev` or the operator is running",
        ));
    } else if workers >= ceiling && not_isolated.is_none() {
        causes.push(cause(
            "at_ceiling",
            match ceiling {
                0 => format!("the pool of agent {agent} is stopped: its maxReplicas is 0"),
                _ => format!("the pool of agent {agent} is at its ceiling of {ceiling} workers"),
            },
            if *ceiling == 0 {
                "raise the agent's maxReplicas"
            } else {
                "wait, or raise the agent's maxReplicas"
            },
        ));
    }
    causes
}
