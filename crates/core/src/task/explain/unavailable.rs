//! Why workers get no tasks, though they are connected.

use super::{Cause, Context, RouteCapacity, cause};

/// Explains which workers get no tasks, before how busy the others are.
pub(super) fn causes(who: &str, capacity: RouteCapacity, context: &Context) -> Vec<Cause> {
    let mut causes = Vec::new();
    if capacity.suspended > 0 {
        let (count, all) = (capacity.suspended, capacity.workers);
        causes.push(cause(
            "worker_breaker_open",
            format!("{count} of the {all} workers for {who} get no tasks: their circuit breakers are open after consecutive failures of the worker itself"),
            "see `rota workers`, and repair or restart these workers",
        ));
    }
    if let (true, Some((worker, reason))) = (capacity.not_ready > 0, &context.not_ready) {
        let (count, all) = (capacity.not_ready, capacity.workers);
        causes.push(cause(
            "worker_not_ready",
            format!("{count} of the {all} workers for {who} take no tasks; worker {worker}: {reason}"),
            format!("see `rota workers {worker}`, and repair its machine: it takes tasks again by itself"),
        ));
    }
    causes
}
