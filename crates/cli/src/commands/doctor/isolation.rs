//! Isolation of attempts, as the connected workers state it: they may be on any machine.

use std::collections::BTreeMap;

use rota_proto::names;
use rota_proto::v1::Worker;

use super::Check;

const MAX_CHECKS: usize = 10;

/// Reports why attempts of workers are not isolated, once for each reason.
pub(super) fn of(workers: &[Worker]) -> Vec<Check> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for worker in workers.iter().filter(|worker| worker.connected && !worker.isolated) {
        by_reason.entry(&worker.not_isolated_reason).or_default().push(names::last(&worker.name));
    }
    let check = |(reason, mut workers): (&str, Vec<&str>)| {
        workers.sort_unstable();
        let more = match workers.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let reason = if reason.is_empty() { "the worker gives no reason" } else { reason };
        let message = format!("attempts of {}{more} are not isolated: {reason}", workers[0]);
        Check::warn("isolation", message, "tasks that need isolation demand it: `capabilities: [isolated]`")
    };
    by_reason.into_iter().take(MAX_CHECKS).map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_on_other_machines_are_named() {
        let worker = |name: &str, isolated, reason: &str| Worker {
            name: format!("namespaces/default/workers/{name}"),
            connected: true,
            isolated,
            not_isolated_reason: reason.to_owned(),
            ..Worker::default()
        };
        assert!(of(&[worker("a", true, "")]).is_empty());
        let root = "the worker runs as root";
        let found = of(&[worker("c", false, root), worker("b", false, root), worker("a", true, "")]);
        assert_eq!(found.len(), 1);
        let message = "attempts of b and 1 more are not isolated: the worker runs as root";
        assert_eq!(found[0].message, message);
        let lost = Worker { connected: false, ..worker("d", false, root) };
        assert!(of(&[lost]).is_empty());
    }
}
