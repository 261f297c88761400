//! Differences between two messages of demand, and parts of one that is too large. Pure.

use std::collections::HashMap;

use prost::Message;
use rota_proto::v1;

/// Bytes of a part. An entry of the lists has a few hundred.
const PART_BYTES: usize = 1024 * 1024;

/// Returns what has changed between two complete messages.
pub(super) fn difference(
    before: &v1::WatchDemandResponse,
    after: &v1::WatchDemandResponse,
) -> v1::WatchDemandResponse {
    let demands = changed(
        &before.demands,
        &after.demands,
        |demand| &demand.agent,
        change_of_demand,
        |demand| v1::Demand { agent: demand.agent.clone(), removed: true, ..Default::default() },
    );
    let isolated = changed(
        &before.isolated,
        &after.isolated,
        |task| &task.task,
        |_, task| task.clone(),
        |task| v1::IsolatedDemand { removed: true, ..task.clone() },
    );
    v1::WatchDemandResponse { demands, isolated, difference: true, ..Default::default() }
}

fn change_of_demand(before: &v1::Demand, after: &v1::Demand) -> v1::Demand {
    let workers = changed(
        &before.workers,
        &after.workers,
        |worker| &worker.worker,
        |_, worker| worker.clone(),
        |worker| v1::WorkerDemand { worker: worker.worker.clone(), removed: true, ..Default::default() },
    );
    v1::Demand {
        agent: after.agent.clone(),
        queued: after.queued,
        running: after.running,
        workers,
        removed: false,
        queued_isolated: after.queued_isolated,
        awaited: after.awaited.clone(),
    }
}

/// Returns the entries of `after` that are new or differ, then those of `before` that are missing, as `remove` marks them.
fn changed<T: PartialEq + Clone>(
    before: &[T],
    after: &[T],
    key: fn(&T) -> &String,
    change: fn(&T, &T) -> T,
    remove: fn(&T) -> T,
) -> Vec<T> {
    let mut known: HashMap<&String, &T> = before.iter().map(|entry| (key(entry), entry)).collect();
    let mut found: Vec<T> = (after.iter())
        .filter_map(|entry| match known.remove(key(entry)) {
            Some(old) if old == entry => None,
            Some(old) => Some(change(old, entry)),
            None => Some(entry.clone()),
        })
        .collect();
    found.extend(before.iter().filter(|entry| known.contains_key(key(entry))).map(remove));
    found
}

/// Cuts a message into parts of bounded size. All but the last announce the next one.
pub(super) fn parts(message: v1::WatchDemandResponse) -> Vec<v1::WatchDemandResponse> {
    let v1::WatchDemandResponse { demands, isolated, store, difference, waits, more: _ } = message;
    let mut parts = Parts { done: Vec::new(), bytes: 0 };
    parts.done.push(v1::WatchDemandResponse { store, difference, ..Default::default() });
    for mut demand in demands {
        let workers = std::mem::take(&mut demand.workers);
        parts.fit(demand.encoded_len()).demands.push(demand.clone());
        for worker in workers {
            let part = parts.fit(worker.encoded_len());
            if part.demands.last().is_none_or(|last| last.agent != demand.agent) {
                part.demands.push(demand.clone());
            }
            if let Some(last) = part.demands.last_mut() {
                last.workers.push(worker);
            }
        }
    }
    for task in isolated {
        parts.fit(task.encoded_len()).isolated.push(task);
    }
    for wait in waits {
        parts.fit(wait.encoded_len()).waits.push(wait);
    }
    parts.done
}

struct Parts {
    done: Vec<v1::WatchDemandResponse>,
    bytes: usize,
}

impl Parts {
    /// Returns the part that takes an entry of this size.
    fn fit(&mut self, bytes: usize) -> &mut v1::WatchDemandResponse {
        if self.bytes + bytes > PART_BYTES {
            self.bytes = 0;
            if let Some(last) = self.done.last_mut() {
                last.more = true;
            }
            self.done.push(v1::WatchDemandResponse { difference: true, ..Default::default() });
        }
        self.bytes += bytes;
        let last = self.done.len() - 1;
        &mut self.done[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: usize, running: i32) -> v1::WorkerDemand {
        v1::WorkerDemand { worker: format!("worker-{name}"), running, ..Default::default() }
    }

    fn message(agents: usize, workers: usize) -> v1::WatchDemandResponse {
        let demand = |agent| v1::Demand {
            agent: format!("namespaces/team/agents/agent-{agent}"),
            workers: (0..workers).map(|name| worker(name, 0)).collect(),
            ..Default::default()
        };
        let task =
            |task| v1::IsolatedDemand { task: format!("namespaces/team/tasks/{task}"), ..Default::default() };
        v1::WatchDemandResponse {
            demands: (0..agents).map(demand).collect(),
            isolated: (0..agents).map(task).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn bytes_of_a_change_are_those_of_a_small_message() {
        let bytes = |agents, workers| {
            let (before, mut after) = (message(agents, workers), message(agents, workers));
            after.demands[7].workers[3].running = 1;
            after.demands[7].running = 1;
            after.isolated.remove(5);
            difference(&before, &after).encoded_len()
        };
        assert_eq!(bytes(10, 10), bytes(100, 100), "of 100 and of 10,000 workers");
    }

    #[test]
    fn removed_entries_are_named() {
        let (before, after) = (message(2, 2), message(1, 1));
        let change = difference(&before, &after);
        assert!(change.difference);
        let [kept, removed] = &change.demands[..] else { panic!("{change:?}") };
        assert!(removed.removed && removed.agent.ends_with("agent-1"), "{removed:?}");
        assert!(!kept.removed && kept.workers.len() == 1 && kept.workers[0].removed, "{kept:?}");
        assert!(change.isolated[0].removed, "{:?}", change.isolated);
        assert_eq!(difference(&before, &before).demands, []);
    }

    #[test]
    fn parts_are_bounded_and_complete() {
        let whole = message(2, 40_000);
        let parts = parts(whole.clone());
        assert!(parts.len() > 1 && parts.iter().all(|part| part.encoded_len() < PART_BYTES * 5 / 4));
        assert!(!parts[0].difference && parts[1..].iter().all(|part| part.difference));
        assert!(
            parts.split_last().is_some_and(|(last, rest)| !last.more && rest.iter().all(|part| part.more))
        );
        let workers: usize =
            parts.iter().flat_map(|part| &part.demands).map(|demand| demand.workers.len()).sum();
        assert_eq!(workers, 80_000);
        assert_eq!(parts.iter().map(|part| part.isolated.len()).sum::<usize>(), whole.isolated.len());
    }
}
